#include <math.h>

#include "core/graph/ops.h"

lk_status lk_op_orthogonality_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes,
                                             int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "ddistance", LK_KIND_FLOAT, 1, 1, 0));
    LK_TRY(lk_expect(context, node, 1, "gram", LK_KIND_FLOAT, 2, -1, node->inputs[1]->shape[0]));
    shapes[0] = lk_shape_of(node->inputs[1]);
    *num_outputs = 1;
    return LK_OK;
}

/* Zero where the distance is zero, as PyTorch takes the gradient of a norm. */
lk_status lk_op_orthogonality_backward_reference(const lk_reference_call *call) {
    int64_t rank = call->node->inputs[1]->shape[0];
    double sum = 0.0;
    for (int pass = 0; pass < 2; pass++) {
        double factor = sum > 0.0 ? call->inputs[0][0] / sqrt(sum) : 0.0;
        for (int64_t i = 0; i < rank * rank; i++) {
            double distance = call->inputs[1][i] - (i % (rank + 1) == 0 ? 1.0 : 0.0);
            if (pass == 0) {
                sum += distance * distance;
            } else {
                call->outputs[0][i] = factor * distance;
            }
        }
    }
    return LK_OK;
}
