#include "core/graph/passes/passes.h"

lk_status lk_graph_optimize(lk_graph *graph) {
    LK_TRY(lk_pass_dead_code(graph));
    LK_TRY(lk_pass_fuse_accumulation(graph));
    return lk_pass_lora_order(graph);
}
