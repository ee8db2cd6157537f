#include "core/graph/ops.h"

lk_status lk_op_clear_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    (void)shapes;
    for (int i = 0; i < node->num_inputs; i++) {
        LK_TRY(lk_expect_like(context, node, i, "x", i));
    }
    *num_outputs = 0;
    return LK_OK;
}

lk_status lk_op_clear_reference(const lk_reference_call *call) {
    for (int i = 0; i < call->node->num_inputs; i++) {
        for (int64_t j = 0; j < lk_tensor_elements(call->node->inputs[i]); j++) {
            call->inputs[i][j] = 0.0;
        }
    }
    return LK_OK;
}

void lk_build_clear(lk_graph *graph, int count, lk_tensor *const *tensors) {
    lk_graph_add(graph, LK_OP_CLEAR, count, tensors, NULL, 0, 0, NULL);
}
