#include "core/graph/ops.h"

#include <math.h>

lk_status lk_op_swiglu_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "gate", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect_like(context, node, 1, "up", 0));
    shapes[0] = lk_shape_of(node->inputs[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_swiglu_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->inputs[0]); i++) {
        double gate = call->inputs[0][i];
        call->outputs[0][i] = gate / (1.0 + exp(-gate)) * call->inputs[1][i];
    }
    return LK_OK;
}

lk_status lk_op_swiglu_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                                lk_tensor **d_inputs) {
    lk_tensor *inputs[] = {d_outputs[0], node->inputs[0], node->inputs[1]};
    uint32_t wanted = (needed[0] ? 1u : 0u) | (needed[1] ? 2u : 0u);
    lk_graph_add(graph, LK_OP_SWIGLU_BACKWARD, 3, inputs, NULL, wanted, 2, d_inputs);
    return lk_graph_status(graph);
}

lk_tensor *lk_build_swiglu(lk_graph *graph, lk_tensor *gate, lk_tensor *up) {
    lk_tensor *inputs[] = {gate, up};
    return lk_graph_add(graph, LK_OP_SWIGLU, 2, inputs, NULL, 1, 0, NULL);
}
