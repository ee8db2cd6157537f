#include "core/graph/ops.h"

lk_status lk_op_mul_scalar_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_like(context, node, 0, "x", 0));
    LK_TRY(lk_expect(context, node, 1, "factor", LK_KIND_FLOAT, 1, 1, 0));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_mul_scalar_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        call->outputs[0][i] = call->inputs[1][0] * call->inputs[0][i];
    }
    return LK_OK;
}

lk_status lk_op_mul_scalar_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                    const bool *needed, lk_tensor **d_inputs) {
    if (needed[1]) {
        return lk_fail(graph->context, LK_STATUS_UNSUPPORTED, "mul_scalar at %s: no gradient for the factor",
                       node->scope);
    }
    d_inputs[0] = needed[0] ? lk_build_mul_scalar(graph, d_outputs[0], node->inputs[1]) : NULL;
    return lk_graph_status(graph);
}

lk_tensor *lk_build_mul_scalar(lk_graph *graph, lk_tensor *x, lk_tensor *factor) {
    lk_tensor *inputs[] = {x, factor};
    return lk_graph_add(graph, LK_OP_MUL_SCALAR, 2, inputs, NULL, 1, 0, NULL);
}
