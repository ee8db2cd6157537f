#include <string.h>

#include "backends/cpu/rows.h"

/* Between 16-bit types by way of fp32, a block at a time. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    lk_dtype from = call->node->inputs[0]->dtype, to = call->node->outputs[0]->dtype;
    int64_t count = range.end - range.begin;
    size_t from_size = from == LK_DTYPE_F32 ? 4 : 2, to_size = to == LK_DTYPE_F32 ? 4 : 2;
    const char *x = (const char *)call->inputs[0] + (size_t)range.begin * from_size;
    char *y = (char *)call->outputs[0] + (size_t)range.begin * to_size;
    if (from == to) {
        memcpy(y, x, (size_t)count * to_size);
    } else if (from == LK_DTYPE_F32) {
        LK_CPU(narrow)(y, (const float *)(const void *)x, to, count);
    } else if (to == LK_DTYPE_F32) {
        LK_CPU(widen)((float *)(void *)y, x, from, count);
    } else {
        enum { BLOCK = 4096 };
        for (int64_t i = 0; i < count; i += BLOCK) {
            int64_t block = LK_MIN(count - i, (int64_t)BLOCK);
            LK_CPU(widen)(memory, x + 2 * i, from, block);
            LK_CPU(narrow)(y + 2 * i, memory, to, block);
        }
    }
}

void LK_CPU(cast)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 8.0, part);
}
