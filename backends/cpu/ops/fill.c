#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    float *y = (float *)call->outputs[0] + range.begin;
    vf value = vf_set1(call->node->attributes.shape.value);
    VF_FOR(i, lanes, range.end - range.begin, vf_put(y + i, value, lanes););
}

void LK_CPU(fill)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->outputs[0]), 64, 4.0, part);
}
