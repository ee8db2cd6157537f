/* What core/ops/<op>.c provides for each row of lorikeet/ops.def, and the table made of it. */
#ifndef LK_CORE_GRAPH_OPS_H
#define LK_CORE_GRAPH_OPS_H

#include "core/graph/build.h"
#include "core/graph/graph.h"

typedef struct lk_shape {
    lk_dtype dtype;
    int32_t rank;
    int64_t extent[LK_MAX_RANK];
} lk_shape;

/* One run of a reference kernel: every tensor as doubles (integers too, which are exact below 2^53). A node that
 * MUTATES writes its inputs. Absent tensors are NULL. */
typedef struct lk_reference_call {
    lk_context *context; /* for scratch memory */
    const lk_node *node;
    double *const *inputs;
    double *const *outputs;
} lk_reference_call;

typedef struct lk_op_info {
    const char *name, *signature;
    /* Fills shapes[] for all outputs, wanted or not. */
    lk_status (*infer)(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs);
    lk_status (*reference)(const lk_reference_call *call);
    /* Appends nodes that compute d_inputs[i] for each needed[i]; d_outputs[i] is NULL where no gradient arrives. */
    lk_status (*gradient)(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                          lk_tensor **d_inputs);
    /* Appends nodes equal to `node` and sets outputs[i] for those that the node has. */
    lk_status (*decompose)(lk_graph *graph, const lk_node *node, lk_tensor **outputs);
    bool detached;  /* no gradient flows through it, and none is missed */
    int accumulate; /* index of the input that is added to output 0; -1: none */
    bool mutates;
    double flops_per_element;             /* of the largest tensor; used where flops is NULL */
    double (*flops)(const lk_node *node); /* floating-point operations of one run */
} lk_op_info;

const lk_op_info *lk_op_info_of(lk_op op);

/* Estimates for cost functions and rooflines: arithmetic, and bytes that must be read or written at least once. */
double lk_node_flops(const lk_node *node);
double lk_node_bytes(const lk_node *node);

#define LK_GRADIENT_DECLARE_GRADIENT(name)                                                               \
    lk_status lk_op_##name##_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, \
                                      const bool *needed, lk_tensor **d_inputs);
#define LK_GRADIENT_DECLARE_NO_GRADIENT(name)
#define LK_GRADIENT_DECLARE_DETACHED(name)
#define LK_DECOMPOSE_DECLARE_DECOMPOSES(name) \
    lk_status lk_op_##name##_decompose(lk_graph *graph, const lk_node *node, lk_tensor **outputs);
#define LK_DECOMPOSE_DECLARE_NO_DECOMPOSITION(name)
#define LK_FLOPS_DECLARE_OWN(name) double lk_op_##name##_flops(const lk_node *node);
#define LK_FLOPS_DECLARE_PER_ELEMENT(count) LK_FLOPS_DECLARE_NOTHING
#define LK_FLOPS_DECLARE_NOTHING(name)
#define LK_OP(NAME, name, signature, gradient, decomposition, accumulate, effect, flops)                          \
    lk_status lk_op_##name##_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs); \
    lk_status lk_op_##name##_reference(const lk_reference_call *call);                                            \
    LK_GRADIENT_DECLARE_##gradient(name) LK_DECOMPOSE_DECLARE_##decomposition(name) LK_FLOPS_DECLARE_##flops(name)
#include "lorikeet/ops.def"
#undef LK_OP

/* ---- for infer functions ---- */

typedef enum lk_kind { LK_KIND_FLOAT, LK_KIND_INT } lk_kind;
/* Checks that input `index` is present and has the kind, rank and extents given (-1: any). The message names op, scope,
 * input, found and expected. */
lk_status lk_expect(lk_context *context, const lk_node *node, int index, const char *name, lk_kind kind, int rank,
                    int64_t extent0, int64_t extent1);
/* That inputs `index` and `like` have the same shape. */
lk_status lk_expect_like(lk_context *context, const lk_node *node, int index, const char *name, int like);
lk_status lk_expect_attribute(lk_context *context, const lk_node *node, bool condition, const char *text);
bool lk_has_input(const lk_node *node, int index);
lk_shape lk_shape_of(const lk_tensor *tensor);
lk_shape lk_shape_make(lk_dtype dtype, int rank, int64_t extent0, int64_t extent1);

#endif
