#include "core/ops/attention.h"

#include <math.h>

enum { Q, K, V, CU_SEQLENS_Q, CU_SEQLENS_K, SEQLENS_K, NUM_INPUTS };

lk_status lk_expect_attention(lk_context *context, const lk_node *node, int q, int k, int v) {
    const lk_attention_attributes *a = &node->attributes.attention;
    bool heads = a->num_attention_heads > 0 && a->num_key_value_heads > 0 && a->head_dim > 0 &&
                 a->num_attention_heads % a->num_key_value_heads == 0;
    LK_TRY(lk_expect_attribute(context, node, heads,
                               "num_key_value_heads must divide num_attention_heads, and all be positive"));
    int64_t width = (int64_t)a->num_key_value_heads * a->head_dim;
    LK_TRY(lk_expect(context, node, q, "q", LK_KIND_FLOAT, 2, -1, (int64_t)a->num_attention_heads * a->head_dim));
    LK_TRY(lk_expect(context, node, k, "k", LK_KIND_FLOAT, 2, -1, width));
    return lk_expect(context, node, v, "v", LK_KIND_FLOAT, 2, node->inputs[k]->shape[0], width);
}

lk_status lk_op_attention_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_attention(context, node, Q, K, V));
    LK_TRY(lk_expect(context, node, CU_SEQLENS_Q, "cu_seqlens_q", LK_KIND_INT, 1, -1, 0));
    int64_t entries = node->inputs[CU_SEQLENS_Q]->shape[0];
    LK_TRY(lk_expect_attribute(context, node, entries >= 1, "cu_seqlens_q is empty"));
    if (lk_has_input(node, CU_SEQLENS_K)) {
        LK_TRY(lk_expect(context, node, CU_SEQLENS_K, "cu_seqlens_k", LK_KIND_INT, 1, entries, 0));
    } else {
        LK_TRY(lk_expect(context, node, K, "k", LK_KIND_FLOAT, 2, node->inputs[Q]->shape[0], -1));
    }
    if (lk_has_input(node, SEQLENS_K)) {
        LK_TRY(lk_expect(context, node, SEQLENS_K, "seqlens_k", LK_KIND_INT, 1, entries - 1, 0));
    }
    lk_dtype dtype = node->inputs[Q]->dtype;
    shapes[0] = lk_shape_of(node->inputs[Q]);
    shapes[1] = lk_shape_make(dtype == LK_DTYPE_F64 ? dtype : LK_DTYPE_F32, 2, node->inputs[Q]->shape[0],
                              node->attributes.attention.num_attention_heads);
    *num_outputs = 2;
    return LK_OK;
}

/* One query row against keys [first, last): a softmax in two passes, which is the definition. */
static void attend(const double *q, const double *k, const double *v, int64_t stride, int64_t head_dim, double scale,
                   int64_t first, int64_t last, double *o, double *lse) {
    double maximum = -INFINITY, sum = 0.0;
    for (int64_t j = first; j < last; j++) {
        double score = 0.0;
        for (int64_t d = 0; d < head_dim; d++) {
            score += q[d] * k[j * stride + d];
        }
        maximum = fmax(maximum, scale * score);
    }
    for (int64_t d = 0; d < head_dim && o != NULL; d++) {
        o[d] = 0.0;
    }
    for (int64_t j = first; j < last; j++) {
        double score = 0.0;
        for (int64_t d = 0; d < head_dim; d++) {
            score += q[d] * k[j * stride + d];
        }
        double weight = exp(scale * score - maximum);
        sum += weight;
        for (int64_t d = 0; d < head_dim && o != NULL; d++) {
            o[d] += weight * v[j * stride + d];
        }
    }
    for (int64_t d = 0; d < head_dim && o != NULL && sum > 0.0; d++) {
        o[d] /= sum;
    }
    if (lse != NULL) { /* a query that sees nothing: zeros, and an lse that is finite in every format */
        *lse = sum > 0.0 ? maximum + log(sum) : 0.0;
    }
}

/* How long the sequences are is known only at run time: they are taken to be equal. */
double lk_attention_pairs(const lk_node *node, int q, int k, int cu_seqlens) {
    double sequences = (double)LK_MAX((int64_t)1, node->inputs[cu_seqlens]->shape[0] - 1);
    double queries = (double)node->inputs[q]->shape[0], keys = (double)node->inputs[k]->shape[0] / sequences;
    double window = (double)node->attributes.attention.window;
    double seen = node->attributes.attention.causal && queries == keys * sequences ? (keys + 1.0) / 2.0 : keys;
    return queries * (window > 0.0 && window < seen ? window : seen);
}

double lk_op_attention_flops(const lk_node *node) {
    return 4.0 * lk_attention_pairs(node, Q, K, CU_SEQLENS_Q) * (double)node->inputs[Q]->shape[1];
}

lk_status lk_op_attention_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    const lk_attention_attributes *a = &node->attributes.attention;
    int64_t heads = a->num_attention_heads, kv_heads = a->num_key_value_heads, head_dim = a->head_dim;
    const double *cu_q = call->inputs[CU_SEQLENS_Q];
    const double *cu_k = lk_has_input(node, CU_SEQLENS_K) ? call->inputs[CU_SEQLENS_K] : cu_q;
    for (int64_t i = 0; i < lk_tensor_elements(node->inputs[Q]) && call->outputs[0] != NULL; i++) {
        call->outputs[0][i] = 0.0; /* rows of no sequence */
    }
    for (int64_t i = 0; i < node->inputs[Q]->shape[0] * heads && call->outputs[1] != NULL; i++) {
        call->outputs[1][i] = 0.0;
    }
    for (int64_t s = 0; s + 1 < node->inputs[CU_SEQLENS_Q]->shape[0]; s++) {
        int64_t start = (int64_t)cu_q[s], queries = (int64_t)cu_q[s + 1] - start;
        int64_t k_start = (int64_t)cu_k[s], keys = (int64_t)cu_k[s + 1] - k_start;
        if (lk_has_input(node, SEQLENS_K)) {
            keys = LK_MIN(keys, (int64_t)call->inputs[SEQLENS_K][s]);
        }
        for (int64_t i = 0; i < queries; i++) {
            int64_t first, last;
            lk_attention_range(a, i, queries, keys, &first, &last);
            for (int64_t h = 0; h < heads; h++) {
                int64_t kv = (k_start * kv_heads + h / (heads / kv_heads)) * head_dim;
                int64_t row = (start + i) * heads + h;
                attend(call->inputs[Q] + row * head_dim, call->inputs[K] + kv, call->inputs[V] + kv,
                       kv_heads * head_dim, head_dim, (double)a->scale, first, last,
                       call->outputs[0] ? call->outputs[0] + row * head_dim : NULL,
                       call->outputs[1] ? call->outputs[1] + row : NULL);
            }
        }
    }
    return LK_OK;
}

lk_status lk_op_attention_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                   const bool *needed, lk_tensor **d_inputs) {
    if (lk_has_input(node, CU_SEQLENS_K) || lk_has_input(node, SEQLENS_K)) {
        return lk_fail(graph->context, LK_STATUS_UNSUPPORTED,
                       "attention at %s: no gradient where keys come from a cache", node->scope);
    }
    lk_tensor *inputs[] = {d_outputs[0],     node->inputs[Q],  node->inputs[K],           node->inputs[V],
                           node->outputs[0], node->outputs[1], node->inputs[CU_SEQLENS_Q]};
    uint32_t wanted = (needed[Q] ? 1u : 0u) | (needed[K] ? 2u : 0u) | (needed[V] ? 4u : 0u);
    lk_graph_add(graph, LK_OP_ATTENTION_BACKWARD, 7, inputs, &node->attributes, wanted, 3, d_inputs);
    return lk_graph_status(graph);
}

lk_tensor *lk_build_attention(lk_graph *graph, lk_tensor *q, lk_tensor *k, lk_tensor *v, lk_tensor *cu_seqlens_q,
                              lk_tensor *cu_seqlens_k, lk_tensor *seqlens_k, const lk_attention_attributes *attention) {
    lk_tensor *inputs[NUM_INPUTS] = {q, k, v, cu_seqlens_q, cu_seqlens_k, seqlens_k};
    lk_attributes attributes = {.attention = *attention};
    return lk_graph_add(graph, LK_OP_ATTENTION, NUM_INPUTS, inputs, &attributes, 3, 0, NULL);
}
