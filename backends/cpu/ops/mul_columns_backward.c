#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

static void part_dx(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t columns = call->node->inputs[0]->shape[1];
    const float *scale = call->inputs[2];
    for (int64_t row = range.begin; row < range.end; row++) {
        const float *dy = (const float *)call->inputs[0] + row * columns;
        float *dx = (float *)call->outputs[0] + row * columns;
        VF_FOR(i, lanes, columns, vf_put(dx + i, vf_mul(vf_get(dy + i, lanes), vf_get(scale + i, lanes)), lanes););
    }
}

/* Each task sums all rows of its columns, so the order does not depend on the number of threads. */
static void part_dscale(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t rows = call->node->inputs[0]->shape[0], columns = call->node->inputs[0]->shape[1];
    const float *dy = call->inputs[0], *x = call->inputs[1];
    float *d_scale = call->outputs[1];
    VF_FOR(i, lanes, range.end - range.begin, {
        int64_t column = range.begin + i;
        vf sum = vf_zero();
        for (int64_t row = 0; row < rows; row++) {
            int64_t at = row * columns + column;
            sum = vf_fma(vf_get(dy + at, lanes), vf_get(x + at, lanes), sum);
        }
        vf_put(d_scale + column, sum, lanes);
    });
}

/* d scale first: dx may take the place of dy. */
void LK_CPU(mul_columns_backward)(const lk_cpu_call *call) {
    const lk_tensor *dy = call->node->inputs[0];
    if (call->outputs[1] != NULL) {
        lk_cpu_run_rows(call, dy->shape[1], VF_WIDTH, 8.0 * (double)dy->shape[0], part_dscale);
    }
    if (call->outputs[0] != NULL) {
        lk_cpu_run_rows(call, dy->shape[0], 1, 8.0 * (double)dy->shape[1], part_dx);
    }
}
