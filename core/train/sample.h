/* Choosing the next token from logits. */
#ifndef LK_CORE_TRAIN_SAMPLE_H
#define LK_CORE_TRAIN_SAMPLE_H

#include "core/base/base.h"

typedef struct lk_sampler {
    double temperature; /* 0: the largest logit */
    int64_t top_k;      /* only the k largest; 0: all */
    double top_p;       /* only the most probable until their sum reaches p; 1: all */
    uint64_t seed;
} lk_sampler;

typedef struct lk_sample_item {
    double weight;
    int32_t id;
} lk_sample_item;

/* `items` has room for `count` entries; `draw` counts the tokens drawn so far, so that the choice is a function of the
 * seed and the place. Ties go to the smaller id. */
int32_t lk_sample_token(const lk_sampler *sampler, const float *logits, int64_t count, uint64_t draw,
                        lk_sample_item *items);

#endif
