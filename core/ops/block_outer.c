#include "core/graph/ops.h"

lk_status lk_op_block_outer_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    int64_t size = node->attributes.block.size;
    LK_TRY(lk_expect(context, node, 0, "a", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect_like(context, node, 1, "b", 0));
    LK_TRY(lk_expect_attribute(context, node, size > 0 && node->inputs[0]->shape[1] % size == 0,
                               "the columns must be whole blocks"));
    shapes[0] = lk_shape_make(node->inputs[0]->dtype, 2, node->inputs[0]->shape[1], size);
    *num_outputs = 1;
    return LK_OK;
}

double lk_op_block_outer_flops(const lk_node *node) {
    return 2.0 * (double)lk_tensor_elements(node->inputs[0]) * (double)node->attributes.block.size;
}

lk_status lk_op_block_outer_reference(const lk_reference_call *call) {
    int64_t tokens = call->node->inputs[0]->shape[0], width = call->node->inputs[0]->shape[1];
    int64_t size = call->node->attributes.block.size;
    for (int64_t i = 0; i < width * size; i++) {
        int64_t row = i / size, column = row / size * size + i % size;
        double sum = 0.0;
        for (int64_t t = 0; t < tokens; t++) {
            sum += call->inputs[0][t * width + row] * call->inputs[1][t * width + column];
        }
        call->outputs[0][i] = sum;
    }
    return LK_OK;
}
