#include "core/ops/gelu.h"

#include "backends/cpu/rows.h"
#include "backends/cpu/simd/array.h"

static inline vf gelu_argument(vf x) {
    vf cubic = vf_mul(vf_mul(x, x), vf_mul(x, vf_set1((float)LK_GELU_CUBIC)));
    return vf_mul(vf_set1((float)LK_GELU_SLOPE), vf_add(x, cubic));
}

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t first = range.begin;
    array x = array_input(call, 0), out = array_output(call, 0);
    bool approximate = call->node->attributes.gelu.tanh_approximation;
    VF_FOR(i, lanes, range.end - first, {
        vf a = array_get(x, first + i, lanes);
        vf bend = approximate ? vf_tanh(gelu_argument(a)) : vf_erf(vf_mul(a, vf_set1((float)LK_SQRT_HALF)));
        array_put(out, first + i, vf_mul(vf_mul(vf_set1(0.5f), a), vf_add(vf_set1(1.0f), bend)), lanes);
    });
}

void LK_CPU(gelu)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 40.0, part);
}
