#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t width = call->node->inputs[1]->shape[0];
    const float *weight = call->inputs[1];
    float *rstd = call->outputs[1];
    for (int64_t row = range.begin; row < range.end; row++) {
        const float *x = (const float *)call->inputs[0] + row * width;
        float scale = 1.0f / sqrtf(vf_dot(x, x, width) / (float)width + call->node->attributes.norm.epsilon);
        if (call->outputs[0] != NULL) {
            float *y = (float *)call->outputs[0] + row * width;
            vf factor = vf_set1(scale);
            VF_FOR(i, lanes, width,
                   vf_put(y + i, vf_mul(vf_mul(vf_get(x + i, lanes), factor), vf_get(weight + i, lanes)), lanes););
        }
        if (rstd != NULL) {
            rstd[row] = scale;
        }
    }
}

void LK_CPU(rms_norm)(const lk_cpu_call *call) {
    int64_t width = call->node->inputs[1]->shape[0];
    lk_cpu_run_rows(call, lk_tensor_elements(call->node->inputs[0]) / width, 1, 8.0 * (double)width, part);
}
