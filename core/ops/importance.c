#include <math.h>

#include "core/graph/ops.h"

enum { HYPER, NORM, PARAMETER, GRADIENT, SENSITIVITY, UNCERTAINTY };

lk_status lk_op_importance_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    (void)shapes;
    LK_TRY(lk_expect(context, node, HYPER, "hyper", LK_KIND_FLOAT, 1, LK_IMPORTANCE_HYPER_COUNT, 0));
    LK_TRY(lk_expect(context, node, NORM, "norm", LK_KIND_FLOAT, 1, 1, 0));
    LK_TRY(lk_expect_like(context, node, GRADIENT, "gradient", PARAMETER));
    LK_TRY(lk_expect_like(context, node, SENSITIVITY, "sensitivity", PARAMETER));
    LK_TRY(lk_expect_like(context, node, UNCERTAINTY, "uncertainty", PARAMETER));
    *num_outputs = 0;
    return LK_OK;
}

lk_status lk_op_importance_reference(const lk_reference_call *call) {
    const double *hyper = call->inputs[HYPER];
    double norm = call->inputs[NORM][0], beta1 = hyper[LK_IMPORTANCE_BETA1], beta2 = hyper[LK_IMPORTANCE_BETA2];
    double most = hyper[LK_IMPORTANCE_MAX_NORM], clip = most > 0.0 ? fmin(1.0, most / (norm + 1e-6)) : 1.0;
    double *sensitivity = call->inputs[SENSITIVITY], *uncertainty = call->inputs[UNCERTAINTY];
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[PARAMETER]) && isfinite(norm); i++) {
        double now = fabs(call->inputs[PARAMETER][i] * clip * call->inputs[GRADIENT][i]);
        sensitivity[i] = beta1 * sensitivity[i] + (1.0 - beta1) * now;
        uncertainty[i] = beta2 * uncertainty[i] + (1.0 - beta2) * fabs(now - sensitivity[i]);
    }
    return LK_OK;
}

void lk_build_importance(lk_graph *graph, lk_tensor *hyper, lk_tensor *norm, lk_tensor *parameter, lk_tensor *gradient,
                         lk_tensor *sensitivity, lk_tensor *uncertainty) {
    lk_tensor *inputs[] = {hyper, norm, parameter, gradient, sensitivity, uncertainty};
    lk_graph_add(graph, LK_OP_IMPORTANCE, 6, inputs, NULL, 0, 0, NULL);
}
