#include <math.h>

#include "backends/cpu/rows.h"

/* r^2 operations for each row of a weight whose product with A cost r times its width: in double precision, so that
 * |W|^2 and what is added to it cancel without a trace. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t out = call->node->inputs[3]->shape[0], rank = call->node->inputs[3]->shape[1];
    const float *squares = call->inputs[0], *a_weight = call->inputs[1], *gram = call->inputs[2];
    double scale = (double)call->node->attributes.lora.scale;
    float *rnorm = call->outputs[0];
    for (int64_t n = range.begin; n < range.end; n++) {
        const float *b = (const float *)call->inputs[3] + n * rank;
        double square = (double)squares[n];
        for (int64_t r = 0; r < rank; r++) {
            double product = 2.0 * (double)a_weight[r * out + n];
            for (int64_t q = 0; q < rank; q++) {
                product += scale * (double)gram[r * rank + q] * (double)b[q];
            }
            square += scale * (double)b[r] * product;
        }
        rnorm[n] = square > 0.0 ? (float)(1.0 / sqrt(square)) : 0.0f;
    }
}

void LK_CPU(dora_norm)(const lk_cpu_call *call) {
    const lk_tensor *b = call->node->inputs[3];
    double rank = (double)b->shape[1];
    lk_cpu_run_rows(call, b->shape[0], 16, 4.0 * rank * rank, part);
}
