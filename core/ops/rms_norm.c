#include "core/graph/ops.h"

#include <math.h>

lk_status lk_op_rms_norm_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect(context, node, 1, "weight", LK_KIND_FLOAT, 1, -1, 0));
    int64_t columns = node->inputs[0]->shape[1], width = node->inputs[1]->shape[0];
    LK_TRY(lk_expect_attribute(context, node, width > 0 && columns % width == 0,
                               "the weight's length must divide the columns of x"));
    shapes[0] = lk_shape_of(node->inputs[0]);
    shapes[1] = lk_shape_make(node->inputs[0]->dtype == LK_DTYPE_F64 ? LK_DTYPE_F64 : LK_DTYPE_F32, 1,
                              node->inputs[0]->shape[0] * (columns / width), 1);
    *num_outputs = 2;
    return LK_OK;
}

lk_status lk_op_rms_norm_reference(const lk_reference_call *call) {
    int64_t width = call->node->inputs[1]->shape[0];
    int64_t rows = lk_tensor_elements(call->node->inputs[0]) / width;
    for (int64_t i = 0; i < rows; i++) {
        const double *x = call->inputs[0] + i * width;
        double squares = 0.0;
        for (int64_t j = 0; j < width; j++) {
            squares += x[j] * x[j];
        }
        double rstd = 1.0 / sqrt(squares / (double)width + (double)call->node->attributes.norm.epsilon);
        for (int64_t j = 0; j < width && call->outputs[0] != NULL; j++) {
            call->outputs[0][i * width + j] = x[j] * rstd * call->inputs[1][j];
        }
        if (call->outputs[1] != NULL) {
            call->outputs[1][i] = rstd;
        }
    }
    return LK_OK;
}

lk_status lk_op_rms_norm_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                                  lk_tensor **d_inputs) {
    uint32_t wanted = (needed[0] ? 1u : 0u) | (needed[1] ? 2u : 0u);
    lk_tensor *inputs[] = {d_outputs[0], node->inputs[0], node->inputs[1], node->outputs[1], NULL};
    lk_graph_add(graph, LK_OP_RMS_NORM_BACKWARD, 5, inputs, &node->attributes, wanted, 2, d_inputs);
    return lk_graph_status(graph);
}

lk_tensor *lk_build_rms_norm(lk_graph *graph, lk_tensor *x, lk_tensor *weight, float epsilon) {
    lk_tensor *inputs[] = {x, weight};
    lk_attributes attributes = {.norm = {epsilon}};
    return lk_graph_add(graph, LK_OP_RMS_NORM, 2, inputs, &attributes, 3, 0, NULL);
}
