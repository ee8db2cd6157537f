#include "core/ops/cross_entropy.h"

#include "backends/cpu/rows.h"
#include "backends/cpu/simd/softmax.h"

enum { LOGITS, TARGETS, LOSS_SCALE };

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t vocab_size = call->node->inputs[LOGITS]->shape[1];
    float *losses = call->scratch, *lse = call->outputs[1];
    for (int64_t t = range.begin; t < range.end; t++) {
        const float *logits = (const float *)call->inputs[LOGITS] + t * vocab_size;
        int32_t target = ((const int32_t *)call->inputs[TARGETS])[t];
        float row = softmax_log_sum_exp(logits, vocab_size);
        losses[t] = lk_target_counts(target, vocab_size) ? row - logits[target] : 0.0f;
        if (lse != NULL) {
            lse[t] = row;
        }
    }
}

void LK_CPU(cross_entropy)(const lk_cpu_call *call) {
    const lk_tensor *logits = call->node->inputs[LOGITS];
    lk_cpu_run_rows(call, logits->shape[0], 1, 16.0 * (double)logits->shape[1], part);
    if (call->outputs[0] != NULL) {
        double loss = 0.0;
        for (int64_t t = 0; t < logits->shape[0]; t++) {
            loss += (double)((const float *)call->scratch)[t];
        }
        *(float *)call->outputs[0] = (float)(loss * (double)*(const float *)call->inputs[LOSS_SCALE]);
    }
}
