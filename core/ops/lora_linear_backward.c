#include "core/graph/ops.h"
#include "core/ops/dropout.h"

enum { DY, X, WEIGHT, LORA_A, LORA_B, S, RNG, DX_SUM };

lk_status lk_op_lora_linear_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes,
                                           int *num_outputs) {
    LK_TRY(lk_expect(context, node, DY, "dy", LK_KIND_FLOAT, 2, -1, -1));
    int64_t tokens = node->inputs[DY]->shape[0], out = node->inputs[DY]->shape[1];
    LK_TRY(lk_expect(context, node, WEIGHT, "weight", LK_KIND_FLOAT, 2, out, -1));
    int64_t in = node->inputs[WEIGHT]->shape[1];
    LK_TRY(lk_expect(context, node, LORA_A, "lora_A", LK_KIND_FLOAT, 2, -1, in));
    int64_t rank = node->inputs[LORA_A]->shape[0];
    LK_TRY(lk_expect(context, node, LORA_B, "lora_B", LK_KIND_FLOAT, 2, out, rank));
    if (lk_has_input(node, X)) {
        LK_TRY(lk_expect(context, node, X, "x", LK_KIND_FLOAT, 2, tokens, in));
    }
    if (lk_has_input(node, S)) {
        LK_TRY(lk_expect(context, node, S, "s", LK_KIND_FLOAT, 2, tokens, rank));
    }
    if (lk_has_input(node, DX_SUM)) {
        LK_TRY(lk_expect(context, node, DX_SUM, "dx_sum", LK_KIND_FLOAT, 2, tokens, in));
    }
    LK_TRY(lk_expect_dropout(context, node, node->attributes.lora.dropout, RNG));
    LK_TRY(lk_expect_attribute(context, node,
                               node->attributes.lora.order == LK_LORA_FACTORED || node->attributes.lora.dropout == 0.0f,
                               "the merged order cannot have dropout"));
    shapes[0] = lk_shape_make(node->inputs[DY]->dtype, 2, tokens, in);
    shapes[1] = lk_shape_of(node->inputs[LORA_A]);
    shapes[2] = lk_shape_of(node->inputs[LORA_B]);
    *num_outputs = 3;
    return LK_OK;
}

double lk_op_lora_linear_backward_flops(const lk_node *node) {
    double tokens = (double)node->inputs[DY]->shape[0], rank = (double)node->inputs[LORA_A]->shape[0];
    double in = (double)node->inputs[WEIGHT]->shape[1], out = (double)node->inputs[WEIGHT]->shape[0];
    bool merged = node->attributes.lora.order == LK_LORA_MERGED;
    double flops = 0.0;
    if (node->outputs[0] != NULL) {
        flops += 2.0 * tokens * in * out + 2.0 * rank * (merged ? in * out : tokens * in);
    }
    if (node->outputs[1] != NULL) {
        flops += 2.0 * tokens * rank * in;
    }
    if (node->outputs[1] != NULL || (node->outputs[0] != NULL && !merged)) {
        flops += 2.0 * tokens * rank * out; /* z = dy B */
    }
    return flops + (node->outputs[2] != NULL ? 2.0 * tokens * rank * out : 0.0);
}

lk_status lk_op_lora_linear_backward_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    int64_t tokens = node->inputs[DY]->shape[0], out = node->inputs[DY]->shape[1];
    int64_t in = node->inputs[WEIGHT]->shape[1], rank = node->inputs[LORA_A]->shape[0];
    const lk_lora_attributes *lora = &node->attributes.lora;
    const double *rng = lk_has_input(node, RNG) ? call->inputs[RNG] : NULL;
    double scale = (double)lora->scale;
    double *dx = call->outputs[0], *d_a = call->outputs[1], *d_b = call->outputs[2];
    double *z = lk_calloc(call->context, (size_t)rank + 1, sizeof *z);
    double *row = lk_calloc(call->context, (size_t)in + 1, sizeof *row);
    lk_status status = z && row ? LK_OK : lk_out_of_memory(call->context, (size_t)in * sizeof *row, "a row");
    for (int64_t i = 0; i < rank * in && d_a != NULL; i++) {
        d_a[i] = 0.0;
    }
    for (int64_t i = 0; i < out * rank && d_b != NULL; i++) {
        d_b[i] = 0.0;
    }
    for (int64_t t = 0; t < tokens && status == LK_OK; t++) {
        const double *dy = call->inputs[DY] + t * out;
        for (int64_t r = 0; r < rank; r++) { /* z = scale dy B */
            z[r] = 0.0;
            for (int64_t n = 0; n < out; n++) {
                z[r] += scale * dy[n] * call->inputs[LORA_B][n * rank + r];
            }
        }
        if (d_a != NULL) {
            lk_dropout_row(row, call->inputs[X] + t * in, t * in, in, lora->dropout, lora->stream, rng);
            for (int64_t r = 0; r < rank; r++) {
                for (int64_t k = 0; k < in; k++) {
                    d_a[r * in + k] += z[r] * row[k];
                }
            }
        }
        if (d_b != NULL) {
            for (int64_t n = 0; n < out; n++) {
                for (int64_t r = 0; r < rank; r++) {
                    d_b[n * rank + r] += scale * dy[n] * call->inputs[S][t * rank + r];
                }
            }
        }
        if (dx != NULL) {
            for (int64_t k = 0; k < in; k++) {
                row[k] = 0.0;
                for (int64_t r = 0; r < rank; r++) {
                    row[k] += z[r] * call->inputs[LORA_A][r * in + k];
                }
            }
            lk_dropout_row(row, row, t * in, in, lora->dropout, lora->stream, rng);
            for (int64_t k = 0; k < in; k++) {
                double sum = row[k] + (lk_has_input(node, DX_SUM) ? call->inputs[DX_SUM][t * in + k] : 0.0);
                for (int64_t n = 0; n < out; n++) {
                    sum += dy[n] * call->inputs[WEIGHT][n * in + k];
                }
                dx[t * in + k] = sum;
            }
        }
    }
    lk_free(call->context, z);
    lk_free(call->context, row);
    return status;
}

lk_status lk_op_lora_linear_backward_decompose(lk_graph *graph, const lk_node *node, lk_tensor **outputs) {
    lk_tensor *dy = node->inputs[DY], *lora_a = node->inputs[LORA_A], *weight = node->inputs[WEIGHT];
    lk_tensor *rng = lk_has_input(node, RNG) ? node->inputs[RNG] : NULL;
    lk_tensor *sum = lk_has_input(node, DX_SUM) ? node->inputs[DX_SUM] : NULL;
    const lk_lora_attributes *lora = &node->attributes.lora;
    bool merged = lora->order == LK_LORA_MERGED;
    lk_tensor *z = NULL;
    if (node->outputs[1] != NULL || (node->outputs[0] != NULL && !merged)) {
        z = lk_build_matmul(graph, dy, false, node->inputs[LORA_B], false, lora->scale, NULL);
    }
    if (node->outputs[0] != NULL && merged) {
        lk_tensor *updated = lk_build_matmul(graph, node->inputs[LORA_B], false, lora_a, false, lora->scale, weight);
        outputs[0] = lk_build_matmul(graph, dy, false, updated, false, 1.0f, sum);
    } else if (node->outputs[0] != NULL && lora->dropout > 0.0f) {
        lk_tensor *low = lk_build_matmul(graph, z, false, lora_a, false, 1.0f, NULL);
        low = lk_build_dropout(graph, low, rng, lora->dropout, lora->stream);
        low = sum != NULL ? lk_build_add(graph, low, sum) : low;
        outputs[0] = lk_build_matmul(graph, dy, false, weight, false, 1.0f, low);
    } else if (node->outputs[0] != NULL) {
        lk_tensor *low = lk_build_matmul(graph, z, false, lora_a, false, 1.0f, sum);
        outputs[0] = lk_build_matmul(graph, dy, false, weight, false, 1.0f, low);
    }
    if (node->outputs[1] != NULL) {
        lk_tensor *x = node->inputs[X];
        x = lora->dropout > 0.0f ? lk_build_dropout(graph, x, rng, lora->dropout, lora->stream) : x;
        outputs[1] = lk_build_matmul(graph, z, true, x, false, 1.0f, NULL);
    }
    if (node->outputs[2] != NULL) {
        outputs[2] = lk_build_matmul(graph, dy, true, node->inputs[S], false, lora->scale, NULL);
    }
    return lk_graph_status(graph);
}
