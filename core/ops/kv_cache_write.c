#include "core/graph/ops.h"

lk_status lk_op_kv_cache_write_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    (void)shapes;
    LK_TRY(lk_expect(context, node, 0, "cache", LK_KIND_FLOAT, 2, -1, -1));
    LK_TRY(lk_expect(context, node, 1, "x", LK_KIND_FLOAT, 2, -1, node->inputs[0]->shape[1]));
    LK_TRY(lk_expect(context, node, 2, "slots", LK_KIND_INT, 1, node->inputs[1]->shape[0], 0));
    *num_outputs = 0;
    return LK_OK;
}

lk_status lk_op_kv_cache_write_reference(const lk_reference_call *call) {
    int64_t capacity = call->node->inputs[0]->shape[0], width = call->node->inputs[0]->shape[1];
    for (int64_t t = 0; t < call->node->inputs[1]->shape[0]; t++) {
        int64_t slot = (int64_t)call->inputs[2][t]; /* a negative slot: a padding token, which is not kept */
        for (int64_t i = 0; i < width && slot >= 0 && slot < capacity; i++) {
            call->inputs[0][slot * width + i] = call->inputs[1][t * width + i];
        }
    }
    return LK_OK;
}

void lk_build_kv_cache_write(lk_graph *graph, lk_tensor *cache, lk_tensor *x, lk_tensor *slots) {
    lk_tensor *inputs[] = {cache, x, slots};
    lk_graph_add(graph, LK_OP_KV_CACHE_WRITE, 3, inputs, NULL, 0, 0, NULL);
}
