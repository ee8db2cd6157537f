/* The inside of lk_graph, for core/graph only, and what ops and passes need beyond the public header. */
#ifndef LK_CORE_GRAPH_GRAPH_H
#define LK_CORE_GRAPH_GRAPH_H

#include "core/base/base.h"
#include "core/base/dtype.h"
#include "lorikeet_graph.h"

struct lk_graph {
    lk_context *context;
    lk_arena arena; /* all tensors, nodes, names */
    lk_status status;
    lk_node **nodes; /* in an order in which they can run */
    int32_t num_nodes, capacity_nodes, next_node_id;
    lk_tensor **tensors;
    int32_t num_tensors, capacity_tensors;
    const char *scope;
};

/* Keeps the first failure. */
lk_status lk_graph_fail(lk_graph *graph, lk_status status);
lk_status lk_graph_out_of_memory(lk_graph *graph);
/* Rewriting: forgets the list of nodes (not the nodes), so that a pass can append them again, some of them changed. The
 * old list is valid until the graph's end. */
lk_status lk_graph_take_nodes(lk_graph *graph, lk_node ***nodes, int32_t *count);
lk_status lk_graph_append_node(lk_graph *graph, lk_node *node);
/* Makes the producer of `with` write `tensor` instead: tensor's consumers need not change. */
void lk_graph_replace_output(lk_tensor *tensor, lk_tensor *with);
/* Whether a node writes variables, and so must neither be removed nor reordered across others that touch them. */
bool lk_node_mutates(const lk_node *node);
int64_t lk_tensor_elements(const lk_tensor *tensor);
size_t lk_tensor_bytes(const lk_tensor *tensor);
int64_t lk_tensor_rows(const lk_tensor *tensor);    /* product of all extents but the last */
int64_t lk_tensor_columns(const lk_tensor *tensor); /* the last extent */

#endif
