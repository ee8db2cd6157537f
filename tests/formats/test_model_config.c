#include <math.h>
#include <stdio.h>

#include "core/base/json.h"
#include "core/formats/model_config.h"
#include "files.h"
#include "tests/common/runner.h"

static lk_model_config config;

#define SIZES                                                                                                \
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, " \
    "\"vocab_size\": 512"
#define LLAMA(extra) "{\"model_type\": \"llama\", " SIZES extra "}"
#define QWEN2(extra) "{\"model_type\": \"qwen2\", " SIZES extra "}"

static void load(const char *text) {
    lk_status status = lk_model_config_load(context, put_text("config.json", text), &config);
    ck_assert_msg(status == LK_OK, "%s: %s", text, lk_error_message(context));
}

START_TEST(test_llama) {
    load(LLAMA(", \"architectures\": [\"LlamaForCausalLM\"], \"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-05,"
               "\"attention_bias\": true, \"eos_token_id\": [2, 7], \"bos_token_id\": 1, \"pad_token_id\": null,"
               "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5000}, \"head_dim\": null"));
    ck_assert_str_eq(config.type->name, "llama");
    ck_assert_str_eq(config.architecture, "LlamaForCausalLM");
    ck_assert_int_eq(config.head_dim, 16);
    ck_assert_int_eq(config.num_key_value_heads, 2);
    ck_assert_double_eq(config.norm_eps, 1e-5);
    ck_assert(config.attention_bias && config.attention_output_bias && !config.mlp_bias && !config.qk_norm);
    ck_assert(!config.tie_word_embeddings);
    ck_assert_int_eq(config.eos_count, 2);
    ck_assert_int_eq(config.eos_token_id[1], 7);
    ck_assert_int_eq(config.bos_token_id, 1);
    ck_assert_int_eq(config.pad_token_id, -1);
    ck_assert_int_eq(config.rope.type, LK_ROPE_DEFAULT);
    ck_assert_double_eq(config.rope.theta, 5000);
    ck_assert_int_eq(config.hidden_act, LK_HIDDEN_ACT_SILU);
    ck_assert_int_eq(config.sliding_window, 0);
    ck_assert_int_eq(config.max_position_embeddings, 2048);
    lk_model_config_free(&config);
}
END_TEST

/* One scaling, four spellings. */
START_TEST(test_rope_spellings) {
    static const char *const texts[] = {
        LLAMA(
            ", \"rope_theta\": 500000, \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1,"
            "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 32}"),
        LLAMA(", \"rope_theta\": 500000, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8,"
              "\"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 32}"),
        LLAMA(", \"rope_parameters\": {\"rope_theta\": 500000, \"rope_type\": \"llama3\", \"factor\": 8,"
              "\"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 32}"),
        LLAMA(", \"rope_theta\": 500000, \"rope_scaling\": null, \"rope_parameters\": {\"type\": \"llama3\","
              "\"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4,"
              "\"original_max_position_embeddings\": 32}"),
    };
    for (size_t i = 0; i < LK_COUNT(texts); i++) {
        load(texts[i]);
        ck_assert_int_eq(config.rope.type, LK_ROPE_LLAMA3);
        ck_assert_double_eq(config.rope.theta, 500000);
        ck_assert_double_eq(config.rope.factor, 8);
        ck_assert_double_eq(config.rope.low_freq_factor, 1);
        ck_assert_double_eq(config.rope.high_freq_factor, 4);
        ck_assert_int_eq(config.rope.original_max_position_embeddings, 32);
        lk_model_config_free(&config);
    }
    load(LLAMA(", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}"));
    ck_assert_int_eq(config.rope.type, LK_ROPE_LINEAR);
    ck_assert_double_eq(config.rope.factor, 2.5);
    lk_model_config_free(&config);
}
END_TEST

START_TEST(test_sliding_windows) {
    static const struct {
        const char *text;
        int64_t window, from;
    } cases[] = {
        {"{\"model_type\": \"mistral\", " SIZES "}", 4096, 0},
        {"{\"model_type\": \"mistral\", " SIZES ", \"sliding_window\": null}", 0, 0},
        {"{\"model_type\": \"mistral\", " SIZES ", \"sliding_window\": 100}", 100, 0},
        {QWEN2(", \"sliding_window\": 100"), 0, 0},
        {QWEN2(", \"sliding_window\": 100, \"use_sliding_window\": false, \"max_window_layers\": 0"), 0, 0},
        {QWEN2(", \"sliding_window\": 100, \"use_sliding_window\": true, \"max_window_layers\": 1"), 100, 1},
        {QWEN2(", \"sliding_window\": 100, \"use_sliding_window\": true"), 0, 0}, /* 28 layers have none */
        {QWEN2(", \"sliding_window\": 100, \"use_sliding_window\": true, \"max_window_layers\": 0, \"layer_types\":"
               "[\"full_attention\", \"full_attention\", \"sliding_attention\", \"sliding_attention\"]"),
         100, 2},
        {QWEN2(", \"sliding_window\": 100, \"use_sliding_window\": true, \"max_window_layers\": 0, \"layer_types\":"
               "[\"full_attention\", \"full_attention\", \"full_attention\", \"full_attention\"]"),
         0, 0},
        {LLAMA(", \"sliding_window\": 100"), 0, 0},
    };
    for (size_t i = 0; i < LK_COUNT(cases); i++) {
        load(cases[i].text);
        ck_assert_msg(config.sliding_window == cases[i].window && config.sliding_window_from == cases[i].from,
                      "case %zu: %d from %d", i, (int)config.sliding_window, (int)config.sliding_window_from);
        lk_model_config_free(&config);
    }
}
END_TEST

START_TEST(test_other_families) {
    load(QWEN2(", \"tie_word_embeddings\": true"));
    ck_assert(config.attention_bias && !config.attention_output_bias && config.tie_word_embeddings);
    lk_model_config_free(&config);
    load("{\"model_type\": \"qwen3\", " SIZES "}");
    ck_assert(config.qk_norm && !config.attention_bias);
    ck_assert_int_eq(config.head_dim, 128);
    lk_model_config_free(&config);
    load("{\"model_type\": \"gpt2\", \"n_embd\": 48, \"n_layer\": 3, \"n_head\": 3, \"n_positions\": 11,"
         "\"n_inner\": null, \"vocab_size\": 3, \"activation_function\": \"gelu_new\"}");
    ck_assert_int_eq(config.intermediate_size, 192);
    ck_assert_int_eq(config.max_position_embeddings, 11);
    ck_assert(config.tie_word_embeddings && config.rope.type == LK_ROPE_NONE);
    ck_assert_int_eq(config.hidden_act, LK_HIDDEN_ACT_GELU_NEW);
    lk_model_config_free(&config);
    load("{\"model_type\": \"bert\", " SIZES ", \"type_vocab_size\": 2, \"id2label\": {\"0\": \"a\", \"1\": \"b\"},"
         "\"hidden_act\": \"gelu\"}");
    ck_assert_int_eq(config.num_labels, 2);
    ck_assert_int_eq(config.type_vocab_size, 2);
    ck_assert_double_eq(config.norm_eps, 1e-12);
    lk_model_config_free(&config);
}
END_TEST

START_TEST(test_refusals) {
    static const struct {
        const char *text;
        lk_status status;
        const char *part, *more;
    } cases[] = {
        {"[3]", LK_STATUS_FORMAT, "not a JSON object", NULL},
        {"{}", LK_STATUS_FORMAT, "\"model_type\" is missing", NULL},
        {"{\"model_type\": \"mamba\"}", LK_STATUS_UNSUPPORTED, "\"mamba\"", "llama, mistral"},
        {"{\"model_type\": \"llama\"}", LK_STATUS_FORMAT, "\"hidden_size\" is missing", NULL},
        {LLAMA(", \"hidden_act\": \"relu6\""), LK_STATUS_UNSUPPORTED, "hidden_act", "relu6"},
        {LLAMA(", \"hidden_act\": \"gelu\""), LK_STATUS_UNSUPPORTED, "hidden_act", "gelu"},
        {LLAMA(", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}"), LK_STATUS_UNSUPPORTED, "rope_scaling",
         "yarn"},
        {LLAMA(", \"rope_parameters\": {\"rope_type\": \"dynamic\"}"), LK_STATUS_UNSUPPORTED, "rope_parameters",
         "dynamic"},
        {LLAMA(", \"rope_parameters\": {\"full_attention\": {}}"), LK_STATUS_UNSUPPORTED, "full_attention", NULL},
        {LLAMA(", \"rope_parameters\": {\"rope_type\": \"linear\"}"), LK_STATUS_FORMAT, "\"factor\" is missing", NULL},
        {LLAMA(", \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 0}"), LK_STATUS_FORMAT, "factor", NULL},
        {LLAMA(", \"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4,"
               "\"high_freq_factor\": 1, \"original_max_position_embeddings\": 32}"),
         LK_STATUS_FORMAT, "low_freq_factor", NULL},
        {LLAMA(", \"rope_theta\": -1"), LK_STATUS_FORMAT, "rope_theta", "-1"},
        {LLAMA(", \"partial_rotary_factor\": 0.5"), LK_STATUS_UNSUPPORTED, "partial_rotary_factor", NULL},
        {LLAMA(", \"num_key_value_heads\": 3"), LK_STATUS_FORMAT, "4 attention heads", "3 key/value heads"},
        {LLAMA(", \"head_dim\": 15"), LK_STATUS_FORMAT, "head_dim 15", NULL},
        {LLAMA(", \"head_dim\": -4"), LK_STATUS_FORMAT, "\"head_dim\" is -4", NULL},
        {LLAMA(", \"rms_norm_eps\": -1"), LK_STATUS_FORMAT, "rms_norm_eps", NULL},
        {LLAMA(", \"eos_token_id\": \"x\""), LK_STATUS_FORMAT, "eos_token_id", NULL},
        {LLAMA(", \"eos_token_id\": [1,2,3,4,5,6,7,8,9]"), LK_STATUS_UNSUPPORTED, "eos_token_id", "9 entries"},
        {LLAMA(", \"tie_word_embeddings\": 1"), LK_STATUS_FORMAT, "tie_word_embeddings", NULL},
        {LLAMA(", \"quantization_config\": {\"quant_method\": \"gptq\"}"), LK_STATUS_UNSUPPORTED, "quantization_config",
         "gptq"},
        {QWEN2(", \"use_sliding_window\": true, \"layer_types\": [\"full_attention\"]"), LK_STATUS_FORMAT,
         "layer_types", "expected 4"},
        {QWEN2(", \"use_sliding_window\": true, \"layer_types\": [\"sliding_attention\", \"full_attention\","
               "\"full_attention\", \"full_attention\"]"),
         LK_STATUS_UNSUPPORTED, "layer_types", "[1]"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 65, \"intermediate_size\": 96, \"num_hidden_layers\": 4,"
         "\"num_attention_heads\": 4, \"vocab_size\": 512}",
         LK_STATUS_FORMAT, "hidden size 65", NULL},
    };
    for (size_t i = 0; i < LK_COUNT(cases); i++) {
        lk_status status = lk_model_config_load(context, put_text("config.json", cases[i].text), &config);
        ck_assert_msg(status == cases[i].status, "case %zu: %s", i, lk_status_name(status));
        assert_message("config.json", cases[i].part, cases[i].more, NULL);
        ck_assert_ptr_null(config.source);
    }
    ck_assert_int_eq(lk_model_config_load(context, in_folder("absent"), &config), LK_STATUS_NOT_FOUND);
}
END_TEST

/* Unknown keys and their order survive; the dtype is replaced under the name it had. */
START_TEST(test_saves_the_source) {
    load(LLAMA(", \"own\": {\"x\": [1]}, \"dtype\": \"float32\""));
    config.tie_word_embeddings = true;
    ck_assert_int_eq(lk_model_config_save(context, &config, LK_DTYPE_BF16, in_folder("out.json")), LK_OK);
    ck_assert_int_eq(lk_model_config_save(context, &config, LK_DTYPE_Q4_0, in_folder("out.json")),
                     LK_STATUS_INVALID_ARGUMENT);
    lk_model_config_free(&config);
    json_t *root;
    ck_assert_int_eq(lk_json_load(context, in_folder("out.json"), &root), LK_OK);
    ck_assert_str_eq(json_string_value(json_object_get(root, "dtype")), "bfloat16");
    ck_assert_ptr_null(json_object_get(root, "torch_dtype"));
    ck_assert(json_is_true(json_object_get(root, "tie_word_embeddings")));
    ck_assert_ptr_nonnull(json_object_get(json_object_get(root, "own"), "x"));
    json_decref(root);
}
END_TEST

/* ---- GGUF ---- */

static gguf_builder decoder(const char *architecture) {
    gguf_builder builder = {0};
    char key[64];
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"embedding_length", 8},     {"feed_forward_length", 12},    {"block_count", 1},
                 {"attention.head_count", 2}, {"attention.head_count_kv", 1}, {"context_length", 64},
                 {"rope.dimension_count", 4}};
    gguf_add_string(&builder, "general.architecture", architecture);
    for (size_t i = 0; i < LK_COUNT(sizes); i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, sizes[i].key);
        gguf_add_u32(&builder, key, sizes[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    gguf_add_f32(&builder, key, 0.0078125f);
    static const float zeros[80];
    gguf_add_tensor(&builder, "token_embd.weight", 0, 2, (uint64_t[]){8, 10}, zeros, sizeof zeros);
    return builder;
}

static lk_status load_gguf(gguf_builder *builder) {
    lk_gguf *gguf;
    ck_assert_int_eq(lk_gguf_open(context, put_gguf("m.gguf", builder), &gguf), LK_OK);
    lk_status status = lk_model_config_from_gguf(context, gguf, &config);
    lk_gguf_destroy(gguf);
    return status;
}

START_TEST(test_gguf_metadata) {
    gguf_builder builder = decoder("llama");
    gguf_add_f32(&builder, "llama.rope.freq_base", 5000);
    gguf_add_u32(&builder, "tokenizer.ggml.bos_token_id", 1);
    gguf_add_u32(&builder, "tokenizer.ggml.eos_token_id", 2);
    gguf_add_u32(&builder, "tokenizer.ggml.eot_token_id", 3);
    ck_assert_int_eq(load_gguf(&builder), LK_OK);
    ck_assert_str_eq(config.type->name, "llama");
    ck_assert_int_eq(config.hidden_size, 8);
    ck_assert_int_eq(config.intermediate_size, 12);
    ck_assert_int_eq(config.num_key_value_heads, 1);
    ck_assert_int_eq(config.head_dim, 4);
    ck_assert_int_eq(config.vocab_size, 10);
    ck_assert_int_eq(config.max_position_embeddings, 64);
    ck_assert_double_eq(config.norm_eps, 0.0078125);
    ck_assert_double_eq(config.rope.theta, 5000);
    ck_assert(config.tie_word_embeddings && !config.attention_bias);
    ck_assert_int_eq(config.eos_count, 2);
    ck_assert_int_eq(config.pad_token_id, -1);

    /* What is written for it reads back the same. */
    ck_assert_int_eq(lk_model_config_save(context, &config, LK_DTYPE_F32, in_folder("out.json")), LK_OK);
    lk_model_config again;
    ck_assert_int_eq(lk_model_config_load(context, in_folder("out.json"), &again), LK_OK);
    json_decref(again.source);
    again.source = NULL;
    ck_assert_int_eq(again.head_dim, config.head_dim);
    ck_assert_double_eq(again.rope.theta, config.rope.theta);
    ck_assert_int_eq(again.eos_token_id[1], 3);
    ck_assert_str_eq(again.architecture, "LlamaForCausalLM");
    ck_assert(again.tie_word_embeddings);
    lk_model_config_free(&again);
    lk_model_config_free(&config);

    builder = decoder("qwen2");
    static const float zeros[80];
    gguf_add_tensor(&builder, "blk.0.attn_q.bias", 0, 1, (uint64_t[]){8}, zeros, 32);
    gguf_add_tensor(&builder, "output.weight", 0, 2, (uint64_t[]){8, 10}, zeros, sizeof zeros);
    gguf_add_string(&builder, "qwen2.rope.scaling.type", "linear");
    gguf_add_f32(&builder, "qwen2.rope.scaling.factor", 2);
    ck_assert_int_eq(load_gguf(&builder), LK_OK);
    ck_assert(config.attention_bias && !config.attention_output_bias && !config.tie_word_embeddings);
    ck_assert_int_eq(config.rope.type, LK_ROPE_LINEAR);
    ck_assert_double_eq(config.rope.factor, 2);
    lk_model_config_free(&config);
}
END_TEST

START_TEST(test_gguf_refusals) {
    gguf_builder builder = {0};
    gguf_add_string(&builder, "general.architecture", "mamba");
    ck_assert_int_eq(load_gguf(&builder), LK_STATUS_UNSUPPORTED);
    assert_message("m.gguf", "general.architecture", "mamba", NULL);
    builder = decoder("llama");
    gguf_add_string(&builder, "llama.rope.scaling.type", "yarn");
    ck_assert_int_eq(load_gguf(&builder), LK_STATUS_UNSUPPORTED);
    assert_message("m.gguf", "llama.rope.scaling.type", "yarn", NULL);
    builder = decoder("llama");
    gguf_add_u32(&builder, "llama.expert_count", 8);
    ck_assert_int_eq(load_gguf(&builder), LK_STATUS_UNSUPPORTED);
    assert_message("llama.expert_count is 8", NULL, NULL, NULL);
    builder = decoder("llama");
    gguf_add_u32(&builder, "llama.attention.value_length", 8);
    ck_assert_int_eq(load_gguf(&builder), LK_STATUS_UNSUPPORTED);
    builder = decoder("llama");
    gguf_add_string(&builder, "general.type", "adapter");
    ck_assert_int_eq(load_gguf(&builder), LK_STATUS_UNSUPPORTED);
    assert_message("general.type", "adapter", NULL, NULL);
    builder = (gguf_builder){0};
    gguf_add_string(&builder, "general.architecture", "llama");
    ck_assert_int_eq(load_gguf(&builder), LK_STATUS_FORMAT);
    assert_message("m.gguf", "llama.embedding_length is missing", NULL, NULL);
}
END_TEST

/* ---- RoPE ---- */

/* Expected from transformers 5.23 (ROPE_INIT_FUNCTIONS["llama3"]) for head_dim 16, theta 500000, factor 8, low 1, high
 * 4, original 32. */
START_TEST(test_llama3_frequencies) {
    static const double expected[8] = {
        1, 0.0242403448, 0.00470075384, 0.000911583134, 0.000176776681, 3.42810235e-05, 6.64786967e-06, 1.28917316e-06};
    lk_rope_config rope = {LK_ROPE_LLAMA3, 500000, 8, 1, 4, 32};
    double out[8];
    lk_rope_inverse_frequencies(&rope, 16, out);
    for (int i = 0; i < 8; i++) {
        ck_assert_double_eq_tol(out[i], expected[i], 1e-6 * expected[i]);
    }
}
END_TEST

/* Divisors as llama.cpp's converter writes them lead back to frequencies that are the same. */
START_TEST(test_llama3_is_recognised_from_divisors) {
    static const struct {
        lk_rope_config rope;
        int64_t head_dim;
    } cases[] = {{{LK_ROPE_LLAMA3, 500000, 8, 1, 4, 8192}, 128}, {{LK_ROPE_LLAMA3, 500000, 32, 1, 4, 8192}, 64},
                 {{LK_ROPE_LLAMA3, 500000, 8, 1, 4, 32}, 16},    {{LK_ROPE_LLAMA3, 10000, 4, 2, 8, 4096}, 64},
                 {{LK_ROPE_LLAMA3, 10000, 8, 1, 4, 64}, 8},      {{LK_ROPE_LLAMA3, 1e6, 8, 1, 4, 500}, 4}};
    for (size_t c = 0; c < LK_COUNT(cases); c++) {
        double plain[64], scaled[64], again[64];
        float divisors[64];
        lk_rope_config unscaled = {.type = LK_ROPE_DEFAULT, .theta = cases[c].rope.theta};
        lk_rope_config found = unscaled;
        lk_rope_inverse_frequencies(&unscaled, cases[c].head_dim, plain);
        lk_rope_inverse_frequencies(&cases[c].rope, cases[c].head_dim, scaled);
        for (int64_t i = 0; i < cases[c].head_dim / 2; i++) {
            divisors[i] = (float)(plain[i] / scaled[i]);
        }
        ck_assert_msg(lk_rope_fit_llama3(divisors, cases[c].head_dim, &found), "case %zu", c);
        lk_rope_inverse_frequencies(&found, cases[c].head_dim, again);
        for (int64_t i = 0; i < cases[c].head_dim / 2; i++) {
            ck_assert_double_eq_tol(again[i], scaled[i], 1e-4 * scaled[i]);
        }
        if (c == 0) {
            ck_assert_int_eq(found.original_max_position_embeddings, 8192);
            ck_assert_double_eq(found.high_freq_factor, 4);
        }
    }
    lk_rope_config found = {.theta = 10000};
    ck_assert(lk_rope_fit_llama3((float[]){1, 1}, 4, &found) && found.type == LK_ROPE_DEFAULT);
    ck_assert(!lk_rope_fit_llama3((float[]){8, 1}, 4, &found)); /* high frequencies are never divided */
    ck_assert(!lk_rope_fit_llama3((float[]){NAN, 1}, 4, &found));
    ck_assert(!lk_rope_fit_llama3((float[]){0.5f, 1}, 4, &found));
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("model_config");
    tcase_add_checked_fixture(tests, files_setup, files_teardown);
    tcase_add_test(tests, test_llama);
    tcase_add_test(tests, test_rope_spellings);
    tcase_add_test(tests, test_sliding_windows);
    tcase_add_test(tests, test_other_families);
    tcase_add_test(tests, test_refusals);
    tcase_add_test(tests, test_saves_the_source);
    tcase_add_test(tests, test_gguf_metadata);
    tcase_add_test(tests, test_gguf_refusals);
    tcase_add_test(tests, test_llama3_frequencies);
    tcase_add_test(tests, test_llama3_is_recognised_from_divisors);
    return run_case("model_config", tests);
}
