#include "core/graph/passes/passes.h"

static lk_status lower(lk_graph *graph, lk_node *node, bool (*keep)(void *, const lk_node *), void *user) {
    const lk_op_info *info = lk_op_info_of(node->op);
    if (info->decompose == NULL || keep(user, node)) {
        return lk_graph_append_node(graph, node);
    }
    /* the new nodes are built onto an empty list, so that each can be looked at in turn */
    lk_node **before, **made;
    int32_t num_before, num_made;
    int32_t capacity = graph->capacity_nodes;
    LK_TRY(lk_graph_take_nodes(graph, &before, &num_before));
    lk_graph_set_scope(graph, node->scope);
    lk_tensor *outputs[LK_MAX_OUTPUTS] = {NULL};
    LK_TRY(info->decompose(graph, node, outputs));
    LK_TRY(graph->status);
    for (int i = 0; i < node->num_outputs; i++) {
        if (node->outputs[i] != NULL) {
            lk_graph_replace_output(node->outputs[i], outputs[i]);
            for (int32_t j = 0; j < graph->num_nodes; j++) { /* later nodes of the same decomposition read it too */
                for (int k = 0; k < graph->nodes[j]->num_inputs; k++) {
                    if (graph->nodes[j]->inputs[k] == outputs[i]) {
                        graph->nodes[j]->inputs[k] = node->outputs[i];
                    }
                }
            }
        }
    }
    LK_TRY(lk_graph_take_nodes(graph, &made, &num_made));
    graph->nodes = before;
    graph->num_nodes = num_before;
    graph->capacity_nodes = capacity;
    for (int32_t i = 0; i < num_made; i++) {
        LK_TRY(lower(graph, made[i], keep, user));
    }
    return LK_OK;
}

lk_status lk_pass_decompose(lk_graph *graph, bool (*keep)(void *user, const lk_node *node), void *user) {
    lk_node **nodes;
    int32_t count;
    LK_TRY(lk_graph_take_nodes(graph, &nodes, &count));
    for (int32_t i = 0; i < count; i++) {
        LK_TRY(lower(graph, nodes[i], keep, user));
    }
    return graph->status;
}
