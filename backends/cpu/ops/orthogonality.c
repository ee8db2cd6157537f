#include <math.h>

#include "backends/cpu/cpu.h"

/* A matrix of r^2 elements: too small to divide, and in double precision for nothing. */
void LK_CPU(orthogonality)(const lk_cpu_call *call) {
    int64_t rank = call->node->inputs[0]->shape[0];
    const float *gram = call->inputs[0];
    double sum = 0.0;
    for (int64_t i = 0; i < rank * rank; i++) {
        double distance = (double)gram[i] - (i % (rank + 1) == 0 ? 1.0 : 0.0);
        sum += distance * distance;
    }
    *(float *)call->outputs[0] = (float)sqrt(sum);
}
