#include "backends/cpu/rows.h"
#include "backends/cpu/simd/array.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    array gate = array_input(call, 0), up = array_input(call, 1), y = array_output(call, 0);
    int64_t first = range.begin;
    VF_FOR(i, lanes, range.end - first, {
        vf gate_ = array_get(gate, first + i, lanes);
        vf up_ = array_get(up, first + i, lanes);
        array_put(y, first + i, vf_mul(vf_mul(gate_, vf_sigmoid(gate_)), up_), lanes);
    });
}

void LK_CPU(swiglu)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 32.0, part);
}
