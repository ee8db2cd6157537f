#include "core/graph/ops.h"

lk_status lk_op_linear_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect(context, node, 1, "weight", LK_KIND_FLOAT, 2, -1, node->inputs[0]->shape[1]));
    if (lk_has_input(node, 2)) {
        LK_TRY(lk_expect(context, node, 2, "bias", LK_KIND_FLOAT, 1, node->inputs[1]->shape[0], 0));
    }
    shapes[0] = lk_shape_make(node->inputs[0]->dtype, 2, node->inputs[0]->shape[0], node->inputs[1]->shape[0]);
    *num_outputs = 1;
    return LK_OK;
}

double lk_op_linear_flops(const lk_node *node) {
    return 2.0 * (double)node->inputs[0]->shape[0] * (double)lk_tensor_elements(node->inputs[1]);
}

lk_status lk_op_linear_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    int64_t tokens = node->inputs[0]->shape[0], in = node->inputs[0]->shape[1], out = node->inputs[1]->shape[0];
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t n = 0; n < out; n++) {
            double sum = lk_has_input(node, 2) ? call->inputs[2][n] : 0.0;
            for (int64_t k = 0; k < in; k++) {
                sum += call->inputs[0][t * in + k] * call->inputs[1][n * in + k];
            }
            call->outputs[0][t * out + n] = sum;
        }
    }
    return LK_OK;
}

lk_status lk_op_linear_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                                lk_tensor **d_inputs) {
    lk_tensor *dy = d_outputs[0];
    if (needed[0]) {
        d_inputs[0] = lk_build_matmul(graph, dy, false, node->inputs[1], false, 1.0f, NULL);
    }
    if (needed[1]) {
        d_inputs[1] = lk_build_matmul(graph, dy, true, node->inputs[0], false, 1.0f, NULL);
    }
    if (node->num_inputs > 2 && needed[2]) {
        d_inputs[2] = lk_build_sum_rows(graph, dy);
    }
    return lk_graph_status(graph);
}

lk_status lk_op_linear_decompose(lk_graph *graph, const lk_node *node, lk_tensor **outputs) {
    lk_tensor *y = lk_build_matmul(graph, node->inputs[0], false, node->inputs[1], true, 1.0f, NULL);
    outputs[0] = lk_has_input(node, 2) ? lk_build_add_bias(graph, y, node->inputs[2]) : y;
    return lk_graph_status(graph);
}

lk_tensor *lk_build_linear(lk_graph *graph, lk_tensor *x, lk_tensor *weight, lk_tensor *bias) {
    lk_tensor *inputs[] = {x, weight, bias};
    return lk_graph_add(graph, LK_OP_LINEAR, 3, inputs, NULL, 1, 0, NULL);
}
