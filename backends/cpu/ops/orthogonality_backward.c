#include <math.h>

#include "backends/cpu/cpu.h"

void LK_CPU(orthogonality_backward)(const lk_cpu_call *call) {
    int64_t rank = call->node->inputs[1]->shape[0];
    const float *gram = call->inputs[1];
    float *out = call->outputs[0];
    double sum = 0.0;
    for (int64_t i = 0; i < rank * rank; i++) {
        double distance = (double)gram[i] - (i % (rank + 1) == 0 ? 1.0 : 0.0);
        sum += distance * distance;
    }
    double factor = sum > 0.0 ? (double)*(const float *)call->inputs[0] / sqrt(sum) : 0.0;
    for (int64_t i = 0; i < rank * rank; i++) {
        out[i] = (float)(factor * ((double)gram[i] - (i % (rank + 1) == 0 ? 1.0 : 0.0)));
    }
}
