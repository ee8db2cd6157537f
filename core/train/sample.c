#include "core/train/sample.h"

#include <math.h>
#include <stdlib.h>

static int by_weight(const void *a, const void *b) {
    const lk_sample_item *x = a, *y = b;
    if (x->weight != y->weight) {
        return x->weight < y->weight ? 1 : -1;
    }
    return (x->id > y->id) - (x->id < y->id);
}

static int32_t largest(const float *logits, int64_t count) {
    int32_t best = 0;
    for (int64_t i = 1; i < count; i++) {
        best = logits[i] > logits[best] ? (int32_t)i : best;
    }
    return best;
}

int32_t lk_sample_token(const lk_sampler *sampler, const float *logits, int64_t count, uint64_t draw,
                        lk_sample_item *items) {
    int32_t best = largest(logits, count);
    if (sampler->temperature <= 0.0) {
        return best;
    }
    double total = 0.0;
    for (int64_t i = 0; i < count; i++) {
        items[i] = (lk_sample_item){exp(((double)logits[i] - (double)logits[best]) / sampler->temperature), (int32_t)i};
        total += items[i].weight;
    }
    qsort(items, (size_t)count, sizeof *items, by_weight);
    int64_t kept = sampler->top_k > 0 ? LK_MIN(sampler->top_k, count) : count;
    if (kept < count) { /* top_p then applies to what top_k left, as in transformers */
        total = 0.0;
        for (int64_t i = 0; i < kept; i++) {
            total += items[i].weight;
        }
    }
    double sum = 0.0;
    for (int64_t i = 0; i < kept; i++) {
        sum += items[i].weight;
        if (sum >= sampler->top_p * total) {
            kept = i + 1;
        }
    }
    uint32_t words[4];
    lk_philox4x32(sampler->seed, 1, draw, words);
    double threshold = (double)lk_uniform_from_bits(words[0]) * sum;
    for (int64_t i = 0; i < kept; i++) {
        threshold -= items[i].weight;
        if (threshold < 0.0) {
            return items[i].id;
        }
    }
    return items[kept - 1].id;
}
