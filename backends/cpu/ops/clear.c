#include <string.h>

#include "backends/cpu/rows.h"

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    for (int64_t i = range.begin; i < range.end; i++) {
        memset(call->inputs[i], 0, lk_tensor_bytes(call->node->inputs[i]));
    }
}

/* One item per tensor; gradients come in many. */
void LK_CPU(clear)(const lk_cpu_call *call) {
    double bytes = 0.0;
    for (int i = 0; i < call->node->num_inputs; i++) {
        bytes += (double)lk_tensor_bytes(call->node->inputs[i]);
    }
    lk_cpu_run_rows(call, call->node->num_inputs, 1, bytes / LK_MAX(call->node->num_inputs, 1), part);
}
