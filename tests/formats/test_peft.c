#include "core/base/json.h"
#include "core/formats/peft.h"
#include "files.h"
#include "tests/common/runner.h"

#include <math.h>

#define CONFIG(extra) \
    "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"target_modules\": [\"q_proj\", \"v_proj\"]" extra "}"

static lk_peft_config config;

static void load(const char *text) {
    const char *path = put_text("adapter_config.json", text);
    lk_status status = lk_peft_config_load(context, path, &config);
    ck_assert_msg(status == LK_OK, "%s", lk_error_message(context));
}

static bool targets(const char *module, bool linear) {
    bool result;
    ck_assert_int_eq(lk_peft_targets_module(&config, module, linear, &result), LK_OK);
    return result;
}

START_TEST(test_reads_a_config) {
    load(CONFIG(", \"lora_dropout\": 0.1, \"use_rslora\": true, \"use_dora\": true, \"bias\": \"none\","
                "\"task_type\": \"CAUSAL_LM\", \"base_model_name_or_path\": \"base\", \"loftq_config\": {},"
                "\"corda_config\": null, \"lora_bias\": false, \"modules_to_save\": [\"classifier\"]"));
    ck_assert_int_eq(config.peft_type, LK_PEFT_LORA);
    ck_assert_int_eq(config.r, 8);
    ck_assert_double_eq(config.lora_alpha, 16);
    ck_assert_double_eq(config.lora_dropout, 0.1);
    ck_assert(config.use_rslora && config.use_dora);
    ck_assert_str_eq(config.task_type, "CAUSAL_LM");
    ck_assert_str_eq(config.base_model_name_or_path, "base");
    ck_assert(lk_peft_saves_module(&config, "bert.classifier") && lk_peft_saves_module(&config, "pre_classifier"));
    ck_assert(lk_peft_saves_module(&config, "classifier.dense") && !lk_peft_saves_module(&config, "classifiers"));
    lk_peft_scaling scaling;
    ck_assert_int_eq(lk_peft_scaling_of(&config, "model.layers.0.self_attn.q_proj", &scaling), LK_OK);
    ck_assert_int_eq(scaling.rank, 8);
    ck_assert_double_eq_tol(scaling.scale, 16 / sqrt(8), 1e-12);
    lk_peft_config_free(&config);
}
END_TEST

START_TEST(test_malformed_configs) {
    static const struct {
        const char *text;
        lk_status status;
        const char *part, *more;
    } cases[] = {
        {"[]", LK_STATUS_FORMAT, "not a JSON object", NULL},
        {"{}", LK_STATUS_FORMAT, "\"peft_type\" is missing", NULL},
        {"{\"peft_type\": \"BOFT\"}", LK_STATUS_UNSUPPORTED, "peft_type", "BOFT"},
        {"{\"peft_type\": \"LOKR\", \"rank_dropout\": 2, \"target_modules\": [\"q\"]}", LK_STATUS_FORMAT,
         "rank_dropout", NULL},
        {"{\"peft_type\": \"LOKR\", \"decompose_both\": 2, \"target_modules\": [\"q\"]}", LK_STATUS_FORMAT,
         "decompose_both", NULL},
        {"{\"peft_type\": \"LORA\"}", LK_STATUS_FORMAT, "\"target_modules\" is missing", NULL},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [1]}", LK_STATUS_FORMAT, "target_modules", NULL},
        {"{\"peft_type\": \"LORA\", \"target_modules\": {}}", LK_STATUS_FORMAT, "target_modules", NULL},
        {CONFIG(", \"use_qalora\": true"), LK_STATUS_UNSUPPORTED, "use_qalora", NULL},
        {CONFIG(", \"alora_invocation_tokens\": [1, 2]"), LK_STATUS_UNSUPPORTED, "alora_invocation_tokens", NULL},
        {CONFIG(", \"lora_bias\": true"), LK_STATUS_UNSUPPORTED, "lora_bias", NULL},
        {CONFIG(", \"corda_config\": {\"x\": 1}"), LK_STATUS_UNSUPPORTED, "corda_config", NULL},
        {CONFIG(", \"layer_replication\": [[0, 4]]"), LK_STATUS_UNSUPPORTED, "layer_replication", NULL},
        {CONFIG(", \"init_lora_weights\": \"corda\""), LK_STATUS_UNSUPPORTED, "init_lora_weights", "corda"},
        {CONFIG(", \"bias\": \"some\""), LK_STATUS_UNSUPPORTED, "bias", "some"},
        {CONFIG(", \"lora_dropout\": 1"), LK_STATUS_FORMAT, "dropout", NULL},
        {CONFIG(", \"use_dora\": 1"), LK_STATUS_FORMAT, "use_dora", NULL},
        {CONFIG(", \"rank_pattern\": {\"q\": 0}"), LK_STATUS_FORMAT, "rank_pattern", "\"q\""},
        {CONFIG(", \"rank_pattern\": []"), LK_STATUS_FORMAT, "rank_pattern", NULL},
        {CONFIG(", \"alpha_pattern\": {\"q\": \"4\"}"), LK_STATUS_FORMAT, "alpha_pattern", "\"q\""},
        {CONFIG(", \"layers_to_transform\": [-1]"), LK_STATUS_FORMAT, "layers_to_transform", NULL},
        {CONFIG(", \"modules_to_save\": \"x\""), LK_STATUS_FORMAT, "modules_to_save", NULL},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"target_modules\": [\"q\"]}", LK_STATUS_FORMAT, "\"r\" is 0", NULL},
    };
    for (size_t i = 0; i < LK_COUNT(cases); i++) {
        const char *path = put_text("adapter_config.json", cases[i].text);
        lk_status status = lk_peft_config_load(context, path, &config);
        ck_assert_msg(status == cases[i].status, "case %zu: %s", i, lk_status_name(status));
        assert_message("adapter_config.json", cases[i].part, cases[i].more, NULL);
        ck_assert_ptr_null(config.target_modules);
    }
}
END_TEST

/* Each line as PEFT decides it (check_target_module_exists). */
START_TEST(test_target_modules) {
    load(CONFIG(", \"exclude_modules\": [\"layers.1.self_attn.q_proj\"], \"modules_to_save\": [\"head\"]"));
    ck_assert(targets("model.layers.0.self_attn.q_proj", true));
    ck_assert(targets("q_proj", true));
    ck_assert(!targets("model.layers.0.self_attn.xq_proj", true));
    ck_assert(!targets("model.layers.0.self_attn.q_proj.inner", true));
    ck_assert(!targets("model.layers.1.self_attn.q_proj", true));
    ck_assert(!targets("head.q_proj", true) && !targets("a.head.b.v_proj", true));
    ck_assert(targets("ahead.q_proj", true));
    lk_peft_config_free(&config);

    load("{\"peft_type\": \"LORA\", \"target_modules\": \".*\\\\.(?:0|2)\\\\.self_attn\\\\.[qk]_proj\"}");
    ck_assert(targets("model.layers.0.self_attn.q_proj", true) && targets("model.layers.2.self_attn.k_proj", true));
    ck_assert(!targets("model.layers.1.self_attn.q_proj", true));
    ck_assert(!targets("model.layers.0.self_attn.q_proj.more", true)); /* a full match */
    lk_peft_config_free(&config);

    load("{\"peft_type\": \"LORA\", \"target_modules\": \"All-Linear\", \"exclude_modules\": \".*down.*\"}");
    ck_assert(targets("model.layers.0.mlp.up_proj", true) && !targets("model.layers.0.mlp.down_proj", true));
    ck_assert(!targets("model.norm", false));
    lk_peft_config_free(&config);

    load("{\"peft_type\": \"LORA\", \"target_modules\": \"(\"}");
    bool result;
    ck_assert_int_ne(lk_peft_targets_module(&config, "q", true, &result), LK_OK);
    assert_message("target_modules", NULL, NULL, NULL);
    lk_peft_config_free(&config);
}
END_TEST

START_TEST(test_layers_to_transform) {
    load(CONFIG(", \"layers_to_transform\": [1, 12]"));
    ck_assert(targets("model.layers.1.self_attn.q_proj", true) && targets("model.layers.12.self_attn.q_proj", true));
    ck_assert(!targets("model.layers.0.self_attn.q_proj", true) && !targets("model.layers.2.self_attn.q_proj", true));
    ck_assert(targets("q_proj", true)); /* named in full: the layers do not matter */
    ck_assert(!targets("other.q_proj", true));
    ck_assert(!targets("model.layers.0.experts.1.q_proj", true)); /* the first number counts */
    lk_peft_config_free(&config);
    load(CONFIG(", \"layers_to_transform\": 1, \"layers_pattern\": \"experts\""));
    ck_assert(targets("model.layers.0.experts.1.q_proj", true) && !targets("model.layers.1.experts.0.q_proj", true));
    lk_peft_config_free(&config);
}
END_TEST

/* As PEFT's get_pattern_key: the first key that matches the path's end, or the whole of it, wins. */
START_TEST(test_rank_and_alpha_patterns) {
    load(CONFIG(
        ", \"rank_pattern\": {\"^model.layers.0.self_attn.q_proj\": 3, \"layers\\\\.[0-4]\\\\.self_attn.q_proj\": 4,"
        "\"q_proj|k_proj\": 2}, \"alpha_pattern\": {\"v_proj\": 32.5}"));
    static const struct {
        const char *module;
        int64_t rank;
        double alpha;
    } cases[] = {{"model.layers.0.self_attn.q_proj", 3, 16},   {"model.layers.3.self_attn.q_proj", 4, 16},
                 {"model.layers.5.self_attn.q_proj", 2, 16},   {"model.layers.5.self_attn.k_proj", 2, 16},
                 {"model.layers.5.self_attn.v_proj", 8, 32.5}, {"xq_proj", 8, 16}};
    for (size_t i = 0; i < LK_COUNT(cases); i++) {
        lk_peft_scaling scaling;
        ck_assert_int_eq(lk_peft_scaling_of(&config, cases[i].module, &scaling), LK_OK);
        ck_assert_msg(scaling.rank == cases[i].rank && scaling.alpha == cases[i].alpha, "%s", cases[i].module);
        ck_assert_double_eq(scaling.scale, cases[i].alpha / (double)cases[i].rank);
    }
    lk_peft_config_free(&config);
}
END_TEST

START_TEST(test_saves_what_it_loaded) {
    load(CONFIG(", \"rank_pattern\": {\"b\": 4, \"a\": 2}, \"own_key\": [1, 2], \"use_rslora\": true"));
    ck_assert_int_eq(lk_peft_config_set_text(&config, &config.task_type, "SEQ_CLS"), LK_OK);
    ck_assert_int_eq(lk_peft_config_save(&config, in_folder("again.json")), LK_OK);
    lk_peft_config_free(&config);
    json_t *root;
    ck_assert_int_eq(lk_json_load(context, in_folder("again.json"), &root), LK_OK);
    ck_assert_str_eq(json_string_value(json_object_get(root, "task_type")), "SEQ_CLS");
    ck_assert_uint_eq(json_array_size(json_object_get(root, "own_key")), 2);
    ck_assert(json_is_integer(json_object_get(root, "lora_alpha")));
    ck_assert(json_is_true(json_object_get(root, "use_rslora")));
    ck_assert_str_eq(json_object_iter_key(json_object_iter(json_object_get(root, "rank_pattern"))), "b");
    json_decref(root);
    ck_assert_int_eq(lk_peft_config_load(context, in_folder("again.json"), &config), LK_OK);
    lk_peft_config_free(&config);

    ck_assert_int_eq(lk_peft_config_init(context, LK_PEFT_IA3, &config), LK_OK);
    ck_assert_int_eq(lk_peft_config_save(&config, in_folder("no.json")), LK_STATUS_FORMAT);
    ck_assert_int_eq(lk_peft_config_set_targets(&config, "k_proj,,x"), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_int_eq(lk_peft_config_set_targets(&config, "k_proj,down_proj"), LK_OK);
    config.feedforward_modules = json_pack("[s]", "down_proj");
    bool feedforward;
    ck_assert_int_eq(lk_peft_is_feedforward(&config, "model.layers.0.mlp.down_proj", &feedforward), LK_OK);
    ck_assert(feedforward);
    ck_assert_int_eq(lk_peft_config_save(&config, in_folder("ia3.json")), LK_OK);
    lk_peft_config_free(&config);
    ck_assert_int_eq(lk_peft_config_load(context, in_folder("ia3.json"), &config), LK_OK);
    ck_assert_int_eq(config.peft_type, LK_PEFT_IA3);
    lk_peft_config_free(&config);
}
END_TEST

static void check_tensor(const lk_peft_adapter *adapter, const char *module, lk_peft_kind kind, const char *parameter,
                         const char *stored) {
    const lk_peft_tensor *tensor = lk_peft_lookup(adapter, module, kind, parameter);
    ck_assert_msg(tensor != NULL, "%s", stored);
    ck_assert_str_eq(tensor->tensor->name, stored);
}

START_TEST(test_adapter_folder) {
    static const float values[16] = {1, 2, 3, 4};
    static const char *const names[] = {
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.embed_tokens.lora_embedding_A.default",
        "base_model.model.model.embed_tokens.lora_embedding_B",
        "base_model.model.classifier.weight",
        "base_model.model.classifier.bias",
        "base_model.model.other.weight",
        "base_model.vera_A",
        "base_model.model.layers.1.ia3_l",
    };
    lk_stored_tensor tensors[LK_COUNT(names)];
    for (size_t i = 0; i < LK_COUNT(names); i++) {
        tensors[i] =
            (lk_stored_tensor){.name = names[i], .dtype = LK_DTYPE_F32, .rank = 2, .shape = {2, 2}, .data = values};
    }
    load(CONFIG(", \"modules_to_save\": [\"classifier\"]"));
    ck_assert_int_eq(lk_peft_save(&config, in_folder("new/adapter"), tensors, LK_COUNT(names), NULL, NULL), LK_OK);
    lk_peft_config_free(&config);
    lk_peft_adapter *adapter;
    ck_assert_int_eq(lk_peft_open(context, in_folder("new/adapter"), &adapter), LK_OK);
    ck_assert_uint_eq(lk_peft_count(adapter), LK_COUNT(names));
    check_tensor(adapter, "model.layers.0.self_attn.q_proj", LK_PEFT_KIND_LORA_A, "", names[0]);
    check_tensor(adapter, "model.layers.0.self_attn.q_proj", LK_PEFT_KIND_LORA_B, "", names[1]);
    check_tensor(adapter, "model.layers.0.self_attn.q_proj", LK_PEFT_KIND_LORA_MAGNITUDE, "", names[2]);
    check_tensor(adapter, "model.embed_tokens", LK_PEFT_KIND_LORA_EMBEDDING_A, "", names[3]);
    check_tensor(adapter, "model.embed_tokens", LK_PEFT_KIND_LORA_EMBEDDING_B, "", names[4]);
    check_tensor(adapter, "classifier", LK_PEFT_KIND_SAVED, "weight", names[5]);
    check_tensor(adapter, "classifier", LK_PEFT_KIND_SAVED, "bias", names[6]);
    check_tensor(adapter, "other", LK_PEFT_KIND_OTHER, "weight", names[7]);
    check_tensor(adapter, "", LK_PEFT_KIND_VERA_A, "", names[8]);
    check_tensor(adapter, "layers.1", LK_PEFT_KIND_IA3_L, "", names[9]);
    const lk_peft_tensor *a = lk_peft_lookup(adapter, "classifier", LK_PEFT_KIND_SAVED, "weight");
    float read[4];
    ck_assert_int_eq(lk_peft_read_f32(adapter, a, 2, (int64_t[]){2, 2}, read), LK_OK);
    ck_assert_mem_eq(read, values, sizeof read);
    ck_assert_int_eq(lk_peft_read_f32(adapter, a, 2, (int64_t[]){4, 1}, read), LK_STATUS_FORMAT);
    assert_message("adapter_model.safetensors", "classifier.weight", "[2, 2]", "[4, 1]");
    lk_peft_destroy(adapter);
}
END_TEST

START_TEST(test_names_round_trip) {
    static const lk_peft_kind all[] = {LK_PEFT_KIND_LORA_A,         LK_PEFT_KIND_LORA_EMBEDDING_B,
                                       LK_PEFT_KIND_LORA_MAGNITUDE, LK_PEFT_KIND_VERA_LAMBDA_D,
                                       LK_PEFT_KIND_SAVED,          LK_PEFT_KIND_VERA_B};
    static const char *const expected[] = {"base_model.model.a.b.lora_A.weight",
                                           "base_model.model.a.b.lora_embedding_B",
                                           "base_model.model.a.b.lora_magnitude_vector",
                                           "base_model.model.a.b.vera_lambda_d",
                                           "base_model.model.a.b.bias",
                                           "base_model.vera_B"};
    for (size_t i = 0; i < LK_COUNT(all); i++) {
        lk_text text;
        lk_text_init(&text, context);
        lk_peft_name(&text, LK_PEFT_LORA, "a.b", all[i], "bias");
        ck_assert_str_eq(text.data, expected[i]);
        lk_text_free(&text);
    }
}
END_TEST

START_TEST(test_adapter_folder_errors) {
    lk_peft_adapter *adapter;
    ck_assert_int_eq(lk_peft_open(context, in_folder("absent"), &adapter), LK_STATUS_NOT_FOUND);
    put_text("adapter_config.json", CONFIG(""));
    ck_assert_int_eq(lk_peft_open(context, folder_path(), &adapter), LK_STATUS_NOT_FOUND);
    assert_message("adapter_model.safetensors", NULL, NULL, NULL);
    put_text("adapter_model.bin", "PK");
    ck_assert_int_eq(lk_peft_open(context, folder_path(), &adapter), LK_STATUS_UNSUPPORTED);
    assert_message("adapter_model.bin", "safe_serialization", NULL, NULL);
    static const float values[1] = {1};
    const lk_stored_tensor twice[] = {{.name = "base_model.model.q.lora_A.one.weight",
                                       .dtype = LK_DTYPE_F32,
                                       .rank = 1,
                                       .shape = {1},
                                       .data = values},
                                      {.name = "base_model.model.q.lora_A.two.weight",
                                       .dtype = LK_DTYPE_F32,
                                       .rank = 1,
                                       .shape = {1},
                                       .data = values}};
    const char *path = in_folder("adapter_model.safetensors");
    ck_assert_int_eq(lk_safetensors_write(context, path, twice, 2, NULL, NULL, NULL), LK_OK);
    ck_assert_int_eq(lk_peft_open(context, folder_path(), &adapter), LK_STATUS_FORMAT);
    assert_message("lora_A.one", "lora_A.two", NULL, NULL);
    ck_assert_ptr_null(adapter);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("peft");
    tcase_add_checked_fixture(tests, files_setup, files_teardown);
    tcase_add_test(tests, test_reads_a_config);
    tcase_add_test(tests, test_malformed_configs);
    tcase_add_test(tests, test_target_modules);
    tcase_add_test(tests, test_layers_to_transform);
    tcase_add_test(tests, test_rank_and_alpha_patterns);
    tcase_add_test(tests, test_saves_what_it_loaded);
    tcase_add_test(tests, test_adapter_folder);
    tcase_add_test(tests, test_names_round_trip);
    tcase_add_test(tests, test_adapter_folder_errors);
    return run_case("peft", tests);
}
