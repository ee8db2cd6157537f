#include <string.h>

#include "backends/cpu/rows.h"
#include "backends/cpu/simd/simd.h"

/* Each task adds all tokens in order to its columns of the table, since several tokens may share a row. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t tokens = call->node->inputs[0]->shape[0], width = call->node->inputs[0]->shape[1];
    int64_t rows = call->node->attributes.embedding.rows, count = range.end - range.begin;
    const float *dy = (const float *)call->inputs[0] + range.begin;
    const int32_t *ids = call->inputs[1];
    float *table = (float *)call->outputs[0] + range.begin;
    for (int64_t row = 0; row < rows; row++) {
        memset(table + row * width, 0, (size_t)count * sizeof *table);
    }
    for (int64_t t = 0; t < tokens; t++) {
        if (ids[t] >= 0 && ids[t] < rows) {
            vf_axpy(table + ids[t] * width, 1.0f, dy + t * width, count);
        }
    }
}

void LK_CPU(embedding_backward)(const lk_cpu_call *call) {
    double rows = (double)(call->node->attributes.embedding.rows + call->node->inputs[0]->shape[0]);
    lk_cpu_run_rows(call, call->node->inputs[0]->shape[1], 64, 4.0 * rows, part);
}
