#include "backends/cpu/rows.h"
#include "backends/cpu/simd/array.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t width = call->node->inputs[1]->shape[0];
    array x = array_input(call, 0), y = array_output(call, 0);
    const float *weight = call->inputs[1];
    float *rstd = call->outputs[1];
    for (int64_t row = range.begin; row < range.end; row++) {
        int64_t at = row * width;
        vf sums[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        VF_FOR(i, lanes, width, {
            vf a = array_get(x, at + i, lanes), *sum = &sums[i / VF_WIDTH % 4];
            *sum = vf_fma(a, a, *sum);
        });
        float total = vf_sum(vf_add(vf_add(sums[0], sums[1]), vf_add(sums[2], sums[3])));
        float scale = 1.0f / sqrtf(total / (float)width + call->node->attributes.norm.epsilon);
        if (y.data != NULL) {
            vf factor = vf_set1(scale);
            VF_FOR(i, lanes, width, {
                vf normal = vf_mul(array_get(x, at + i, lanes), factor);
                array_put(y, at + i, vf_mul(normal, vf_get(weight + i, lanes)), lanes);
            });
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
