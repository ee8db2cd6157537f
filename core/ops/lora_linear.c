#include "core/graph/ops.h"
#include "core/ops/dropout.h"

enum { X, WEIGHT, BIAS, LORA_A, LORA_B, RNG, NUM_INPUTS };

lk_status lk_op_lora_linear_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, X, "x", LK_KIND_FLOAT, 2, -1, -1));
    int64_t tokens = node->inputs[X]->shape[0], in = node->inputs[X]->shape[1];
    LK_TRY(lk_expect(context, node, WEIGHT, "weight", LK_KIND_FLOAT, 2, -1, in));
    int64_t out = node->inputs[WEIGHT]->shape[0];
    if (lk_has_input(node, BIAS)) {
        LK_TRY(lk_expect(context, node, BIAS, "bias", LK_KIND_FLOAT, 1, out, 0));
    }
    LK_TRY(lk_expect(context, node, LORA_A, "lora_A", LK_KIND_FLOAT, 2, -1, in));
    int64_t rank = node->inputs[LORA_A]->shape[0];
    LK_TRY(lk_expect(context, node, LORA_B, "lora_B", LK_KIND_FLOAT, 2, out, rank));
    LK_TRY(lk_expect_dropout(context, node, node->attributes.lora.dropout, RNG));
    LK_TRY(lk_expect_attribute(context, node,
                               node->attributes.lora.order == LK_LORA_FACTORED || node->attributes.lora.dropout == 0.0f,
                               "the merged order cannot have dropout"));
    shapes[0] = lk_shape_make(node->inputs[X]->dtype, 2, tokens, out);
    shapes[1] = lk_shape_make(node->inputs[X]->dtype, 2, tokens, rank);
    *num_outputs = 2;
    return LK_OK;
}

double lk_op_lora_linear_flops(const lk_node *node) {
    double tokens = (double)node->inputs[X]->shape[0], rank = (double)node->inputs[LORA_A]->shape[0];
    double in = (double)node->inputs[WEIGHT]->shape[1], out = (double)node->inputs[WEIGHT]->shape[0];
    if (node->attributes.lora.order == LK_LORA_MERGED) {
        return 2.0 * in * out * (tokens + rank) + (node->outputs[1] ? 2.0 * tokens * rank * in : 0.0);
    }
    return 2.0 * tokens * (in * out + rank * (in + out));
}

lk_status lk_op_lora_linear_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    int64_t tokens = node->inputs[X]->shape[0], in = node->inputs[X]->shape[1];
    int64_t out = node->inputs[WEIGHT]->shape[0], rank = node->inputs[LORA_A]->shape[0];
    double scale = (double)node->attributes.lora.scale;
    double *s = lk_calloc(call->context, (size_t)rank + 1, sizeof *s);
    double *dropped = lk_calloc(call->context, (size_t)in + 1, sizeof *dropped);
    lk_status status = s && dropped ? LK_OK : lk_out_of_memory(call->context, (size_t)in * sizeof *s, "a row");
    for (int64_t t = 0; t < tokens && status == LK_OK; t++) {
        const double *x = call->inputs[X] + t * in;
        lk_dropout_row(dropped, x, t * in, in, node->attributes.lora.dropout, node->attributes.lora.stream,
                       lk_has_input(node, RNG) ? call->inputs[RNG] : NULL);
        for (int64_t r = 0; r < rank; r++) {
            s[r] = 0.0;
            for (int64_t k = 0; k < in; k++) {
                s[r] += dropped[k] * call->inputs[LORA_A][r * in + k];
            }
            if (call->outputs[1] != NULL) {
                call->outputs[1][t * rank + r] = s[r];
            }
        }
        for (int64_t n = 0; n < out && call->outputs[0] != NULL; n++) {
            double sum = lk_has_input(node, BIAS) ? call->inputs[BIAS][n] : 0.0, low = 0.0;
            for (int64_t k = 0; k < in; k++) {
                sum += x[k] * call->inputs[WEIGHT][n * in + k];
            }
            for (int64_t r = 0; r < rank; r++) {
                low += s[r] * call->inputs[LORA_B][n * rank + r];
            }
            call->outputs[0][t * out + n] = sum + scale * low;
        }
    }
    lk_free(call->context, s);
    lk_free(call->context, dropped);
    return status;
}

lk_status lk_op_lora_linear_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                     const bool *needed, lk_tensor **d_inputs) {
    lk_tensor *dy = d_outputs[0];
    lk_tensor *x = node->inputs[X], *weight = node->inputs[WEIGHT];
    uint32_t wanted = (needed[X] ? 1u : 0u) | (needed[LORA_A] ? 2u : 0u) | (needed[LORA_B] ? 4u : 0u);
    if (wanted != 0) {
        /* what an output does not need is not an input, so that it is not kept alive for it: x is read for dA alone,
         * s for dB alone (LoRA-FA trains only B and saves s instead of x) */
        lk_tensor *inputs[] = {dy,
                               needed[LORA_A] ? x : NULL,
                               weight,
                               node->inputs[LORA_A],
                               node->inputs[LORA_B],
                               needed[LORA_B] ? node->outputs[1] : NULL,
                               lk_has_input(node, RNG) ? node->inputs[RNG] : NULL,
                               NULL};
        lk_tensor *outputs[3];
        lk_graph_add(graph, LK_OP_LORA_LINEAR_BACKWARD, 8, inputs, &node->attributes, wanted, 3, outputs);
        d_inputs[X] = outputs[0];
        d_inputs[LORA_A] = outputs[1];
        d_inputs[LORA_B] = outputs[2];
    }
    if (needed[WEIGHT]) {
        d_inputs[WEIGHT] = lk_build_matmul(graph, dy, true, x, false, 1.0f, NULL);
    }
    if (needed[BIAS]) {
        d_inputs[BIAS] = lk_build_sum_rows(graph, dy);
    }
    return lk_graph_status(graph);
}

lk_status lk_op_lora_linear_decompose(lk_graph *graph, const lk_node *node, lk_tensor **outputs) {
    lk_tensor *x = node->inputs[X], *weight = node->inputs[WEIGHT];
    lk_tensor *lora_a = node->inputs[LORA_A], *lora_b = node->inputs[LORA_B];
    const lk_lora_attributes *lora = &node->attributes.lora;
    lk_tensor *y;
    lk_tensor *s = NULL;
    if (lora->order == LK_LORA_FACTORED || node->outputs[1] != NULL) {
        lk_tensor *dropped =
            lora->dropout > 0.0f ? lk_build_dropout(graph, x, node->inputs[RNG], lora->dropout, lora->stream) : x;
        s = lk_build_matmul(graph, dropped, false, lora_a, true, 1.0f, NULL);
    }
    if (lora->order == LK_LORA_MERGED) {
        lk_tensor *merged = lk_build_matmul(graph, lora_b, false, lora_a, false, lora->scale, weight);
        y = lk_build_matmul(graph, x, false, merged, true, 1.0f, NULL);
    } else {
        lk_tensor *base = lk_build_matmul(graph, x, false, weight, true, 1.0f, NULL);
        y = lk_build_matmul(graph, s, false, lora_b, true, lora->scale, base);
    }
    outputs[0] = lk_has_input(node, BIAS) ? lk_build_add_bias(graph, y, node->inputs[BIAS]) : y;
    outputs[1] = s;
    return lk_graph_status(graph);
}

lk_tensor *lk_build_lora_linear(lk_graph *graph, lk_tensor *x, lk_tensor *weight, lk_tensor *bias, lk_tensor *lora_a,
                                lk_tensor *lora_b, lk_tensor *rng, const lk_lora_attributes *lora) {
    lk_tensor *inputs[NUM_INPUTS] = {x, weight, bias, lora_a, lora_b, rng};
    lk_attributes attributes = {.lora = *lora};
    return lk_graph_add(graph, LK_OP_LORA_LINEAR, NUM_INPUTS, inputs, &attributes, 3, 0, NULL);
}
