/* The masks are dropout of ones, so they are a function of seed, counter and stream, like every mask. PEFT divides by
 * the share of rows that were kept (LoHa; LoKr with rank_dropout_scale), here it is by that share's expectation. */
#include "core/adapters/drop.h"

static lk_tensor *draw(lk_forward *forward, lk_dtype dtype, int rank, const int64_t *shape, double p, bool rescale) {
    float value = rescale ? 1.0f : (float)(1.0 - p); /* dropout divides by 1 - p */
    lk_tensor *ones = lk_build_fill(forward->graph, dtype, rank, shape, value);
    return lk_build_dropout(forward->graph, ones, forward->rng, (float)p, forward->next_stream++);
}

static bool drops(const lk_forward *forward, const lk_tensor *x, double p) {
    return forward->rng != NULL && p > 0.0 && x != NULL;
}

lk_tensor *lk_adapter_drop_rows(lk_forward *forward, lk_tensor *x, double p, bool rescale) {
    if (!drops(forward, x, p)) {
        return x;
    }
    const int64_t column[] = {x->shape[0], 1}, row[] = {1, x->shape[1]};
    lk_tensor *ones = lk_build_fill(forward->graph, x->dtype, 2, row, 1.0f);
    lk_tensor *mask =
        lk_build_matmul(forward->graph, draw(forward, x->dtype, 2, column, p, rescale), false, ones, false, 1.0f, NULL);
    return lk_build_mul(forward->graph, x, mask);
}

lk_tensor *lk_adapter_drop_columns(lk_forward *forward, lk_tensor *x, double p, bool rescale) {
    if (!drops(forward, x, p)) {
        return x;
    }
    return lk_build_mul_columns(forward->graph, x, draw(forward, x->dtype, 1, &x->shape[1], p, rescale));
}

lk_tensor *lk_adapter_drop_whole(lk_forward *forward, lk_tensor *x, double p) {
    const int64_t one = 1;
    if (!drops(forward, x, p)) {
        return x;
    }
    return lk_build_mul_scalar(forward->graph, x, draw(forward, x->dtype, 1, &one, p, false));
}
