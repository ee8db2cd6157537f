#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const float *gate = call->inputs[0];
    const float *up = call->inputs[1];
    float *y = call->outputs[0];
    int64_t first = range.begin;
    VF_FOR(i, lanes, range.end - first, {
        vf gate_ = vf_get(gate + first + i, lanes);
        vf up_ = vf_get(up + first + i, lanes);
        vf_put(y + first + i, vf_mul(vf_mul(gate_, vf_sigmoid(gate_)), up_), lanes);
    });
}

void LK_CPU(swiglu)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 32.0, part);
}
