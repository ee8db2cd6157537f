#include "core/graph/ops.h"

lk_status lk_op_scale_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_like(context, node, 0, "x", 0));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_scale_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        call->outputs[0][i] = (double)call->node->attributes.scale.value * call->inputs[0][i];
    }
    return LK_OK;
}

lk_status lk_op_scale_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                               lk_tensor **d_inputs) {
    d_inputs[0] = needed[0] ? lk_build_scale(graph, d_outputs[0], node->attributes.scale.value) : NULL;
    return lk_graph_status(graph);
}

lk_tensor *lk_build_scale(lk_graph *graph, lk_tensor *x, float value) {
    lk_attributes attributes = {.scale = {value}};
    return lk_graph_add(graph, LK_OP_SCALE, 1, &x, &attributes, 1, 0, NULL);
}
