#include <string.h>

#include "core/text/tokenizer_internal.h"

/* One slot per hash; a newer word replaces an older one. The bytes and ids of words stand in two growing arrays; when
 * these are full, everything is forgotten. */
enum { CACHE_SLOTS = 1 << 16, CACHE_BYTES = 8 << 20, CACHE_IDS = 4 << 20 };

typedef struct lk_word_slot {
    uint64_t hash;
    uint32_t bytes, length; /* length 0: empty */
    uint32_t ids, count;
} lk_word_slot;

void lk_word_cache_init(lk_word_cache *cache, lk_context *context) {
    *cache = (lk_word_cache){0};
    lk_text_init(&cache->bytes, context);
    lk_ids_init(&cache->ids, context);
}

void lk_word_cache_free(lk_word_cache *cache) {
    lk_free(cache->bytes.context, cache->slots);
    lk_text_free(&cache->bytes);
    lk_ids_free(&cache->ids);
}

bool lk_word_cache_find(const lk_word_cache *cache, uint64_t hash, const char *bytes, size_t length,
                        const int32_t **ids, size_t *count) {
    if (cache->slots == NULL) {
        return false;
    }
    const lk_word_slot *slot = &cache->slots[hash % CACHE_SLOTS];
    if (slot->hash != hash || slot->length != length || memcmp(cache->bytes.data + slot->bytes, bytes, length) != 0) {
        return false;
    }
    *ids = cache->ids.data + slot->ids;
    *count = slot->count;
    return true;
}

void lk_word_cache_put(lk_word_cache *cache, uint64_t hash, const char *bytes, size_t length, const int32_t *ids,
                       size_t count) {
    lk_context *context = cache->bytes.context;
    if (length == 0 || length > 65536 || count > 65536) {
        return;
    }
    if (cache->slots == NULL) {
        cache->slots = lk_calloc(context, CACHE_SLOTS, sizeof *cache->slots);
        if (cache->slots == NULL) {
            return;
        }
    }
    if (cache->bytes.length > CACHE_BYTES || cache->ids.count > CACHE_IDS || cache->bytes.failed) {
        memset(cache->slots, 0, CACHE_SLOTS * sizeof *cache->slots);
        cache->bytes.length = 0;
        cache->bytes.failed = false;
        cache->ids.count = 0;
    }
    lk_word_slot slot = {hash, (uint32_t)cache->bytes.length, (uint32_t)length, (uint32_t)cache->ids.count,
                         (uint32_t)count};
    lk_text_append(&cache->bytes, bytes, length);
    if (!cache->bytes.failed && lk_ids_append(&cache->ids, ids, count) == LK_OK) {
        cache->slots[hash % CACHE_SLOTS] = slot;
    }
}
