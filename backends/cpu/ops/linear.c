#include "backends/cpu/gemm.h"

enum { X, WEIGHT, BIAS };

void LK_CPU(linear)(const lk_cpu_call *call) {
    const lk_tensor *x = call->node->inputs[X], *weight = call->node->inputs[WEIGHT];
    int64_t in = x->shape[1], out = weight->shape[0];
    lk_cpu_gemm gemm = {.m = x->shape[0], .n = out, .num_terms = 1, .c = call->outputs[0], .c_row = out};
    gemm.c_dtype = call->node->outputs[0]->dtype;
    gemm.terms[0] = lk_cpu_term_of(NULL, false, in, call->inputs[WEIGHT], weight->dtype, true, in, 1.0f, in);
    gemm.bias = lk_has_input(call->node, BIAS) ? call->inputs[BIAS] : NULL;
    LK_CPU(gemm_operand)(call, &gemm, call->inputs[X], x->dtype, call->scratch);
    LK_CPU(gemm)(call, &gemm);
}
