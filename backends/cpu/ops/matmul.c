#include "backends/cpu/gemm.h"

enum { A, B, C };

void LK_CPU(matmul)(const lk_cpu_call *call) {
    const lk_node *node = call->node;
    const lk_matmul_attributes *matmul = &node->attributes.matmul;
    const lk_tensor *a = node->inputs[A], *b = node->inputs[B], *y = node->outputs[0];
    lk_cpu_gemm gemm = {
        .m = y->shape[0], .n = y->shape[1], .num_terms = 1, .c = call->outputs[0], .c_row = y->shape[1]};
    gemm.terms[0] =
        lk_cpu_term_of(call->inputs[A], matmul->transpose_a, a->shape[1], call->inputs[B], b->dtype,
                       matmul->transpose_b, b->shape[1], matmul->alpha, a->shape[matmul->transpose_a ? 0 : 1]);
    gemm.addend = lk_has_input(node, C) ? call->inputs[C] : NULL;
    if (!matmul->transpose_a && matmul->alpha == 1.0f) {
        LK_CPU(gemm_operand)(call, &gemm, call->inputs[A], LK_DTYPE_F32, call->scratch);
    }
    LK_CPU(gemm)(call, &gemm);
}
