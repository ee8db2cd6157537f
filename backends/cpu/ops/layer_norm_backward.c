#include "backends/cpu/rows.h"
#include "backends/cpu/simd/array.h"

enum { DY, X, WEIGHT, MEAN, RSTD, DX_SUM };

/* With g = dy weight and h = (x - mean) rstd: dx = dx_sum + rstd (g - mean(g) - h mean(g h)) */
static void part_dx(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t columns = call->node->inputs[X]->shape[1];
    array dy = array_input(call, DY), x = array_input(call, X), base = array_optional(call, DX_SUM);
    array dx = array_output(call, 0);
    const float *weight = call->inputs[WEIGHT];
    for (int64_t row = range.begin; row < range.end; row++) {
        int64_t at = row * columns;
        vf mean = vf_set1(((const float *)call->inputs[MEAN])[row]),
           rstd = vf_set1(((const float *)call->inputs[RSTD])[row]);
        vf sum_g = vf_zero(), sum_gh = vf_zero();
        VF_FOR(i, lanes, columns, {
            vf g = vf_mul(array_get(dy, at + i, lanes), vf_get(weight + i, lanes));
            sum_g = vf_add(sum_g, g);
            sum_gh = vf_fma(g, vf_mul(vf_sub(array_get(x, at + i, lanes), mean), rstd), sum_gh);
        });
        vf mean_g = vf_set1(vf_sum(sum_g) / (float)columns), mean_gh = vf_set1(vf_sum(sum_gh) / (float)columns);
        VF_FOR(i, lanes, columns, {
            vf g = vf_mul(array_get(dy, at + i, lanes), vf_get(weight + i, lanes));
            vf h = vf_mul(vf_sub(array_get(x, at + i, lanes), mean), rstd);
            vf slope = vf_mul(rstd, vf_fnma(h, mean_gh, vf_sub(g, mean_g)));
            array_put(dx, at + i, base.data != NULL ? vf_add(array_get(base, at + i, lanes), slope) : slope, lanes);
        });
    }
}

/* Each task sums all rows of its columns. */
static void part_parameters(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t rows = call->node->inputs[X]->shape[0], columns = call->node->inputs[X]->shape[1];
    array dy = array_input(call, DY), x = array_input(call, X);
    const float *mean = call->inputs[MEAN], *rstd = call->inputs[RSTD];
    float *d_weight = call->outputs[1], *d_bias = call->outputs[2];
    VF_FOR(i, lanes, range.end - range.begin, {
        int64_t column = range.begin + i;
        vf weight = vf_zero();
        vf bias = vf_zero();
        for (int64_t row = 0; row < rows; row++) {
            vf d = array_get(dy, row * columns + column, lanes);
            vf apart = vf_sub(array_get(x, row * columns + column, lanes), vf_set1(mean[row]));
            weight = vf_fma(d, vf_mul(apart, vf_set1(rstd[row])), weight);
            bias = vf_add(bias, d);
        }
        if (d_weight != NULL) {
            vf_put(d_weight + column, weight, lanes);
        }
        if (d_bias != NULL) {
            vf_put(d_bias + column, bias, lanes);
        }
    });
}

/* The parameters first: dx may take the place of an input. */
void LK_CPU(layer_norm_backward)(const lk_cpu_call *call) {
    int64_t rows = call->node->inputs[X]->shape[0], columns = call->node->inputs[X]->shape[1];
    if (call->outputs[1] != NULL || call->outputs[2] != NULL) {
        lk_cpu_run_rows(call, columns, VF_WIDTH, 8.0 * (double)rows, part_parameters);
    }
    if (call->outputs[0] != NULL) {
        lk_cpu_run_rows(call, rows, 1, 16.0 * (double)columns, part_dx);
    }
}
