/* Passes over rows of logits. */
#ifndef LK_CPU_SOFTMAX_H
#define LK_CPU_SOFTMAX_H

#include "backends/cpu/simd/simd.h"

static inline float softmax_maximum(const float *x, int64_t count) {
    vf highest = vf_set1(-INFINITY);
    int64_t i = 0;
    for (; i + VF_WIDTH <= count; i += VF_WIDTH) {
        highest = vf_max(highest, vf_load(x + i));
    }
    float found = vf_maximum(highest);
    for (; i < count; i++) {
        found = x[i] > found ? x[i] : found;
    }
    return found;
}

/* log(sum(exp(x))), in blocks, so that the sum of a long row keeps its precision. */
static inline float softmax_log_sum_exp(const float *x, int64_t count) {
    float maximum = softmax_maximum(x, count);
    double total = 0.0;
    for (int64_t block = 0; block < count; block += 1024) {
        int64_t size = count - block < 1024 ? count - block : 1024, i = 0;
        vf sum = vf_zero(), base = vf_set1(maximum);
        for (; i + VF_WIDTH <= size; i += VF_WIDTH) {
            sum = vf_add(sum, vf_exp(vf_sub(vf_load(x + block + i), base)));
        }
        total += (double)vf_sum(sum);
        for (; i < size; i++) {
            total += (double)expf(x[block + i] - maximum);
        }
    }
    return maximum + (float)log(total);
}

#endif
