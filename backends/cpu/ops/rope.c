#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const lk_rope_attributes *rope = &call->node->attributes.rope;
    int64_t columns = call->node->inputs[0]->shape[1], half = call->node->inputs[1]->shape[1];
    vf sign = vf_set1(rope->inverse ? -1.0f : 1.0f);
    for (int64_t t = range.begin; t < range.end; t++) {
        const float *cosine = (const float *)call->inputs[1] + t * half,
                    *sine = (const float *)call->inputs[2] + t * half;
        for (int64_t head = 0; head < columns; head += rope->head_dim) {
            const float *x = (const float *)call->inputs[0] + t * columns + head;
            float *y = (float *)call->outputs[0] + t * columns + head;
            VF_FOR(i, lanes, half, {
                vf c = vf_get(cosine + i, lanes), s = vf_mul(sign, vf_get(sine + i, lanes));
                vf first = vf_get(x + i, lanes), second = vf_get(x + half + i, lanes);
                vf_put(y + i, vf_fnma(second, s, vf_mul(first, c)), lanes);
                vf_put(y + half + i, vf_fma(first, s, vf_mul(second, c)), lanes);
            });
            for (int64_t i = 2 * half; i < rope->head_dim; i++) {
                y[i] = x[i];
            }
        }
    }
}

void LK_CPU(rope)(const lk_cpu_call *call) {
    const lk_tensor *x = call->node->inputs[0];
    lk_cpu_run_rows(call, x->shape[0], 1, 8.0 * (double)x->shape[1], part);
}
