/* ATTENTION and its backward by flash_attention.cu and flash_attention_backward.cu. */
#include "backends/cuda/tensor_cores.h"

/* The constants of the passes, for heads padded to `dp` elements (backends/cuda/variants.txt). */
typedef struct tiles {
    int32_t dp, queries, keys; /* forward: of a group, of a tile */
    int32_t rows, columns;     /* backward: of a group, of a tile */
} tiles;
static const tiles sizes[] = {{64, 128, 64, 64, 64}, {128, 128, 32, 64, 32}};

enum { GROUP = 128 };
enum { Q, K, V, CU_SEQLENS, CU_SEQLENS_K, SEQLENS_K };
enum { B_DO, B_Q, B_K, B_V, B_O, B_LSE, B_CU_SEQLENS };

static const tiles *tiles_for(const lk_node *node) {
    return &sizes[node->attributes.attention.head_dim <= sizes[0].dp ? 0 : 1];
}

/* Of bf16: the rows of the group, and two tiles of each of two operands; then the ranges of the rows. */
static size_t forward_shared(const tiles *t) {
    return 2 * (size_t)t->dp * (size_t)(t->queries + 4 * t->keys) + 2 * sizeof(int32_t) * (size_t)t->queries;
}

static size_t backward_shared(const tiles *t) {
    size_t statistics = 4 * (size_t)t->columns * sizeof(float);
    return 2 * (size_t)t->dp * (size_t)(2 * t->rows + 4 * t->columns) + statistics;
}

bool lk_cuda_supports_flash(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    const lk_attention_attributes *a = &node->attributes.attention;
    bool backward = node->op == LK_OP_ATTENTION_BACKWARD;
    LK_REQUIRE(why, a->allow_bf16, "the weights are not stored in bf16");
    LK_REQUIRE(why, a->head_dim <= 128, "head_dim is more than 128");
    LK_REQUIRE(why, a->head_dim % 2 == 0, "head_dim is odd");
    LK_REQUIRE(why, backward || (!lk_has_input(node, CU_SEQLENS_K) && !lk_has_input(node, SEQLENS_K)),
               "keys come from a cache");
    LK_REQUIRE(why, caps->flops_16 > 0.0, "no tensor cores");
    const tiles *t = tiles_for(node);
    LK_REQUIRE(why, (backward ? backward_shared(t) : forward_shared(t)) <= caps->shared_bytes,
               "the tiles of this head_dim do not fit the shared memory");
    return lk_supports_f32(caps, node, why);
}

/* Scores are computed again in both passes of the backward. Of the newer tensor cores' peak mma.sync reaches less: an
 * H100's FlashAttention-2, which is made of it as well, has 0.33 to 0.37 (arXiv 2407.08608). */
double lk_cuda_cost_flash(const lk_device_caps *caps, const lk_node *node) {
    const double efficiency = caps->capability >= 100 && caps->capability < 120 ? 0.15
                              : caps->capability == 90                          ? 0.33
                                                                                : 0.4;
    double padding = (double)tiles_for(node)->dp / (double)node->attributes.attention.head_dim;
    double again = node->op == LK_OP_ATTENTION_BACKWARD ? 7.0 / 5.0 : 1.0;
    double arithmetic = again * padding * lk_node_flops(node) / (caps->flops_16 * efficiency);
    return 4.0 * caps->launch_seconds + arithmetic + 2.0 * padding * lk_node_bytes(node) / caps->bandwidth;
}

/* ---- operands in bf16, padded ---- */

typedef struct pool {
    lk_binding memory;
    size_t used;
} pool;

static lk_binding take(pool *from, size_t bytes) {
    lk_binding part = lk_binding_part(&from->memory, from->used, bytes);
    from->used += (bytes + LK_BUFFER_ALIGNMENT - 1) / LK_BUFFER_ALIGNMENT * LK_BUFFER_ALIGNMENT;
    return part;
}

static int64_t rows_of(const lk_node *node, int input) {
    return lk_count_of(node->inputs[input]) / node->attributes.attention.head_dim;
}

static lk_binding take_operand(pool *from, const lk_node *node, int input) {
    return take(from, (size_t)(rows_of(node, input) * tiles_for(node)->dp) * sizeof(uint16_t));
}

static lk_binding round_operand(lk_recorder *recorder, const lk_command *command, pool *from, int input) {
    lk_binding operand = take_operand(from, command->node, input);
    lk_cuda_record_round_rows(recorder, &command->inputs[input], &operand, rows_of(command->node, input),
                              command->node->attributes.attention.head_dim, tiles_for(command->node)->dp, 1.0f);
    return operand;
}

size_t lk_cuda_scratch_flash(const lk_device_caps *caps, const lk_node *node) {
    (void)caps;
    bool backward = node->op == LK_OP_ATTENTION_BACKWARD;
    pool memory = {0};
    for (int i = backward ? B_DO : Q; i <= (backward ? B_V : V); i++) {
        take_operand(&memory, node, i);
    }
    if (backward) { /* delta */
        take(&memory, (size_t)lk_count_of(node->inputs[B_LSE]) * sizeof(float));
    }
    return memory.used;
}

static void add_attributes(lk_launch *launch, const lk_node *node, int q, int cu_seqlens) {
    const lk_attention_attributes *a = &node->attributes.attention;
    lk_launch_int(launch, node->inputs[q]->shape[0]);
    lk_launch_int(launch, a->num_attention_heads);
    lk_launch_int(launch, a->num_key_value_heads);
    lk_launch_int(launch, a->head_dim);
    lk_launch_int(launch, node->inputs[cu_seqlens]->shape[0] - 1);
    lk_launch_float(launch, a->scale);
    lk_launch_int(launch, a->causal);
    lk_launch_int(launch, a->window);
}

static void finish(lk_launch *launch, int64_t tokens, int32_t rows, int64_t heads, size_t shared_bytes) {
    lk_launch_grid(launch, (tokens + rows - 1) / rows, heads);
    if (launch != NULL) {
        launch->shared_bytes = shared_bytes;
    }
}

void lk_cuda_record_flash_attention(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    const tiles *t = tiles_for(node);
    pool memory = {command->scratch, 0};
    lk_binding operands[3];
    for (int i = Q; i <= V; i++) {
        operands[i] = round_operand(recorder, command, &memory, i);
    }
    lk_launch *launch = lk_launch_begin(recorder, "flash_attention", "flash_attention", GROUP);
    lk_launch_constant(launch, "BQ", t->queries);
    lk_launch_constant(launch, "BK", t->keys);
    lk_launch_constant(launch, "DP", t->dp);
    for (int i = Q; i <= V; i++) {
        lk_launch_buffer(launch, &operands[i]);
    }
    lk_launch_buffer(launch, &command->inputs[CU_SEQLENS]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_buffer(launch, &command->outputs[1]);
    add_attributes(launch, node, Q, CU_SEQLENS);
    lk_launch_int(launch, node->outputs[0] != NULL);
    lk_launch_int(launch, node->outputs[1] != NULL);
    finish(launch, node->inputs[Q]->shape[0], t->queries, node->attributes.attention.num_attention_heads,
           forward_shared(t));
}

static lk_launch *begin_pass(lk_recorder *recorder, const lk_command *command, const char *entry,
                             const lk_binding operands[4], const lk_binding *delta) {
    const tiles *t = tiles_for(command->node);
    lk_launch *launch = lk_launch_begin(recorder, "flash_attention_backward", entry, GROUP);
    lk_launch_constant(launch, "ROWS", t->rows);
    lk_launch_constant(launch, "COLUMNS", t->columns);
    lk_launch_constant(launch, "DP", t->dp);
    for (int i = B_DO; i <= B_V; i++) {
        lk_launch_buffer(launch, &operands[i]);
    }
    lk_launch_buffer(launch, &command->inputs[B_LSE]);
    lk_launch_buffer(launch, delta);
    lk_launch_buffer(launch, &command->inputs[B_CU_SEQLENS]);
    return launch;
}

void lk_cuda_record_flash_attention_backward(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    const lk_attention_attributes *a = &node->attributes.attention;
    const tiles *t = tiles_for(node);
    int64_t tokens = node->inputs[B_Q]->shape[0];
    pool memory = {command->scratch, 0};
    lk_binding operands[4];
    for (int i = B_DO; i <= B_V; i++) {
        operands[i] = round_operand(recorder, command, &memory, i);
    }
    lk_binding delta = take(&memory, (size_t)lk_count_of(node->inputs[B_LSE]) * sizeof(float));
    lk_record_attention_delta(recorder, command, &delta);
    if (node->outputs[0] != NULL) {
        lk_launch *launch = begin_pass(recorder, command, "flash_attention_dq", operands, &delta);
        lk_launch_buffer(launch, &command->outputs[0]);
        add_attributes(launch, node, B_Q, B_CU_SEQLENS);
        finish(launch, tokens, t->rows, a->num_attention_heads, backward_shared(t));
    }
    if (node->outputs[1] != NULL || node->outputs[2] != NULL) {
        lk_launch *launch = begin_pass(recorder, command, "flash_attention_dkv", operands, &delta);
        lk_launch_buffer(launch, &command->outputs[1]);
        lk_launch_buffer(launch, &command->outputs[2]);
        add_attributes(launch, node, B_Q, B_CU_SEQLENS);
        lk_launch_int(launch, node->outputs[1] != NULL);
        lk_launch_int(launch, node->outputs[2] != NULL);
        finish(launch, tokens, t->rows, a->num_key_value_heads, backward_shared(t));
    }
}
