/* ATTENTION and its backward by cuDNN: operands are rounded to bf16 and packed sequences described to it; what it makes
 * is bf16 and becomes fp32. The log-sum-exps are those of the specification, so that either pass may be made by another
 * row. */
#include "backends/cuda/cudnn.h"
#include "backends/cuda/tensor_cores.h"

enum { GROUP = 256 };
enum { Q, K, V, CU_SEQLENS, CU_SEQLENS_K, SEQLENS_K };
enum { B_DO, B_Q, B_K, B_V, B_O, B_LSE, B_CU_SEQLENS };

bool lk_cuda_supports_dnn(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    const lk_attention_attributes *a = &node->attributes.attention;
    bool backward = node->op == LK_OP_ATTENTION_BACKWARD;
    LK_REQUIRE(why, (caps->features & LK_CUDA_FEATURE_CUDNN) != 0, "cuDNN is not there; `lorikeet probe` says why");
    LK_REQUIRE(why, caps->capability >= 90 && caps->capability < 120,
               "cuDNN's attention of packed sequences needs compute capability 9.0 to 11");
    LK_REQUIRE(why, a->allow_bf16, "the weights are not stored in bf16");
    LK_REQUIRE(why, a->head_dim <= 128 && a->head_dim % 16 == 0, "head_dim is no multiple of 16 up to 128");
    LK_REQUIRE(why, a->window == 0, "a window");
    LK_REQUIRE(why, backward || (!lk_has_input(node, CU_SEQLENS_K) && !lk_has_input(node, SEQLENS_K)),
               "keys come from a cache");
    LK_REQUIRE(why, backward || node->outputs[0] != NULL, "only the log-sum-exps are asked for");
    return lk_supports_f32(caps, node, why);
}

static lk_cudnn_attention describe(const lk_node *node) {
    const lk_attention_attributes *a = &node->attributes.attention;
    bool backward = node->op == LK_OP_ATTENTION_BACKWARD;
    return (lk_cudnn_attention){.tokens = node->inputs[backward ? B_Q : Q]->shape[0],
                                .sequences = (int32_t)node->inputs[backward ? B_CU_SEQLENS : CU_SEQLENS]->shape[0] - 1,
                                .num_attention_heads = a->num_attention_heads,
                                .num_key_value_heads = a->num_key_value_heads,
                                .head_dim = a->head_dim,
                                .scale = a->scale,
                                .causal = a->causal,
                                .backward = backward,
                                .wants_lse = !backward && node->outputs[1] != NULL};
}

/* Of the peak as published for an H100 (arXiv 2407.08608, figures 5 and 6). A group is started for every tile of every
 * sequence as if each were as long as all together; those without work take about half a microsecond. */
double lk_cuda_cost_dnn(const lk_device_caps *caps, const lk_node *node) {
    const lk_cudnn_attention a = describe(node);
    double efficiency = a.head_dim > 64 ? (a.backward ? 0.52 : 0.6) : (a.backward ? 0.44 : 0.42);
    double groups = (double)a.sequences * (double)a.num_attention_heads * (double)((a.tokens + 127) / 128);
    return 8.0 * caps->launch_seconds + lk_node_flops(node) / (caps->flops_16 * efficiency) +
           2.5 * lk_node_bytes(node) / caps->bandwidth + 0.5e-6 * groups / (double)LK_MAX(caps->threads, 1);
}

/* ---- memory ---- */

typedef struct space {
    lk_binding tensors[LK_CUDNN_LENGTHS]; /* bf16; lse is the node's own */
    lk_binding borders;                   /* and the workspace */
    int64_t pitch;                        /* integers, of each of the borders */
    size_t used;
} space;

static size_t aligned(size_t bytes) {
    return (bytes + LK_BUFFER_ALIGNMENT - 1) / LK_BUFFER_ALIGNMENT * LK_BUFFER_ALIGNMENT;
}

static lk_binding take(space *from, const lk_binding *memory, size_t bytes) {
    lk_binding part = lk_binding_part(memory, from->used, bytes);
    from->used += aligned(bytes);
    return part;
}

static bool is_of_keys(int tensor) {
    return tensor == LK_CUDNN_K || tensor == LK_CUDNN_V || tensor == LK_CUDNN_DK || tensor == LK_CUDNN_DV;
}

static int64_t count_of(const lk_cudnn_attention *a, int tensor) {
    return a->tokens * (is_of_keys(tensor) ? a->num_key_value_heads : a->num_attention_heads) * a->head_dim;
}

/* Backward: in fp32 dq, rowsum(do o), and with grouped queries dk and dv of every head of q; the rest is small. That it
 * suffices is checked by tests/cuda/test_cudnn.c. */
size_t lk_cuda_dnn_workspace(const lk_cudnn_attention *a) {
    const size_t rows = (size_t)a->tokens * (size_t)a->num_attention_heads, rest = (size_t)1 << 20;
    const size_t sums = a->num_attention_heads == a->num_key_value_heads ? 1 : 3;
    return a->backward ? rows * (sums * (size_t)a->head_dim + 2) * sizeof(float) + rest : rest;
}

static space plan_space(const lk_cudnn_attention *a, const lk_binding *memory) {
    space all = {.pitch = (int64_t)(aligned((size_t)(a->sequences + 1) * sizeof(int32_t)) / sizeof(int32_t))};
    for (int i = 0; i < LK_CUDNN_LENGTHS; i++) {
        if (i != LK_CUDNN_LSE && (a->backward || i <= LK_CUDNN_O)) {
            all.tensors[i] = take(&all, memory, (size_t)count_of(a, i) * sizeof(uint16_t));
        }
    }
    size_t borders = (LK_CUDNN_TENSORS - LK_CUDNN_LENGTHS) * (size_t)all.pitch * sizeof(int32_t);
    all.borders = take(&all, memory, borders + lk_cuda_dnn_workspace(a));
    return all;
}

size_t lk_cuda_scratch_dnn(const lk_device_caps *caps, const lk_node *node) {
    (void)caps;
    const lk_cudnn_attention a = describe(node);
    return plan_space(&a, &(lk_binding){0}).used;
}

/* ---- launches ---- */

static void round_input(lk_recorder *recorder, const lk_cudnn_attention *a, const space *all, int tensor,
                        const lk_binding *x) {
    lk_cuda_record_round_rows(recorder, x, &all->tensors[tensor], count_of(a, tensor) / a->head_dim, a->head_dim,
                              a->head_dim, 1.0f);
}

static void record_borders(lk_recorder *recorder, const lk_cudnn_attention *a, const space *all,
                           const lk_binding *cu_seqlens) {
    lk_launch *launch = lk_launch_begin(recorder, "sequence_starts", "sequence_starts", GROUP);
    lk_launch_buffer(launch, cu_seqlens);
    lk_launch_buffer(launch, &all->borders);
    lk_launch_int(launch, a->sequences);
    lk_launch_int(launch, a->num_attention_heads);
    lk_launch_int(launch, a->num_key_value_heads);
    lk_launch_int(launch, a->head_dim);
    lk_launch_int(launch, all->pitch);
    lk_launch_groups(launch, (a->sequences + GROUP) / GROUP);
}

static void record_attention(lk_recorder *recorder, const lk_cudnn_attention *a, const space *all,
                             const lk_binding *lse) {
    lk_launch *launch = lk_launch_begin(recorder, LK_CUDA_DNN_FILE, "attention", 1);
    for (int i = 0; i < LK_CUDNN_LENGTHS; i++) {
        lk_launch_buffer(launch, i == LK_CUDNN_LSE ? lse : &all->tensors[i]);
    }
    lk_launch_buffer(launch, &all->borders);
    const int64_t numbers[] = {
        a->backward, a->tokens,    a->sequences, a->num_attention_heads, a->num_key_value_heads, a->head_dim,
        a->causal,   a->wants_lse, all->pitch};
    for (size_t i = 0; i < LK_COUNT(numbers); i++) {
        lk_launch_int(launch, numbers[i]);
    }
    lk_launch_float(launch, a->scale);
    lk_launch_grid(launch, 1, 1);
}

/* Rows of no sequence, which cuDNN does not write, become zeros. */
static void widen_output(lk_recorder *recorder, const lk_cudnn_attention *a, const space *all, int tensor,
                         const lk_binding *cu_seqlens, const lk_binding *y) {
    int64_t columns = count_of(a, tensor) / a->tokens, pairs = a->tokens * columns / 2;
    lk_launch *launch = lk_launch_begin(recorder, "widen_rows", "widen_rows", GROUP);
    lk_launch_buffer(launch, &all->tensors[tensor]);
    lk_launch_buffer(launch, cu_seqlens);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, a->tokens);
    lk_launch_int(launch, columns);
    lk_launch_int(launch, a->sequences);
    lk_launch_groups(launch, (pairs + GROUP - 1) / GROUP);
}

void lk_cuda_record_dnn_attention(lk_recorder *recorder, const lk_command *command) {
    const lk_cudnn_attention a = describe(command->node);
    const space all = plan_space(&a, &command->scratch);
    const lk_binding *cu_seqlens = &command->inputs[CU_SEQLENS], *lse = &command->outputs[1];
    for (int i = Q; i <= V; i++) {
        round_input(recorder, &a, &all, LK_CUDNN_Q + i, &command->inputs[i]);
    }
    record_borders(recorder, &a, &all, cu_seqlens);
    if (a.wants_lse) {
        lk_record_fill_with(recorder, lse, LK_DTYPE_F32, a.tokens * a.num_attention_heads, 0.0f);
    }
    record_attention(recorder, &a, &all, lse);
    widen_output(recorder, &a, &all, LK_CUDNN_O, cu_seqlens, &command->outputs[0]);
}

void lk_cuda_record_dnn_attention_backward(lk_recorder *recorder, const lk_command *command) {
    static const int inputs[][2] = {
        {LK_CUDNN_DO, B_DO}, {LK_CUDNN_Q, B_Q}, {LK_CUDNN_K, B_K}, {LK_CUDNN_V, B_V}, {LK_CUDNN_O, B_O}};
    const lk_cudnn_attention a = describe(command->node);
    const space all = plan_space(&a, &command->scratch);
    const lk_binding *cu_seqlens = &command->inputs[B_CU_SEQLENS];
    for (size_t i = 0; i < LK_COUNT(inputs); i++) {
        round_input(recorder, &a, &all, inputs[i][0], &command->inputs[inputs[i][1]]);
    }
    record_borders(recorder, &a, &all, cu_seqlens);
    record_attention(recorder, &a, &all, &command->inputs[B_LSE]);
    for (int i = 0; i < 3; i++) {
        if (command->node->outputs[i] != NULL) {
            widen_output(recorder, &a, &all, LK_CUDNN_DQ + i, cu_seqlens, &command->outputs[i]);
        }
    }
}
