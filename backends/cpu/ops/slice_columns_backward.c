#include <string.h>

#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

/* Where dx has the place of dx_sum, only the slice is touched. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const lk_slice_attributes *slice = &call->node->attributes.slice;
    bool in_place = lk_has_input(call->node, 1) && call->inputs[1] == call->outputs[0];
    for (int64_t row = range.begin; row < range.end; row++) {
        float *dx = (float *)call->outputs[0] + row * slice->columns;
        if (!lk_has_input(call->node, 1)) {
            memset(dx, 0, (size_t)slice->columns * sizeof *dx);
        } else if (!in_place) {
            memcpy(dx, (const float *)call->inputs[1] + row * slice->columns, (size_t)slice->columns * sizeof *dx);
        }
        vf_axpy(dx + slice->first, 1.0f, (const float *)call->inputs[0] + row * slice->count, slice->count);
    }
}

void LK_CPU(slice_columns_backward)(const lk_cpu_call *call) {
    const lk_tensor *dx = call->node->outputs[0];
    lk_cpu_run_rows(call, dx->shape[0], 1, 8.0 * (double)dx->shape[1], part);
}
