#include "core/graph/ops.h"

enum { DY, X, WEIGHT, MEAN, RSTD, DX_SUM };

lk_status lk_op_layer_norm_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes,
                                          int *num_outputs) {
    LK_TRY(lk_expect(context, node, X, "x", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect_like(context, node, DY, "dy", X));
    LK_TRY(lk_expect(context, node, WEIGHT, "weight", LK_KIND_FLOAT, 1, node->inputs[X]->shape[1], 0));
    LK_TRY(lk_expect(context, node, MEAN, "mean", LK_KIND_FLOAT, 1, node->inputs[X]->shape[0], 0));
    LK_TRY(lk_expect(context, node, RSTD, "rstd", LK_KIND_FLOAT, 1, node->inputs[X]->shape[0], 0));
    if (lk_has_input(node, DX_SUM)) {
        LK_TRY(lk_expect_like(context, node, DX_SUM, "dx_sum", X));
    }
    shapes[0] = lk_shape_of(node->inputs[X]);
    shapes[1] = lk_shape_of(node->inputs[WEIGHT]);
    shapes[2] = shapes[1];
    *num_outputs = 3;
    return LK_OK;
}

/* With h = (x - mean) rstd and g = dy weight: dx = rstd (g - mean(g) - h mean(g h)), and summed over the rows
 * dweight = dy h, dbias = dy. */
lk_status lk_op_layer_norm_backward_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    int64_t rows = node->inputs[X]->shape[0], columns = node->inputs[X]->shape[1];
    double *dx = call->outputs[0], *d_weight = call->outputs[1], *d_bias = call->outputs[2];
    for (int64_t j = 0; j < columns; j++) {
        if (d_weight != NULL) {
            d_weight[j] = 0.0;
        }
        if (d_bias != NULL) {
            d_bias[j] = 0.0;
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        const double *dy = call->inputs[DY] + i * columns, *x = call->inputs[X] + i * columns;
        double mean = call->inputs[MEAN][i], rstd = call->inputs[RSTD][i], mean_g = 0.0, mean_gh = 0.0;
        for (int64_t j = 0; j < columns; j++) {
            double g = dy[j] * call->inputs[WEIGHT][j];
            mean_g += g / (double)columns;
            mean_gh += g * (x[j] - mean) * rstd / (double)columns;
        }
        for (int64_t j = 0; j < columns; j++) {
            double h = (x[j] - mean) * rstd;
            if (dx != NULL) {
                double sum = lk_has_input(node, DX_SUM) ? call->inputs[DX_SUM][i * columns + j] : 0.0;
                dx[i * columns + j] = sum + rstd * (dy[j] * call->inputs[WEIGHT][j] - mean_g - h * mean_gh);
            }
            if (d_weight != NULL) {
                d_weight[j] += dy[j] * h;
            }
            if (d_bias != NULL) {
                d_bias[j] += dy[j];
            }
        }
    }
    return LK_OK;
}
