#include "backends/cpu/gemm.h"
#include "backends/cpu/rows.h"

/* Each block sums over all tokens in one task, so the order does not depend on the number of threads. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    const lk_tensor *a = call->node->inputs[0];
    int64_t tokens = a->shape[0], width = a->shape[1], size = call->node->attributes.block.size;
    for (int64_t block = range.begin; block < range.end; block++) {
        lk_cpu_gemm gemm = {
            .m = size, .n = size, .num_terms = 1, .c = (float *)call->outputs[0] + block * size * size, .c_row = size};
        gemm.terms[0] =
            lk_cpu_term_of((const float *)call->inputs[0] + block * size, true, width,
                           (const float *)call->inputs[1] + block * size, LK_DTYPE_F32, false, width, 1.0f, tokens);
        LK_CPU(gemm_part)(&gemm, (lk_range){0, size}, (lk_range){0, size}, memory);
    }
}

void LK_CPU(block_outer)(const lk_cpu_call *call) {
    const lk_tensor *a = call->node->inputs[0];
    int64_t size = call->node->attributes.block.size;
    lk_cpu_run_rows(call, a->shape[1] / size, 1, 8.0 * (double)(a->shape[0] * size), part);
}
