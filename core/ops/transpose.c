#include <string.h>

#include "core/graph/ops.h"

lk_status lk_op_transpose_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    const lk_transpose_attributes *t = &node->attributes.transpose;
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, -1));
    const int64_t axes[] = {t->outer, t->rows, t->columns, t->inner};
    int64_t elements = lk_tensor_elements(node->inputs[0]), seen = 0, made = 0;
    LK_TRY(lk_expect_attribute(context, node,
                               lk_shape_elements(axes, 4, &seen) && lk_shape_elements(t->shape, 2, &made) &&
                                   seen == elements && made == elements,
                               "outer * rows * columns * inner and the shape of y must have as many elements as x"));
    shapes[0] = lk_shape_make(node->inputs[0]->dtype, 2, t->shape[0], t->shape[1]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_transpose_reference(const lk_reference_call *call) {
    const lk_transpose_attributes *t = &call->node->attributes.transpose;
    double *y = call->outputs[0];
    for (int64_t o = 0; o < t->outer; o++) {
        for (int64_t c = 0; c < t->columns; c++) {
            for (int64_t r = 0; r < t->rows; r++) {
                memcpy(y, call->inputs[0] + ((o * t->rows + r) * t->columns + c) * t->inner,
                       (size_t)t->inner * sizeof *y);
                y += t->inner;
            }
        }
    }
    return LK_OK;
}

lk_status lk_op_transpose_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                   const bool *needed, lk_tensor **d_inputs) {
    const lk_transpose_attributes *t = &node->attributes.transpose;
    const int64_t *shape = node->inputs[0]->shape;
    const lk_transpose_attributes back = {t->outer, t->columns, t->rows, t->inner, {shape[0], shape[1]}};
    d_inputs[0] = needed[0] ? lk_build_transpose(graph, d_outputs[0], &back) : NULL;
    return lk_graph_status(graph);
}

lk_tensor *lk_build_transpose(lk_graph *graph, lk_tensor *x, const lk_transpose_attributes *transpose) {
    lk_attributes attributes = {.transpose = *transpose};
    return lk_graph_add(graph, LK_OP_TRANSPOSE, 1, &x, &attributes, 1, 0, NULL);
}

lk_tensor *lk_build_reshape(lk_graph *graph, lk_tensor *x, int64_t rows, int64_t columns) {
    const lk_transpose_attributes plain = {1, 1, 1, rows * columns, {rows, columns}};
    return lk_build_transpose(graph, x, &plain);
}
