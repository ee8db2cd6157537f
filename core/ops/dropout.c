#include "core/ops/dropout.h"

void lk_dropout_row(double *y, const double *x, int64_t first, int64_t count, float p, uint32_t stream,
                    const double *rng) {
    if (p <= 0.0f || rng == NULL) {
        for (int64_t i = 0; i < count; i++) {
            y[i] = x[i];
        }
        return;
    }
    uint64_t seed = (uint32_t)(int32_t)rng[0] | (uint64_t)(uint32_t)(int32_t)rng[1] << 32;
    uint64_t counter = (uint32_t)(int32_t)rng[2] | (uint64_t)(uint32_t)(int32_t)rng[3] << 32;
    for (int64_t i = 0; i < count; i++) {
        bool keep = lk_dropout_keeps(seed, counter, stream, (uint64_t)(first + i), p);
        y[i] = keep ? x[i] / (1.0 - (double)p) : 0.0;
    }
}

lk_status lk_expect_dropout(lk_context *context, const lk_node *node, float p, int rng_input) {
    LK_TRY(lk_expect_attribute(context, node, p >= 0.0f && p < 1.0f, "dropout must be in [0, 1)"));
    if (p > 0.0f) {
        LK_TRY(lk_expect(context, node, rng_input, "rng", LK_KIND_INT, 1, 4, 0));
    }
    return LK_OK;
}

lk_status lk_op_dropout_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_like(context, node, 0, "x", 0));
    LK_TRY(lk_expect_dropout(context, node, node->attributes.dropout.probability, 1));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_dropout_reference(const lk_reference_call *call) {
    lk_dropout_row(call->outputs[0], call->inputs[0], 0, lk_tensor_elements(call->node->inputs[0]),
                   call->node->attributes.dropout.probability, call->node->attributes.dropout.stream, call->inputs[1]);
    return LK_OK;
}

lk_status lk_op_dropout_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                                 lk_tensor **d_inputs) {
    if (needed[0]) {
        d_inputs[0] = lk_build_dropout(graph, d_outputs[0], node->inputs[1], node->attributes.dropout.probability,
                                       node->attributes.dropout.stream);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_dropout(lk_graph *graph, lk_tensor *x, lk_tensor *rng, float probability, uint32_t stream) {
    lk_tensor *inputs[] = {x, rng};
    lk_attributes attributes = {.dropout = {probability, stream}};
    return lk_graph_add(graph, LK_OP_DROPOUT, 2, inputs, &attributes, 1, 0, NULL);
}
