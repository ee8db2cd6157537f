#include "core/graph/ops.h"

lk_status lk_op_block_linear_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 1, "blocks", LK_KIND_FLOAT, 2, -1, -1));
    int64_t rows = node->inputs[1]->shape[0], size = node->inputs[1]->shape[1];
    LK_TRY(lk_expect_attribute(context, node, rows % size == 0, "blocks must be square matrices, one below the other"));
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, rows));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

double lk_op_block_linear_flops(const lk_node *node) {
    return 2.0 * (double)lk_tensor_elements(node->inputs[0]) * (double)node->inputs[1]->shape[1];
}

lk_status lk_op_block_linear_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    int64_t tokens = node->inputs[0]->shape[0], width = node->inputs[0]->shape[1], size = node->inputs[1]->shape[1];
    bool transpose = node->attributes.matmul.transpose_b;
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t n = 0; n < width; n++) {
            int64_t first = n / size * size, column = n % size;
            double sum = 0.0;
            for (int64_t k = 0; k < size; k++) {
                int64_t at = transpose ? (first + column) * size + k : (first + k) * size + column;
                sum += call->inputs[0][t * width + first + k] * call->inputs[1][at];
            }
            call->outputs[0][t * width + n] = sum;
        }
    }
    return LK_OK;
}

lk_status lk_op_block_linear_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                      const bool *needed, lk_tensor **d_inputs) {
    lk_tensor *dy = d_outputs[0], *x = node->inputs[0];
    bool transpose = node->attributes.matmul.transpose_b;
    d_inputs[0] = needed[0] ? lk_build_block_linear(graph, dy, node->inputs[1], !transpose) : NULL;
    if (needed[1]) {
        lk_tensor *factors[] = {transpose ? dy : x, transpose ? x : dy};
        lk_attributes attributes = {.block = {node->inputs[1]->shape[1]}};
        d_inputs[1] = lk_graph_add(graph, LK_OP_BLOCK_OUTER, 2, factors, &attributes, 1, 0, NULL);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_block_linear(lk_graph *graph, lk_tensor *x, lk_tensor *blocks, bool transpose) {
    lk_tensor *inputs[] = {x, blocks};
    lk_attributes attributes = {.matmul = {.transpose_b = transpose, .alpha = 1.0f}};
    return lk_graph_add(graph, LK_OP_BLOCK_LINEAR, 2, inputs, &attributes, 1, 0, NULL);
}
