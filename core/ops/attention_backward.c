#include "core/ops/attention.h"

#include <math.h>

enum { DO, Q, K, V, O, LSE, CU_SEQLENS };

lk_status lk_op_attention_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_attention(context, node, Q, K, V));
    LK_TRY(lk_expect_like(context, node, DO, "do", Q));
    LK_TRY(lk_expect_like(context, node, O, "o", Q));
    LK_TRY(lk_expect(context, node, LSE, "lse", LK_KIND_FLOAT, 2, node->inputs[Q]->shape[0],
                     node->attributes.attention.num_attention_heads));
    LK_TRY(lk_expect(context, node, CU_SEQLENS, "cu_seqlens", LK_KIND_INT, 1, -1, 0));
    LK_TRY(lk_expect(context, node, K, "k", LK_KIND_FLOAT, 2, node->inputs[Q]->shape[0], -1));
    shapes[0] = lk_shape_of(node->inputs[Q]);
    shapes[1] = lk_shape_of(node->inputs[K]);
    shapes[2] = lk_shape_of(node->inputs[V]);
    *num_outputs = 3;
    return LK_OK;
}

double lk_op_attention_backward_flops(const lk_node *node) {
    return 10.0 * lk_attention_pairs(node, Q, K, CU_SEQLENS) * (double)node->inputs[Q]->shape[1];
}

/* With P = exp(scale q k' - lse): dv = P' do, dP = do v', dS = P (dP - rowsum(do o)), dq = scale dS k, dk = scale dS'
 * q. */
lk_status lk_op_attention_backward_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    const lk_attention_attributes *a = &node->attributes.attention;
    int64_t heads = a->num_attention_heads, kv_heads = a->num_key_value_heads, head_dim = a->head_dim;
    double scale = (double)a->scale;
    for (int i = 0; i < 3; i++) {
        for (int64_t j = 0; call->outputs[i] != NULL && j < lk_tensor_elements(node->inputs[Q + i]); j++) {
            call->outputs[i][j] = 0.0;
        }
    }
    for (int64_t s = 0; s + 1 < node->inputs[CU_SEQLENS]->shape[0]; s++) {
        int64_t start = (int64_t)call->inputs[CU_SEQLENS][s];
        int64_t length = (int64_t)call->inputs[CU_SEQLENS][s + 1] - start;
        for (int64_t i = 0; i < length * heads; i++) {
            int64_t h = i % heads, first, last;
            int64_t q_at = (start * heads + i) * head_dim;
            lk_attention_range(a, i / heads, length, length, &first, &last);
            double delta = 0.0;
            for (int64_t d = 0; d < head_dim; d++) {
                delta += call->inputs[DO][q_at + d] * call->inputs[O][q_at + d];
            }
            for (int64_t j = first; j < last; j++) {
                int64_t k_at = ((start + j) * kv_heads + h / (heads / kv_heads)) * head_dim;
                double score = 0.0, dp = 0.0;
                for (int64_t d = 0; d < head_dim; d++) {
                    score += call->inputs[Q][q_at + d] * call->inputs[K][k_at + d];
                    dp += call->inputs[DO][q_at + d] * call->inputs[V][k_at + d];
                }
                double p = exp(scale * score - call->inputs[LSE][start * heads + i]);
                double ds = scale * p * (dp - delta);
                for (int64_t d = 0; d < head_dim; d++) {
                    if (call->outputs[0] != NULL) {
                        call->outputs[0][q_at + d] += ds * call->inputs[K][k_at + d];
                    }
                    if (call->outputs[1] != NULL) {
                        call->outputs[1][k_at + d] += ds * call->inputs[Q][q_at + d];
                    }
                    if (call->outputs[2] != NULL) {
                        call->outputs[2][k_at + d] += p * call->inputs[DO][q_at + d];
                    }
                }
            }
        }
    }
    return LK_OK;
}
