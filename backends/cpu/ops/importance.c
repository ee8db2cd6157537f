#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

enum { HYPER, NORM, PARAMETER, GRADIENT, SENSITIVITY, UNCERTAINTY };

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const float *hyper = call->inputs[HYPER];
    const float *p = (const float *)call->inputs[PARAMETER] + range.begin;
    const float *g = (const float *)call->inputs[GRADIENT] + range.begin;
    float *s = (float *)call->inputs[SENSITIVITY] + range.begin, *u = (float *)call->inputs[UNCERTAINTY] + range.begin;
    float norm = *(const float *)call->inputs[NORM], most = hyper[LK_IMPORTANCE_MAX_NORM];
    vf clip = vf_set1(most > 0.0f ? fminf(1.0f, most / (norm + 1e-6f)) : 1.0f);
    vf beta1 = vf_set1(hyper[LK_IMPORTANCE_BETA1]), rest1 = vf_set1(1.0f - hyper[LK_IMPORTANCE_BETA1]);
    vf beta2 = vf_set1(hyper[LK_IMPORTANCE_BETA2]), rest2 = vf_set1(1.0f - hyper[LK_IMPORTANCE_BETA2]);
    VF_FOR(i, lanes, range.end - range.begin, {
        vf now = vf_abs(vf_mul(vf_get(p + i, lanes), vf_mul(clip, vf_get(g + i, lanes))));
        vf mean = vf_fma(beta1, vf_get(s + i, lanes), vf_mul(rest1, now));
        vf spread = vf_mul(rest2, vf_abs(vf_sub(now, mean)));
        vf_put(s + i, mean, lanes);
        vf_put(u + i, vf_fma(beta2, vf_get(u + i, lanes), spread), lanes);
    });
}

void LK_CPU(importance)(const lk_cpu_call *call) {
    if (isfinite(*(const float *)call->inputs[NORM])) {
        lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[PARAMETER]), 64, 24.0, part);
    }
}
