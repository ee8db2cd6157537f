#include "core/graph/ops.h"

lk_status lk_op_add_bias_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect(context, node, 1, "bias", LK_KIND_FLOAT, 1, node->inputs[0]->shape[1], 0));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_add_bias_reference(const lk_reference_call *call) {
    int64_t columns = call->node->inputs[0]->shape[1];
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        call->outputs[0][i] = call->inputs[0][i] + call->inputs[1][i % columns];
    }
    return LK_OK;
}

lk_status lk_op_add_bias_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                                  lk_tensor **d_inputs) {
    (void)node;
    d_inputs[0] = needed[0] ? d_outputs[0] : NULL;
    d_inputs[1] = needed[1] ? lk_build_sum_rows(graph, d_outputs[0]) : NULL;
    return lk_graph_status(graph);
}

lk_tensor *lk_build_add_bias(lk_graph *graph, lk_tensor *x, lk_tensor *bias) {
    lk_tensor *inputs[] = {x, bias};
    return lk_graph_add(graph, LK_OP_ADD_BIAS, 2, inputs, NULL, 1, 0, NULL);
}
