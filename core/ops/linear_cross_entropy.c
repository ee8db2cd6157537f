#include "core/ops/cross_entropy.h"

#include <math.h>

enum { X, WEIGHT, TARGETS, LOSS_SCALE };

lk_status lk_op_linear_cross_entropy_infer(lk_context *context, const lk_node *node, lk_shape *shapes,
                                           int *num_outputs) {
    LK_TRY(lk_expect(context, node, X, "x", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect(context, node, WEIGHT, "weight", LK_KIND_FLOAT, 2, -1, node->inputs[X]->shape[1]));
    LK_TRY(lk_expect(context, node, TARGETS, "targets", LK_KIND_INT, 1, node->inputs[X]->shape[0], 0));
    LK_TRY(lk_expect(context, node, LOSS_SCALE, "loss_scale", LK_KIND_FLOAT, 1, 1, 0));
    shapes[0] = lk_shape_make(node->inputs[X]->dtype == LK_DTYPE_F64 ? LK_DTYPE_F64 : LK_DTYPE_F32, 1, 1, 1);
    shapes[1] = lk_shape_of(node->inputs[X]);
    *num_outputs = 2;
    return LK_OK;
}

double lk_op_linear_cross_entropy_flops(const lk_node *node) {
    double products = node->outputs[1] != NULL ? 4.0 : 2.0;
    return (double)node->inputs[X]->shape[0] * (double)lk_tensor_elements(node->inputs[WEIGHT]) * products;
}

lk_status lk_op_linear_cross_entropy_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    int64_t tokens = node->inputs[X]->shape[0], width = node->inputs[X]->shape[1];
    int64_t vocab_size = node->inputs[WEIGHT]->shape[0];
    double scale = call->inputs[LOSS_SCALE][0], loss = 0.0;
    double *logits = lk_calloc(call->context, (size_t)vocab_size + 1, sizeof *logits);
    if (logits == NULL) {
        return lk_out_of_memory(call->context, (size_t)vocab_size * sizeof *logits, "a row of logits");
    }
    for (int64_t t = 0; t < tokens; t++) {
        const double *x = call->inputs[X] + t * width;
        double *dx = call->outputs[1] != NULL ? call->outputs[1] + t * width : NULL;
        for (int64_t i = 0; i < width && dx != NULL; i++) {
            dx[i] = 0.0;
        }
        double target = call->inputs[TARGETS][t];
        if (!lk_target_counts(target, vocab_size)) {
            continue;
        }
        for (int64_t v = 0; v < vocab_size; v++) {
            logits[v] = 0.0;
            for (int64_t i = 0; i < width; i++) {
                logits[v] += x[i] * call->inputs[WEIGHT][v * width + i];
            }
        }
        double lse = lk_log_sum_exp(logits, vocab_size);
        loss += lse - logits[(int64_t)target];
        for (int64_t v = 0; v < vocab_size && dx != NULL; v++) {
            double d_logit = scale * (exp(logits[v] - lse) - (v == (int64_t)target ? 1.0 : 0.0));
            for (int64_t i = 0; i < width; i++) {
                dx[i] += d_logit * call->inputs[WEIGHT][v * width + i];
            }
        }
    }
    if (call->outputs[0] != NULL) {
        call->outputs[0][0] = scale * loss;
    }
    lk_free(call->context, logits);
    return LK_OK;
}

static bool is_one(const lk_tensor *tensor) {
    return tensor->producer != NULL && tensor->producer->op == LK_OP_FILL &&
           tensor->producer->attributes.shape.value == 1.0f;
}

lk_status lk_op_linear_cross_entropy_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                              const bool *needed, lk_tensor **d_inputs) {
    lk_tensor *dloss = d_outputs[0];
    if (needed[X]) { /* dx was made with the loss, for dloss = 1 */
        d_inputs[X] = is_one(dloss) ? node->outputs[1] : lk_build_mul_scalar(graph, node->outputs[1], dloss);
    }
    if (needed[WEIGHT]) { /* a trained head needs the logits after all */
        lk_tensor *logits = lk_build_linear(graph, node->inputs[X], node->inputs[WEIGHT], NULL);
        lk_tensor *inputs[] = {logits, node->inputs[TARGETS], node->inputs[LOSS_SCALE]}, *outputs[2];
        lk_graph_add(graph, LK_OP_CROSS_ENTROPY, 3, inputs, NULL, 2, 2, outputs);
        lk_tensor *backward[] = {dloss, logits, node->inputs[TARGETS], node->inputs[LOSS_SCALE], outputs[1]};
        lk_tensor *d_logits = lk_graph_add(graph, LK_OP_CROSS_ENTROPY_BACKWARD, 5, backward, NULL, 1, 0, NULL);
        d_inputs[WEIGHT] = lk_build_matmul(graph, d_logits, true, node->inputs[X], false, 1.0f, NULL);
    }
    return lk_graph_status(graph);
}

lk_status lk_op_linear_cross_entropy_decompose(lk_graph *graph, const lk_node *node, lk_tensor **outputs) {
    lk_tensor *targets = node->inputs[TARGETS], *loss_scale = node->inputs[LOSS_SCALE];
    lk_tensor *logits = lk_build_matmul(graph, node->inputs[X], false, node->inputs[WEIGHT], true, 1.0f, NULL);
    lk_tensor *inputs[] = {logits, targets, loss_scale}, *results[2];
    outputs[0] = lk_graph_add(graph, LK_OP_CROSS_ENTROPY, 3, inputs, NULL, node->outputs[1] ? 3 : 1, 2, results);
    if (node->outputs[1] != NULL) {
        const int64_t one = 1;
        lk_tensor *dloss =
            lk_build_fill(graph, node->outputs[0] ? node->outputs[0]->dtype : LK_DTYPE_F32, 1, &one, 1.0f);
        lk_tensor *backward[] = {dloss, logits, targets, loss_scale, results[1]};
        lk_tensor *d_logits = lk_graph_add(graph, LK_OP_CROSS_ENTROPY_BACKWARD, 5, backward, NULL, 1, 0, NULL);
        outputs[1] = lk_build_matmul(graph, d_logits, false, node->inputs[WEIGHT], false, 1.0f, NULL);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_linear_cross_entropy(lk_graph *graph, lk_tensor *x, lk_tensor *weight, lk_tensor *targets,
                                         lk_tensor *loss_scale) {
    lk_tensor *inputs[] = {x, weight, targets, loss_scale};
    return lk_graph_add(graph, LK_OP_LINEAR_CROSS_ENTROPY, 4, inputs, NULL, 3, 0, NULL);
}
