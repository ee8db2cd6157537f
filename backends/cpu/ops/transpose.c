#include <string.h>

#include "backends/cpu/rows.h"

/* A matrix that is only seen in another shape is copied in pieces. */
static void part_copy(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    memcpy((float *)call->outputs[0] + range.begin, (const float *)call->inputs[0] + range.begin,
           (size_t)(range.end - range.begin) * sizeof(float));
}

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const lk_transpose_attributes *t = &call->node->attributes.transpose;
    const float *x = call->inputs[0];
    float *y = (float *)call->outputs[0] + range.begin * t->rows * t->inner;
    for (int64_t item = range.begin; item < range.end; item++) {
        int64_t outer = item / t->columns, column = item % t->columns;
        const float *from = x + (outer * t->rows * t->columns + column) * t->inner;
        for (int64_t row = 0; row < t->rows; row++, y += t->inner, from += t->columns * t->inner) {
            if (t->inner == 1) {
                *y = *from;
            } else {
                memcpy(y, from, (size_t)t->inner * sizeof *y);
            }
        }
    }
}

void LK_CPU(transpose)(const lk_cpu_call *call) {
    const lk_transpose_attributes *t = &call->node->attributes.transpose;
    if (t->rows == 1 || t->columns == 1) {
        lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 1024, 8.0, part_copy);
    } else {
        lk_cpu_run_rows(call, t->outer * t->columns, 1, 8.0 * (double)(t->rows * t->inner), part);
    }
}
