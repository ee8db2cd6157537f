/* Typed builders, one per op, for model families, adapters, gradients and decompositions. They return NULL once the
 * graph has failed (lk_graph_status); optional tensors may be NULL. Outputs that only a backward pass needs (rstd, lse,
 * s) are always made here; the dead-code pass drops those that nothing reads. */
#ifndef LK_CORE_GRAPH_BUILD_H
#define LK_CORE_GRAPH_BUILD_H

#include "lorikeet_graph.h"

lk_tensor *lk_build_embedding(lk_graph *graph, lk_tensor *ids, lk_tensor *table);
lk_tensor *lk_build_matmul(lk_graph *graph, lk_tensor *a, bool transpose_a, lk_tensor *b, bool transpose_b, float alpha,
                           lk_tensor *c);
lk_tensor *lk_build_linear(lk_graph *graph, lk_tensor *x, lk_tensor *weight, lk_tensor *bias);
lk_tensor *lk_build_lora_linear(lk_graph *graph, lk_tensor *x, lk_tensor *weight, lk_tensor *bias, lk_tensor *lora_a,
                                lk_tensor *lora_b, lk_tensor *rng, const lk_lora_attributes *lora);
lk_tensor *lk_build_rms_norm(lk_graph *graph, lk_tensor *x, lk_tensor *weight, float epsilon);
lk_tensor *lk_build_layer_norm(lk_graph *graph, lk_tensor *x, lk_tensor *weight, lk_tensor *bias, float epsilon);
void lk_build_rope_table(lk_graph *graph, lk_tensor *positions, lk_tensor *inv_freq, lk_tensor **cos, lk_tensor **sin);
lk_tensor *lk_build_rope(lk_graph *graph, lk_tensor *x, lk_tensor *cos, lk_tensor *sin, int32_t head_dim, bool inverse);
lk_tensor *lk_build_attention(lk_graph *graph, lk_tensor *q, lk_tensor *k, lk_tensor *v, lk_tensor *cu_seqlens_q,
                              lk_tensor *cu_seqlens_k, lk_tensor *seqlens_k, const lk_attention_attributes *attention);
void lk_build_kv_cache_write(lk_graph *graph, lk_tensor *cache, lk_tensor *x, lk_tensor *slots);
lk_tensor *lk_build_swiglu(lk_graph *graph, lk_tensor *gate, lk_tensor *up);
lk_tensor *lk_build_gelu(lk_graph *graph, lk_tensor *x, bool tanh_approximation);
lk_tensor *lk_build_tanh(lk_graph *graph, lk_tensor *x);
lk_tensor *lk_build_relu(lk_graph *graph, lk_tensor *x);
lk_tensor *lk_build_slice_columns(lk_graph *graph, lk_tensor *x, int64_t first, int64_t count);
/* [T, columns]: x in the columns from `first` on, added to sum or, where that is NULL, to zeros */
lk_tensor *lk_build_place_columns(lk_graph *graph, lk_tensor *x, int64_t first, int64_t columns, lk_tensor *sum);
lk_tensor *lk_build_transpose(lk_graph *graph, lk_tensor *x, const lk_transpose_attributes *transpose);
/* x in another shape */
lk_tensor *lk_build_reshape(lk_graph *graph, lk_tensor *x, int64_t rows, int64_t columns);
lk_tensor *lk_build_block_linear(lk_graph *graph, lk_tensor *x, lk_tensor *blocks, bool transpose);
lk_tensor *lk_build_cayley(lk_graph *graph, lk_tensor *triangles, int64_t size, int32_t terms);
lk_tensor *lk_build_cross_entropy(lk_graph *graph, lk_tensor *logits, lk_tensor *targets, lk_tensor *loss_scale);
lk_tensor *lk_build_linear_cross_entropy(lk_graph *graph, lk_tensor *x, lk_tensor *weight, lk_tensor *targets,
                                         lk_tensor *loss_scale);
lk_tensor *lk_build_add(lk_graph *graph, lk_tensor *a, lk_tensor *b);
lk_tensor *lk_build_mul(lk_graph *graph, lk_tensor *a, lk_tensor *b);
lk_tensor *lk_build_scale(lk_graph *graph, lk_tensor *x, float value);
lk_tensor *lk_build_mul_scalar(lk_graph *graph, lk_tensor *x, lk_tensor *factor);
lk_tensor *lk_build_add_bias(lk_graph *graph, lk_tensor *x, lk_tensor *bias);
lk_tensor *lk_build_mul_columns(lk_graph *graph, lk_tensor *x, lk_tensor *scale);
lk_tensor *lk_build_dora_norm(lk_graph *graph, lk_tensor *squares, lk_tensor *a_weight, lk_tensor *gram,
                              lk_tensor *lora_b, float scale);
lk_tensor *lk_build_sum_rows(lk_graph *graph, lk_tensor *x);
lk_tensor *lk_build_cast(lk_graph *graph, lk_tensor *x, lk_dtype dtype);
lk_tensor *lk_build_fill(lk_graph *graph, lk_dtype dtype, int rank, const int64_t *shape, float value);
lk_tensor *lk_build_dropout(lk_graph *graph, lk_tensor *x, lk_tensor *rng, float probability, uint32_t stream);
void lk_build_accumulate(lk_graph *graph, lk_tensor *sum, lk_tensor *x);
void lk_build_clear(lk_graph *graph, int count, lk_tensor *const *tensors);
lk_tensor *lk_build_grad_norm(lk_graph *graph, int count, lk_tensor *const *gradients);
/* parameters, gradients, first and second moments: `count` each; the scales may be NULL */
void lk_build_adamw(lk_graph *graph, lk_tensor *hyper, lk_tensor *norm, int count, lk_tensor *const *parameters,
                    lk_tensor *const *gradients, lk_tensor *const *first, lk_tensor *const *second,
                    const float *learning_rate_scales, const float *weight_decay_scales);

lk_tensor *lk_build_orthogonality(lk_graph *graph, lk_tensor *gram);
void lk_build_importance(lk_graph *graph, lk_tensor *hyper, lk_tensor *norm, lk_tensor *parameter, lk_tensor *gradient,
                         lk_tensor *sensitivity, lk_tensor *uncertainty);

#endif
