/* Which kernels the steps of Llama-3-8B and SmolLM2 take on cards that need not be here: the mock driver describes
 * them, the weights are holes in a file, and nothing is run. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "dispatch/dispatch.h"
#include "lorikeet_bench.h"
#include "tests/common/runner.h"

static const struct {
    const char *id, *name;
    int32_t capability;
    size_t shared_bytes;
} cards[] = {
#define LK_CARD(id, name, capability, units, shared, memory, l2, clock, memory_clock, bus) \
    {#id, name, capability, shared},
#include "tests/cuda/cards.def"
#undef LK_CARD
};
static const char *const models[] = {"llama-3-8b", "smollm2-135m"};

/* op and the kernel that it takes on every card of capability 8.0 and more */
static const char *const expected[][2] = {
    {"embedding", "cuda_embedding"},
    {"rms_norm", "cuda_rms_norm"},
    {"lora_linear", "cuda_lora_linear_mma_bf16"},
    {"linear", "cuda_linear_mma_bf16"},
    {"rope_table", "cuda_rope_table"},
    {"rope", "cuda_rope"},
    {"attention", "cuda_flash_attention"},
    {"swiglu", "cuda_swiglu"},
    {"linear_cross_entropy", "cuda_linear_cross_entropy_mma_bf16"},
    {"lora_linear_backward", "cuda_lora_linear_backward_mma_bf16"},
    {"rms_norm_backward", "cuda_rms_norm_backward"},
    {"attention_backward", "cuda_flash_attention_backward"},
    {"swiglu_backward", "cuda_swiglu_backward"},
    {"adamw", "cuda_adamw"},
    {"grad_norm", "cuda_grad_norm"},
};

#define SUCCEEDS(expression) ck_assert_msg((expression) == LK_OK, "%s", lk_error_message(context))

static json_t *plan_of(lk_context *context, const char *name) {
    char folder[256];
    snprintf(folder, sizeof folder, "select-%s", name);
    SUCCEEDS(lk_bench_model_write(context, lk_bench_model_find(name), true, folder));
    lk_session_options session_options;
    lk_session_options_init(&session_options);
    session_options.device = "cuda";
    lk_model_options model_options;
    lk_model_options_init(&model_options);
    model_options.plan_only = true;
    model_options.dtype = LK_DTYPE_BF16;
    lk_adapter_options adapter_options;
    lk_adapter_options_init(&adapter_options);
    lk_data_options data;
    lk_data_options_init(&data);
    data.batch = 1;
    data.seq = 4096;
    lk_session *session;
    lk_model *model;
    lk_adapter *adapter;
    char *text;
    json_t *plan;
    SUCCEEDS(lk_session_create(context, &session_options, &session));
    SUCCEEDS(lk_model_load(session, folder, &model_options, &model));
    SUCCEEDS(lk_adapter_create(model, &adapter_options, &adapter));
    SUCCEEDS(lk_plan(model, adapter, &data, NULL, true, &text));
    SUCCEEDS(lk_json_parse(context, "plan", text, strlen(text), &plan));
    lk_release(context, text);
    lk_adapter_destroy(adapter);
    lk_model_destroy(model);
    lk_session_destroy(session);
    return plan;
}

static bool has(const char *library) {
    const char *file = getenv(library);
    return file != NULL && strcmp(file, "none") != 0;
}

/* Our own row is right, or the library's that is there; for two kinds of ops both are: gemm.cu adds LoRA's part within
 * the product, cuBLASLt in one of its own; and a small model's attention gains by cuDNN about what more launches cost.
 */
static bool is_right(const char *own, const char *kernel, const char *model, int32_t capability) {
    const char *mma = strstr(own, "_mma"), *attention = strstr(own, "flash_");
    char by_library[64];
    if (mma != NULL && has("LORIKEET_CUBLASLT")) {
        snprintf(by_library, sizeof by_library, "%.*s_lt_bf16", (int)(mma - own), own);
        return strcmp(kernel, by_library) == 0 || (strstr(own, "_lora_") != NULL && strcmp(kernel, own) == 0);
    }
    if (attention != NULL && has("LORIKEET_CUDNN") && capability >= 90) {
        snprintf(by_library, sizeof by_library, "cuda_%s_cudnn", attention + strlen("flash_"));
        return strcmp(kernel, by_library) == 0 || (strcmp(model, "smollm2-135m") == 0 && strcmp(kernel, own) == 0);
    }
    return strcmp(kernel, own) == 0;
}

static void check_kernel(const json_t *row, size_t card, const char *model, bool found[LK_COUNT(expected)]) {
    const char *op = json_string_value(json_object_get(row, "op"));
    const char *kernel = json_string_value(json_object_get(row, "kernel"));
    ck_assert_msg(strncmp(kernel, "cuda_", 5) == 0, "%s: %s falls back to %s", cards[card].id, op, kernel);
    for (size_t e = 0; e < LK_COUNT(expected); e++) {
        if (strcmp(expected[e][0], op) == 0) {
            ck_assert_msg(is_right(expected[e][1], kernel, model, cards[card].capability), "%s: %s of %s takes %s",
                          cards[card].id, op, model, kernel);
            found[e] = true;
        }
    }
}

START_TEST(test_kernels_of_models) {
    size_t card = (size_t)_i / LK_COUNT(models);
    const char *model = models[(size_t)_i % LK_COUNT(models)];
    if (cards[card].capability < 80) {
        return;
    }
    setenv("LK_MOCK_CUDA_CARDS", cards[card].id, 1);
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    json_t *plan = plan_of(context, model);
    ck_assert_ptr_nonnull(strstr(json_string_value(json_object_get(plan, "device")), cards[card].name));
    size_t p, k;
    json_t *program, *row;
    bool found[LK_COUNT(expected)] = {false};
    json_array_foreach(json_object_get(plan, "programs"), p, program) {
        json_array_foreach(json_object_get(program, "kernels"), k, row) {
            check_kernel(row, card, model, found);
        }
    }
    for (size_t e = 0; e < LK_COUNT(expected); e++) {
        bool only_some = strcmp(expected[e][0], "linear") == 0; /* all linears may be adapted */
        ck_assert_msg(found[e] || only_some, "%s: %s has no %s", cards[card].id, model, expected[e][0]);
    }
    json_decref(plan);
    lk_context_destroy(context);
}
END_TEST

/* An old card is not listed, with the reason, and every row would refuse it. */
START_TEST(test_old_card) {
    lk_context *context;
    lk_device_caps caps[2];
    int count;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    setenv("LK_MOCK_CUDA_CARDS", "V100", 1);
    ck_assert_int_eq(lk_backend_cuda.probe(context, caps, 2, &count), LK_STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(lk_error_message(context), "Tesla V100"));
    ck_assert_ptr_nonnull(strstr(lk_error_message(context), "compute capability 7.0"));
    lk_device_caps old = {.struct_size = sizeof old, .backend = "cuda", .capability = 70, .shared_bytes = 98304};
    int num_rows;
    const lk_kernel *rows = lk_backend_cuda.kernels(&num_rows);
    for (int i = 0; i < num_rows; i++) {
        lk_refusal why;
        lk_node node = {.op = rows[i].op};
        ck_assert(!rows[i].supports(&old, &node, &why));
        ck_assert_str_eq(why.reason, "needs compute capability 8.0");
    }
    lk_context_destroy(context);
}
END_TEST

/* Tensor cores round to bf16, so they are for models whose weights are stored so: whatever else is asked for has the
 * dialect's kernels, and the refusals say why. */
START_TEST(test_refusals_of_tensor_cores) {
    lk_context *context;
    lk_device_caps caps[1];
    int count, num_rows;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    setenv("LK_MOCK_CUDA_CARDS", "H100", 1);
    ck_assert_int_eq(lk_backend_cuda.probe(context, caps, 1, &count), LK_OK);
    lk_tensor x = {.dtype = LK_DTYPE_F32, .rank = 2, .shape = {64, 576}}, y = x;
    lk_tensor weight = {.dtype = LK_DTYPE_BF16, .rank = 2, .shape = {576, 576}};
    lk_tensor full = {.dtype = LK_DTYPE_F32, .rank = 2, .shape = {576, 576}};
    lk_tensor odd = {.dtype = LK_DTYPE_BF16, .rank = 2, .shape = {576, 172}};
    lk_tensor borders = {.dtype = LK_DTYPE_I32, .rank = 1, .shape = {2}};
    lk_attention_attributes heads = {
        .num_attention_heads = 9, .num_key_value_heads = 9, .head_dim = 64, .allow_bf16 = true};
    lk_attention_attributes wide = heads, exact = heads;
    wide.head_dim = 192;
    exact.allow_bf16 = false;
    const struct {
        lk_op op;
        lk_tensor *inputs[6];
        lk_attributes attributes;
        const char *row, *reason; /* NULL: it is taken */
    } nodes[] = {
        {LK_OP_LINEAR, {&x, &weight}, {.matmul = {0}}, "cuda_linear_mma_bf16", NULL},
        {LK_OP_LINEAR, {&x, &full}, {.matmul = {0}}, "cuda_linear_mma_bf16", "the weight is not stored in bf16"},
        {LK_OP_LINEAR,
         {&x, &odd},
         {.matmul = {0}},
         "cuda_linear_mma_bf16",
         "rows of the weight are not multiples of 16 bytes"},
        {LK_OP_ATTENTION, {&x, &x, &x, &borders}, {.attention = heads}, "cuda_flash_attention", NULL},
        {LK_OP_ATTENTION,
         {&x, &x, &x, &borders},
         {.attention = exact},
         "cuda_flash_attention",
         "the weights are not stored in bf16"},
        {LK_OP_ATTENTION,
         {&x, &x, &x, &borders},
         {.attention = wide},
         "cuda_flash_attention",
         "head_dim is more than 128"},
        {LK_OP_ATTENTION,
         {&x, &x, &x, &borders, &borders},
         {.attention = heads},
         "cuda_flash_attention",
         "keys come from a cache"},
    };
    const lk_kernel *rows = lk_backend_cuda.kernels(&num_rows);
    for (size_t i = 0; i < LK_COUNT(nodes); i++) {
        lk_tensor *inputs[6];
        memcpy(inputs, nodes[i].inputs, sizeof inputs);
        lk_node node = {.op = nodes[i].op,
                        .num_inputs = 6,
                        .inputs = inputs,
                        .num_outputs = 1,
                        .outputs = {&y},
                        .attributes = nodes[i].attributes};
        lk_refusal why = {""};
        const lk_kernel *row = rows;
        while (row < rows + num_rows && strcmp(row->name, nodes[i].row) != 0) {
            row++;
        }
        ck_assert_msg(row < rows + num_rows, "no row %s", nodes[i].row);
        ck_assert_int_eq(row->supports(caps, &node, &why), nodes[i].reason == NULL);
        ck_assert_str_eq(why.reason, nodes[i].reason != NULL ? nodes[i].reason : "");
    }
    lk_context_destroy(context);
}
END_TEST

/* Beside newer cards it is passed over, and what remains is numbered from 0. */
START_TEST(test_several_cards) {
    lk_context *context;
    lk_device_caps caps[4];
    int count;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    setenv("LK_MOCK_CUDA_CARDS", "V100,RTX3090,H100", 1);
    ck_assert_int_eq(lk_backend_cuda.probe(context, caps, 4, &count), LK_OK);
    ck_assert_int_eq(count, 2);
    ck_assert_str_eq(caps[0].name, "NVIDIA GeForce RTX 3090");
    ck_assert_str_eq(caps[1].name, "NVIDIA H100 80GB HBM3");
    ck_assert(caps[0].index == 0 && caps[1].index == 1);
    ck_assert_int_eq(caps[1].capability, 90);
    ck_assert_uint_eq(caps[1].shared_bytes, 232448);
    ck_assert_double_gt(caps[1].flops_16, 5e14); /* white paper: 989 TFLOP/s, 67 in fp32, 3.35 TB/s */
    ck_assert_double_lt(caps[1].flops_16, 1.2e15);
    ck_assert_double_gt(caps[1].flops_f32, 5.5e13);
    ck_assert_double_lt(caps[1].flops_f32, 7.5e13);
    ck_assert_double_gt(caps[1].bandwidth, 3.0e12);
    ck_assert_double_lt(caps[1].bandwidth, 3.6e12);
    lk_device *device;
    ck_assert_int_eq(lk_backend_cuda.open(context, &caps[1], NULL, &device), LK_OK);
    lk_backend_cuda.close(device);
    caps[1].index = 2;
    ck_assert_int_eq(lk_backend_cuda.open(context, &caps[1], NULL, &device), LK_STATUS_DEVICE);
    lk_context_destroy(context);
}
END_TEST

int main(void) {
    if (getenv("LK_MOCK") == NULL) {
        printf("SKIP: no mock driver in this build\n");
        return 77;
    }
    TCase *tests = tcase_create("cuda-select");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, test_kernels_of_models, 0, (int)(LK_COUNT(cards) * LK_COUNT(models)));
    tcase_add_test(tests, test_old_card);
    tcase_add_test(tests, test_refusals_of_tensor_cores);
    tcase_add_test(tests, test_several_cards);
    return run_case("cuda-select", tests);
}
