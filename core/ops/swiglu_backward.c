#include "core/graph/ops.h"

#include <math.h>

lk_status lk_op_swiglu_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "dy", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect_like(context, node, 1, "gate", 0));
    LK_TRY(lk_expect_like(context, node, 2, "up", 0));
    shapes[0] = lk_shape_of(node->inputs[0]);
    shapes[1] = shapes[0];
    *num_outputs = 2;
    return LK_OK;
}

/* silu'(g) = sigmoid(g) (1 + g (1 - sigmoid(g))) */
lk_status lk_op_swiglu_backward_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        double dy = call->inputs[0][i], gate = call->inputs[1][i], up = call->inputs[2][i];
        double sigmoid = 1.0 / (1.0 + exp(-gate));
        if (call->outputs[0] != NULL) {
            call->outputs[0][i] = dy * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
        }
        if (call->outputs[1] != NULL) {
            call->outputs[1][i] = dy * gate * sigmoid;
        }
    }
    return LK_OK;
}
