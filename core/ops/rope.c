#include "core/graph/ops.h"

lk_status lk_op_rope_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    int32_t head_dim = node->attributes.rope.head_dim;
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect_attribute(context, node, head_dim > 0 && node->inputs[0]->shape[1] % head_dim == 0,
                               "head_dim must divide the columns of x"));
    LK_TRY(lk_expect(context, node, 1, "cos", LK_KIND_FLOAT, 2, node->inputs[0]->shape[0], -1));
    LK_TRY(lk_expect_attribute(context, node, 2 * node->inputs[1]->shape[1] <= head_dim,
                               "cos has more columns than half of head_dim"));
    LK_TRY(lk_expect_like(context, node, 2, "sin", 1));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_rope_reference(const lk_reference_call *call) {
    const lk_tensor *x = call->node->inputs[0];
    int64_t head_dim = call->node->attributes.rope.head_dim, heads = x->shape[1] / head_dim;
    int64_t half = call->node->inputs[1]->shape[1];
    double sign = call->node->attributes.rope.inverse ? -1.0 : 1.0;
    for (int64_t t = 0; t < x->shape[0]; t++) {
        for (int64_t h = 0; h < heads; h++) {
            const double *in = call->inputs[0] + (t * heads + h) * head_dim;
            double *out = call->outputs[0] + (t * heads + h) * head_dim;
            for (int64_t i = 0; i < half; i++) {
                double c = call->inputs[1][t * half + i], s = sign * call->inputs[2][t * half + i];
                double first = in[i], second = in[i + half];
                out[i] = first * c - second * s;
                out[i + half] = second * c + first * s;
            }
            for (int64_t i = 2 * half; i < head_dim; i++) {
                out[i] = in[i];
            }
        }
    }
    return LK_OK;
}

lk_status lk_op_rope_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                              lk_tensor **d_inputs) {
    if (needed[0]) { /* a rotation's transpose is its inverse */
        d_inputs[0] = lk_build_rope(graph, d_outputs[0], node->inputs[1], node->inputs[2],
                                    node->attributes.rope.head_dim, !node->attributes.rope.inverse);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_rope(lk_graph *graph, lk_tensor *x, lk_tensor *cos, lk_tensor *sin, int32_t head_dim,
                         bool inverse) {
    lk_tensor *inputs[] = {x, cos, sin};
    lk_attributes attributes = {.rope = {head_dim, inverse}};
    return lk_graph_add(graph, LK_OP_ROPE, 3, inputs, &attributes, 1, 0, NULL);
}
