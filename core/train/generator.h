/* Between generate.c and beam.c. */
#ifndef LK_CORE_TRAIN_GENERATOR_H
#define LK_CORE_TRAIN_GENERATOR_H

#include "core/train/decoder.h"
#include "core/train/logits.h"
#include "core/train/sample.h"

struct lk_generator {
    lk_decoder decoder;
    float *scores; /* [vocab_size]: logits as the rules change them */
    bool *seen;    /* [vocab_size] */
    lk_sample_item *items;
};

bool lk_generator_is_end(const lk_generator *self, int32_t id);

/* The best continuation of `prompt` as transformers' beam search finds it: at most `limit` tokens, appended to `out`
 * with the end token, if it has one. */
lk_status lk_generator_search(lk_generator *self, const lk_ids *prompt, const lk_generate_options *options,
                              int64_t limit, lk_ids *out);

#endif
