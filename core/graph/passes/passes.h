/* What is done to a graph between building and compiling. Each pass keeps the graph's meaning. */
#ifndef LK_CORE_GRAPH_PASSES_H
#define LK_CORE_GRAPH_PASSES_H

#include "core/graph/ops.h"

/* Removes nodes whose results nobody reads, and outputs that nobody asks for, so that kernels skip them. */
lk_status lk_pass_dead_code(lk_graph *graph);
/* add(a, f(..)) becomes f(.., a) where f can add a tensor to its result on the way out. */
lk_status lk_pass_fuse_accumulation(lk_graph *graph);
/* Chooses per LoRA linear between (x A') B' and x (W + scale B A)' by the number of operations. */
lk_status lk_pass_lora_order(lk_graph *graph);
/* Tensors of the forward pass, up to the node that makes `loss`, that the backward pass reads become bf16, and so do
 * gradients that only products with 16-bit weights read. */
lk_status lk_pass_narrow(lk_graph *graph, const lk_tensor *loss);

typedef struct lk_recompute_cost {
    int32_t nodes;            /* computed a second time */
    double flops, step_flops; /* of these nodes, and of the step without them */
} lk_recompute_cost;
/* Lets the backward pass of `loss` compute again what `level` says is not kept. Before the other passes. */
lk_status lk_pass_recompute(lk_graph *graph, const lk_tensor *loss, lk_recompute level, lk_recompute_cost *cost);
/* Replaces the nodes for which `keep` is false by their decomposition, recursively as long as there is one. */
lk_status lk_pass_decompose(lk_graph *graph, bool (*keep)(void *user, const lk_node *node), void *user);

#endif
