/* The mask that DROPOUT and the LoRA linears share, so that it is the same on every device. */
#ifndef LK_CORE_OPS_DROPOUT_H
#define LK_CORE_OPS_DROPOUT_H

#include "core/graph/ops.h"

/* `rng` is an int32 tensor: seed low, seed high, counter low, counter high (the counter advances with every
 * micro-batch). Element `index` of a tensor is kept when word index % 4 of
 * Philox(seed, counter << 20 | stream, index / 4), taken as a uniform number, is at least p. */
static inline bool lk_dropout_keeps(uint64_t seed, uint64_t counter, uint32_t stream, uint64_t index, float p) {
    uint32_t words[4];
    lk_philox4x32(seed, counter << 20 | stream, index / 4, words);
    return lk_uniform_from_bits(words[index % 4]) >= p;
}

/* y[i] = x[i] mask / (1 - p) for elements first .. first + count of the tensor; a copy when p is 0. */
void lk_dropout_row(double *y, const double *x, int64_t first, int64_t count, float p, uint32_t stream,
                    const double *rng);
lk_status lk_expect_dropout(lk_context *context, const lk_node *node, float p, int rng_input);

#endif
