#include <math.h>

#include "core/graph/ops.h"

enum { SQUARES, A_WEIGHT, GRAM, LORA_B };

lk_status lk_op_dora_norm_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, LORA_B, "lora_B", LK_KIND_FLOAT, 2, -1, -1));
    int64_t out = node->inputs[LORA_B]->shape[0], rank = node->inputs[LORA_B]->shape[1];
    LK_TRY(lk_expect(context, node, SQUARES, "squares", LK_KIND_FLOAT, 1, out, 0));
    LK_TRY(lk_expect(context, node, A_WEIGHT, "a_weight", LK_KIND_FLOAT, 2, rank, out));
    LK_TRY(lk_expect(context, node, GRAM, "gram", LK_KIND_FLOAT, 2, rank, rank));
    shapes[0] = lk_shape_make(node->inputs[LORA_B]->dtype, 1, out, 1);
    *num_outputs = 1;
    return LK_OK;
}

double lk_op_dora_norm_flops(const lk_node *node) {
    double out = (double)node->inputs[LORA_B]->shape[0], rank = (double)node->inputs[LORA_B]->shape[1];
    return 2.0 * out * rank * (rank + 2.0);
}

/* |W + sBA|^2 = |W|^2 + 2s B.(AW')' + s^2 B.(B AA'), row by row */
lk_status lk_op_dora_norm_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    int64_t out = node->inputs[LORA_B]->shape[0], rank = node->inputs[LORA_B]->shape[1];
    double scale = (double)node->attributes.lora.scale;
    for (int64_t n = 0; n < out; n++) {
        const double *b = call->inputs[LORA_B] + n * rank;
        double square = call->inputs[SQUARES][n];
        for (int64_t r = 0; r < rank; r++) {
            double product = 2.0 * call->inputs[A_WEIGHT][r * out + n];
            for (int64_t q = 0; q < rank; q++) {
                product += scale * call->inputs[GRAM][r * rank + q] * b[q];
            }
            square += scale * b[r] * product;
        }
        call->outputs[0][n] = square > 0.0 ? 1.0 / sqrt(square) : 0.0;
    }
    return LK_OK;
}

lk_tensor *lk_build_dora_norm(lk_graph *graph, lk_tensor *squares, lk_tensor *a_weight, lk_tensor *gram,
                              lk_tensor *lora_b, float scale) {
    lk_tensor *inputs[] = {squares, a_weight, gram, lora_b};
    lk_attributes attributes = {.lora = {.scale = scale}};
    return lk_graph_add(graph, LK_OP_DORA_NORM, 4, inputs, &attributes, 1, 0, NULL);
}
