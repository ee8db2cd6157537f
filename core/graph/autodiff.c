/* Reverse-mode differentiation: walks the nodes backwards and lets each op append its own gradient. Only tensors that
 * lie between a target and the loss get one: frozen weights, norms, and everything below the lowest adapter are not
 * visited. */
#include <string.h>

#include "core/graph/ops.h"

typedef struct backward_pass {
    lk_graph *graph;
    bool *depends;        /* per tensor: is or depends on a target */
    lk_tensor **gradient; /* per tensor: the sum so far */
} backward_pass;

/* Tensors are added while gradients are built; the arrays cover those of the forward pass only. */
static lk_status mark_dependencies(backward_pass *pass, int32_t num_nodes) {
    for (int32_t i = 0; i < num_nodes; i++) {
        const lk_node *node = pass->graph->nodes[i];
        bool depends = false;
        for (int j = 0; j < node->num_inputs && !lk_op_info_of(node->op)->detached; j++) {
            depends = depends || (node->inputs[j] != NULL && pass->depends[node->inputs[j]->id]);
        }
        for (int j = 0; j < node->num_outputs && depends; j++) {
            if (node->outputs[j] != NULL) {
                pass->depends[node->outputs[j]->id] = true;
            }
        }
    }
    return LK_OK;
}

static lk_status differentiate(backward_pass *pass, const lk_node *node, bool *needed, lk_tensor **d_inputs) {
    lk_graph *graph = pass->graph;
    lk_tensor *d_outputs[LK_MAX_OUTPUTS] = {NULL};
    bool reached = false, any = false;
    for (int i = 0; i < node->num_outputs; i++) {
        d_outputs[i] = node->outputs[i] != NULL ? pass->gradient[node->outputs[i]->id] : NULL;
        reached = reached || d_outputs[i] != NULL;
    }
    for (int i = 0; i < node->num_inputs; i++) {
        d_inputs[i] = NULL;
        needed[i] = node->inputs[i] != NULL && pass->depends[node->inputs[i]->id];
        any = any || needed[i];
    }
    if (!reached || !any) {
        return LK_OK;
    }
    const lk_op_info *info = lk_op_info_of(node->op);
    bool only_first = true; /* no op has a gradient for outputs that exist for the backward pass (lse, rstd, s) */
    for (int i = 1; i < node->num_outputs; i++) {
        only_first = only_first && d_outputs[i] == NULL;
    }
    if (info->gradient == NULL || d_outputs[0] == NULL || !only_first) {
        return lk_fail(graph->context, LK_STATUS_UNSUPPORTED, "%s at %s has no gradient%s", info->name, node->scope,
                       only_first ? "" : " for its second output");
    }
    lk_graph_set_scope(graph, node->scope);
    LK_TRY(info->gradient(graph, node, d_outputs, needed, d_inputs));
    LK_TRY(graph->status);
    for (int i = 0; i < node->num_inputs; i++) {
        if (needed[i] && d_inputs[i] == NULL) { /* never a silent zero */
            return lk_fail(graph->context, LK_STATUS_UNSUPPORTED, "%s at %s has no gradient for input %d", info->name,
                           node->scope, i);
        }
        if (needed[i]) {
            lk_tensor **sum = &pass->gradient[node->inputs[i]->id];
            *sum = *sum == NULL ? d_inputs[i] : lk_build_add(graph, *sum, d_inputs[i]);
        }
    }
    return graph->status;
}

static lk_status run_backward(backward_pass *pass, lk_tensor *loss, int num_targets, lk_tensor *const *targets,
                              lk_tensor **gradients) {
    lk_graph *graph = pass->graph;
    int32_t num_nodes = graph->num_nodes;
    int max_inputs = 1;
    for (int32_t i = 0; i < num_nodes; i++) {
        max_inputs = LK_MAX(max_inputs, graph->nodes[i]->num_inputs);
    }
    bool *needed = lk_arena_alloc(&graph->arena, (size_t)max_inputs * sizeof *needed);
    lk_tensor **d_inputs = lk_arena_alloc(&graph->arena, (size_t)max_inputs * sizeof *d_inputs);
    if (needed == NULL || d_inputs == NULL) {
        return lk_graph_out_of_memory(graph);
    }
    for (int i = 0; i < num_targets; i++) {
        pass->depends[targets[i]->id] = true;
    }
    LK_TRY(mark_dependencies(pass, num_nodes));
    const char *scope = graph->scope;
    if (pass->depends[loss->id]) {
        pass->gradient[loss->id] = lk_build_fill(graph, loss->dtype, loss->rank, loss->shape, 1.0f);
        for (int32_t i = num_nodes - 1; i >= 0; i--) {
            LK_TRY(differentiate(pass, graph->nodes[i], needed, d_inputs));
        }
    }
    graph->scope = scope;
    for (int i = 0; i < num_targets && graph->status == LK_OK; i++) {
        gradients[i] = pass->gradient[targets[i]->id];
    }
    return graph->status;
}

lk_status lk_graph_backward(lk_graph *graph, lk_tensor *loss, int num_targets, lk_tensor *const *targets,
                            lk_tensor **gradients) {
    memset(gradients, 0, (size_t)num_targets * sizeof *gradients);
    LK_TRY(graph->status);
    if (lk_tensor_elements(loss) != 1) {
        return lk_graph_fail(graph,
                             lk_fail(graph->context, LK_STATUS_INVALID_ARGUMENT,
                                     "the loss has %lld elements, expected 1", (long long)lk_tensor_elements(loss)));
    }
    backward_pass pass = {graph, NULL, NULL};
    pass.depends = lk_calloc(graph->context, (size_t)graph->num_tensors, sizeof *pass.depends);
    pass.gradient = lk_calloc(graph->context, (size_t)graph->num_tensors, sizeof(lk_tensor *));
    lk_status status = pass.depends && pass.gradient ? run_backward(&pass, loss, num_targets, targets, gradients)
                                                     : lk_graph_out_of_memory(graph);
    lk_free(graph->context, pass.depends);
    lk_free(graph->context, pass.gradient);
    return lk_graph_fail(graph, status);
}
