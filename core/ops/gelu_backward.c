#include "core/ops/gelu.h"

#include <math.h>

#include "core/graph/ops.h"

lk_status lk_op_gelu_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_like(context, node, 1, "x", 1));
    LK_TRY(lk_expect_like(context, node, 0, "dy", 1));
    shapes[0] = lk_shape_of(node->inputs[1]);
    *num_outputs = 1;
    return LK_OK;
}

/* Exact: Phi(x) + x phi(x). Approximate, with t = tanh(u): (1 + t) / 2 + x (1 - t^2) u' / 2. */
lk_status lk_op_gelu_backward_reference(const lk_reference_call *call) {
    bool approximate = call->node->attributes.gelu.tanh_approximation;
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[1]); i++) {
        double x = call->inputs[1][i], slope;
        if (approximate) {
            double t = tanh(LK_GELU_SLOPE * (x + LK_GELU_CUBIC * x * x * x));
            slope = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * LK_GELU_SLOPE * (1.0 + 3.0 * LK_GELU_CUBIC * x * x);
        } else {
            slope = 0.5 * erfc(-x * LK_SQRT_HALF) + x * LK_NORMAL_DENSITY_0 * exp(-0.5 * x * x);
        }
        call->outputs[0][i] = call->inputs[0][i] * slope;
    }
    return LK_OK;
}
