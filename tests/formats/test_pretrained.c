#include <stdio.h>
#include <sys/stat.h>

#include "core/formats/dequantize.h"
#include "core/formats/gguf_names.h"
#include "core/formats/pretrained.h"
#include "files.h"
#include "tests/common/runner.h"

static lk_pretrained *model;

static lk_status open_model(const char *path) {
    return lk_pretrained_open(context, path, &model);
}

START_TEST(test_names_both_ways) {
    static const char *const pairs[][2] = {
        {"token_embd.weight", "model.embed_tokens.weight"},
        {"output_norm.weight", "model.norm.weight"},
        {"output.weight", "lm_head.weight"},
        {"blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"},
        {"blk.12.ffn_norm.weight", "model.layers.12.post_attention_layernorm.weight"},
        {"blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight"},
        {"blk.3.attn_k.bias", "model.layers.3.self_attn.k_proj.bias"},
        {"blk.3.attn_v.weight", "model.layers.3.self_attn.v_proj.weight"},
        {"blk.3.attn_output.weight", "model.layers.3.self_attn.o_proj.weight"},
        {"blk.3.attn_q_norm.weight", "model.layers.3.self_attn.q_norm.weight"},
        {"blk.3.attn_k_norm.weight", "model.layers.3.self_attn.k_norm.weight"},
        {"blk.3.ffn_gate.weight", "model.layers.3.mlp.gate_proj.weight"},
        {"blk.3.ffn_up.weight", "model.layers.3.mlp.up_proj.weight"},
        {"blk.3.ffn_down.weight", "model.layers.3.mlp.down_proj.weight"},
    };
    char name[64];
    for (size_t i = 0; i < LK_COUNT(pairs); i++) {
        ck_assert(lk_gguf_name_to_hf(pairs[i][0], name, sizeof name));
        ck_assert_str_eq(name, pairs[i][1]);
        ck_assert(lk_gguf_name_from_hf(pairs[i][1], name, sizeof name));
        ck_assert_str_eq(name, pairs[i][0]);
    }
    static const char *const foreign[] = {"rope_freqs.weight",
                                          "blk.x.attn_q.weight",
                                          "blk.1.attn_q",
                                          "blk.1.weight",
                                          "blk..attn_q.weight",
                                          "blk.1.attn_q.scale",
                                          "",
                                          "blk.",
                                          "blk.1"};
    for (size_t i = 0; i < LK_COUNT(foreign); i++) {
        ck_assert_msg(!lk_gguf_name_to_hf(foreign[i], name, sizeof name), "%s", foreign[i]);
    }
    char small[8];
    ck_assert(!lk_gguf_name_to_hf("token_embd.weight", small, sizeof small));
}
END_TEST

/* Two heads of four rows, one key/value head; row r of the original q is filled with r, and stored in the order that
 * llama.cpp's converter gives it: within a head 0 2 1 3. */
static void put_decoder(const char *name, const char *architecture) {
    gguf_builder builder = {0};
    char key[64];
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"embedding_length", 8},     {"feed_forward_length", 12},    {"block_count", 1},
                 {"attention.head_count", 2}, {"attention.head_count_kv", 1}, {"context_length", 64}};
    static const int order[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    gguf_add_string(&builder, "general.architecture", architecture);
    for (size_t i = 0; i < LK_COUNT(sizes); i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, sizes[i].key);
        gguf_add_u32(&builder, key, sizes[i].value);
    }
    float q[64], k[32], bias[8], embedding[80];
    for (int i = 0; i < 64; i++) {
        q[i] = (float)order[i / 8];
        k[i % 32] = (float)order[i % 32 / 8];
    }
    for (int i = 0; i < 8; i++) {
        bias[i] = (float)order[i];
    }
    for (int i = 0; i < 80; i++) {
        embedding[i] = (float)i;
    }
    gguf_add_tensor(&builder, "token_embd.weight", 0, 2, (uint64_t[]){8, 10}, embedding, sizeof embedding);
    gguf_add_tensor(&builder, "blk.0.attn_q.weight", 0, 2, (uint64_t[]){8, 8}, q, sizeof q);
    gguf_add_tensor(&builder, "blk.0.attn_k.weight", 0, 2, (uint64_t[]){8, 4}, k, sizeof k);
    gguf_add_tensor(&builder, "blk.0.attn_v.weight", 0, 2, (uint64_t[]){8, 4}, k, sizeof k);
    gguf_add_tensor(&builder, "blk.0.attn_q.bias", 0, 1, (uint64_t[]){8}, bias, sizeof bias);
    put_gguf(name, &builder);
}

START_TEST(test_gguf_rows_are_put_back) {
    put_decoder("m.gguf", "llama");
    ck_assert_int_eq(open_model(in_folder("m.gguf")), LK_OK);
    ck_assert_ptr_nonnull(lk_pretrained_gguf(model));
    ck_assert_str_eq(lk_pretrained_folder(model), folder_path());
    ck_assert_uint_eq(lk_pretrained_count(model), 5);
    ck_assert_str_eq(lk_pretrained_at(model, 1)->name, "model.layers.0.self_attn.q_proj.weight");
    float values[80];
    uint16_t brain[64];
    const char *q = "model.layers.0.self_attn.q_proj.weight";
    ck_assert_int_eq(lk_pretrained_read_f32(model, q, 2, (int64_t[]){8, 8}, values), LK_OK);
    ck_assert_int_eq(lk_pretrained_read(model, q, 2, (int64_t[]){8, 8}, LK_DTYPE_BF16, brain), LK_OK);
    for (int i = 0; i < 64; i++) {
        ck_assert_float_eq(values[i], (float)(i / 8));
        ck_assert_uint_eq(brain[i], lk_f32_to_bf16((float)(i / 8)));
    }
    ck_assert_int_eq(
        lk_pretrained_read_f32(model, "model.layers.0.self_attn.k_proj.weight", 2, (int64_t[]){4, 8}, values), LK_OK);
    for (int i = 0; i < 32; i++) {
        ck_assert_float_eq(values[i], (float)(i / 8));
    }
    ck_assert_int_eq(lk_pretrained_read_f32(model, "model.layers.0.self_attn.q_proj.bias", 1, (int64_t[]){8}, values),
                     LK_OK);
    for (int i = 0; i < 8; i++) {
        ck_assert_float_eq(values[i], (float)i);
    }
    /* v is not permuted, so it still has the order it was given here */
    ck_assert_int_eq(
        lk_pretrained_read_f32(model, "model.layers.0.self_attn.v_proj.weight", 2, (int64_t[]){4, 8}, values), LK_OK);
    ck_assert_float_eq(values[8], 2);
    ck_assert_int_eq(lk_pretrained_permuted_heads(model, lk_pretrained_lookup(model, q)), 2);

    ck_assert_int_eq(lk_pretrained_read_f32(model, q, 2, (int64_t[]){4, 16}, values), LK_STATUS_FORMAT);
    assert_message("m.gguf", q, "[8, 8]", "[4, 16]");
    ck_assert_int_eq(lk_pretrained_read_f32(model, "model.norm.weight", 1, (int64_t[]){8}, values),
                     LK_STATUS_NOT_FOUND);
    assert_message("m.gguf", "model.norm.weight", NULL, NULL);
    ck_assert_int_eq(lk_pretrained_read(model, q, 2, (int64_t[]){8, 8}, LK_DTYPE_I32, values), LK_STATUS_UNSUPPORTED);
    assert_message("m.gguf", q, "i32", NULL);
    lk_pretrained_destroy(model);
}
END_TEST

START_TEST(test_qwen2_is_not_permuted) {
    put_decoder("m.gguf", "qwen2");
    ck_assert_int_eq(open_model(folder_path()), LK_OK); /* a folder with one .gguf */
    float values[64];
    ck_assert_int_eq(
        lk_pretrained_read_f32(model, "model.layers.0.self_attn.q_proj.weight", 2, (int64_t[]){8, 8}, values), LK_OK);
    ck_assert_float_eq(values[8], 2);
    ck_assert(lk_pretrained_config(model)->attention_bias);
    lk_pretrained_destroy(model);
    put_decoder("n.gguf", "qwen2");
    ck_assert_int_eq(open_model(folder_path()), LK_STATUS_NOT_FOUND);
    assert_message(folder_path(), "2 .gguf files", NULL, NULL);
}
END_TEST

START_TEST(test_quantised_rows_move_as_blocks) {
    gguf_builder builder = {0};
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"llama.embedding_length", 32},
                 {"llama.feed_forward_length", 32},
                 {"llama.block_count", 1},
                 {"llama.attention.head_count", 1},
                 {"llama.attention.key_length", 4}};
    gguf_add_string(&builder, "general.architecture", "llama");
    for (size_t i = 0; i < LK_COUNT(sizes); i++) {
        gguf_add_u32(&builder, sizes[i].key, sizes[i].value);
    }
    float rows[4 * 32], back[4 * 32];
    uint8_t blocks[4 * 34], moved[4 * 34];
    for (int i = 0; i < 4 * 32; i++) {
        rows[i] = (float)(i / 32 + 1) * (float)(i % 32);
    }
    lk_quantize(LK_DTYPE_Q8_0, rows, 4 * 32, blocks);
    gguf_add_tensor(&builder, "token_embd.weight", 8, 2, (uint64_t[]){32, 4}, blocks, sizeof blocks);
    gguf_add_tensor(&builder, "blk.0.attn_q.weight", 8, 2, (uint64_t[]){32, 4}, blocks, sizeof blocks);
    ck_assert_int_eq(open_model(put_gguf("q.gguf", &builder)), LK_OK);
    const char *q = "model.layers.0.self_attn.q_proj.weight";
    ck_assert_int_eq(lk_pretrained_read(model, q, 2, (int64_t[]){4, 32}, LK_DTYPE_Q8_0, moved), LK_OK);
    ck_assert_int_eq(lk_pretrained_read_f32(model, q, 2, (int64_t[]){4, 32}, back), LK_OK);
    static const int order[4] = {0, 2, 1, 3};
    for (int row = 0; row < 4; row++) {
        ck_assert_mem_eq(moved + row * 34, blocks + order[row] * 34, 34);
        ck_assert_float_eq_tol(back[row * 32 + 31], rows[order[row] * 32 + 31], 0.1f);
    }
    lk_pretrained_destroy(model);
}
END_TEST

#define CONFIG(type)                                                                                         \
    "{\"model_type\": \"" type "\", \"hidden_size\": 2, \"intermediate_size\": 4, \"num_hidden_layers\": 1," \
    "\"num_attention_heads\": 1, \"vocab_size\": 3, \"n_embd\": 2, \"n_layer\": 1, \"n_head\": 1}"

static void put_weights(const char *const *names, size_t count) {
    static const uint16_t halves[6] = {0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600}; /* 1 to 6 */
    lk_stored_tensor tensors[4];
    for (size_t i = 0; i < count; i++) {
        tensors[i] =
            (lk_stored_tensor){.name = names[i], .dtype = LK_DTYPE_F16, .rank = 2, .shape = {3, 2}, .data = halves};
    }
    ck_assert_int_eq(lk_safetensors_write(context, in_folder("model.safetensors"), tensors, count, NULL, NULL, NULL),
                     LK_OK);
}

START_TEST(test_hugging_face_folder) {
    put_text("config.json", CONFIG("llama"));
    put_weights((const char *const[]){"model.embed_tokens.weight", "lm_head.weight"}, 2);
    ck_assert_int_eq(open_model(folder_path()), LK_OK);
    ck_assert_ptr_null(lk_pretrained_gguf(model));
    float values[6];
    ck_assert_int_eq(lk_pretrained_read_f32(model, "lm_head.weight", 2, (int64_t[]){3, 2}, values), LK_OK);
    ck_assert_float_eq(values[5], 6);
    ck_assert_int_eq(lk_pretrained_read_f32(model, "lm_head.weight", 2, (int64_t[]){2, 3}, values), LK_STATUS_FORMAT);
    assert_message("model.safetensors", "lm_head.weight", "[3, 2]", "[2, 3]");
    lk_pretrained_destroy(model);
}
END_TEST

/* The base model's prefix may be missing or added, as transformers has it, and each family has its own. */
START_TEST(test_base_model_prefix) {
    put_text("config.json", CONFIG("gpt2"));
    put_weights((const char *const[]){"wte.weight"}, 1);
    ck_assert_int_eq(open_model(folder_path()), LK_OK);
    ck_assert_ptr_nonnull(lk_pretrained_lookup(model, "transformer.wte.weight"));
    ck_assert_ptr_null(lk_pretrained_lookup(model, "model.wte.weight"));
    const lk_stored_tensor *tensor;
    ck_assert_int_eq(lk_pretrained_find(model, "transformer.wte.weight", &tensor), LK_OK);
    ck_assert_int_eq(lk_pretrained_find(model, "transformer.wpe.weight", &tensor), LK_STATUS_NOT_FOUND);
    assert_message("transformer.wpe.weight", NULL, NULL, NULL);
    lk_pretrained_destroy(model);
    put_weights((const char *const[]){"transformer.wte.weight"}, 1);
    ck_assert_int_eq(open_model(folder_path()), LK_OK);
    ck_assert_ptr_nonnull(lk_pretrained_lookup(model, "wte.weight"));
    lk_pretrained_destroy(model);
}
END_TEST

START_TEST(test_what_cannot_be_opened) {
    ck_assert_int_eq(open_model(in_folder("absent.gguf")), LK_STATUS_NOT_FOUND);
    ck_assert_int_eq(open_model(folder_path()), LK_STATUS_NOT_FOUND);
    assert_message(folder_path(), "config.json", NULL, NULL);
    put_text("config.json", CONFIG("llama"));
    ck_assert_int_eq(open_model(folder_path()), LK_STATUS_NOT_FOUND);
    assert_message("model.safetensors", NULL, NULL, NULL);
    put_text("pytorch_model.bin", "PK");
    ck_assert_int_eq(open_model(folder_path()), LK_STATUS_UNSUPPORTED);
    assert_message("pytorch_model.bin", "safetensors", NULL, NULL);
    put_text("config.json", CONFIG("t5"));
    ck_assert_int_eq(open_model(folder_path()), LK_STATUS_UNSUPPORTED);
    assert_message("config.json", "t5", NULL, NULL);
    gguf_builder builder = {0};
    gguf_add_u32(&builder, "split.count", 3);
    ck_assert_int_eq(open_model(put_gguf("s.gguf", &builder)), LK_STATUS_UNSUPPORTED);
    assert_message("s.gguf", "3 parts", NULL, NULL);
    ck_assert_ptr_null(model);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("pretrained");
    tcase_add_checked_fixture(tests, files_setup, files_teardown);
    tcase_add_test(tests, test_names_both_ways);
    tcase_add_test(tests, test_gguf_rows_are_put_back);
    tcase_add_test(tests, test_qwen2_is_not_permuted);
    tcase_add_test(tests, test_quantised_rows_move_as_blocks);
    tcase_add_test(tests, test_hugging_face_folder);
    tcase_add_test(tests, test_base_model_prefix);
    tcase_add_test(tests, test_what_cannot_be_opened);
    return run_case("pretrained", tests);
}
