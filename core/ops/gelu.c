#include "core/ops/gelu.h"

#include <math.h>

#include "core/graph/ops.h"

lk_status lk_op_gelu_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_like(context, node, 0, "x", 0));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_gelu_reference(const lk_reference_call *call) {
    bool approximate = call->node->attributes.gelu.tanh_approximation;
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        double x = call->inputs[0][i];
        double twice = approximate ? 1.0 + tanh(LK_GELU_SLOPE * (x + LK_GELU_CUBIC * x * x * x))
                                   : erfc(-x * LK_SQRT_HALF); /* 1 + erf without cancellation */
        call->outputs[0][i] = 0.5 * x * twice;
    }
    return LK_OK;
}

lk_status lk_op_gelu_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                              lk_tensor **d_inputs) {
    if (needed[0]) {
        lk_tensor *inputs[] = {d_outputs[0], node->inputs[0]};
        d_inputs[0] = lk_graph_add(graph, LK_OP_GELU_BACKWARD, 2, inputs, &node->attributes, 1, 0, NULL);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_gelu(lk_graph *graph, lk_tensor *x, bool tanh_approximation) {
    lk_attributes attributes = {.gelu = {tanh_approximation}};
    return lk_graph_add(graph, LK_OP_GELU, 1, &x, &attributes, 1, 0, NULL);
}
