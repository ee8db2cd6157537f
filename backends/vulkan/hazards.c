#include "backends/vulkan/hazards.h"

void lk_vk_hazards_init(lk_vk_hazards *hazards, lk_context *context) {
    *hazards = (lk_vk_hazards){.context = context};
}

void lk_vk_hazards_free(lk_vk_hazards *hazards) {
    lk_free(hazards->context, hazards->accesses);
    *hazards = (lk_vk_hazards){.context = hazards->context};
}

void lk_vk_hazards_clear(lk_vk_hazards *hazards) {
    hazards->count = 0;
}

static bool conflict(const lk_vk_access *a, const lk_vk_access *b) {
    return a->memory == b->memory && (a->writes || b->writes) && a->begin < b->end && b->begin < a->end;
}

lk_status lk_vk_hazards_add(lk_vk_hazards *hazards, const lk_vk_access *accesses, int32_t count, bool *needs_barrier) {
    *needs_barrier = false;
    for (int32_t i = 0; i < count && !*needs_barrier; i++) {
        for (int32_t j = 0; j < hazards->count && !*needs_barrier; j++) {
            *needs_barrier = conflict(&accesses[i], &hazards->accesses[j]);
        }
    }
    if (*needs_barrier) {
        hazards->count = 0;
    }
    if (hazards->count + count > hazards->capacity) {
        int32_t capacity = (hazards->count + count) * 2;
        lk_vk_access *grown = lk_realloc(hazards->context, hazards->accesses, (size_t)capacity, sizeof *grown);
        if (grown == NULL) {
            return lk_out_of_memory(hazards->context, (size_t)capacity * sizeof *grown, "a command list");
        }
        hazards->accesses = grown;
        hazards->capacity = capacity;
    }
    for (int32_t i = 0; i < count; i++) {
        hazards->accesses[hazards->count++] = accesses[i];
    }
    return LK_OK;
}
