#include "backends/cpu/rows.h"
#include "backends/cpu/simd/array.h"

/* dgate = dy up sigmoid (1 + gate (1 - sigmoid)), dup = dy gate sigmoid */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    array dy = array_input(call, 0), gate = array_input(call, 1), up = array_input(call, 2);
    array dgate = array_output(call, 0), dup = array_output(call, 1);
    int64_t first = range.begin;
    vf one = vf_set1(1.0f);
    VF_FOR(i, lanes, range.end - first, {
        vf d = array_get(dy, first + i, lanes), g = array_get(gate, first + i, lanes);
        vf u = array_get(up, first + i, lanes), sigmoid = vf_sigmoid(g), ds = vf_mul(d, sigmoid);
        if (dup.data != NULL) {
            array_put(dup, first + i, vf_mul(ds, g), lanes);
        }
        if (dgate.data != NULL) {
            vf slope = vf_fma(g, vf_sub(one, sigmoid), one);
            array_put(dgate, first + i, vf_mul(vf_mul(ds, u), slope), lanes);
        }
    });
}

void LK_CPU(swiglu_backward)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 40.0, part);
}
