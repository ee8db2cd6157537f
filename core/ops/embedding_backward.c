#include "core/graph/ops.h"

lk_status lk_op_embedding_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "dy", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect(context, node, 1, "ids", LK_KIND_INT, 1, node->inputs[0]->shape[0], 0));
    LK_TRY(lk_expect_attribute(context, node, node->attributes.embedding.rows > 0, "rows must be positive"));
    shapes[0] = lk_shape_make(node->inputs[0]->dtype, 2, node->attributes.embedding.rows, node->inputs[0]->shape[1]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_embedding_backward_reference(const lk_reference_call *call) {
    int64_t tokens = call->node->inputs[0]->shape[0], width = call->node->inputs[0]->shape[1];
    int64_t rows = call->node->attributes.embedding.rows;
    for (int64_t i = 0; i < rows * width; i++) {
        call->outputs[0][i] = 0.0;
    }
    for (int64_t t = 0; t < tokens; t++) {
        int64_t id = (int64_t)call->inputs[1][t];
        for (int64_t i = 0; i < width && id >= 0 && id < rows; i++) {
            call->outputs[0][id * width + i] += call->inputs[0][t * width + i];
        }
    }
    return LK_OK;
}
