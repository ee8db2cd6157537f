#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const float *x = call->inputs[0];
    float *y = call->outputs[0];
    vf value = vf_set1(*(const float *)call->inputs[1]);
    int64_t first = range.begin;
    VF_FOR(i, lanes, range.end - first, {
        vf x_ = vf_get(x + first + i, lanes);
        vf_put(y + first + i, vf_mul(value, x_), lanes);
    });
}

void LK_CPU(mul_scalar)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 8.0, part);
}
