#include "bench/operations.h"

#include <math.h>
#include <stdio.h>

static int64_t hidden(const bench_sizes *sizes) {
    return sizes->hidden;
}

static int64_t kv(const bench_sizes *sizes) {
    return sizes->kv_heads * sizes->head_dim;
}

static int64_t inner(const bench_sizes *sizes) {
    return sizes->inner;
}

/* ---- operands ---- */

static lk_tensor *operand(bench_build *build, lk_role role, lk_dtype dtype, int64_t rows, int64_t columns,
                          float scale) {
    char name[16];
    int64_t shape[2] = {rows, columns};
    lk_variable *variable = NULL;
    snprintf(name, sizeof name, "%d", build->count++);
    if (build->status == LK_OK) {
        build->status =
            lk_variables_add(build->variables, name, role, "operand", dtype, columns > 0 ? 2 : 1, shape, &variable);
    }
    if (build->status == LK_OK) {
        build->status = lk_bench_fill(build->context, variable, scale, build->sizes.tokens);
    }
    return build->status == LK_OK ? lk_graph_variable(build->graph, variable) : NULL;
}

static lk_tensor *activation(bench_build *build, int64_t rows, int64_t columns) {
    return operand(build, LK_ROLE_INPUT, LK_DTYPE_F32, rows, columns, 1.0f);
}

static lk_tensor *weight(bench_build *build, int64_t rows, int64_t columns) {
    return operand(build, LK_ROLE_INPUT, build->sizes.dtype, rows, columns, 0.1f);
}

static lk_tensor *integers(bench_build *build, int64_t count, int64_t largest) {
    int64_t tokens = build->sizes.tokens;
    build->sizes.tokens = largest; /* what lk_bench_fill repeats */
    lk_tensor *made = operand(build, LK_ROLE_INPUT, LK_DTYPE_I32, count, 0, 0.0f);
    build->sizes.tokens = tokens;
    return made;
}

/* Appends the node and marks its outputs. */
static void measured(bench_build *build, lk_op op, int num_inputs, lk_tensor *const *inputs,
                     const lk_attributes *attributes, uint32_t wanted) {
    lk_tensor *outputs[LK_MAX_OUTPUTS] = {NULL};
    if (build->status == LK_OK) {
        lk_graph_add(build->graph, op, num_inputs, inputs, attributes, wanted, LK_MAX_OUTPUTS, outputs);
        build->status = lk_graph_status(build->graph);
    }
    for (int i = 0; i < LK_MAX_OUTPUTS && build->status == LK_OK; i++) {
        if (outputs[i] != NULL) {
            lk_graph_mark_output(build->graph, outputs[i]);
        }
    }
}

static void describe_linear(bench_build *build, bool low_rank) {
    int length = snprintf(build->shape, sizeof build->shape, "T=%lld K=%lld N=%lld", (long long)build->sizes.tokens,
                          (long long)build->in, (long long)build->out);
    if (low_rank) {
        snprintf(build->shape + length, sizeof build->shape - (size_t)length, " r=%lld", (long long)build->sizes.rank);
    }
}

static void describe_rows(bench_build *build, int64_t columns) {
    snprintf(build->shape, sizeof build->shape, "%lldx%lld", (long long)build->sizes.tokens, (long long)columns);
}

/* ---- products ---- */

static void build_linear(bench_build *build) {
    describe_linear(build, false);
    lk_tensor *inputs[] = {activation(build, build->sizes.tokens, build->in), weight(build, build->out, build->in),
                           NULL};
    measured(build, LK_OP_LINEAR, 3, inputs, NULL, 1);
}

/* dx = dy W of a frozen layer */
static void build_matmul(bench_build *build) {
    describe_linear(build, false);
    lk_attributes attributes = {.matmul = {false, false, 1.0f}};
    lk_tensor *inputs[] = {activation(build, build->sizes.tokens, build->in), weight(build, build->in, build->out),
                           NULL};
    measured(build, LK_OP_MATMUL, 3, inputs, &attributes, 1);
}

static void build_lora_linear(bench_build *build) {
    describe_linear(build, true);
    lk_attributes attributes = {.lora = {.scale = 2.0f}};
    lk_tensor *inputs[] = {activation(build, build->sizes.tokens, build->in),
                           weight(build, build->out, build->in),
                           NULL,
                           activation(build, build->sizes.rank, build->in),
                           activation(build, build->out, build->sizes.rank),
                           NULL};
    measured(build, LK_OP_LORA_LINEAR, 6, inputs, &attributes, 3);
}

static void build_lora_linear_backward(bench_build *build) {
    describe_linear(build, true);
    lk_attributes attributes = {.lora = {.scale = 2.0f}};
    lk_tensor *inputs[] = {activation(build, build->sizes.tokens, build->out),
                           activation(build, build->sizes.tokens, build->in),
                           weight(build, build->out, build->in),
                           activation(build, build->sizes.rank, build->in),
                           activation(build, build->out, build->sizes.rank),
                           activation(build, build->sizes.tokens, build->sizes.rank),
                           NULL,
                           NULL};
    measured(build, LK_OP_LORA_LINEAR_BACKWARD, 8, inputs, &attributes, 7);
}

static void build_linear_cross_entropy(bench_build *build) {
    const bench_sizes *sizes = &build->sizes;
    snprintf(build->shape, sizeof build->shape, "T=%lld H=%lld V=%lld", (long long)sizes->tokens,
             (long long)sizes->hidden, (long long)sizes->vocab);
    lk_tensor *inputs[] = {activation(build, sizes->tokens, sizes->hidden), weight(build, sizes->vocab, sizes->hidden),
                           integers(build, sizes->tokens, sizes->vocab / 3),
                           operand(build, LK_ROLE_INPUT, LK_DTYPE_F32, 1, 0, 0.0f)};
    measured(build, LK_OP_LINEAR_CROSS_ENTROPY, 4, inputs, NULL, 3);
}

/* ---- attention: causal, one sequence ---- */

static lk_attributes describe_attention(bench_build *build) {
    const bench_sizes *sizes = &build->sizes;
    snprintf(build->shape, sizeof build->shape, "T=%lld heads=%lld/%lld D=%lld", (long long)sizes->tokens,
             (long long)sizes->heads, (long long)sizes->kv_heads, (long long)sizes->head_dim);
    return (lk_attributes){.attention = {.num_attention_heads = (int32_t)sizes->heads,
                                         .num_key_value_heads = (int32_t)sizes->kv_heads,
                                         .head_dim = (int32_t)sizes->head_dim,
                                         .scale = 1.0f / sqrtf((float)sizes->head_dim),
                                         .causal = true,
                                         .allow_bf16 = sizes->dtype == LK_DTYPE_BF16}};
}

static void build_attention(bench_build *build) {
    lk_attributes attributes = describe_attention(build);
    int64_t tokens = build->sizes.tokens, q_width = build->sizes.heads * build->sizes.head_dim;
    lk_tensor *inputs[] = {activation(build, tokens, q_width),
                           activation(build, tokens, kv(&build->sizes)),
                           activation(build, tokens, kv(&build->sizes)),
                           integers(build, 2, tokens),
                           NULL,
                           NULL};
    measured(build, LK_OP_ATTENTION, 6, inputs, &attributes, 3);
}

static void build_attention_backward(bench_build *build) {
    lk_attributes attributes = describe_attention(build);
    int64_t tokens = build->sizes.tokens, q_width = build->sizes.heads * build->sizes.head_dim;
    lk_tensor *q = activation(build, tokens, q_width), *k = activation(build, tokens, kv(&build->sizes));
    lk_tensor *v = activation(build, tokens, kv(&build->sizes)), *cu = integers(build, 2, tokens);
    lk_tensor *forward[] = {q, k, v, cu, NULL, NULL}, *made[2] = {NULL};
    if (build->status == LK_OK) {
        lk_graph_add(build->graph, LK_OP_ATTENTION, 6, forward, &attributes, 3, 2, made);
    }
    lk_tensor *inputs[] = {activation(build, tokens, q_width), q, k, v, made[0], made[1], cu};
    measured(build, LK_OP_ATTENTION_BACKWARD, 7, inputs, &attributes, 7);
}

static void build_rope(bench_build *build) {
    const bench_sizes *sizes = &build->sizes;
    snprintf(build->shape, sizeof build->shape, "T=%lld heads=%lld D=%lld", (long long)sizes->tokens,
             (long long)sizes->heads, (long long)sizes->head_dim);
    lk_attributes attributes = {.rope = {(int32_t)sizes->head_dim, false}};
    lk_tensor *inputs[] = {activation(build, sizes->tokens, sizes->heads * sizes->head_dim),
                           activation(build, sizes->tokens, sizes->head_dim / 2),
                           activation(build, sizes->tokens, sizes->head_dim / 2)};
    measured(build, LK_OP_ROPE, 3, inputs, &attributes, 1);
}

/* ---- rows and elements ---- */

static void build_embedding(bench_build *build) {
    describe_rows(build, build->sizes.hidden);
    lk_tensor *inputs[] = {integers(build, build->sizes.tokens, build->sizes.vocab / 3),
                           weight(build, build->sizes.vocab, build->sizes.hidden)};
    measured(build, LK_OP_EMBEDDING, 2, inputs, NULL, 1);
}

static void build_rms_norm(bench_build *build) {
    describe_rows(build, build->in);
    lk_attributes attributes = {.norm = {1e-5f}};
    lk_tensor *inputs[] = {activation(build, build->sizes.tokens, build->in), activation(build, build->in, 0)};
    measured(build, LK_OP_RMS_NORM, 2, inputs, &attributes, 3);
}

static void build_rms_norm_backward(bench_build *build) {
    describe_rows(build, build->in);
    lk_attributes attributes = {.norm = {1e-5f}};
    int64_t rows = build->sizes.tokens;
    lk_tensor *x = activation(build, rows, build->in), *scale = activation(build, build->in, 0), *made[2] = {NULL};
    lk_tensor *forward[] = {x, scale};
    if (build->status == LK_OK) {
        lk_graph_add(build->graph, LK_OP_RMS_NORM, 2, forward, &attributes, 3, 2, made);
    }
    lk_tensor *inputs[] = {activation(build, rows, build->in), x, scale, made[1], NULL};
    measured(build, LK_OP_RMS_NORM_BACKWARD, 5, inputs, &attributes, 1);
}

static void build_layer_norm(bench_build *build) {
    describe_rows(build, build->in);
    lk_attributes attributes = {.norm = {1e-5f}};
    lk_tensor *inputs[] = {activation(build, build->sizes.tokens, build->in), activation(build, build->in, 0),
                           activation(build, build->in, 0)};
    measured(build, LK_OP_LAYER_NORM, 3, inputs, &attributes, 7);
}

static void build_layer_norm_backward(bench_build *build) {
    describe_rows(build, build->in);
    lk_attributes attributes = {.norm = {1e-5f}};
    int64_t rows = build->sizes.tokens;
    lk_tensor *x = activation(build, rows, build->in), *scale = activation(build, build->in, 0), *made[3] = {NULL};
    lk_tensor *forward[] = {x, scale, activation(build, build->in, 0)};
    if (build->status == LK_OK) {
        lk_graph_add(build->graph, LK_OP_LAYER_NORM, 3, forward, &attributes, 7, 3, made);
    }
    lk_tensor *inputs[] = {activation(build, rows, build->in), x, scale, made[1], made[2], NULL};
    measured(build, LK_OP_LAYER_NORM_BACKWARD, 6, inputs, &attributes, 1);
}

/* Operations whose inputs and output all have one shape. */
static void build_same(bench_build *build, lk_op op, int num_inputs, const lk_attributes *attributes) {
    lk_tensor *inputs[4] = {NULL};
    describe_rows(build, build->out);
    for (int i = 0; i < num_inputs; i++) {
        inputs[i] = activation(build, build->sizes.tokens, build->out);
    }
    measured(build, op, num_inputs, inputs, attributes, op == LK_OP_SWIGLU_BACKWARD ? 3 : 1);
}

static void build_swiglu(bench_build *build) {
    build_same(build, LK_OP_SWIGLU, 2, NULL);
}

static void build_swiglu_backward(bench_build *build) {
    build_same(build, LK_OP_SWIGLU_BACKWARD, 3, NULL);
}

static void build_gelu(bench_build *build) {
    build_same(build, LK_OP_GELU, 1, NULL);
}

static void build_gelu_backward(bench_build *build) {
    build_same(build, LK_OP_GELU_BACKWARD, 2, NULL);
}

static void build_add(bench_build *build) {
    build_same(build, LK_OP_ADD, 2, NULL);
}

static void build_mul(bench_build *build) {
    build_same(build, LK_OP_MUL, 2, NULL);
}

static void build_scale(bench_build *build) {
    lk_attributes attributes = {.scale = {0.7f}};
    build_same(build, LK_OP_SCALE, 1, &attributes);
}

static void build_sum_rows(bench_build *build) {
    build_same(build, LK_OP_SUM_ROWS, 1, NULL);
}

static void build_dropout(bench_build *build) {
    lk_attributes attributes = {.dropout = {0.1f, 3}};
    describe_rows(build, build->out);
    lk_tensor *inputs[] = {activation(build, build->sizes.tokens, build->out), integers(build, 4, 12345)};
    measured(build, LK_OP_DROPOUT, 2, inputs, &attributes, 1);
}

/* ---- the optimizer, on one pair of factors ---- */

static void describe_pair(bench_build *build) {
    snprintf(build->shape, sizeof build->shape, "%lldx%lld", (long long)build->sizes.rank,
             (long long)(build->in + build->out));
}

static void build_grad_norm(bench_build *build) {
    describe_pair(build);
    lk_tensor *inputs[] = {activation(build, build->sizes.rank, build->in + build->out)};
    measured(build, LK_OP_GRAD_NORM, 1, inputs, NULL, 1);
}

static void build_adamw(bench_build *build) {
    int64_t rows = build->sizes.rank, columns = build->in + build->out;
    describe_pair(build);
    lk_attributes attributes = {.adamw = {1, NULL, NULL}};
    lk_tensor *inputs[] = {operand(build, LK_ROLE_INPUT, LK_DTYPE_F32, LK_ADAMW_HYPER_COUNT, 0, 0.0f),
                           NULL,
                           operand(build, LK_ROLE_STATE, LK_DTYPE_F32, rows, columns, 1.0f),
                           activation(build, rows, columns),
                           operand(build, LK_ROLE_STATE, LK_DTYPE_F32, rows, columns, 0.1f),
                           operand(build, LK_ROLE_STATE, LK_DTYPE_F32, rows, columns, 0.0f)};
    measured(build, LK_OP_ADAMW, 6, inputs, &attributes, 0);
}

static const bench_operation operations[] = {
#define LK_BENCH_OPERATION(OP, builder, in, out) {LK_OP_##OP, build_##builder, in, out},
#include "bench/operations.def"
#undef LK_BENCH_OPERATION
};

const bench_operation *lk_bench_operations(int *count) {
    *count = (int)LK_COUNT(operations);
    return operations;
}
