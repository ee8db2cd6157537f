#include "core/graph/ops.h"

lk_status lk_op_accumulate_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    (void)shapes;
    LK_TRY(lk_expect_like(context, node, 1, "x", 0));
    *num_outputs = 0;
    return LK_OK;
}

lk_status lk_op_accumulate_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        call->inputs[0][i] += call->inputs[1][i];
    }
    return LK_OK;
}

void lk_build_accumulate(lk_graph *graph, lk_tensor *sum, lk_tensor *x) {
    lk_tensor *inputs[] = {sum, x};
    lk_graph_add(graph, LK_OP_ACCUMULATE, 2, inputs, NULL, 0, 0, NULL);
}
