/* Offsets for tensors with known lifetimes: largest first, each at the lowest offset where it meets no other that lives
 * at the same time ("greedy by size", Pisarchyk and Lee, arXiv 2001.03288). */
#include <stdlib.h>

#include "dispatch/dispatch.h"

typedef struct block {
    size_t bytes;
    int32_t first, last, item;
    size_t offset;
} block;

static int by_size(const void *a, const void *b) {
    const block *x = a, *y = b;
    if (x->bytes != y->bytes) {
        return x->bytes < y->bytes ? 1 : -1;
    }
    return (x->item > y->item) - (x->item < y->item);
}

static int by_offset(const void *a, const void *b) {
    const block *x = *(block *const *)a, *y = *(block *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int32_t root_of(const lk_plan_item *items, int32_t i) {
    while (items[i].shares >= 0) {
        i = items[i].shares;
    }
    return i;
}

static size_t place(block *const *placed, int32_t count, const block *wanted, block **overlapping) {
    int32_t hits = 0;
    for (int32_t i = 0; i < count; i++) {
        if (placed[i]->first <= wanted->last && wanted->first <= placed[i]->last) {
            overlapping[hits++] = placed[i];
        }
    }
    qsort(overlapping, (size_t)hits, sizeof(block *), by_offset);
    size_t offset = 0;
    for (int32_t i = 0; i < hits; i++) {
        if (overlapping[i]->offset >= offset && overlapping[i]->offset - offset >= wanted->bytes) {
            break;
        }
        offset = LK_MAX(offset, overlapping[i]->offset + overlapping[i]->bytes);
    }
    return offset;
}

static size_t most_alive(const block *blocks, int32_t count, size_t *live, int32_t last) {
    for (int32_t i = 0; i < count; i++) { /* differences first, then their running sum */
        live[blocks[i].first] += blocks[i].bytes;
        live[blocks[i].last + 1] -= blocks[i].bytes;
    }
    size_t sum = 0, most = 0;
    for (int32_t t = 0; t <= last; t++) {
        sum += live[t];
        most = LK_MAX(most, sum);
    }
    return most;
}

lk_status lk_plan_memory(lk_context *context, lk_plan_item *items, int32_t count, size_t *total, size_t *lower_bound) {
    *total = *lower_bound = 0;
    int32_t last = 0, num_blocks = 0;
    for (int32_t i = 0; i < count; i++) {
        last = LK_MAX(last, items[i].last);
    }
    size_t slots = (size_t)count + 1;
    block *blocks = lk_calloc(context, slots, sizeof *blocks);
    int32_t *block_of = lk_calloc(context, slots, sizeof *block_of);
    block **placed = lk_calloc(context, slots, sizeof(block *));
    block **overlapping = lk_calloc(context, slots, sizeof(block *));
    size_t *live = lk_calloc(context, (size_t)last + 2, sizeof *live);
    lk_status status = LK_OK;
    if (!blocks || !block_of || !placed || !overlapping || !live) {
        status = lk_out_of_memory(context, slots * sizeof *blocks, "the memory plan");
        goto done;
    }
    for (int32_t i = 0; i < count; i++) { /* items that share a place become one block that lives as long as all */
        if (items[i].shares < 0) {
            block_of[i] = num_blocks;
            blocks[num_blocks++] = (block){.first = items[i].first, .last = items[i].last, .item = i};
        }
    }
    for (int32_t i = 0; i < count; i++) {
        block *own = &blocks[block_of[root_of(items, i)]];
        size_t rounded;
        if (!lk_add_size(items[i].bytes, LK_BUFFER_ALIGNMENT - 1, &rounded)) {
            status = lk_out_of_memory(context, items[i].bytes, "a tensor");
            goto done;
        }
        own->bytes = LK_MAX(own->bytes, rounded / LK_BUFFER_ALIGNMENT * LK_BUFFER_ALIGNMENT);
        own->first = LK_MIN(own->first, items[i].first);
        own->last = LK_MAX(own->last, items[i].last);
    }
    *lower_bound = most_alive(blocks, num_blocks, live, last);
    qsort(blocks, (size_t)num_blocks, sizeof *blocks, by_size);
    for (int32_t i = 0; i < num_blocks; i++) {
        blocks[i].offset = place(placed, i, &blocks[i], overlapping);
        placed[i] = &blocks[i];
        items[blocks[i].item].offset = blocks[i].offset;
        size_t end;
        if (!lk_add_size(blocks[i].offset, blocks[i].bytes, &end)) {
            status = lk_out_of_memory(context, blocks[i].bytes, "a tensor");
            goto done;
        }
        *total = LK_MAX(*total, end);
    }
    for (int32_t i = 0; i < count; i++) {
        items[i].offset = items[root_of(items, i)].offset;
    }
done:
    lk_free(context, blocks);
    lk_free(context, block_of);
    lk_free(context, placed);
    lk_free(context, overlapping);
    lk_free(context, live);
    return status;
}
