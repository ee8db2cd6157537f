/* The rows of CROSS_ENTROPY, its backward and LINEAR_CROSS_ENTROPY. */
#ifndef LK_CORE_OPS_CROSS_ENTROPY_H
#define LK_CORE_OPS_CROSS_ENTROPY_H

#include "core/graph/ops.h"

/* log(sum(exp(logits))) of one row, stable for any finite logits. */
double lk_log_sum_exp(const double *logits, int64_t count);
/* A target that counts: -100 (Hugging Face's "no loss here") and anything else outside the vocabulary does not. */
static inline bool lk_target_counts(double target, int64_t vocab_size) {
    return target >= 0.0 && target < (double)vocab_size;
}

#endif
