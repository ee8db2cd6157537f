#include "core/ops/gelu.h"

#include "backends/cpu/rows.h"
#include "backends/cpu/simd/array.h"

/* (1 + t) / 2 + x / 2 (1 - t^2) d argument / dx */
static inline vf slope_tanh(vf x) {
    vf square = vf_mul(x, x), one = vf_set1(1.0f), half = vf_set1(0.5f);
    vf argument = vf_mul(vf_mul(vf_set1((float)LK_GELU_SLOPE), x), vf_fma(vf_set1((float)LK_GELU_CUBIC), square, one));
    vf t = vf_tanh(argument);
    vf inner = vf_mul(vf_set1((float)LK_GELU_SLOPE), vf_fma(vf_set1((float)(3.0 * LK_GELU_CUBIC)), square, one));
    vf bend = vf_mul(vf_mul(vf_mul(half, x), vf_fnma(t, t, one)), inner);
    return vf_fma(half, vf_add(one, t), bend);
}

/* Phi(x) + x phi(x) */
static inline vf slope_exact(vf x) {
    vf half = vf_set1(0.5f), below = vf_fma(half, vf_erf(vf_mul(x, vf_set1((float)LK_SQRT_HALF))), half);
    vf density = vf_exp(vf_mul(vf_mul(vf_set1(-0.5f), x), x));
    return vf_fma(vf_mul(x, vf_set1((float)LK_NORMAL_DENSITY_0)), density, below);
}

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t first = range.begin;
    array dy = array_input(call, 0), x = array_input(call, 1), out = array_output(call, 0);
    bool approximate = call->node->attributes.gelu.tanh_approximation;
    VF_FOR(i, lanes, range.end - first, {
        vf a = array_get(x, first + i, lanes);
        array_put(out, first + i, vf_mul(array_get(dy, first + i, lanes), approximate ? slope_tanh(a) : slope_exact(a)),
                  lanes);
    });
}

void LK_CPU(gelu_backward)(const lk_cpu_call *call) {
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]), 64, 48.0, part);
}
