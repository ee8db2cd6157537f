/* Which keys a query sees: shared by ATTENTION and its backward. */
#ifndef LK_CORE_OPS_ATTENTION_H
#define LK_CORE_OPS_ATTENTION_H

#include "core/graph/ops.h"

/* The range of keys [first, last) that query `i` of `queries` attends to among `keys`. */
static inline void lk_attention_range(const lk_attention_attributes *attention, int64_t i, int64_t queries,
                                      int64_t keys, int64_t *first, int64_t *last) {
    int64_t position = i + keys - queries; /* causality is aligned at the end: a cache holds earlier keys */
    *last = attention->causal ? position + 1 : keys;
    *last = *last < 0 ? 0 : *last > keys ? keys : *last;
    *first = attention->window > 0 && position + 1 > attention->window ? position + 1 - attention->window : 0;
    *first = *first > *last ? *last : *first;
}

/* The number of (query, key) pairs, for estimates. */
double lk_attention_pairs(const lk_node *node, int q, int k, int cu_seqlens);
lk_status lk_expect_attention(lk_context *context, const lk_node *node, int q, int k, int v);

#endif
