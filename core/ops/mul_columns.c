#include "core/graph/ops.h"

lk_status lk_op_mul_columns_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect(context, node, 1, "scale", LK_KIND_FLOAT, 1, node->inputs[0]->shape[1], 0));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_mul_columns_reference(const lk_reference_call *call) {
    int64_t columns = call->node->inputs[0]->shape[1];
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        call->outputs[0][i] = call->inputs[0][i] * call->inputs[1][i % columns];
    }
    return LK_OK;
}

lk_status lk_op_mul_columns_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                     const bool *needed, lk_tensor **d_inputs) {
    /* what only the other output needs is not an input, so that it is not kept alive */
    lk_tensor *inputs[] = {d_outputs[0], needed[1] ? node->inputs[0] : NULL, needed[0] ? node->inputs[1] : NULL};
    uint32_t wanted = (needed[0] ? 1u : 0u) | (needed[1] ? 2u : 0u);
    if (wanted != 0) {
        lk_graph_add(graph, LK_OP_MUL_COLUMNS_BACKWARD, 3, inputs, NULL, wanted, 2, d_inputs);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_mul_columns(lk_graph *graph, lk_tensor *x, lk_tensor *scale) {
    lk_tensor *inputs[] = {x, scale};
    return lk_graph_add(graph, LK_OP_MUL_COLUMNS, 2, inputs, NULL, 1, 0, NULL);
}
