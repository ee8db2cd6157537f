/* Activations that wait for the backward pass are stored in bf16. Kernels read and write them through fp32, so sums and
 * gradients keep their precision; forward and backward see the same rounded values. Gradients that products alone read
 * are stored so, too, since products round them anyway. */
#include "core/graph/passes/passes.h"

/* Statistics (second outputs) and tables of angles stay as they are; rows of tables are copied as bytes. */
static bool may_narrow(const lk_tensor *tensor) {
    const lk_node *node = tensor->producer;
    return node != NULL && tensor->dtype == LK_DTYPE_F32 && tensor->rank == 2 && !tensor->is_output &&
           node->outputs[0] == tensor && node->op != LK_OP_ROPE_TABLE && node->op != LK_OP_SLICE_COLUMNS &&
           node->op != LK_OP_EMBEDDING;
}

/* Slices are copied as bytes, too. Scores of attention go through an exponential: in the most sensitive golden run
 * rounding queries and keys moved the loss more than rounding all other activations. */
static void mark_wide(const lk_graph *graph, bool *wide) {
    for (int32_t i = 0; i < graph->num_nodes; i++) {
        const lk_node *node = graph->nodes[i];
        int marked = node->op == LK_OP_SLICE_COLUMNS ? 1 : node->op == LK_OP_ATTENTION ? 2 : 0;
        for (int j = 0; j < marked; j++) {
            wide[node->inputs[j]->id] = true;
        }
    }
}

/* Whether input j is a gradient dy that takes part in products with 16-bit weights only. */
static bool is_rounded(const lk_node *node, int j) {
    return node->op == LK_OP_LORA_LINEAR_BACKWARD && j == 0 && node->inputs[2]->dtype == LK_DTYPE_BF16;
}

/* Of gradients, all that anything else reads is wide. */
static void narrow_gradients(const lk_graph *graph, int32_t last_forward, bool *wide) {
    for (int32_t i = 0; i < graph->num_nodes; i++) {
        const lk_node *node = graph->nodes[i];
        for (int j = 0; j < node->num_inputs; j++) {
            if (node->inputs[j] != NULL && !is_rounded(node, j)) {
                wide[node->inputs[j]->id] = true;
            }
        }
    }
    for (int32_t i = 0; i < graph->num_nodes; i++) {
        const lk_node *node = graph->nodes[i];
        lk_tensor *dy = node->op == LK_OP_LORA_LINEAR_BACKWARD ? node->inputs[0] : NULL;
        if (dy != NULL && !wide[dy->id] && !dy->is_output && dy->producer != NULL && dy->producer->id > last_forward &&
            dy->dtype == LK_DTYPE_F32) {
            dy->dtype = LK_DTYPE_BF16;
        }
    }
}

lk_status lk_pass_narrow(lk_graph *graph, const lk_tensor *loss) {
    LK_TRY(graph->status);
    int32_t last_forward = loss->producer->id;
    bool *wide = lk_calloc(graph->context, (size_t)graph->num_tensors, sizeof *wide);
    if (wide == NULL) {
        return lk_graph_out_of_memory(graph);
    }
    mark_wide(graph, wide);
    for (int32_t i = 0; i < graph->num_nodes; i++) {
        const lk_node *node = graph->nodes[i];
        for (int j = 0; j < node->num_inputs && node->id > last_forward; j++) {
            lk_tensor *tensor = node->inputs[j];
            if (tensor != NULL && may_narrow(tensor) && tensor->producer->id < last_forward && !wide[tensor->id]) {
                tensor->dtype = LK_DTYPE_BF16;
            }
        }
    }
    narrow_gradients(graph, last_forward, wide);
    lk_free(graph->context, wide);
    return LK_OK;
}
