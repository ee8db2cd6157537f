#include "backends/cpu/rows.h"
#include "backends/cpu/simd/array.h"

enum { X, WEIGHT, BIAS };

/* Two passes for mean and variance: the second is around the mean, so nothing cancels. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t columns = call->node->inputs[X]->shape[1];
    array x = array_input(call, X), y = array_output(call, 0);
    const float *weight = call->inputs[WEIGHT], *bias = call->inputs[BIAS];
    for (int64_t row = range.begin; row < range.end; row++) {
        int64_t at = row * columns;
        vf sum = vf_zero(), squares = vf_zero();
        VF_FOR(i, lanes, columns, sum = vf_add(sum, array_get(x, at + i, lanes)););
        float mean = vf_sum(sum) / (float)columns;
        vf center = vf_set1(mean);
        VF_FOR(i, lanes, columns, {
            vf apart = vf_sub(array_get(x, at + i, lanes), center);
            if (lanes < VF_WIDTH) { /* lanes beyond the row hold -mean */
                float kept[VF_WIDTH] = {0};
                vf_store_n(kept, apart, lanes);
                apart = vf_load(kept);
            }
            squares = vf_fma(apart, apart, squares);
        });
        float rstd = 1.0f / sqrtf(vf_sum(squares) / (float)columns + call->node->attributes.norm.epsilon);
        if (y.data != NULL) {
            vf scale = vf_set1(rstd);
            VF_FOR(i, lanes, columns, {
                vf normal = vf_mul(vf_sub(array_get(x, at + i, lanes), center), scale);
                array_put(y, at + i, vf_fma(normal, vf_get(weight + i, lanes), vf_get(bias + i, lanes)), lanes);
            });
        }
        if (call->outputs[1] != NULL) {
            ((float *)call->outputs[1])[row] = mean;
        }
        if (call->outputs[2] != NULL) {
            ((float *)call->outputs[2])[row] = rstd;
        }
    }
}

void LK_CPU(layer_norm)(const lk_cpu_call *call) {
    const lk_tensor *x = call->node->inputs[X];
    lk_cpu_run_rows(call, x->shape[0], 1, 8.0 * (double)x->shape[1], part);
}
