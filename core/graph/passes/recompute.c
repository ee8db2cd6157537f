/* Gradient checkpointing (Chen et al., arXiv 1604.06174) by ops instead of by layers: where the backward pass reads a
 * tensor that is not kept, copies of the nodes that make it, from kept tensors on, are put before its first reader.
 * The copies do what the originals did, bit for bit. */
#include "core/graph/passes/passes.h"

typedef struct recompute_pass {
    lk_graph *graph;
    lk_recompute level;
    int32_t last_forward; /* id of the node that makes the loss; nodes with greater ids are the backward pass */
    lk_tensor **copies;   /* of the forward pass's tensors */
    lk_recompute_cost *cost;
} recompute_pass;

/* Results that are made again from what the backward pass of the same op reads anyway. */
static bool is_cheap(lk_op op) {
    return op == LK_OP_RMS_NORM || op == LK_OP_LAYER_NORM || op == LK_OP_SWIGLU || op == LK_OP_GELU || op == LK_OP_RELU;
}

/* Sums are where layers meet; what stands before the first layer is read by all or not at all. */
static bool is_boundary(lk_op op) {
    return op == LK_OP_ADD || op == LK_OP_EMBEDDING || op == LK_OP_ROPE_TABLE || op == LK_OP_CAST ||
           op == LK_OP_CROSS_ENTROPY || op == LK_OP_LINEAR_CROSS_ENTROPY;
}

static bool is_recomputed(const recompute_pass *pass, const lk_tensor *tensor) {
    const lk_node *node = tensor->producer;
    if (node == NULL || node->id >= pass->last_forward || tensor->is_output || lk_node_mutates(node)) {
        return false;
    }
    switch (pass->level) {
    case LK_RECOMPUTE_CHEAP:
        return is_cheap(node->op);
    case LK_RECOMPUTE_PRODUCTS:
        return !is_boundary(node->op) && node->op != LK_OP_ATTENTION;
    case LK_RECOMPUTE_LAYERS:
        return !is_boundary(node->op);
    default:
        return false;
    }
}

static lk_tensor *again(recompute_pass *pass, lk_tensor *tensor) {
    lk_graph *graph = pass->graph;
    if (tensor == NULL || graph->status != LK_OK || !is_recomputed(pass, tensor)) {
        return tensor;
    }
    if (pass->copies[tensor->id] != NULL) {
        return pass->copies[tensor->id];
    }
    lk_node *node = tensor->producer;
    lk_tensor **inputs = lk_arena_alloc(&graph->arena, ((size_t)node->num_inputs + 1) * sizeof(lk_tensor *));
    if (inputs == NULL) {
        lk_graph_out_of_memory(graph);
        return tensor;
    }
    for (int i = 0; i < node->num_inputs; i++) {
        inputs[i] = again(pass, node->inputs[i]);
    }
    uint32_t wanted = 0;
    for (int i = 0; i < node->num_outputs; i++) {
        wanted |= node->outputs[i] != NULL ? 1u << i : 0u;
    }
    if (node->op == LK_OP_LORA_LINEAR) { /* s may be dropped from either of the two: they must not differ in order */
        node->attributes.lora.keep_order = true;
    }
    lk_tensor *outputs[LK_MAX_OUTPUTS] = {NULL};
    graph->scope = node->scope;
    lk_graph_add(graph, node->op, node->num_inputs, inputs, &node->attributes, wanted, node->num_outputs, outputs);
    for (int i = 0; i < node->num_outputs && graph->status == LK_OK; i++) {
        if (outputs[i] != NULL) {
            outputs[i]->dtype = node->outputs[i]->dtype;
            pass->copies[node->outputs[i]->id] = outputs[i];
        }
    }
    pass->cost->nodes++;
    pass->cost->flops += lk_node_flops(node);
    return graph->status == LK_OK ? pass->copies[tensor->id] : tensor;
}

static lk_status rebuild(recompute_pass *pass) {
    lk_graph *graph = pass->graph;
    const char *scope = graph->scope;
    lk_node **nodes;
    int32_t count;
    LK_TRY(lk_graph_take_nodes(graph, &nodes, &count));
    for (int32_t i = 0; i < count; i++) {
        for (int j = 0; j < nodes[i]->num_inputs && nodes[i]->id > pass->last_forward; j++) {
            nodes[i]->inputs[j] = again(pass, nodes[i]->inputs[j]);
        }
        LK_TRY(graph->status);
        LK_TRY(lk_graph_append_node(graph, nodes[i]));
        pass->cost->step_flops += lk_node_flops(nodes[i]);
    }
    graph->scope = scope;
    return LK_OK;
}

lk_status lk_pass_recompute(lk_graph *graph, const lk_tensor *loss, lk_recompute level, lk_recompute_cost *cost) {
    *cost = (lk_recompute_cost){0};
    LK_TRY(graph->status);
    recompute_pass pass = {graph, level, loss->producer->id, NULL, cost};
    LK_TRY(lk_pass_dead_code(graph)); /* which outputs are read decides on the order of LoRA products */
    LK_TRY(lk_pass_lora_order(graph));
    pass.copies = lk_calloc(graph->context, (size_t)graph->num_tensors, sizeof(lk_tensor *));
    lk_status status = pass.copies != NULL ? rebuild(&pass) : lk_graph_out_of_memory(graph);
    lk_free(graph->context, pass.copies);
    return status;
}
