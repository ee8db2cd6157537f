#include "backends/cpu/rows.h"
#include "backends/cpu/simd/array.h"

/* dx = dx_sum + rstd (dy weight - x rstd^2 mean(dy weight x)) */
static void part_dx(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t width = call->node->inputs[2]->shape[0];
    array dy = array_input(call, 0), x = array_input(call, 1), sum = array_optional(call, 4),
          dx = array_output(call, 0);
    const float *weight = call->inputs[2], *rstd = call->inputs[3];
    for (int64_t row = range.begin; row < range.end; row++) {
        int64_t at = row * width;
        vf total = vf_zero();
        VF_FOR(i, lanes, width, {
            vf scaled = vf_mul(array_get(dy, at + i, lanes), vf_get(weight + i, lanes));
            total = vf_fma(scaled, array_get(x, at + i, lanes), total);
        });
        float mean = vf_sum(total) / (float)width;
        vf scale = vf_set1(rstd[row]), pull = vf_set1(rstd[row] * rstd[row] * mean);
        VF_FOR(i, lanes, width, {
            vf scaled = vf_mul(array_get(dy, at + i, lanes), vf_get(weight + i, lanes));
            vf slope = vf_mul(scale, vf_fnma(array_get(x, at + i, lanes), pull, scaled));
            array_put(dx, at + i, sum.data != NULL ? vf_add(array_get(sum, at + i, lanes), slope) : slope, lanes);
        });
    }
}

/* Each task sums all rows of its columns. */
static void part_dweight(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t width = call->node->inputs[2]->shape[0], rows = lk_tensor_elements(call->node->inputs[0]) / width;
    array dy = array_input(call, 0), x = array_input(call, 1);
    const float *rstd = call->inputs[3];
    float *d_weight = call->outputs[1];
    VF_FOR(i, lanes, range.end - range.begin, {
        int64_t column = range.begin + i;
        vf sum = vf_zero();
        for (int64_t row = 0; row < rows; row++) {
            int64_t at = row * width + column;
            vf product = vf_mul(array_get(dy, at, lanes), array_get(x, at, lanes));
            sum = vf_fma(product, vf_set1(rstd[row]), sum);
        }
        vf_put(d_weight + column, sum, lanes);
    });
}

/* d weight first: dx may take the place of an input. */
void LK_CPU(rms_norm_backward)(const lk_cpu_call *call) {
    int64_t width = call->node->inputs[2]->shape[0], rows = lk_tensor_elements(call->node->inputs[0]) / width;
    if (call->outputs[1] != NULL) {
        lk_cpu_run_rows(call, width, VF_WIDTH, 8.0 * (double)rows, part_dweight);
    }
    if (call->outputs[0] != NULL) {
        lk_cpu_run_rows(call, rows, 1, 16.0 * (double)width, part_dx);
    }
}
