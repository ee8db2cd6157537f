#include "core/ops/cross_entropy.h"

#include <math.h>

double lk_log_sum_exp(const double *logits, int64_t count) {
    double maximum = -INFINITY, sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        maximum = fmax(maximum, logits[i]);
    }
    for (int64_t i = 0; i < count; i++) {
        sum += exp(logits[i] - maximum);
    }
    return maximum + log(sum);
}

lk_status lk_op_cross_entropy_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "logits", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect(context, node, 1, "targets", LK_KIND_INT, 1, node->inputs[0]->shape[0], 0));
    LK_TRY(lk_expect(context, node, 2, "loss_scale", LK_KIND_FLOAT, 1, 1, 0));
    lk_dtype dtype = node->inputs[0]->dtype == LK_DTYPE_F64 ? LK_DTYPE_F64 : LK_DTYPE_F32;
    shapes[0] = lk_shape_make(dtype, 1, 1, 1);
    shapes[1] = lk_shape_make(dtype, 1, node->inputs[0]->shape[0], 1);
    *num_outputs = 2;
    return LK_OK;
}

lk_status lk_op_cross_entropy_reference(const lk_reference_call *call) {
    int64_t tokens = call->node->inputs[0]->shape[0], vocab_size = call->node->inputs[0]->shape[1];
    double loss = 0.0;
    for (int64_t t = 0; t < tokens; t++) {
        const double *logits = call->inputs[0] + t * vocab_size;
        double lse = lk_log_sum_exp(logits, vocab_size), target = call->inputs[1][t];
        if (lk_target_counts(target, vocab_size)) {
            loss += lse - logits[(int64_t)target];
        }
        if (call->outputs[1] != NULL) {
            call->outputs[1][t] = lse;
        }
    }
    if (call->outputs[0] != NULL) {
        call->outputs[0][0] = loss * call->inputs[2][0];
    }
    return LK_OK;
}

lk_status lk_op_cross_entropy_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                       const bool *needed, lk_tensor **d_inputs) {
    if (needed[0]) {
        lk_tensor *inputs[] = {d_outputs[0], node->inputs[0], node->inputs[1], node->inputs[2], node->outputs[1]};
        d_inputs[0] = lk_graph_add(graph, LK_OP_CROSS_ENTROPY_BACKWARD, 5, inputs, NULL, 1, 0, NULL);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_cross_entropy(lk_graph *graph, lk_tensor *logits, lk_tensor *targets, lk_tensor *loss_scale) {
    lk_tensor *inputs[] = {logits, targets, loss_scale};
    return lk_graph_add(graph, LK_OP_CROSS_ENTROPY, 3, inputs, NULL, 3, 0, NULL);
}
