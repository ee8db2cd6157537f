#include "core/graph/ops.h"

#include <math.h>

lk_status lk_op_layer_norm_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect(context, node, 1, "weight", LK_KIND_FLOAT, 1, node->inputs[0]->shape[1], 0));
    LK_TRY(lk_expect(context, node, 2, "bias", LK_KIND_FLOAT, 1, node->inputs[0]->shape[1], 0));
    lk_dtype dtype = node->inputs[0]->dtype == LK_DTYPE_F64 ? LK_DTYPE_F64 : LK_DTYPE_F32;
    shapes[0] = lk_shape_of(node->inputs[0]);
    shapes[1] = lk_shape_make(dtype, 1, node->inputs[0]->shape[0], 1);
    shapes[2] = shapes[1];
    *num_outputs = 3;
    return LK_OK;
}

lk_status lk_op_layer_norm_reference(const lk_reference_call *call) {
    int64_t rows = call->node->inputs[0]->shape[0], columns = call->node->inputs[0]->shape[1];
    for (int64_t i = 0; i < rows; i++) {
        const double *x = call->inputs[0] + i * columns;
        double mean = 0.0, variance = 0.0;
        for (int64_t j = 0; j < columns; j++) {
            mean += x[j] / (double)columns;
        }
        for (int64_t j = 0; j < columns; j++) {
            variance += (x[j] - mean) * (x[j] - mean) / (double)columns;
        }
        double rstd = 1.0 / sqrt(variance + (double)call->node->attributes.norm.epsilon);
        for (int64_t j = 0; j < columns && call->outputs[0] != NULL; j++) {
            call->outputs[0][i * columns + j] = (x[j] - mean) * rstd * call->inputs[1][j] + call->inputs[2][j];
        }
        if (call->outputs[1] != NULL) {
            call->outputs[1][i] = mean;
        }
        if (call->outputs[2] != NULL) {
            call->outputs[2][i] = rstd;
        }
    }
    return LK_OK;
}

lk_status lk_op_layer_norm_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                    const bool *needed, lk_tensor **d_inputs) {
    uint32_t wanted = (needed[0] ? 1u : 0u) | (needed[1] ? 2u : 0u) | (needed[2] ? 4u : 0u);
    lk_tensor *inputs[] = {d_outputs[0], node->inputs[0], node->inputs[1], node->outputs[1], node->outputs[2], NULL};
    lk_graph_add(graph, LK_OP_LAYER_NORM_BACKWARD, 6, inputs, &node->attributes, wanted, 3, d_inputs);
    return lk_graph_status(graph);
}

lk_tensor *lk_build_layer_norm(lk_graph *graph, lk_tensor *x, lk_tensor *weight, lk_tensor *bias, float epsilon) {
    lk_tensor *inputs[] = {x, weight, bias};
    lk_attributes attributes = {.norm = {epsilon}};
    return lk_graph_add(graph, LK_OP_LAYER_NORM, 3, inputs, &attributes, 7, 0, NULL);
}
