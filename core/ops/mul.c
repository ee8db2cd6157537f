#include "core/graph/ops.h"

lk_status lk_op_mul_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_like(context, node, 1, "b", 0));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_mul_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        call->outputs[0][i] = call->inputs[0][i] * call->inputs[1][i];
    }
    return LK_OK;
}

lk_status lk_op_mul_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                             lk_tensor **d_inputs) {
    for (int i = 0; i < 2; i++) {
        d_inputs[i] = needed[i] ? lk_build_mul(graph, d_outputs[0], node->inputs[1 - i]) : NULL;
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_mul(lk_graph *graph, lk_tensor *a, lk_tensor *b) {
    lk_tensor *inputs[] = {a, b};
    return lk_graph_add(graph, LK_OP_MUL, 2, inputs, NULL, 1, 0, NULL);
}
