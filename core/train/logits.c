#include "core/train/logits.h"

#include <math.h>
#include <string.h>

static void penalise(double penalty, const int32_t *ids, size_t length, float *scores, int64_t count, bool *seen) {
    memset(seen, 0, (size_t)count * sizeof *seen);
    for (size_t i = 0; i < length; i++) {
        int32_t id = ids[i];
        if (id >= 0 && id < count && !seen[id]) {
            seen[id] = true;
            scores[id] = (float)((double)scores[id] * (scores[id] < 0.0f ? penalty : 1.0 / penalty));
        }
    }
}

/* The last size - 1 ids begin an n-gram; what followed them elsewhere must not follow again. */
static void ban_repeated(size_t size, const int32_t *ids, size_t length, float *scores, int64_t count) {
    if (length + 1 < size) {
        return;
    }
    size_t prefix = size - 1;
    const int32_t *last = ids + length - prefix;
    for (size_t i = 0; i + size <= length; i++) {
        int32_t next = ids[i + prefix];
        bool same = prefix == 0 || memcmp(ids + i, last, prefix * sizeof *ids) == 0;
        if (same && next >= 0 && next < count) {
            scores[next] = -INFINITY;
        }
    }
}

void lk_logits_apply(const lk_logits_rules *rules, const int32_t *ids, size_t length, float *scores, int64_t count,
                     bool *seen) {
    if (rules->repetition_penalty != 1.0) {
        penalise(rules->repetition_penalty, ids, length, scores, count, seen);
    }
    if (rules->no_repeat_ngram_size > 0) {
        ban_repeated((size_t)rules->no_repeat_ngram_size, ids, length, scores, count);
    }
}

lk_status lk_logits_check(lk_context *context, const float *scores, int64_t count) {
    bool any = false;
    for (int64_t i = 0; i < count; i++) {
        if (isnan(scores[i]) || scores[i] == INFINITY) {
            return lk_fail(context, LK_STATUS_NUMERIC, "the logit of token %lld is %g", (long long)i,
                           (double)scores[i]);
        }
        any = any || isfinite(scores[i]);
    }
    return any ? LK_OK : lk_fail(context, LK_STATUS_NUMERIC, "no token is left to choose: all are ruled out");
}
