#include <string.h>

#include "backends/cpu/rows.h"

/* An id outside the table reads as zeros. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const lk_tensor *table = call->node->inputs[1];
    size_t bytes = (size_t)table->shape[1] * (table->dtype == LK_DTYPE_F32 ? 4 : 2);
    const int32_t *ids = call->inputs[0];
    for (int64_t t = range.begin; t < range.end; t++) {
        char *y = (char *)call->outputs[0] + (size_t)t * bytes;
        if (ids[t] >= 0 && ids[t] < table->shape[0]) {
            memcpy(y, (const char *)call->inputs[1] + (size_t)ids[t] * bytes, bytes);
        } else {
            memset(y, 0, bytes);
        }
    }
}

void LK_CPU(embedding)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, call->node->inputs[0]->shape[0], 1, 8.0 * (double)call->node->inputs[1]->shape[1], part);
}
