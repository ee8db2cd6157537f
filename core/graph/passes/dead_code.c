#include "core/graph/passes/passes.h"

static bool is_live(const lk_node *node, const bool *read) {
    bool live = lk_node_mutates(node);
    for (int i = 0; i < node->num_outputs && !live; i++) {
        live = node->outputs[i] != NULL && (read[node->outputs[i]->id] || node->outputs[i]->is_output);
    }
    return live;
}

lk_status lk_pass_dead_code(lk_graph *graph) {
    LK_TRY(graph->status);
    bool *read = lk_calloc(graph->context, (size_t)graph->num_tensors, sizeof *read);
    if (read == NULL) {
        return lk_graph_out_of_memory(graph);
    }
    lk_node **nodes;
    int32_t count;
    lk_status status = lk_graph_take_nodes(graph, &nodes, &count);
    for (int32_t i = count - 1; i >= 0; i--) {
        lk_node *node = nodes[i];
        if (!is_live(node, read)) {
            nodes[i] = NULL;
            continue;
        }
        for (int j = 0; j < node->num_outputs; j++) {
            if (node->outputs[j] != NULL && !read[node->outputs[j]->id] && !node->outputs[j]->is_output) {
                node->outputs[j]->producer = NULL;
                node->outputs[j] = NULL;
            }
        }
        for (int j = 0; j < node->num_inputs; j++) {
            if (node->inputs[j] != NULL) {
                read[node->inputs[j]->id] = true;
            }
        }
    }
    for (int32_t i = 0; i < count && status == LK_OK; i++) {
        if (nodes[i] != NULL) {
            status = lk_graph_append_node(graph, nodes[i]);
        }
    }
    lk_free(graph->context, read);
    return status;
}
