#include <math.h>

#include "backends/cpu/rows.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t half = call->node->inputs[1]->shape[0];
    const int32_t *positions = call->inputs[0];
    const float *inv_freq = call->inputs[1];
    float *cosines = call->outputs[0], *sines = call->outputs[1];
    for (int64_t t = range.begin; t < range.end; t++) {
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)positions[t] * inv_freq[i];
            if (cosines != NULL) {
                cosines[t * half + i] = cosf(angle);
            }
            if (sines != NULL) {
                sines[t * half + i] = sinf(angle);
            }
        }
    }
}

void LK_CPU(rope_table)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, call->node->inputs[0]->shape[0], 1, 64.0 * (double)call->node->inputs[1]->shape[0], part);
}
