#include "core/graph/passes/passes.h"

typedef struct position_table {
    int32_t *position; /* of a node id */
    int32_t *uses;     /* of a tensor id */
} position_table;

static bool can_take(const lk_node *producer) {
    if (producer == NULL) {
        return false;
    }
    int index = lk_op_info_of(producer->op)->accumulate;
    return index >= 0 && index < producer->num_inputs && producer->inputs[index] == NULL;
}

/* The operand of an add that can absorb the other one: made by an op that accumulates, used by the add alone, made
 * after the other operand exists, and of the same dtype as it and the sum, so that rounding stays where it was. */
static lk_node *absorber(const lk_node *add, const position_table *table, int *other) {
    for (int i = 1; i >= 0; i--) {
        lk_tensor *tensor = add->inputs[i], *rest = add->inputs[1 - i];
        lk_node *producer = tensor->producer;
        if (!can_take(producer) || producer->outputs[0] != tensor || tensor->is_output ||
            table->uses[tensor->id] != 1 || rest == tensor || rest->dtype != tensor->dtype ||
            add->outputs[0]->dtype != tensor->dtype) {
            continue;
        }
        if (rest->producer == NULL || table->position[rest->producer->id] < table->position[producer->id]) {
            *other = 1 - i;
            return producer;
        }
    }
    return NULL;
}

static lk_status fuse(lk_graph *graph, position_table *table) {
    for (int32_t i = 0; i < graph->num_nodes; i++) {
        const lk_node *node = graph->nodes[i];
        table->position[node->id] = i;
        for (int j = 0; j < node->num_inputs; j++) {
            if (node->inputs[j] != NULL) {
                table->uses[node->inputs[j]->id]++;
            }
        }
    }
    lk_node **nodes;
    int32_t count;
    LK_TRY(lk_graph_take_nodes(graph, &nodes, &count));
    for (int32_t i = 0; i < count; i++) {
        lk_node *node = nodes[i];
        int other = 0;
        lk_node *producer = node->op == LK_OP_ADD ? absorber(node, table, &other) : NULL;
        /* a variable may be written between the producer and the add; sums of gradients never involve one */
        if (producer == NULL || node->inputs[other]->variable != NULL) {
            LK_TRY(lk_graph_append_node(graph, node));
            continue;
        }
        producer->inputs[lk_op_info_of(producer->op)->accumulate] = node->inputs[other];
        lk_graph_replace_output(node->outputs[0], producer->outputs[0]);
    }
    return LK_OK;
}

lk_status lk_pass_fuse_accumulation(lk_graph *graph) {
    LK_TRY(graph->status);
    position_table table = {
        lk_calloc(graph->context, (size_t)graph->next_node_id + 1, sizeof(int32_t)),
        lk_calloc(graph->context, (size_t)graph->num_tensors + 1, sizeof(int32_t)),
    };
    lk_status status = table.position && table.uses ? fuse(graph, &table) : lk_graph_out_of_memory(graph);
    lk_free(graph->context, table.position);
    lk_free(graph->context, table.uses);
    return status;
}
