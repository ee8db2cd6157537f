#include <string.h>

#include "core/text/tokenizer_internal.h"

/* Both tables: open addressing, linear probing, at most two thirds full, capacity a power of two. */

static bool full(size_t count, size_t capacity) {
    return (count + 1) * 3 > capacity * 2;
}

static size_t token_slot(const lk_token_map *map, const lk_slice *tokens, const char *bytes, size_t length) {
    size_t mask = map->capacity - 1;
    size_t slot = (size_t)lk_hash64(bytes, length, 0) & mask;
    while (map->slots[slot] != 0) {
        lk_slice token = tokens[map->slots[slot] - 1];
        if (token.length == length && memcmp(token.bytes, bytes, length) == 0) {
            break;
        }
        slot = (slot + 1) & mask;
    }
    return slot;
}

lk_status lk_token_map_add(lk_token_map *map, const lk_slice *tokens, int32_t id) {
    if (full(map->count, map->capacity)) {
        lk_token_map grown = {.context = map->context, .capacity = LK_MAX((size_t)64, map->capacity * 2)};
        grown.slots = lk_calloc(map->context, grown.capacity, sizeof *grown.slots);
        if (grown.slots == NULL) {
            return lk_out_of_memory(map->context, grown.capacity * sizeof *grown.slots, "the vocabulary");
        }
        for (size_t i = 0; i < map->capacity; i++) {
            if (map->slots[i] != 0) {
                lk_slice token = tokens[map->slots[i] - 1];
                grown.slots[token_slot(&grown, tokens, token.bytes, token.length)] = map->slots[i];
            }
        }
        grown.count = map->count;
        lk_free(map->context, map->slots);
        *map = grown;
    }
    size_t slot = token_slot(map, tokens, tokens[id].bytes, tokens[id].length);
    map->count += map->slots[slot] == 0;
    map->slots[slot] = id + 1;
    return LK_OK;
}

int32_t lk_token_map_find(const lk_token_map *map, const lk_slice *tokens, const char *bytes, size_t length) {
    return map->capacity == 0 ? -1 : map->slots[token_slot(map, tokens, bytes, length)] - 1;
}

void lk_token_map_free(lk_token_map *map) {
    lk_free(map->context, map->slots);
}

static size_t pair_slot(const lk_pair_map *map, uint64_t key) {
    uint64_t mixed = key * 0x9E3779B97F4A7C15u; /* Fibonacci hashing */
    size_t mask = map->capacity - 1;
    size_t slot = (size_t)(mixed ^ (mixed >> 32)) & mask;
    while (map->entries[slot].key != UINT64_MAX && map->entries[slot].key != key) {
        slot = (slot + 1) & mask;
    }
    return slot;
}

lk_status lk_pair_map_set(lk_pair_map *map, uint32_t first, uint32_t second, uint32_t a, uint32_t b) {
    if (full(map->count, map->capacity)) {
        lk_pair_map grown = {.context = map->context, .capacity = LK_MAX((size_t)64, map->capacity * 2)};
        size_t size = grown.capacity * sizeof *grown.entries;
        grown.entries = grown.capacity > SIZE_MAX / sizeof *grown.entries ? NULL : lk_alloc(map->context, size);
        if (grown.entries == NULL) {
            return lk_out_of_memory(map->context, size, "the tokenizer");
        }
        memset(grown.entries, 0xFF, size);
        for (size_t i = 0; i < map->capacity; i++) {
            if (map->entries[i].key != UINT64_MAX) {
                grown.entries[pair_slot(&grown, map->entries[i].key)] = map->entries[i];
            }
        }
        grown.count = map->count;
        lk_free(map->context, map->entries);
        *map = grown;
    }
    uint64_t key = (uint64_t)first << 32 | second;
    lk_pair_entry *entry = &map->entries[pair_slot(map, key)];
    map->count += entry->key == UINT64_MAX;
    *entry = (lk_pair_entry){key, a, b};
    return LK_OK;
}

const lk_pair_entry *lk_pair_map_find(const lk_pair_map *map, uint32_t first, uint32_t second) {
    if (map->capacity == 0) {
        return NULL;
    }
    uint64_t key = (uint64_t)first << 32 | second;
    const lk_pair_entry *entry = &map->entries[pair_slot(map, key)];
    return entry->key == key ? entry : NULL;
}

void lk_pair_map_free(lk_pair_map *map) {
    lk_free(map->context, map->entries);
}
