/* A growing array of token ids. */
#ifndef LK_CORE_TEXT_IDS_H
#define LK_CORE_TEXT_IDS_H

#include "core/base/base.h"

typedef struct lk_ids {
    lk_context *context;
    int32_t *data;
    size_t count, capacity;
} lk_ids;

void lk_ids_init(lk_ids *ids, lk_context *context);
void lk_ids_free(lk_ids *ids);
/* Both fail with OUT_OF_MEMORY only; the array is then as it was. `data` may not point into `ids`. */
lk_status lk_ids_push(lk_ids *ids, int32_t id);
lk_status lk_ids_append(lk_ids *ids, const int32_t *data, size_t count);

#endif
