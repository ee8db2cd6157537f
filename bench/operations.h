/* The operations that are timed one by one (operations.def), built at the sizes of a model. */
#ifndef LK_BENCH_OPERATIONS_H
#define LK_BENCH_OPERATIONS_H

#include "bench/bench.h"
#include "core/graph/build.h"

typedef struct bench_sizes {
    int64_t tokens, hidden, inner, heads, kv_heads, head_dim, vocab, rank;
    lk_dtype dtype; /* of weight matrices */
} bench_sizes;

/* What an operation is built with. The first failure is kept, here or in the graph. */
typedef struct bench_build {
    lk_context *context;
    lk_variables *variables;
    lk_graph *graph;
    bench_sizes sizes;
    int64_t in, out; /* of a linear layer */
    char shape[96];  /* set by the builder: "T=1024 K=576 N=1536" */
    lk_status status;
    int count; /* of variables */
} bench_build;

typedef struct bench_operation {
    lk_op op;
    void (*build)(bench_build *build); /* marks the outputs of the node that is measured, the last one of its op */
    int64_t (*in)(const bench_sizes *sizes), (*out)(const bench_sizes *sizes);
} bench_operation;

const bench_operation *lk_bench_operations(int *count);

#endif
