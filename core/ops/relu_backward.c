#include "core/graph/ops.h"

lk_status lk_op_relu_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_like(context, node, 1, "y", 1));
    LK_TRY(lk_expect_like(context, node, 0, "dy", 1));
    shapes[0] = lk_shape_of(node->inputs[1]);
    *num_outputs = 1;
    return LK_OK;
}

/* The derivative from the result: 1 where y is positive (none at 0, as in PyTorch). */
lk_status lk_op_relu_backward_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[1]); i++) {
        double y = call->inputs[1][i];
        call->outputs[0][i] = call->inputs[0][i] * (y > 0.0 ? 1.0 : 0.0);
    }
    return LK_OK;
}
