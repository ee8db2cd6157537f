#include "core/graph/ops.h"

lk_status lk_op_relu_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_like(context, node, 0, "x", 0));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_relu_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        double x = call->inputs[0][i];
        call->outputs[0][i] = x > 0.0 ? x : 0.0;
    }
    return LK_OK;
}

lk_status lk_op_relu_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                              lk_tensor **d_inputs) {
    if (needed[0]) {
        lk_tensor *inputs[] = {d_outputs[0], node->outputs[0]};
        d_inputs[0] = lk_graph_add(graph, LK_OP_RELU_BACKWARD, 2, inputs, NULL, 1, 0, NULL);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_relu(lk_graph *graph, lk_tensor *x) {
    return lk_graph_add(graph, LK_OP_RELU, 1, &x, NULL, 1, 0, NULL);
}
