#include "core/graph/ops.h"

#include <math.h>

lk_status lk_op_grad_norm_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect_attribute(context, node, node->num_inputs > 0, "there are no gradients"));
    for (int i = 0; i < node->num_inputs; i++) {
        LK_TRY(lk_expect_like(context, node, i, "gradient", i));
    }
    shapes[0] = lk_shape_make(node->inputs[0]->dtype == LK_DTYPE_F64 ? LK_DTYPE_F64 : LK_DTYPE_F32, 1, 1, 1);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_grad_norm_reference(const lk_reference_call *call) {
    double squares = 0.0;
    for (int i = 0; i < call->node->num_inputs; i++) {
        for (int64_t j = 0; j < lk_tensor_elements(call->node->inputs[i]); j++) {
            squares += call->inputs[i][j] * call->inputs[i][j];
        }
    }
    call->outputs[0][0] = sqrt(squares);
    return LK_OK;
}

lk_tensor *lk_build_grad_norm(lk_graph *graph, int count, lk_tensor *const *gradients) {
    return lk_graph_add(graph, LK_OP_GRAD_NORM, count, gradients, NULL, 1, 0, NULL);
}
