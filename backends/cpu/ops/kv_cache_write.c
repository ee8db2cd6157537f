#include <string.h>

#include "backends/cpu/rows.h"

/* A slot outside the cache is a token that is not kept. Written in order, since slots may repeat. */
void LK_CPU(kv_cache_write)(const lk_cpu_call *call) {
    const lk_tensor *cache = call->node->inputs[0];
    size_t bytes = (size_t)cache->shape[1] * (cache->dtype == LK_DTYPE_F32 ? 4 : 2);
    const int32_t *slots = call->inputs[2];
    for (int64_t t = 0; t < call->node->inputs[1]->shape[0]; t++) {
        if (slots[t] >= 0 && slots[t] < cache->shape[0]) {
            memcpy((char *)call->inputs[0] + (size_t)slots[t] * bytes,
                   (const char *)call->inputs[1] + (size_t)t * bytes, bytes);
        }
    }
}
