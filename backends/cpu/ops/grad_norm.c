#include "backends/cpu/rows.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/simd/simd.h"

/* The sum of squares of each chunk, so that the total is made in one order however many threads there are. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    double *sums = call->scratch;
    int64_t chunk = 0;
    for (int i = 0; i < call->node->num_inputs && chunk < range.end; i++) {
        int64_t elements = lk_tensor_elements(call->node->inputs[i]);
        for (int64_t at = 0; at < elements && chunk < range.end; at += LK_CPU_SUM_CHUNK, chunk++) {
            if (chunk < range.begin) {
                continue;
            }
            int64_t end = LK_MIN(at + LK_CPU_SUM_CHUNK, elements);
            const float *x = call->inputs[i];
            sums[chunk] = 0.0;
            for (int64_t j = at; j < end; j += 1024) {
                sums[chunk] += (double)vf_dot(x + j, x + j, LK_MIN(end - j, (int64_t)1024));
            }
        }
    }
}

void LK_CPU(grad_norm)(const lk_cpu_call *call) {
    int64_t chunks = 0, elements = 0;
    for (int i = 0; i < call->node->num_inputs; i++) {
        chunks += lk_cpu_chunks(call->node->inputs[i]);
        elements += lk_tensor_elements(call->node->inputs[i]);
    }
    lk_cpu_run_rows(call, chunks, 1, 4.0 * (double)elements / (double)LK_MAX(chunks, (int64_t)1), part);
    double total = 0.0;
    for (int64_t i = 0; i < chunks; i++) {
        total += ((const double *)call->scratch)[i];
    }
    *(float *)call->outputs[0] = (float)sqrt(total);
}
