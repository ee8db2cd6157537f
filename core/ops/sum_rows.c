#include "core/graph/ops.h"

lk_status lk_op_sum_rows_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, -1));
    shapes[0] = lk_shape_make(node->inputs[0]->dtype, 1, node->inputs[0]->shape[1], 1);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_sum_rows_reference(const lk_reference_call *call) {
    int64_t rows = call->node->inputs[0]->shape[0], columns = call->node->inputs[0]->shape[1];
    for (int64_t j = 0; j < columns; j++) {
        double sum = 0.0;
        for (int64_t i = 0; i < rows; i++) {
            sum += call->inputs[0][i * columns + j];
        }
        call->outputs[0][j] = sum;
    }
    return LK_OK;
}

lk_tensor *lk_build_sum_rows(lk_graph *graph, lk_tensor *x) {
    return lk_graph_add(graph, LK_OP_SUM_ROWS, 1, &x, NULL, 1, 0, NULL);
}
