#include "backends/cpu/gemm.h"
#include "backends/cpu/rows.h"

enum { ROWS = 64 };

/* One item: some rows of one block. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    const lk_tensor *x = call->node->inputs[0], *blocks = call->node->inputs[1];
    int64_t tokens = x->shape[0], width = x->shape[1], size = blocks->shape[1];
    int64_t pieces = (tokens + ROWS - 1) / ROWS;
    for (int64_t item = range.begin; item < range.end; item++) {
        int64_t first = item / pieces * size, row = item % pieces * ROWS;
        lk_cpu_gemm gemm = {
            .m = tokens, .n = size, .num_terms = 1, .c = (float *)call->outputs[0] + first, .c_row = width};
        gemm.terms[0] = lk_cpu_term_of((const float *)call->inputs[0] + first, false, width,
                                       (const float *)call->inputs[1] + first * size, LK_DTYPE_F32,
                                       call->node->attributes.matmul.transpose_b, size, 1.0f, size);
        LK_CPU(gemm_part)(&gemm, (lk_range){row, LK_MIN(row + ROWS, tokens)}, (lk_range){0, size}, memory);
    }
}

void LK_CPU(block_linear)(const lk_cpu_call *call) {
    int64_t tokens = call->node->inputs[0]->shape[0], size = call->node->inputs[1]->shape[1];
    int64_t items = call->node->inputs[1]->shape[0] / size * ((tokens + ROWS - 1) / ROWS);
    lk_cpu_run_rows(call, items, 1, 8.0 * ROWS * (double)size, part);
}
