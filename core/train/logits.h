/* What changes the scores of next tokens before one is chosen, as transformers' logits processors do. */
#ifndef LK_CORE_TRAIN_LOGITS_H
#define LK_CORE_TRAIN_LOGITS_H

#include "core/base/base.h"

typedef struct lk_logits_rules {
    double repetition_penalty;    /* 1: none. Scores of tokens that are there already: positive ones are divided by it,
                                     negative ones multiplied (Keskar et al., arXiv 1909.05858) */
    int64_t no_repeat_ngram_size; /* 0: none. Tokens that would end an n-gram which is there already cannot be chosen */
} lk_logits_rules;

/* Applied to scores[count], given the ids so far (with the prompt's); seen has room for `count` entries. */
void lk_logits_apply(const lk_logits_rules *rules, const int32_t *ids, size_t length, float *scores, int64_t count,
                     bool *seen);
/* NUMERIC when a score is NaN or infinitely large, or when nothing is left to choose. */
lk_status lk_logits_check(lk_context *context, const float *scores, int64_t count);

#endif
