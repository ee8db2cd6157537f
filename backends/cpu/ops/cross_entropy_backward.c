#include "core/ops/cross_entropy.h"

#include "backends/cpu/rows.h"
#include "backends/cpu/simd/softmax.h"

enum { DLOSS, LOGITS, TARGETS, LOSS_SCALE, LSE };

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t vocab_size = call->node->inputs[LOGITS]->shape[1];
    float factor = *(const float *)call->inputs[DLOSS] * *(const float *)call->inputs[LOSS_SCALE];
    for (int64_t t = range.begin; t < range.end; t++) {
        const float *logits = (const float *)call->inputs[LOGITS] + t * vocab_size;
        float *dlogits = (float *)call->outputs[0] + t * vocab_size;
        int32_t target = ((const int32_t *)call->inputs[TARGETS])[t];
        if (!lk_target_counts(target, vocab_size)) {
            memset(dlogits, 0, (size_t)vocab_size * sizeof *dlogits);
            continue;
        }
        vf lse = vf_set1(((const float *)call->inputs[LSE])[t]), scale = vf_set1(factor);
        VF_FOR(i, lanes, vocab_size,
               vf_put(dlogits + i, vf_mul(scale, vf_exp(vf_sub(vf_get(logits + i, lanes), lse))), lanes););
        dlogits[target] -= factor;
    }
}

void LK_CPU(cross_entropy_backward)(const lk_cpu_call *call) {
    const lk_tensor *logits = call->node->inputs[LOGITS];
    lk_cpu_run_rows(call, logits->shape[0], 1, 16.0 * (double)logits->shape[1], part);
}
