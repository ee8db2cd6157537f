#include "core/graph/ops.h"

lk_status lk_op_embedding_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "ids", LK_KIND_INT, 1, -1, 0));
    LK_TRY(lk_expect(context, node, 1, "table", LK_KIND_FLOAT, 2, -1, -1));
    lk_dtype dtype = node->inputs[1]->dtype;
    if (lk_dtype_block_size(dtype) > 1) {
        dtype = LK_DTYPE_F32;
    }
    shapes[0] = lk_shape_make(dtype, 2, node->inputs[0]->shape[0], node->inputs[1]->shape[1]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_embedding_reference(const lk_reference_call *call) {
    const lk_tensor *table = call->node->inputs[1];
    int64_t rows = table->shape[0], width = table->shape[1];
    for (int64_t t = 0; t < call->node->inputs[0]->shape[0]; t++) {
        int64_t id = (int64_t)call->inputs[0][t];
        for (int64_t i = 0; i < width; i++) { /* an id outside the table reads as zeros, never as other memory */
            call->outputs[0][t * width + i] = id >= 0 && id < rows ? call->inputs[1][id * width + i] : 0.0;
        }
    }
    return LK_OK;
}

lk_status lk_op_embedding_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                   const bool *needed, lk_tensor **d_inputs) {
    if (needed[1]) {
        lk_tensor *inputs[] = {d_outputs[0], node->inputs[0]};
        lk_attributes attributes = {.embedding = {.rows = node->inputs[1]->shape[0]}};
        d_inputs[1] = lk_graph_add(graph, LK_OP_EMBEDDING_BACKWARD, 2, inputs, &attributes, 1, 0, NULL);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_embedding(lk_graph *graph, lk_tensor *ids, lk_tensor *table) {
    lk_tensor *inputs[] = {ids, table};
    return lk_graph_add(graph, LK_OP_EMBEDDING, 2, inputs, NULL, 1, 0, NULL);
}
