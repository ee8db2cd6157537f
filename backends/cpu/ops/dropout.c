#include "backends/cpu/simd/dropout.h"
#include "backends/cpu/rows.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const lk_dropout_attributes *dropout = &call->node->attributes.dropout;
    const float *x = (const float *)call->inputs[0] + range.begin;
    float *y = (float *)call->outputs[0] + range.begin;
    int64_t count = range.end - range.begin;
    if (dropout->probability > 0.0f) {
        dropout_mask mask = dropout_mask_of(call->inputs[1], dropout->probability, dropout->stream);
        dropout_row(&mask, y, x, range.begin, count, false);
    } else {
        VF_FOR(i, lanes, count, vf_put(y + i, vf_get(x + i, lanes), lanes););
    }
}

void LK_CPU(dropout)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 4 * PHILOX_LANES, 40.0, part);
}
