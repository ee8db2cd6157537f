#include <string.h>

#include "backends/cpu/rows.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const lk_slice_attributes *slice = &call->node->attributes.slice;
    size_t size = call->node->inputs[0]->dtype == LK_DTYPE_F32 ? 4 : 2;
    int64_t columns = call->node->inputs[0]->shape[1];
    for (int64_t row = range.begin; row < range.end; row++) {
        memcpy((char *)call->outputs[0] + (size_t)(row * slice->count) * size,
               (const char *)call->inputs[0] + (size_t)(row * columns + slice->first) * size,
               (size_t)slice->count * size);
    }
}

void LK_CPU(slice_columns)(const lk_cpu_call *call) {
    const lk_tensor *y = call->node->outputs[0];
    lk_cpu_run_rows(call, y->shape[0], 1, 8.0 * (double)y->shape[1], part);
}
