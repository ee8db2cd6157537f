#include "core/graph/ops.h"

lk_status lk_op_matmul_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    const lk_matmul_attributes *matmul = &node->attributes.matmul;
    LK_TRY(lk_expect(context, node, 0, "a", LK_KIND_FLOAT, 2, -1, -1));
    const lk_tensor *a = node->inputs[0];
    int64_t rows = a->shape[matmul->transpose_a ? 1 : 0], inner = a->shape[matmul->transpose_a ? 0 : 1];
    LK_TRY(lk_expect(context, node, 1, "b", LK_KIND_FLOAT, 2, matmul->transpose_b ? -1 : inner,
                     matmul->transpose_b ? inner : -1));
    int64_t columns = node->inputs[1]->shape[matmul->transpose_b ? 0 : 1];
    if (lk_has_input(node, 2)) {
        LK_TRY(lk_expect(context, node, 2, "c", LK_KIND_FLOAT, 2, rows, columns));
    }
    shapes[0] = lk_shape_make(a->dtype, 2, rows, columns);
    *num_outputs = 1;
    return LK_OK;
}

double lk_op_matmul_flops(const lk_node *node) {
    int64_t inner = node->inputs[0]->shape[node->attributes.matmul.transpose_a ? 0 : 1];
    return 2.0 * (double)lk_tensor_elements(node->outputs[0]) * (double)inner;
}

lk_status lk_op_matmul_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    const lk_matmul_attributes *matmul = &node->attributes.matmul;
    const lk_tensor *y = node->outputs[0];
    int64_t rows = y->shape[0], columns = y->shape[1];
    int64_t inner = node->inputs[0]->shape[matmul->transpose_a ? 0 : 1];
    int64_t a_row = matmul->transpose_a ? 1 : inner, a_inner = matmul->transpose_a ? rows : 1;
    int64_t b_inner = matmul->transpose_b ? 1 : columns, b_column = matmul->transpose_b ? inner : 1;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            double sum = 0.0;
            for (int64_t k = 0; k < inner; k++) {
                sum += call->inputs[0][i * a_row + k * a_inner] * call->inputs[1][k * b_inner + j * b_column];
            }
            double c = lk_has_input(node, 2) ? call->inputs[2][i * columns + j] : 0.0;
            call->outputs[0][i * columns + j] = (double)matmul->alpha * sum + c;
        }
    }
    return LK_OK;
}

/* For y = alpha op(a) op(b) + c: d op(a) = alpha dy op(b)', d op(b) = alpha op(a)' dy, dc = dy; a transposed operand's
 * gradient is the transpose, which swaps the factors. */
lk_status lk_op_matmul_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                                lk_tensor **d_inputs) {
    lk_tensor *dy = d_outputs[0], *a = node->inputs[0], *b = node->inputs[1];
    const lk_matmul_attributes *m = &node->attributes.matmul;
    if (needed[0]) {
        d_inputs[0] = m->transpose_a ? lk_build_matmul(graph, b, m->transpose_b, dy, true, m->alpha, NULL)
                                     : lk_build_matmul(graph, dy, false, b, !m->transpose_b, m->alpha, NULL);
    }
    if (needed[1]) {
        d_inputs[1] = m->transpose_b ? lk_build_matmul(graph, dy, true, a, m->transpose_a, m->alpha, NULL)
                                     : lk_build_matmul(graph, a, !m->transpose_a, dy, false, m->alpha, NULL);
    }
    if (node->num_inputs > 2 && needed[2]) {
        d_inputs[2] = dy;
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_matmul(lk_graph *graph, lk_tensor *a, bool transpose_a, lk_tensor *b, bool transpose_b, float alpha,
                           lk_tensor *c) {
    lk_tensor *inputs[] = {a, b, c};
    lk_attributes attributes = {.matmul = {transpose_a, transpose_b, alpha}};
    return lk_graph_add(graph, LK_OP_MATMUL, 3, inputs, &attributes, 1, 0, NULL);
}
