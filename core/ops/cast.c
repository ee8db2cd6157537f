#include "core/graph/ops.h"

lk_status lk_op_cast_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_like(context, node, 0, "x", 0));
    lk_dtype dtype = node->attributes.shape.dtype;
    LK_TRY(lk_expect_attribute(context, node, (unsigned)dtype < LK_DTYPE_COUNT && lk_dtype_block_size(dtype) == 1,
                               "cannot cast to a quantised type"));
    shapes[0] = lk_shape_of(node->inputs[0]);
    shapes[0].dtype = dtype;
    *num_outputs = 1;
    return LK_OK;
}

/* The rounding happens where the result is stored. */
lk_status lk_op_cast_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        call->outputs[0][i] = call->inputs[0][i];
    }
    return LK_OK;
}

lk_status lk_op_cast_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                              lk_tensor **d_inputs) {
    d_inputs[0] = needed[0] ? lk_build_cast(graph, d_outputs[0], node->inputs[0]->dtype) : NULL;
    return lk_graph_status(graph);
}

lk_tensor *lk_build_cast(lk_graph *graph, lk_tensor *x, lk_dtype dtype) {
    lk_attributes attributes = {.shape = {.dtype = dtype}};
    return lk_graph_add(graph, LK_OP_CAST, 1, &x, &attributes, 1, 0, NULL);
}
