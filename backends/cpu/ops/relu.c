#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t first = range.begin;
    const float *x = (const float *)call->inputs[0] + first;
    float *out = (float *)call->outputs[0] + first;
    VF_FOR(i, lanes, range.end - first, { vf_put(out + i, vf_max(vf_zero(), vf_get(x + i, lanes)), lanes); });
}

void LK_CPU(relu)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 8.0, part);
}
