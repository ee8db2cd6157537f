#include "core/graph/ops.h"

lk_status lk_op_rms_norm_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 1, "x", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect_like(context, node, 0, "dy", 1));
    LK_TRY(lk_expect(context, node, 2, "weight", LK_KIND_FLOAT, 1, -1, 0));
    int64_t columns = node->inputs[1]->shape[1], width = node->inputs[2]->shape[0];
    LK_TRY(lk_expect_attribute(context, node, width > 0 && columns % width == 0,
                               "the weight's length must divide the columns of x"));
    LK_TRY(lk_expect(context, node, 3, "rstd", LK_KIND_FLOAT, 1, node->inputs[1]->shape[0] * (columns / width), 0));
    if (lk_has_input(node, 4)) {
        LK_TRY(lk_expect_like(context, node, 4, "dx_sum", 1));
    }
    shapes[0] = lk_shape_of(node->inputs[1]);
    shapes[1] = lk_shape_of(node->inputs[2]);
    *num_outputs = 2;
    return LK_OK;
}

/* With g = dy weight: dx = rstd (g - x rstd^2 mean(g x)), dweight = sum over rows of dy x rstd. */
lk_status lk_op_rms_norm_backward_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    int64_t width = node->inputs[2]->shape[0], rows = lk_tensor_elements(node->inputs[1]) / width;
    double *dx = call->outputs[0], *d_weight = call->outputs[1];
    for (int64_t j = 0; j < width && d_weight != NULL; j++) {
        d_weight[j] = 0.0;
    }
    for (int64_t i = 0; i < rows; i++) {
        const double *dy = call->inputs[0] + i * width, *x = call->inputs[1] + i * width;
        double rstd = call->inputs[3][i], mean = 0.0;
        for (int64_t j = 0; j < width; j++) {
            mean += dy[j] * call->inputs[2][j] * x[j] / (double)width;
        }
        for (int64_t j = 0; j < width; j++) {
            if (dx != NULL) {
                double sum = lk_has_input(node, 4) ? call->inputs[4][i * width + j] : 0.0;
                dx[i * width + j] = sum + rstd * (dy[j] * call->inputs[2][j] - x[j] * rstd * rstd * mean);
            }
            if (d_weight != NULL) {
                d_weight[j] += dy[j] * x[j] * rstd;
            }
        }
    }
    return LK_OK;
}
