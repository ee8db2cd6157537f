/* The graph: what is to be computed, without saying where or how.
 *
 * A graph is a list of nodes in an order in which they can run. Tensors are dense and row-major with static shapes.
 * Values that outlive a run (weights, adapter tensors, optimizer state, inputs) are lk_variable objects that several
 * graphs may share; everything else is an intermediate whose memory the compiler plans.
 *
 * Building never needs a check per call: the first failure is kept in the graph, later calls do nothing and return
 * NULL, and lk_graph_status() reports it.
 *
 * The structs below are read by backends and may be read by anyone; only core/graph writes them. */
#ifndef LORIKEET_GRAPH_H
#define LORIKEET_GRAPH_H

#include "lorikeet.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_MAX_RANK 4
#define LK_MAX_OUTPUTS 4 /* of one node */

typedef enum lk_op {
#define LK_OP(NAME, name, signature, gradient, decomposition, accumulate, effect, flops) LK_OP_##NAME,
#include "lorikeet/ops.def"
#undef LK_OP
    LK_OP_COUNT
} lk_op;

LK_API const char *lk_op_name(lk_op op);      /* "rms_norm" */
LK_API const char *lk_op_signature(lk_op op); /* "x[T,H], weight[D] -> y[T,H], rstd[T*H/D]" */

typedef enum lk_role {
    LK_ROLE_INTERMEDIATE, /* made and used within one run */
    LK_ROLE_INPUT,        /* uploaded before a run: token ids, learning rate */
    LK_ROLE_WEIGHT,       /* frozen: no program writes it */
    LK_ROLE_STATE         /* kept between runs and written by them: trainable tensors, moments, gradient sums, caches */
} lk_role;

typedef struct lk_variable lk_variable;
typedef struct lk_graph lk_graph;
struct lk_node;

typedef struct lk_tensor {
    int32_t id; /* index into the graph's tensors */
    lk_role role;
    lk_dtype dtype;
    int32_t rank;
    int64_t shape[LK_MAX_RANK]; /* unused extents are 1 */
    const char *name;
    struct lk_node *producer; /* NULL unless role is INTERMEDIATE */
    lk_variable *variable;    /* NULL if role is INTERMEDIATE */
    bool is_constant;         /* lk_graph_constant */
    bool is_output;           /* readable after a run: its memory is not reused */
} lk_tensor;

/* ---- attributes: one struct per op that has any ---- */

/* MATMUL; BLOCK_LINEAR (transpose_b alone) */
typedef struct lk_matmul_attributes {
    bool transpose_a, transpose_b; /* a is then stored [K,M], b [N,K] */
    float alpha;
} lk_matmul_attributes;

/* LORA_LINEAR and its backward; DORA_NORM (scale alone) */
typedef enum lk_lora_order {
    LK_LORA_FACTORED, /* (x A') B': cheap for few tokens, exact for 16-bit weights */
    LK_LORA_MERGED    /* x (W + scale B A)': fewer operations for many tokens; fp32 weights without dropout only */
} lk_lora_order;
typedef struct lk_lora_attributes {
    float scale;     /* alpha / r, or alpha / sqrt(r) for rsLoRA */
    float dropout;   /* probability; 0: none, and rng may be absent */
    uint32_t stream; /* distinguishes the layers' masks */
    lk_lora_order order;
    bool keep_order; /* the pass that chooses an order leaves this node as it is */
} lk_lora_attributes;

typedef struct lk_dropout_attributes {
    float probability;
    uint32_t stream;
} lk_dropout_attributes;

typedef struct lk_norm_attributes {
    float epsilon;
} lk_norm_attributes;

typedef struct lk_gelu_attributes {
    bool tanh_approximation; /* Hugging Face's gelu_new and gelu_pytorch_tanh */
} lk_gelu_attributes;

typedef struct lk_slice_attributes {
    int64_t first, count;
    int64_t columns; /* of dx; the backward only */
} lk_slice_attributes;

/* TRANSPOSE: x is seen as [outer, rows, columns, inner]; y is [shape[0], shape[1]]. */
typedef struct lk_transpose_attributes {
    int64_t outer, rows, columns, inner;
    int64_t shape[2];
} lk_transpose_attributes;

typedef struct lk_block_attributes {
    int64_t size; /* BLOCK_OUTER: K */
} lk_block_attributes;

typedef struct lk_cayley_attributes {
    int64_t size;  /* K */
    int32_t terms; /* of the series, as PEFT counts them; 0: the transform itself */
} lk_cayley_attributes;

typedef struct lk_rope_attributes {
    int32_t head_dim; /* twice the columns of cos and sin, or more: the rest of each head passes unchanged */
    bool inverse;
} lk_rope_attributes;

/* ATTENTION and its backward. cu_seqlens[s] .. cu_seqlens[s+1] are the rows of sequence s; entries may repeat (empty
 * sequences). With seqlens_k, sequence s uses only the first seqlens_k[s] of its key rows. */
typedef struct lk_attention_attributes {
    int32_t num_attention_heads, num_key_value_heads, head_dim;
    float scale;
    bool causal;     /* query i of n sees keys up to i + (keys - n) */
    int32_t window;  /* > 0: and only the last `window` of those (itself included); 0: no limit */
    bool allow_bf16; /* operands of its products may be rounded to bf16 (the weights are stored so); sums stay fp32 */
} lk_attention_attributes;

typedef struct lk_embedding_attributes {
    int64_t rows; /* EMBEDDING_BACKWARD: the table's number of rows */
} lk_embedding_attributes;

typedef struct lk_scale_attributes {
    float value; /* SCALE: the factor; FILL: the value */
} lk_scale_attributes;

/* FILL and CAST make a tensor that their inputs do not describe. */
typedef struct lk_shape_attributes {
    lk_dtype dtype;
    int32_t rank;
    int64_t shape[LK_MAX_RANK];
    float value;
} lk_shape_attributes;

/* ADAMW. The per-tensor arrays are copied into the graph. */
typedef struct lk_adamw_attributes {
    int32_t count;                     /* of (parameter, gradient, m, v) groups */
    const float *learning_rate_scales; /* per group; NULL: 1 (LoRA+ uses it) */
    const float *weight_decay_scales;  /* per group; NULL: 1 */
} lk_adamw_attributes;

/* The elements of ADAMW's input `hyper`, an fp32 tensor so that a recorded step can be replayed with other values. */
typedef enum lk_adamw_hyper {
    LK_ADAMW_LEARNING_RATE,
    LK_ADAMW_BETA1,
    LK_ADAMW_BETA2,
    LK_ADAMW_EPSILON,
    LK_ADAMW_WEIGHT_DECAY,
    LK_ADAMW_BIAS_CORRECTION1, /* 1 - beta1^step */
    LK_ADAMW_BIAS_CORRECTION2, /* 1 - beta2^step */
    LK_ADAMW_MAX_NORM,         /* 0: no clipping */
    LK_ADAMW_HYPER_COUNT
} lk_adamw_hyper;

/* The elements of IMPORTANCE's input `hyper`; betas of 1 leave the means as they are. */
typedef enum lk_importance_hyper {
    LK_IMPORTANCE_BETA1,
    LK_IMPORTANCE_BETA2,
    LK_IMPORTANCE_MAX_NORM, /* 0: no clipping */
    LK_IMPORTANCE_HYPER_COUNT
} lk_importance_hyper;

typedef union lk_attributes {
    lk_matmul_attributes matmul;
    lk_lora_attributes lora;
    lk_dropout_attributes dropout;
    lk_norm_attributes norm;
    lk_gelu_attributes gelu;
    lk_slice_attributes slice;
    lk_transpose_attributes transpose;
    lk_block_attributes block;
    lk_cayley_attributes cayley;
    lk_rope_attributes rope;
    lk_attention_attributes attention;
    lk_embedding_attributes embedding;
    lk_scale_attributes scale;
    lk_shape_attributes shape;
    lk_adamw_attributes adamw;
} lk_attributes;

typedef struct lk_node {
    int32_t id; /* never reused within a graph; not its position */
    lk_op op;
    int32_t num_inputs, num_outputs;
    lk_tensor **inputs;                 /* an absent optional input is NULL */
    lk_tensor *outputs[LK_MAX_OUTPUTS]; /* an output nobody asked for is NULL */
    lk_attributes attributes;
    const char *scope; /* where in the model it stands: "model.layers.3.mlp"; "" */
} lk_node;

/* ---- variables ---- */

/* Owns a set of variables and their storage. Made by a session; see lorikeet_backend.h for where the bytes live. */
typedef struct lk_variables lk_variables;

struct lk_variable {
    const char *name;
    lk_role role;
    lk_dtype dtype;
    int32_t rank;
    int64_t shape[LK_MAX_RANK];
    size_t bytes;
    const char *purpose; /* "weights", "adapter", "optimizer", "input", "cache": for the memory table */
    void *storage;       /* dispatch's own */
};

/* ---- graphs ---- */

LK_API lk_status lk_graph_create(lk_context *context, lk_graph **out);
LK_API void lk_graph_destroy(lk_graph *graph); /* NULL is allowed */
/* LK_OK, or the status of the first failed call; the message is the context's. */
LK_API lk_status lk_graph_status(const lk_graph *graph);
LK_API int32_t lk_graph_num_nodes(const lk_graph *graph);
LK_API const lk_node *lk_graph_node(const lk_graph *graph, int32_t position);
LK_API int32_t lk_graph_num_tensors(const lk_graph *graph);
LK_API lk_tensor *lk_graph_tensor(const lk_graph *graph, int32_t id);
/* Names the place in the model for the nodes added from now on; copied. */
LK_API void lk_graph_set_scope(lk_graph *graph, const char *scope);

/* The graph's tensor for a variable (one per variable and graph). */
LK_API lk_tensor *lk_graph_variable(lk_graph *graph, lk_variable *variable);

/* Another tensor for the variable, through which no gradient flows to it. Only in graphs that do not write it. */
LK_API lk_tensor *lk_graph_constant(lk_graph *graph, lk_variable *variable);

/* Appends a node. `wanted` has a bit for each output that is needed; outputs[] receives num_outputs tensors, NULL where
 * not wanted, and may be NULL when only the first is of interest. Returns output 0 (NULL if not wanted, or on failure).
 * Typed builders for each op are in core/graph/build.h. */
LK_API lk_tensor *lk_graph_add(lk_graph *graph, lk_op op, int num_inputs, lk_tensor *const *inputs,
                               const lk_attributes *attributes, uint32_t wanted, int num_outputs, lk_tensor **outputs);
/* Keeps a tensor readable after a run. */
LK_API void lk_graph_mark_output(lk_graph *graph, lk_tensor *tensor);

/* Appends the backward pass of `loss` (one element) and returns d loss / d targets[i] in gradients[i], NULL where the
 * loss does not depend on it. Nodes are added only for gradients on the way to a target. */
LK_API lk_status lk_graph_backward(lk_graph *graph, lk_tensor *loss, int num_targets, lk_tensor *const *targets,
                                   lk_tensor **gradients);

/* The passes that every graph goes through before it is compiled: removal of dead nodes, fusion of gradient sums into
 * the ops that produce them, and the order of products of LoRA linears. */
LK_API lk_status lk_graph_optimize(lk_graph *graph);

#ifdef __cplusplus
}
#endif

#endif
