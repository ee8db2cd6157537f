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
/* Replaces the nodes for which `keep` is false by their decomposition, recursively as long as there is one. */
lk_status lk_pass_decompose(lk_graph *graph, bool (*keep)(void *user, const lk_node *node), void *user);

#endif
