#include "core/text/ids.h"

#include <string.h>

void lk_ids_init(lk_ids *ids, lk_context *context) {
    *ids = (lk_ids){.context = context};
}

void lk_ids_free(lk_ids *ids) {
    lk_free(ids->context, ids->data);
    *ids = (lk_ids){.context = ids->context};
}

lk_status lk_ids_append(lk_ids *ids, const int32_t *data, size_t count) {
    if (count > ids->capacity - ids->count) {
        size_t needed;
        if (!lk_add_size(ids->count, count, &needed) || needed > SIZE_MAX / 2 / sizeof *data) {
            return lk_out_of_memory(ids->context, SIZE_MAX, "token ids");
        }
        size_t capacity = LK_MAX(needed, LK_MAX((size_t)64, ids->capacity * 2));
        int32_t *grown = lk_realloc(ids->context, ids->data, capacity, sizeof *grown);
        if (grown == NULL) {
            return lk_out_of_memory(ids->context, capacity * sizeof *grown, "token ids");
        }
        ids->data = grown;
        ids->capacity = capacity;
    }
    if (count > 0) {
        memcpy(ids->data + ids->count, data, count * sizeof *data);
        ids->count += count;
    }
    return LK_OK;
}

lk_status lk_ids_push(lk_ids *ids, int32_t id) {
    if (ids->count < ids->capacity) {
        ids->data[ids->count++] = id;
        return LK_OK;
    }
    return lk_ids_append(ids, &id, 1);
}
