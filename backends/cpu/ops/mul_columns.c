#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t columns = call->node->inputs[0]->shape[1];
    const float *scale = call->inputs[1];
    for (int64_t row = range.begin; row < range.end; row++) {
        const float *x = (const float *)call->inputs[0] + row * columns;
        float *y = (float *)call->outputs[0] + row * columns;
        VF_FOR(i, lanes, columns, vf_put(y + i, vf_mul(vf_get(x + i, lanes), vf_get(scale + i, lanes)), lanes););
    }
}

void LK_CPU(mul_columns)(const lk_cpu_call *call) {
    const lk_tensor *x = call->node->inputs[0];
    lk_cpu_run_rows(call, x->shape[0], 1, 8.0 * (double)x->shape[1], part);
}
