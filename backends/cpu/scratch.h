/* How much scratch memory a node needs, and how its kernels divide it: known to both in one place. */
#ifndef LK_CPU_SCRATCH_H
#define LK_CPU_SCRATCH_H

#include "backends/cpu/cpu.h"

/* Sums of at most this many elements are made by one task, in a fixed order, whatever the number of threads. */
enum { LK_CPU_SUM_CHUNK = 65536 };

static inline int64_t lk_cpu_chunks(const lk_tensor *tensor) {
    return (lk_tensor_elements(tensor) + LK_CPU_SUM_CHUNK - 1) / LK_CPU_SUM_CHUNK;
}

/* LINEAR_CROSS_ENTROPY works on blocks of tokens whose logits take at most 48 MB. 48 is a multiple of every tile. */
enum { LK_CPU_LOSS_COLUMNS = 48, LK_CPU_LOSS_PANELS = 10 };
static inline int64_t lk_cpu_loss_block(int64_t tokens, int64_t vocab_size) {
    int64_t most = LK_MAX((int64_t)(48 << 20) / LK_MAX(vocab_size * 4, (int64_t)1) / LK_CPU_LOSS_COLUMNS, (int64_t)1);
    int64_t panels = (tokens + LK_CPU_LOSS_COLUMNS - 1) / LK_CPU_LOSS_COLUMNS;
    return LK_MAX(LK_MIN(LK_MIN(most, (int64_t)LK_CPU_LOSS_PANELS), panels), (int64_t)1) * LK_CPU_LOSS_COLUMNS;
}

/* Into how many parts it cuts the vocabulary; each has its own sums. */
static inline int64_t lk_cpu_loss_parts(int threads, int64_t vocab_size) {
    return LK_MAX((int64_t)1, LK_MIN((int64_t)threads * (threads <= 4 ? 2 : 1), vocab_size / 64));
}

static inline size_t lk_cpu_floats(int64_t count) {
    return ((size_t)count * sizeof(float) + 63) / 64 * 64;
}

/* CAYLEY: matrices for one block; an even number, of which some are in double precision. */
static inline int64_t lk_cpu_cayley_matrices(const lk_cayley_attributes *cayley) {
    return 12 + 2 * LK_MAX((int64_t)cayley->terms, (int64_t)4);
}

#define LK_CPU_SCRATCH(name) size_t lk_cpu_##name##_scratch(const lk_device_caps *caps, const lk_node *node)
LK_CPU_SCRATCH(linear);
LK_CPU_SCRATCH(matmul);
LK_CPU_SCRATCH(lora_linear);
LK_CPU_SCRATCH(lora_linear_backward);
LK_CPU_SCRATCH(attention);
LK_CPU_SCRATCH(attention_backward);
LK_CPU_SCRATCH(cross_entropy);
LK_CPU_SCRATCH(linear_cross_entropy);
LK_CPU_SCRATCH(grad_norm);
LK_CPU_SCRATCH(cayley);
LK_CPU_SCRATCH(cayley_backward);

#endif
