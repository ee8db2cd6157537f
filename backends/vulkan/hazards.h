/* Which launches must wait for earlier ones: those that read what was written, or write what was read or written, since
 * the last barrier. Pure. */
#ifndef LK_BACKENDS_VULKAN_HAZARDS_H
#define LK_BACKENDS_VULKAN_HAZARDS_H

#include "core/base/base.h"

typedef struct lk_vk_access {
    const void *memory;
    size_t begin, end; /* bytes */
    bool writes;
} lk_vk_access;

typedef struct lk_vk_hazards {
    lk_context *context;
    lk_vk_access *accesses; /* since the last barrier */
    int32_t count, capacity;
} lk_vk_hazards;

void lk_vk_hazards_init(lk_vk_hazards *hazards, lk_context *context);
void lk_vk_hazards_free(lk_vk_hazards *hazards);
/* Adds what one launch accesses; *needs_barrier: before it, because of what came earlier (which is then forgotten). */
lk_status lk_vk_hazards_add(lk_vk_hazards *hazards, const lk_vk_access *accesses, int32_t count, bool *needs_barrier);
/* A barrier that stands for another reason. */
void lk_vk_hazards_clear(lk_vk_hazards *hazards);

#endif
