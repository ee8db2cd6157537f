#include "core/graph/ops.h"

enum { DY, X, SCALE };

lk_status lk_op_mul_columns_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes,
                                           int *num_outputs) {
    LK_TRY(lk_expect(context, node, DY, "dy", LK_KIND_FLOAT, 2, -1, -1));
    if (lk_has_input(node, X)) {
        LK_TRY(lk_expect_like(context, node, X, "x", DY));
    }
    if (lk_has_input(node, SCALE)) {
        LK_TRY(lk_expect(context, node, SCALE, "scale", LK_KIND_FLOAT, 1, node->inputs[DY]->shape[1], 0));
    }
    LK_TRY(
        lk_expect_attribute(context, node, lk_has_input(node, X) || lk_has_input(node, SCALE), "x or scale is needed"));
    shapes[0] = lk_shape_of(node->inputs[DY]);
    shapes[1] = lk_shape_make(node->inputs[DY]->dtype, 1, node->inputs[DY]->shape[1], 1);
    *num_outputs = 2;
    return LK_OK;
}

lk_status lk_op_mul_columns_backward_reference(const lk_reference_call *call) {
    int64_t rows = call->node->inputs[DY]->shape[0], columns = call->node->inputs[DY]->shape[1];
    double *dx = call->outputs[0], *d_scale = call->outputs[1];
    for (int64_t j = 0; j < columns; j++) {
        double sum = 0.0;
        for (int64_t i = 0; i < rows; i++) {
            double dy = call->inputs[DY][i * columns + j];
            if (dx != NULL) {
                dx[i * columns + j] = dy * call->inputs[SCALE][j];
            }
            sum += d_scale != NULL ? dy * call->inputs[X][i * columns + j] : 0.0;
        }
        if (d_scale != NULL) {
            d_scale[j] = sum;
        }
    }
    return LK_OK;
}

lk_status lk_op_mul_columns_backward_decompose(lk_graph *graph, const lk_node *node, lk_tensor **outputs) {
    if (node->outputs[0] != NULL) {
        outputs[0] = lk_build_mul_columns(graph, node->inputs[DY], node->inputs[SCALE]);
    }
    if (node->outputs[1] != NULL) {
        outputs[1] = lk_build_sum_rows(graph, lk_build_mul(graph, node->inputs[DY], node->inputs[X]));
    }
    return lk_graph_status(graph);
}
