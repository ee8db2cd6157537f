/* Reading and writing config.json. */
#include "core/formats/model_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/dtype.h"
#include "core/base/json.h"
#include "core/formats/model_config_check.h"

enum { SIZE_LIMIT = 1 << 24, COUNT_LIMIT = 1 << 16, TOKEN_LIMIT = INT32_MAX };

/* What is being read: bundles the arguments that every step needs. */
typedef struct reader {
    lk_context *context;
    const char *path;
    const json_t *root;
    lk_model_config *config;
} reader;

static lk_status get_size(const reader *from, const char *key, bool required, int64_t limit, int64_t *value) {
    return lk_json_get_int(from->context, from->path, from->root, key, required, 1, limit, value);
}

static lk_status unsupported(const reader *from, const char *key, const char *value) {
    return lk_fail(from->context, LK_STATUS_UNSUPPORTED, "%s: \"%s\": \"%s\" is not supported", from->path, key, value);
}

/* ---- the parts of a configuration ---- */

static lk_status read_model_type(const reader *from) {
    const char *name, *architecture = NULL;
    LK_TRY(lk_json_get_string(from->context, from->path, from->root, "model_type", true, &name));
    from->config->type = lk_model_type_find(name);
    if (from->config->type == NULL) {
        lk_text list;
        lk_text_init(&list, from->context);
        lk_model_type_list(&list);
        lk_status status =
            lk_fail(from->context, LK_STATUS_UNSUPPORTED, "%s: \"model_type\" is \"%s\", expected one of %s",
                    from->path, name, list.failed ? "the supported ones" : list.data);
        lk_text_free(&list);
        return status;
    }
    json_t *architectures = NULL;
    LK_TRY(lk_json_get_array(from->context, from->path, from->root, "architectures", false, &architectures));
    architecture = json_string_value(json_array_get(architectures, 0));
    if (architecture != NULL) {
        snprintf(from->config->architecture, sizeof from->config->architecture, "%s", architecture);
    }
    return LK_OK;
}

static lk_status read_sizes(const reader *from) {
    lk_model_config *config = from->config;
    const lk_model_type *type = config->type;
    LK_TRY(get_size(from, type->keys.hidden_size, true, SIZE_LIMIT, &config->hidden_size));
    config->intermediate_size = 4 * config->hidden_size; /* gpt2 leaves it out */
    LK_TRY(get_size(from, type->keys.intermediate_size, type->rope, SIZE_LIMIT, &config->intermediate_size));
    LK_TRY(get_size(from, type->keys.num_hidden_layers, true, COUNT_LIMIT, &config->num_hidden_layers));
    LK_TRY(get_size(from, type->keys.num_attention_heads, true, COUNT_LIMIT, &config->num_attention_heads));
    config->num_key_value_heads = config->num_attention_heads;
    config->head_dim = type->defaults.head_dim;
    if (type->rope) {
        LK_TRY(get_size(from, "num_key_value_heads", false, COUNT_LIMIT, &config->num_key_value_heads));
        LK_TRY(get_size(from, "head_dim", false, SIZE_LIMIT, &config->head_dim));
    }
    LK_TRY(get_size(from, "vocab_size", true, SIZE_LIMIT, &config->vocab_size));
    config->max_position_embeddings = type->defaults.max_position_embeddings;
    LK_TRY(get_size(from, type->keys.max_position_embeddings, false, TOKEN_LIMIT, &config->max_position_embeddings));
    return get_size(from, "type_vocab_size", false, SIZE_LIMIT, &config->type_vocab_size);
}

static lk_status read_labels(const reader *from) {
    json_t *labels = NULL;
    LK_TRY(lk_json_get_object(from->context, from->path, from->root, "id2label", false, &labels));
    from->config->num_labels = (int64_t)json_object_size(labels);
    return get_size(from, "num_labels", false, COUNT_LIMIT, &from->config->num_labels);
}

static lk_status read_activation(const reader *from) {
    const char *key = from->config->type->keys.hidden_act, *name = from->config->type->defaults.hidden_act;
    LK_TRY(lk_json_get_string(from->context, from->path, from->root, key, false, &name));
    return lk_hidden_act_find(from->context, from->path, key, name, from->config);
}

static lk_status read_biases(const reader *from) {
    lk_model_config *config = from->config;
    const lk_model_type *type = config->type;
    bool attention = false, mlp = false;
    if (type->attention_bias_key) {
        LK_TRY(lk_json_get_bool(from->context, from->path, from->root, "attention_bias", false, &attention));
    }
    if (type->mlp_bias_key) {
        LK_TRY(lk_json_get_bool(from->context, from->path, from->root, "mlp_bias", false, &mlp));
    }
    config->attention_bias = type->qkv_bias || attention;
    config->attention_output_bias = type->output_bias || attention;
    config->mlp_bias = type->mlp_bias || mlp;
    config->qk_norm = type->qk_norm;
    return LK_OK;
}

/* ---- RoPE ---- */

static lk_status read_llama3(const reader *from, const json_t *object, lk_rope_config *rope) {
    LK_TRY(lk_json_get_double(from->context, from->path, object, "low_freq_factor", true, &rope->low_freq_factor));
    LK_TRY(lk_json_get_double(from->context, from->path, object, "high_freq_factor", true, &rope->high_freq_factor));
    return lk_json_get_int(from->context, from->path, object, "original_max_position_embeddings", true, 1, TOKEN_LIMIT,
                           &rope->original_max_position_embeddings);
}

/* `object` is rope_parameters (transformers 5) or rope_scaling (before). */
static lk_status read_rope_object(const reader *from, const char *key, const json_t *object, lk_rope_config *rope) {
    const char *type = "default";
    LK_TRY(lk_json_get_string(from->context, from->path, object, "type", false, &type));
    LK_TRY(lk_json_get_string(from->context, from->path, object, "rope_type", false, &type));
    LK_TRY(lk_json_get_double(from->context, from->path, object, "rope_theta", false, &rope->theta));
    double rotary = 1;
    LK_TRY(lk_json_get_double(from->context, from->path, object, "partial_rotary_factor", false, &rotary));
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        if (json_is_object(value)) {
            return lk_fail(from->context, LK_STATUS_UNSUPPORTED,
                           "%s: \"%s\" differs between kinds of layers (\"%s\"), which is not supported", from->path,
                           key, name);
        }
    }
    if (rotary != 1) {
        return unsupported(from, key, "partial_rotary_factor");
    }
    if (strcmp(type, "default") == 0) {
        rope->type = LK_ROPE_DEFAULT;
        return LK_OK;
    }
    if (strcmp(type, "linear") != 0 && strcmp(type, "llama3") != 0) {
        return lk_fail(from->context, LK_STATUS_UNSUPPORTED,
                       "%s: \"%s\" has the type \"%s\", expected default, linear or llama3", from->path, key, type);
    }
    rope->type = type[1] == 'i' ? LK_ROPE_LINEAR : LK_ROPE_LLAMA3;
    LK_TRY(lk_json_get_double(from->context, from->path, object, "factor", true, &rope->factor));
    return rope->type == LK_ROPE_LLAMA3 ? read_llama3(from, object, rope) : LK_OK;
}

static lk_status read_rope(const reader *from) {
    lk_rope_config *rope = &from->config->rope;
    if (!from->config->type->rope) {
        return LK_OK;
    }
    double rotary = 1;
    json_t *parameters = NULL, *scaling = NULL;
    *rope = (lk_rope_config){.type = LK_ROPE_DEFAULT, .theta = 10000};
    LK_TRY(lk_json_get_double(from->context, from->path, from->root, "partial_rotary_factor", false, &rotary));
    if (rotary != 1) {
        return lk_fail(from->context, LK_STATUS_UNSUPPORTED, "%s: \"partial_rotary_factor\" is %g, expected 1",
                       from->path, rotary);
    }
    LK_TRY(lk_json_get_double(from->context, from->path, from->root, "rope_theta", false, &rope->theta));
    LK_TRY(lk_json_get_object(from->context, from->path, from->root, "rope_scaling", false, &scaling));
    LK_TRY(lk_json_get_object(from->context, from->path, from->root, "rope_parameters", false, &parameters));
    if (scaling != NULL) {
        LK_TRY(read_rope_object(from, "rope_scaling", scaling, rope));
    }
    if (parameters != NULL) {
        LK_TRY(read_rope_object(from, "rope_parameters", parameters, rope));
    }
    return LK_OK;
}

/* ---- sliding window ---- */

/* "layer_types", where given, must be full attention up to some layer and sliding from there on. */
static lk_status apply_layer_types(const reader *from) {
    lk_model_config *config = from->config;
    json_t *kinds = NULL, *kind;
    size_t i, first = SIZE_MAX;
    LK_TRY(lk_json_get_array(from->context, from->path, from->root, "layer_types", false, &kinds));
    if (kinds == NULL) {
        return LK_OK;
    }
    if (json_array_size(kinds) != (size_t)config->num_hidden_layers) {
        return lk_fail(from->context, LK_STATUS_FORMAT, "%s: \"layer_types\" has %zu entries, expected %" PRId64,
                       from->path, json_array_size(kinds), config->num_hidden_layers);
    }
    json_array_foreach(kinds, i, kind) {
        const char *text = json_is_string(kind) ? json_string_value(kind) : "";
        bool sliding = strcmp(text, "sliding_attention") == 0;
        if (!sliding && (strcmp(text, "full_attention") != 0 || first != SIZE_MAX)) {
            return lk_fail(from->context, LK_STATUS_UNSUPPORTED,
                           "%s: \"layer_types\"[%zu] is \"%s\": this order of kinds is not supported", from->path, i,
                           text);
        }
        first = sliding && first == SIZE_MAX ? i : first;
    }
    if (first == SIZE_MAX) {
        config->sliding_window = 0;
    } else {
        config->sliding_window_from = (int64_t)first;
    }
    return LK_OK;
}

static lk_status read_sliding_window(const reader *from) {
    lk_model_config *config = from->config;
    const lk_model_type *type = config->type;
    if (!type->rope) {
        return LK_OK;
    }
    bool use = !type->use_sliding_window_key;
    if (type->use_sliding_window_key) {
        config->sliding_window_from = 28; /* the classes' default */
        LK_TRY(lk_json_get_bool(from->context, from->path, from->root, "use_sliding_window", false, &use));
        LK_TRY(lk_json_get_int(from->context, from->path, from->root, "max_window_layers", false, 0, COUNT_LIMIT,
                               &config->sliding_window_from));
    }
    if (!use || (!type->use_sliding_window_key && type->defaults.sliding_window == 0)) {
        config->sliding_window_from = 0;
        return LK_OK;
    }
    /* null means none, an absent key means the class's default */
    bool stated = json_object_get(from->root, "sliding_window") != NULL;
    config->sliding_window = stated ? 0 : type->use_sliding_window_key ? 4096 : type->defaults.sliding_window;
    LK_TRY(lk_json_get_int(from->context, from->path, from->root, "sliding_window", false, 0, TOKEN_LIMIT,
                           &config->sliding_window));
    LK_TRY(apply_layer_types(from));
    if (config->sliding_window == 0 || config->sliding_window_from >= config->num_hidden_layers) {
        config->sliding_window = config->sliding_window_from = 0;
    }
    return LK_OK;
}

/* ---- tokens ---- */

static lk_status read_tokens(const reader *from) {
    lk_model_config *config = from->config;
    config->bos_token_id = config->pad_token_id = -1;
    LK_TRY(lk_json_get_int(from->context, from->path, from->root, "bos_token_id", false, -1, TOKEN_LIMIT,
                           &config->bos_token_id));
    LK_TRY(lk_json_get_int(from->context, from->path, from->root, "pad_token_id", false, -1, TOKEN_LIMIT,
                           &config->pad_token_id));
    const json_t *eos = json_object_get(from->root, "eos_token_id");
    size_t count = json_is_array(eos) ? json_array_size(eos) : eos != NULL && !json_is_null(eos) ? 1 : 0;
    if (count > LK_EOS_MAX) {
        return lk_fail(from->context, LK_STATUS_UNSUPPORTED,
                       "%s: \"eos_token_id\" has %zu entries, expected at most %d", from->path, count, LK_EOS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        int64_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < -1 || value > TOKEN_LIMIT) {
            return lk_fail(from->context, LK_STATUS_FORMAT, "%s: \"eos_token_id\" is not a token id or a list of them",
                           from->path);
        }
        if (value >= 0) {
            config->eos_token_id[config->eos_count++] = value;
        }
    }
    return LK_OK;
}

/* ---- the whole ---- */

static lk_status read_config(const reader *from) {
    lk_model_config *config = from->config;
    LK_TRY(read_model_type(from));
    LK_TRY(read_sizes(from));
    LK_TRY(read_labels(from));
    LK_TRY(read_activation(from));
    LK_TRY(read_biases(from));
    LK_TRY(read_rope(from));
    LK_TRY(read_sliding_window(from));
    LK_TRY(read_tokens(from));
    config->norm_eps = config->type->defaults.norm_eps;
    LK_TRY(lk_json_get_double(from->context, from->path, from->root, config->type->keys.norm_eps, false,
                              &config->norm_eps));
    config->tie_word_embeddings = config->type->defaults.tie_word_embeddings;
    LK_TRY(lk_json_get_bool(from->context, from->path, from->root, "tie_word_embeddings", false,
                            &config->tie_word_embeddings));
    const json_t *quantised = json_object_get(from->root, "quantization_config");
    if (json_is_object(quantised)) {
        const char *method = json_string_value(json_object_get(quantised, "quant_method"));
        return unsupported(from, "quantization_config", method ? method : "(no quant_method)");
    }
    return lk_model_config_check(from->context, from->path, config);
}

lk_status lk_model_config_load(lk_context *context, const char *path, lk_model_config *out) {
    *out = (lk_model_config){0};
    LK_TRY(lk_json_load(context, path, &out->source));
    lk_status status = json_is_object(out->source) ? read_config(&(reader){context, path, out->source, out})
                                                   : lk_fail(context, LK_STATUS_FORMAT, "%s: not a JSON object", path);
    if (status != LK_OK) {
        lk_model_config_free(out);
    }
    return status;
}

void lk_model_config_free(lk_model_config *config) {
    json_decref(config->source);
    *config = (lk_model_config){0};
}

/* ---- writing ---- */

static json_t *id_or_null(int64_t id) {
    return id >= 0 ? json_integer(id) : json_null();
}

static json_t *eos_ids(const lk_model_config *config) {
    if (config->eos_count <= 1) {
        return id_or_null(config->eos_count ? config->eos_token_id[0] : -1);
    }
    json_t *list = json_array();
    for (int i = 0; i < config->eos_count; i++) {
        json_array_append_new(list, json_integer(config->eos_token_id[i]));
    }
    return list;
}

static json_t *rope_object(const lk_rope_config *rope, bool with_theta) {
    json_t *object = json_object();
    static const char *const names[] = {"default", "default", "linear", "llama3"};
    json_object_set_new(object, "rope_type", json_string(names[rope->type]));
    if (with_theta) {
        json_object_set_new(object, "rope_theta", json_real(rope->theta));
    }
    if (rope->type >= LK_ROPE_LINEAR) {
        json_object_set_new(object, "factor", json_real(rope->factor));
    }
    if (rope->type == LK_ROPE_LLAMA3) {
        json_object_set_new(object, "low_freq_factor", json_real(rope->low_freq_factor));
        json_object_set_new(object, "high_freq_factor", json_real(rope->high_freq_factor));
        json_object_set_new(object, "original_max_position_embeddings",
                            json_integer(rope->original_max_position_embeddings));
    }
    return object;
}

/* A decoder's configuration from nothing, for a base that came as GGUF. Failed allocations surface in lk_json_save's
 * caller: a NULL value makes json_object_set_new fail, which is checked by counting the keys. */
static json_t *compose(const lk_model_config *config) {
    const lk_model_type *type = config->type;
    struct {
        const char *key;
        json_t *value;
    } rows[] = {
        {"architectures", json_pack("[s]", config->architecture[0] ? config->architecture : type->causal_class)},
        {"model_type", json_string(type->name)},
        {type->keys.hidden_size, json_integer(config->hidden_size)},
        {type->keys.intermediate_size, json_integer(config->intermediate_size)},
        {type->keys.num_hidden_layers, json_integer(config->num_hidden_layers)},
        {type->keys.num_attention_heads, json_integer(config->num_attention_heads)},
        {"num_key_value_heads", json_integer(config->num_key_value_heads)},
        {"head_dim", json_integer(config->head_dim)},
        {"vocab_size", json_integer(config->vocab_size)},
        {type->keys.max_position_embeddings, json_integer(config->max_position_embeddings)},
        {type->keys.norm_eps, json_real(config->norm_eps)},
        {type->keys.hidden_act, json_string(lk_hidden_act_name(config->hidden_act))},
        {"attention_bias", json_boolean(config->attention_bias)},
        {"mlp_bias", json_boolean(config->mlp_bias)},
        {"rope_theta", json_real(config->rope.theta)},
        {"rope_parameters", rope_object(&config->rope, true)},
        {"rope_scaling", config->rope.type >= LK_ROPE_LINEAR ? rope_object(&config->rope, false) : json_null()},
        {"sliding_window", config->sliding_window > 0 ? json_integer(config->sliding_window) : json_null()},
        {"use_sliding_window", json_boolean(config->sliding_window > 0)},
        {"max_window_layers",
         json_integer(config->sliding_window > 0 ? config->sliding_window_from : config->num_hidden_layers)},
        {"bos_token_id", id_or_null(config->bos_token_id)},
        {"eos_token_id", eos_ids(config)},
        {"pad_token_id", id_or_null(config->pad_token_id)},
    };
    json_t *root = json_object();
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        json_object_set_new(root, rows[i].key, rows[i].value);
    }
    if (json_object_size(root) != LK_COUNT(rows)) {
        json_decref(root);
        return NULL;
    }
    return root;
}

static bool has_label(const json_t *labels, int64_t index) {
    char key[24];
    snprintf(key, sizeof key, "%lld", (long long)index);
    return json_object_get(labels, key) != NULL;
}

/* id2label and label2id for as many labels as there are now; 0 when it is done. */
static int set_labels(json_t *root, int64_t num_labels) {
    const json_t *now = json_object_get(root, "id2label");
    if (num_labels == 0 || ((int64_t)json_object_size(now) == num_labels && has_label(now, num_labels - 1))) {
        return 0;
    }
    json_t *id2label = json_object(), *label2id = json_object();
    int failed = id2label == NULL || label2id == NULL;
    for (int64_t i = 0; i < num_labels; i++) {
        char key[24], name[32];
        snprintf(key, sizeof key, "%lld", (long long)i);
        snprintf(name, sizeof name, "LABEL_%lld", (long long)i);
        failed |= json_object_set_new(id2label, key, json_string(name));
        failed |= json_object_set_new(label2id, name, json_integer(i));
    }
    if (json_object_get(root, "num_labels") != NULL) {
        failed |= json_object_set_new(root, "num_labels", json_integer(num_labels));
    }
    failed |= json_object_set_new(root, "id2label", id2label);
    return failed | json_object_set_new(root, "label2id", label2id);
}

static int set_architecture(json_t *root, const char *architecture) {
    const char *now = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    if (architecture[0] == '\0' || (now != NULL && strcmp(now, architecture) == 0)) {
        return 0;
    }
    return json_object_set_new(root, "architectures", json_pack("[s]", architecture));
}

lk_status lk_model_config_save(lk_context *context, const lk_model_config *config, lk_dtype dtype, const char *path) {
    static const char *const names[LK_DTYPE_COUNT] = {
        [LK_DTYPE_F32] = "float32", [LK_DTYPE_BF16] = "bfloat16", [LK_DTYPE_F16] = "float16"};
    if (names[dtype] == NULL) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: a model cannot be written as %s", path,
                       lk_dtype_name(dtype));
    }
    json_t *root = config->source ? json_deep_copy(config->source) : compose(config);
    bool old_spelling = json_object_get(root, "torch_dtype") != NULL || config->source == NULL;
    bool new_spelling = json_object_get(root, "dtype") != NULL || !old_spelling || config->source == NULL;
    int failed = root == NULL;
    if (old_spelling) {
        failed |= json_object_set_new(root, "torch_dtype", json_string(names[dtype]));
    }
    if (new_spelling) {
        failed |= json_object_set_new(root, "dtype", json_string(names[dtype]));
    }
    failed |= json_object_set_new(root, "tie_word_embeddings", json_boolean(config->tie_word_embeddings));
    failed |= set_architecture(root, config->architecture);
    failed |= set_labels(root, config->num_labels);
    lk_status status = failed ? lk_out_of_memory(context, 0, path) : lk_json_save(context, path, root);
    json_decref(root);
    return status;
}
