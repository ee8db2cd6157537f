#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

/* Each task sums all rows of its columns, so the order does not depend on the number of threads. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t rows = call->node->inputs[0]->shape[0], columns = call->node->inputs[0]->shape[1];
    const float *x = call->inputs[0];
    float *y = call->outputs[0];
    VF_FOR(i, lanes, range.end - range.begin, {
        int64_t column = range.begin + i;
        vf sum = vf_zero();
        for (int64_t row = 0; row < rows; row++) {
            sum = vf_add(sum, vf_get(x + row * columns + column, lanes));
        }
        vf_put(y + column, sum, lanes);
    });
}

void LK_CPU(sum_rows)(const lk_cpu_call *call) {
    const lk_tensor *x = call->node->inputs[0];
    lk_cpu_run_rows(call, x->shape[1], VF_WIDTH, 4.0 * (double)x->shape[0], part);
}
