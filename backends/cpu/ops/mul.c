#include "backends/cpu/rows.h"
#include "backends/cpu/simd/array.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    array a = array_input(call, 0), b = array_input(call, 1), y = array_output(call, 0);
    int64_t first = range.begin;
    VF_FOR(i, lanes, range.end - first, {
        vf a_ = array_get(a, first + i, lanes);
        vf b_ = array_get(b, first + i, lanes);
        array_put(y, first + i, vf_mul(a_, b_), lanes);
    });
}

void LK_CPU(mul)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 12.0, part);
}
