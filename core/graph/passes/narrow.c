/* Activations that wait for the backward pass are stored in bf16. Kernels read and write them through fp32, so sums and
 * gradients keep their precision; forward and backward see the same rounded values. */
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

lk_status lk_pass_narrow_saved(lk_graph *graph, const lk_tensor *loss) {
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
    lk_free(graph->context, wide);
    return LK_OK;
}
