#include <math.h>

#include "core/graph/ops.h"

lk_status lk_op_orthogonality_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "gram", LK_KIND_FLOAT, 2, -1, node->inputs[0]->shape[0]));
    shapes[0] = lk_shape_make(node->inputs[0]->dtype, 1, 1, 1);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_orthogonality_reference(const lk_reference_call *call) {
    int64_t rank = call->node->inputs[0]->shape[0];
    double sum = 0.0;
    for (int64_t i = 0; i < rank * rank; i++) {
        double distance = call->inputs[0][i] - (i % (rank + 1) == 0 ? 1.0 : 0.0);
        sum += distance * distance;
    }
    call->outputs[0][0] = sqrt(sum);
    return LK_OK;
}

lk_status lk_op_orthogonality_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                       const bool *needed, lk_tensor **d_inputs) {
    if (needed[0]) {
        lk_tensor *inputs[] = {d_outputs[0], node->inputs[0]};
        d_inputs[0] = lk_graph_add(graph, LK_OP_ORTHOGONALITY_BACKWARD, 2, inputs, NULL, 1, 0, NULL);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_orthogonality(lk_graph *graph, lk_tensor *gram) {
    return lk_graph_add(graph, LK_OP_ORTHOGONALITY, 1, &gram, NULL, 1, 0, NULL);
}
