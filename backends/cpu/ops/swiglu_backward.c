#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

/* dgate = dy up sigmoid (1 + gate (1 - sigmoid)), dup = dy gate sigmoid */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const float *dy = call->inputs[0], *gate = call->inputs[1], *up = call->inputs[2];
    float *dgate = call->outputs[0], *dup = call->outputs[1];
    int64_t first = range.begin;
    vf one = vf_set1(1.0f);
    VF_FOR(i, lanes, range.end - first, {
        vf d = vf_get(dy + first + i, lanes), g = vf_get(gate + first + i, lanes), u = vf_get(up + first + i, lanes);
        vf sigmoid = vf_sigmoid(g), ds = vf_mul(d, sigmoid);
        if (dup != NULL) {
            vf_put(dup + first + i, vf_mul(ds, g), lanes);
        }
        if (dgate != NULL) {
            vf slope = vf_fma(g, vf_sub(one, sigmoid), one);
            vf_put(dgate + first + i, vf_mul(vf_mul(ds, u), slope), lanes);
        }
    });
}

void LK_CPU(swiglu_backward)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 40.0, part);
}
