#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t first = range.begin;
    const float *dy = (const float *)call->inputs[0] + first;
    const float *y = (const float *)call->inputs[1] + first;
    float *out = (float *)call->outputs[0] + first;
    VF_FOR(i, lanes, range.end - first, {
        vf t = vf_get(y + i, lanes);
        vf_put(out + i, vf_mul(vf_get(dy + i, lanes), vf_fnma(t, t, vf_set1(1.0f))), lanes);
    });
}

void LK_CPU(tanh_backward)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 12.0, part);
}
