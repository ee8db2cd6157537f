/* From the options of a new adapter to its configuration. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/adapters/adapter_files.h"
#include "core/adapters/lora_init.h"

void lk_adapter_options_init(lk_adapter_options *options) {
    *options = (lk_adapter_options){.struct_size = sizeof *options,
                                    .method = "lora",
                                    .rank = 8,
                                    .alpha = 16.0,
                                    .target_modules = "all-linear",
                                    .bias = "none",
                                    .decompose_factor = -1,
                                    .oft_block_size = 32,
                                    .cayley_terms = 5,
                                    .delta_t = 1,
                                    .importance_beta1 = 0.85,
                                    .importance_beta2 = 0.85,
                                    .orth_reg_weight = 0.5,
                                    .delta_ratio = 2.0,
                                    .growth_threshold = 0.1,
                                    .coft_eps = 6e-5,
                                    .init = "default"};
}

static lk_status choose_method(lk_adapter *adapter, const char *name) {
    adapter->method = lk_adapter_method_find(name);
    if (adapter->method != NULL) {
        return LK_OK;
    }
    lk_text known;
    lk_text_init(&known, adapter->context);
    const char *const *names = lk_adapter_methods();
    for (size_t i = 0; names[i] != NULL; i++) {
        lk_text_printf(&known, "%s%s", i ? ", " : "", names[i]);
    }
    lk_status status = lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT, "there is no method \"%s\"; known are %s",
                               name, known.data ? known.data : "");
    lk_text_free(&known);
    return status;
}

/* Every name must match something: a misspelt one would be left out in silence. */
static lk_status check_names(lk_adapter *adapter) {
    const json_t *targets = adapter->config.target_modules;
    size_t i;
    const json_t *target;
    for (i = 0; i < json_array_size(targets); i++) {
        target = json_array_get(targets, i);
        const char *name = json_string_value(target);
        size_t length = strlen(name);
        bool found = false;
        for (int32_t s = 0; s < adapter->model->num_sites && !found; s++) {
            const char *path = adapter->model->sites[s].path;
            size_t path_length = strlen(path);
            found = path_length >= length && strcmp(path + path_length - length, name) == 0 &&
                    (path_length == length || path[path_length - length - 1] == '.');
        }
        if (!found) {
            return lk_adapter_no_match(adapter, name);
        }
    }
    return LK_OK;
}

/* "0,2,3" */
static lk_status set_layers(lk_peft_config *config, const char *layers) {
    json_t *list = json_array();
    lk_status status = list != NULL ? LK_OK : lk_out_of_memory(config->context, 0, "an adapter's configuration");
    for (const char *next = layers; next != NULL && *next != '\0' && status == LK_OK;) {
        char *end;
        long long layer = strtoll(next, &end, 10);
        if (end == next || layer < 0 || (*end != ',' && *end != '\0')) {
            status = lk_fail(config->context, LK_STATUS_INVALID_ARGUMENT,
                             "layers: \"%s\" is not a list of numbers separated by commas", layers);
        } else if (json_array_append_new(list, json_integer(layer)) != 0) {
            status = lk_out_of_memory(config->context, 0, "an adapter's configuration");
        }
        next = end + (*end == ',');
    }
    if (status != LK_OK || layers == NULL) {
        json_decref(list);
        return status;
    }
    json_decref(config->layers_to_transform);
    config->layers_to_transform = list;
    return LK_OK;
}

static const char *last_segment(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot != NULL ? dot + 1 : path;
}

/* PEFT refuses layers_to_transform with "all-linear": the targets become the names of all linear layers. */
static lk_status name_all_linear(lk_adapter *adapter) {
    lk_text names;
    lk_text_init(&names, adapter->context);
    for (int32_t i = 0; i < adapter->model->num_sites; i++) {
        const lk_linear_site *site = &adapter->model->sites[i];
        const char *name = last_segment(site->path);
        bool known = site->is_head || site->is_embedding;
        for (int32_t j = 0; j < i && !known; j++) {
            known = strcmp(last_segment(adapter->model->sites[j].path), name) == 0;
        }
        if (!known) {
            lk_text_printf(&names, "%s%s", names.length > 0 ? "," : "", name);
        }
    }
    lk_status status = lk_text_status(&names);
    if (status == LK_OK) {
        status = lk_peft_config_set_targets(&adapter->config, names.data != NULL ? names.data : "");
    }
    lk_text_free(&names);
    return status;
}

static lk_status check_dropouts(lk_context *context, const lk_adapter_options *options) {
    const struct {
        const char *name;
        double value;
    } rows[] = {{"dropout", options->dropout},
                {"rank_dropout", options->rank_dropout},
                {"module_dropout", options->module_dropout}};
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        if (!(rows[i].value >= 0.0 && rows[i].value < 1.0)) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s is %g, expected 0 or more and less than 1",
                           rows[i].name, rows[i].value);
        }
    }
    return LK_OK;
}

/* "q_proj=6,layers.1.mlp.down_proj=2": PEFT's patterns. */
static lk_status parse_pattern(lk_context *context, const char *option, const char *text, bool is_rank, json_t **out) {
    json_t *pattern = json_object();
    bool valid = pattern != NULL;
    for (const char *next = text; valid && *next != '\0';) {
        size_t length = strcspn(next, ",");
        const char *equals = memchr(next, '=', length);
        char *end = NULL, *key = equals != NULL ? lk_alloc(context, length) : NULL;
        double value = equals != NULL ? strtod(equals + 1, &end) : 0.0;
        valid = key != NULL && equals > next && end == next + length && end > equals + 1 && isfinite(value) &&
                (!is_rank || (value >= 1.0 && value <= 65536.0 && value == floor(value)));
        if (valid) {
            memcpy(key, next, (size_t)(equals - next));
            key[equals - next] = '\0';
            json_t *number = is_rank ? json_integer((json_int_t)value) : json_real(value);
            valid = json_object_set_new(pattern, key, number) == 0;
        }
        lk_free(context, key);
        next += length + (next[length] == ',');
    }
    if (!valid) {
        json_decref(pattern);
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: \"%s\" is not a list of NAME=%s", option, text,
                       is_rank ? "RANK" : "ALPHA");
    }
    *out = pattern;
    return LK_OK;
}

static lk_status set_patterns(lk_adapter *adapter, const lk_adapter_options *options) {
    lk_peft_config *config = &adapter->config;
    const lk_peft_type type = config->peft_type;
    bool has_patterns = type == LK_PEFT_LORA || type == LK_PEFT_LOHA || type == LK_PEFT_LOKR;
    const struct {
        const char *option, *text;
        json_t **to;
    } rows[] = {{"rank_pattern", options->rank_pattern, &config->rank_pattern},
                {"alpha_pattern", options->alpha_pattern, &config->alpha_pattern}};
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        if (rows[i].text == NULL) {
            continue;
        }
        if (!has_patterns || strcmp(adapter->method->name, "dynamic-lora") == 0) { /* whose ranks are its own matter */
            return lk_fail(adapter->context, LK_STATUS_UNSUPPORTED, "%s: %s has none", rows[i].option,
                           adapter->method->name);
        }
        LK_TRY(parse_pattern(adapter->context, rows[i].option, rows[i].text, i == 0, rows[i].to));
    }
    return LK_OK;
}

/* PEFT calls the biases of the adapted layers after its type. */
static lk_status check_bias(const lk_adapter *adapter, const char *bias) {
    static const struct {
        lk_peft_type type;
        const char *bias;
    } rows[] = {{LK_PEFT_VERA, "vera_only"}, {LK_PEFT_OFT, "oft_only"}};
    const char *own = "lora_only";
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        own = rows[i].type == adapter->config.peft_type ? rows[i].bias : own;
    }
    if (strcmp(bias, "none") == 0 ||
        (!adapter->method->no_bias && (strcmp(bias, "all") == 0 || strcmp(bias, own) == 0))) {
        return LK_OK;
    }
    if (adapter->method->no_bias) {
        return lk_fail(adapter->context, LK_STATUS_UNSUPPORTED, "bias: %s trains none", adapter->method->name);
    }
    return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT, "bias is \"%s\", with %s expected none, %s or all",
                   bias, adapter->method->name, own);
}

lk_status lk_adapter_configure(lk_adapter *adapter, const lk_adapter_options *options) {
    lk_context *context = adapter->context;
    LK_TRY(choose_method(adapter, options->method));
    LK_TRY(check_dropouts(context, options));
    if (options->dropout > 0.0 && adapter->method->no_dropout) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "dropout: %s has none", adapter->method->name);
    }
    if (options->rank < 1) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "rank is %d, expected 1 or more", options->rank);
    }
    adapter->seed = options->seed;
    LK_TRY(lk_peft_config_init(context, adapter->method->type, &adapter->config));
    LK_TRY(check_bias(adapter, options->bias));
    lk_peft_config *config = &adapter->config;
    config->r = options->rank;
    config->lora_alpha = options->alpha;
    config->lora_dropout = options->dropout;
    LK_TRY(lk_peft_config_set_targets(config, options->target_modules));
    bool classify = adapter->model->task == LK_TASK_CLASSIFY;
    const char *saved = options->modules_to_save == NULL && classify ? "classifier,score" : options->modules_to_save;
    LK_TRY(lk_peft_config_set_saved(config, saved));
    LK_TRY(lk_peft_config_set_text(config, &config->task_type, classify ? "SEQ_CLS" : "CAUSAL_LM"));
    for (int32_t i = 0; i < adapter->model->num_sites; i++) {
        config->fan_in_fan_out = config->fan_in_fan_out || adapter->model->sites[i].is_transposed;
    }
    LK_TRY(lk_peft_config_set_text(config, &config->base_model_name_or_path,
                                   lk_pretrained_path(adapter->model->pretrained)));
    LK_TRY(lk_peft_config_set_text(config, &config->bias, options->bias));
    LK_TRY(set_patterns(adapter, options));
    LK_TRY(set_layers(config, options->layers));
    if (config->layers_to_transform != NULL && json_is_string(config->target_modules)) {
        LK_TRY(name_all_linear(adapter));
    }
    LK_TRY(check_names(adapter));
    LK_TRY(lk_lora_init_configure(adapter, options->init));
    if (adapter->method->configure != NULL) {
        LK_TRY(adapter->method->configure(adapter, options));
    }
    if (options->rank_dropout != config->rank_dropout || options->module_dropout != config->module_dropout) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: %s has none",
                       options->rank_dropout != config->rank_dropout ? "rank_dropout" : "module_dropout",
                       adapter->method->name);
    }
    return LK_OK;
}
