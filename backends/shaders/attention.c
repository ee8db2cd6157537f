#include "backends/shaders/rows.h"

/* The constants of attention.lk and attention_backward.lk. */
typedef struct tiles {
    int32_t group, bq, bk, tm, tn, dp, vector;
} tiles;

static int32_t round_up(int64_t value, int32_t multiple) {
    return (int32_t)((value + multiple - 1) / multiple) * multiple;
}

/* Of GPUs: few enough that CUDA can compile a kernel for each (backends/cuda/variants.txt). */
static int32_t padded(int32_t head_dim) {
    static const int32_t sizes[] = {16, 32, 64, 80, 96, 128, 192, 256, 384, 512};
    size_t i = 0;
    while (i + 1 < LK_COUNT(sizes) && sizes[i] < head_dim) {
        i++;
    }
    return sizes[i];
}

static tiles tiles_for(const lk_device_caps *caps, const lk_node *node, int32_t queries) {
    int32_t head_dim = node->attributes.attention.head_dim;
    int64_t tokens = node->inputs[0]->shape[0];
    if (caps->is_cpu) {
        tiles t = {.group = 1, .bk = 32, .vector = lk_vector_width(caps)};
        t.tm = t.vector >= 16 ? 8 : 4; /* as many sums as the panels of matmul.c keep */
        t.tn = t.vector >= 16 ? 1 : 2;
        t.bq = (int32_t)LK_MIN((int64_t)queries, (int64_t)round_up(LK_MAX(tokens, (int64_t)1), t.tm));
        t.dp = round_up(head_dim, t.tn * t.vector);
        return t;
    }
    bool large = head_dim > 64;
    return (tiles){64, large ? 8 : 16, large ? 8 : 16, large ? 1 : 2, large ? 1 : 2, padded(head_dim), 1};
}

/* Of the hungriest of the kernels that the op needs. */
static size_t shared_bytes(const tiles *t, bool backward) {
    size_t q = (size_t)t->bq * (size_t)t->dp, k = (size_t)t->bk * (size_t)t->dp, s = (size_t)t->bq * (size_t)t->bk;
    return 4 * (backward ? 2 * q + 4 * k + 2 * s + 4 * (size_t)t->bq : 2 * q + k + s + 5 * (size_t)t->bq);
}

bool lk_supports_attention(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    tiles t = tiles_for(caps, node, 64);
    LK_REQUIRE(why, node->attributes.attention.head_dim <= 512, "head_dim is at most 512");
    LK_REQUIRE(why, caps->is_cpu || shared_bytes(&t, node->op == LK_OP_ATTENTION_BACKWARD) <= caps->shared_bytes,
               "the tiles of this head_dim do not fit the shared memory");
    LK_REQUIRE(why, caps->is_cpu || caps->max_group_size >= t.group, "needs groups of 64");
    return lk_supports_f32(caps, node, why);
}

double lk_cost_attention(const lk_device_caps *caps, const lk_node *node) {
    return lk_cost(caps, node, 0.2);
}

static lk_launch *begin(lk_recorder *recorder, const char *file, const char *entry, const tiles *t) {
    lk_launch *launch = lk_launch_begin(recorder, file, entry, t->group);
    lk_launch_constant(launch, "BQ", t->bq);
    lk_launch_constant(launch, "BK", t->bk);
    lk_launch_constant(launch, "TM", t->tm);
    lk_launch_constant(launch, "TN", t->tn);
    lk_launch_constant(launch, "DP", t->dp);
    lk_launch_constant(launch, "VECTOR", t->vector);
    return launch;
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

void lk_record_attention(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    tiles t = tiles_for(recorder->caps, node, 64);
    bool has_cu_k = lk_has_input(node, 4), has_lengths = lk_has_input(node, 5);
    lk_launch *launch = begin(recorder, "attention", "attention", &t);
    for (int i = 0; i < 4; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_buffer(launch, &command->inputs[has_cu_k ? 4 : 3]);
    lk_launch_buffer(launch, &command->inputs[has_lengths ? 5 : 3]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_buffer(launch, &command->outputs[1]);
    add_attributes(launch, node, 0, 3);
    lk_launch_int(launch, has_lengths);
    lk_launch_int(launch, node->outputs[0] != NULL);
    lk_launch_int(launch, node->outputs[1] != NULL);
    lk_launch_grid(launch, (node->inputs[0]->shape[0] + t.bq - 1) / t.bq,
                   node->attributes.attention.num_attention_heads);
}

enum { DO, Q, K, V, O, LSE, CU_SEQLENS };

size_t lk_scratch_attention_backward(const lk_device_caps *caps, const lk_node *node) {
    (void)caps;
    return (size_t)lk_count_of(node->inputs[LSE]) * sizeof(float);
}

void lk_record_attention_delta(lk_recorder *recorder, const lk_command *command, const lk_binding *delta) {
    int64_t rows = lk_count_of(command->node->inputs[LSE]);
    lk_launch *launch =
        lk_launch_begin(recorder, "attention_backward", "attention_delta", lk_lanes_for_elements(recorder->caps));
    lk_launch_buffer(launch, &command->inputs[DO]);
    lk_launch_buffer(launch, &command->inputs[O]);
    lk_launch_buffer(launch, delta);
    lk_launch_int(launch, rows);
    lk_launch_int(launch, command->node->attributes.attention.head_dim);
    lk_launch_cover(launch, recorder, rows);
}

void lk_record_attention_backward(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    const lk_attention_attributes *a = &node->attributes.attention;
    int64_t tokens = node->inputs[Q]->shape[0];
    lk_record_attention_delta(recorder, command, &command->scratch);
    for (int pass = 0; pass < 2; pass++) {
        bool wants_0 = node->outputs[pass == 0 ? 0 : 1] != NULL, wants_1 = pass == 1 && node->outputs[2] != NULL;
        if (!wants_0 && !wants_1) {
            continue;
        }
        tiles t = tiles_for(recorder->caps, node, pass == 0 ? 64 : 32);
        lk_launch *launch =
            begin(recorder, "attention_backward", pass == 0 ? "attention_backward_dq" : "attention_backward_dkv", &t);
        for (int i = DO; i <= V; i++) {
            lk_launch_buffer(launch, &command->inputs[i]);
        }
        lk_launch_buffer(launch, &command->inputs[LSE]);
        lk_launch_buffer(launch, &command->scratch);
        lk_launch_buffer(launch, &command->inputs[CU_SEQLENS]);
        lk_launch_buffer(launch, &command->outputs[pass == 0 ? 0 : 1]);
        if (pass == 1) {
            lk_launch_buffer(launch, &command->outputs[2]);
        }
        add_attributes(launch, node, Q, CU_SEQLENS);
        lk_launch_int(launch, wants_0);
        lk_launch_int(launch, wants_1);
        int64_t block = pass == 0 ? t.bq : t.bk;
        lk_launch_grid(launch, (tokens + block - 1) / block,
                       pass == 0 ? a->num_attention_heads : a->num_key_value_heads);
    }
}
