/* RunLoRA (Cherniuk et al., arXiv 2312.03415): with T tokens, K inputs, N outputs and rank r the low-rank term costs
 * 2 T r (K + N) operations on its own and 2 r K N when it is added to the weight first. A 16-bit weight is never added
 * to (the update would be rounded away), and dropout acts on x only in the factored order. */
#include "core/graph/passes/passes.h"

lk_status lk_pass_lora_order(lk_graph *graph) {
    LK_TRY(graph->status);
    for (int32_t i = 0; i < graph->num_nodes; i++) {
        lk_node *node = graph->nodes[i];
        if ((node->op != LK_OP_LORA_LINEAR && node->op != LK_OP_LORA_LINEAR_BACKWARD) ||
            node->attributes.lora.keep_order) {
            continue;
        }
        const lk_tensor *weight = node->op == LK_OP_LORA_LINEAR ? node->inputs[1] : node->inputs[2];
        int64_t tokens = node->inputs[0]->shape[0], out = weight->shape[0], in = weight->shape[1];
        bool wide = weight->dtype == LK_DTYPE_F32 || weight->dtype == LK_DTYPE_F64;
        /* s = x A' and z = dy B are needed for the adapter's gradients in either order: count what remains */
        bool low_is_made = node->outputs[1] != NULL; /* s of the forward op, dA (made of z) of the backward */
        int64_t remaining = low_is_made ? (node->op == LK_OP_LORA_LINEAR ? out : in) : in + out;
        bool merged = wide && node->attributes.lora.dropout == 0.0f && tokens * remaining > in * out;
        node->attributes.lora.order = merged ? LK_LORA_MERGED : LK_LORA_FACTORED;
    }
    return LK_OK;
}
