/* How ATTENTION and its backward are cut into blocks and tasks. */
#ifndef LK_CPU_ATTENTION_H
#define LK_CPU_ATTENTION_H

#include "backends/cpu/cpu.h"
#include "core/ops/attention.h"

/* Queries and keys of one block: its scores (24 KB) and the packed keys stay in the core's caches. 96 is a multiple of
 * every tile's width. */
enum { LK_CPU_QUERIES = 64, LK_CPU_KEYS = 96 };

/* A sequence's rows; lengths are never negative and never reach outside the tensors, whatever the inputs hold. */
typedef struct lk_cpu_sequence {
    int64_t q_start, queries, k_start, keys;
} lk_cpu_sequence;

static inline int64_t lk_cpu_clamp(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

static inline lk_cpu_sequence lk_cpu_sequence_of(const int32_t *cu_q, const int32_t *cu_k, const int32_t *seqlens_k,
                                                 int64_t s, int64_t tokens_q, int64_t tokens_k) {
    lk_cpu_sequence sequence;
    sequence.q_start = lk_cpu_clamp(cu_q[s], 0, tokens_q);
    sequence.queries = lk_cpu_clamp(cu_q[s + 1], sequence.q_start, tokens_q) - sequence.q_start;
    sequence.k_start = lk_cpu_clamp(cu_k[s], 0, tokens_k);
    sequence.keys = lk_cpu_clamp(cu_k[s + 1], sequence.k_start, tokens_k) - sequence.k_start;
    if (seqlens_k != NULL) {
        sequence.keys = lk_cpu_clamp(seqlens_k[s], 0, sequence.keys);
    }
    return sequence;
}

/* Heads that attention_wide.c takes: the rest is divided among cores by heads and blocks. */
static inline bool lk_cpu_is_wide(const lk_attention_attributes *attention) {
    return attention->head_dim > 512 || (attention->head_dim >= 256 && attention->num_attention_heads == 1);
}

/* How many queries it takes at a time. */
static inline int64_t lk_cpu_wide_rows(int64_t queries) {
    return LK_MIN(queries, (int64_t)256);
}

#define LK_CPU_DECLARE_WIDE(isa, features, unused) \
    void LK_CPU_NAME(attention_wide, isa)(const lk_cpu_call *call, const lk_cpu_sequence *sequence, bool backward);
LK_CPU_EACH_PRODUCT_ISA(LK_CPU_DECLARE_WIDE, )
#undef LK_CPU_DECLARE_WIDE

static inline int64_t lk_cpu_blocks(int64_t rows, int64_t block) {
    return (rows + block - 1) / block;
}

/* Whether weights, values and gradients are multiplied in bf16: where values are stored so. Scores are always made of
 * queries and keys in fp32: they go through an exponential. */
static inline bool lk_cpu_attends_in_bf16(bool pairs, lk_dtype values, int64_t head_dim) {
    return pairs && values == LK_DTYPE_BF16 && head_dim % 2 == 0 && head_dim <= 256;
}

#endif
