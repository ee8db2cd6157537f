#include "core/ops/cross_entropy.h"

#include <math.h>

lk_status lk_op_cross_entropy_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes,
                                             int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "dloss", LK_KIND_FLOAT, 1, 1, 0));
    LK_TRY(lk_expect(context, node, 1, "logits", LK_KIND_FLOAT, 2, -1, -1));
    int64_t tokens = node->inputs[1]->shape[0];
    LK_TRY(lk_expect(context, node, 2, "targets", LK_KIND_INT, 1, tokens, 0));
    LK_TRY(lk_expect(context, node, 3, "loss_scale", LK_KIND_FLOAT, 1, 1, 0));
    LK_TRY(lk_expect(context, node, 4, "lse", LK_KIND_FLOAT, 1, tokens, 0));
    shapes[0] = lk_shape_of(node->inputs[1]);
    *num_outputs = 1;
    return LK_OK;
}

/* dlogits = dloss loss_scale (softmax(logits) - onehot(target)), zero where the target does not count */
lk_status lk_op_cross_entropy_backward_reference(const lk_reference_call *call) {
    int64_t tokens = call->node->inputs[1]->shape[0], vocab_size = call->node->inputs[1]->shape[1];
    double scale = call->inputs[0][0] * call->inputs[3][0];
    for (int64_t t = 0; t < tokens; t++) {
        double target = call->inputs[2][t];
        for (int64_t i = 0; i < vocab_size; i++) {
            double p = exp(call->inputs[1][t * vocab_size + i] - call->inputs[4][t]);
            bool counts = lk_target_counts(target, vocab_size);
            call->outputs[0][t * vocab_size + i] = counts ? scale * (p - ((int64_t)target == i ? 1.0 : 0.0)) : 0.0;
        }
    }
    return LK_OK;
}
