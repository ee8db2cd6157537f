/* A transformer of three layers small enough for finite differences: embedding, RMS norms, attention with rotary
 * positions and shared key-value heads, SwiGLU, tied or separate head, LoRA where a test wants it. */
#ifndef LK_TESTS_COMMON_TOY_MODEL_H
#define LK_TESTS_COMMON_TOY_MODEL_H

#include "core/graph/ops.h"
#include "dispatch/dispatch.h"

enum {
    TOY_LAYERS = 3,
    TOY_TOKENS = 10,
    TOY_HIDDEN = 8,
    TOY_INNER = 12,
    TOY_VOCAB = 13,
    TOY_HEADS = 2,
    TOY_KV_HEADS = 1,
    TOY_HEAD_DIM = 4,
    TOY_RANK = 2,
    TOY_MAX_TRAINED = 96
};

typedef enum toy_linear { TOY_Q, TOY_K, TOY_V, TOY_O, TOY_GATE, TOY_UP, TOY_DOWN, TOY_LINEARS } toy_linear;

typedef struct toy_options {
    lk_dtype dtype;               /* F64 or F32 */
    uint32_t adapted[TOY_LAYERS]; /* a bit per toy_linear: has LoRA */
    float dropout;
    bool train_norms, train_biases, train_table, tied;
    uint64_t seed;
} toy_options;

typedef struct toy_model {
    lk_graph *graph;
    lk_tensor *loss;
    int num_trained;
    lk_tensor *trained[TOY_MAX_TRAINED];
    lk_tensor *gradients[TOY_MAX_TRAINED]; /* after toy_backward */
    int32_t num_forward_nodes;
} toy_model;

/* Adds the variables to `variables` (or finds them there) and builds the forward graph. Nothing is left on failure but
 * the variables. */
lk_status toy_build(lk_context *context, lk_variables *variables, const toy_options *options, toy_model *out);
/* Appends the backward pass and marks loss and gradients as outputs. */
lk_status toy_backward(toy_model *model);

#endif
