#include "core/graph/ops.h"

#include <math.h>

lk_status lk_op_rope_table_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    LK_TRY(lk_expect(context, node, 0, "positions", LK_KIND_INT, 1, -1, 0));
    LK_TRY(lk_expect(context, node, 1, "inv_freq", LK_KIND_FLOAT, 1, -1, 0));
    shapes[0] = lk_shape_make(node->inputs[1]->dtype, 2, node->inputs[0]->shape[0], node->inputs[1]->shape[0]);
    shapes[1] = shapes[0];
    *num_outputs = 2;
    return LK_OK;
}

lk_status lk_op_rope_table_reference(const lk_reference_call *call) {
    int64_t tokens = call->node->inputs[0]->shape[0], half = call->node->inputs[1]->shape[0];
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = call->inputs[0][t] * call->inputs[1][i];
            if (call->node->inputs[1]->dtype != LK_DTYPE_F64) {
                angle = (double)(float)angle; /* the angle is an fp32 number in every implementation that models know */
            }
            if (call->outputs[0] != NULL) {
                call->outputs[0][t * half + i] = cos(angle);
            }
            if (call->outputs[1] != NULL) {
                call->outputs[1][t * half + i] = sin(angle);
            }
        }
    }
    return LK_OK;
}

void lk_build_rope_table(lk_graph *graph, lk_tensor *positions, lk_tensor *inv_freq, lk_tensor **cos, lk_tensor **sin) {
    lk_tensor *inputs[] = {positions, inv_freq}, *outputs[2];
    lk_graph_add(graph, LK_OP_ROPE_TABLE, 2, inputs, NULL, 3, 2, outputs);
    *cos = outputs[0];
    *sin = outputs[1];
}
