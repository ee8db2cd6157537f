#include "core/formats/peft_config.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "core/base/json.h"

enum { RANK_MAX = 65536 };

static const char *const type_names[] = {
#define LK_PEFT_TYPE(NAME, text) text,
    LK_PEFT_TYPES(LK_PEFT_TYPE)
#undef LK_PEFT_TYPE
};

/* What adapter_config.json says of single types: at `offset` of the configuration. */
typedef enum field_kind { FIELD_BOOL, FIELD_INT, FIELD_REAL } field_kind;
static const struct {
    const char *key;
    unsigned types;
    field_kind kind;
    size_t offset;
    double value; /* PEFT's default */
    int64_t least, most;
} fields[] = {
#define LK_PEFT_FIELD(types, kind, name, value, least, most) \
    {#name, types, FIELD_##kind, offsetof(lk_peft_config, name), value, least, most},
#include "core/formats/peft_fields.def"
#undef LK_PEFT_FIELD
};

static bool has_field(const lk_peft_config *config, size_t index) {
    return (fields[index].types >> config->peft_type & 1u) != 0;
}

static void *field_of(const lk_peft_config *config, size_t index) {
    return (char *)(uintptr_t)config + fields[index].offset;
}

static void set_field_defaults(lk_peft_config *config) {
    for (size_t i = 0; i < LK_COUNT(fields); i++) {
        void *field = field_of(config, i);
        switch (fields[i].kind) {
        case FIELD_BOOL:
            *(bool *)field = fields[i].value != 0.0;
            break;
        case FIELD_INT:
            *(int64_t *)field = (int64_t)fields[i].value;
            break;
        case FIELD_REAL:
            *(double *)field = fields[i].value;
            break;
        }
    }
}

/* ---- making and freeing ---- */

lk_status lk_peft_config_init(lk_context *context, lk_peft_type type, lk_peft_config *out) {
    *out = (lk_peft_config){.context = context,
                            .peft_type = type,
                            .r = type == LK_PEFT_VERA ? 256 : 8,
                            .lora_alpha = 8,
                            .d_initial = 0.1,
                            .save_projection = true,
                            .inference_mode = true};
    set_field_defaults(out);
    out->r = type == LK_PEFT_OFT ? 0 : out->r;
    lk_status status = lk_peft_config_set_text(out, &out->bias, "none");
    if (status != LK_OK) {
        lk_peft_config_free(out);
    }
    return status;
}

void lk_peft_config_free(lk_peft_config *config) {
    json_t *values[] = {
        config->target_modules,    config->exclude_modules, config->modules_to_save,     config->feedforward_modules,
        config->rank_pattern,      config->alpha_pattern,   config->layers_to_transform, config->layers_pattern,
        config->init_lora_weights, config->source};
    for (size_t i = 0; i < LK_COUNT(values); i++) {
        json_decref(values[i]);
    }
    if (config->context != NULL) {
        lk_free(config->context, config->bias);
        lk_free(config->context, config->task_type);
        lk_free(config->context, config->base_model_name_or_path);
    }
    *config = (lk_peft_config){0};
}

lk_status lk_peft_config_set_text(lk_peft_config *config, char **field, const char *value) {
    char *copy = value ? lk_strdup(config->context, value) : NULL;
    if (value != NULL && copy == NULL) {
        return lk_out_of_memory(config->context, strlen(value), "an adapter's configuration");
    }
    lk_free(config->context, *field);
    *field = copy;
    return LK_OK;
}

/* An array of the names that commas separate. */
static lk_status parse_names(lk_context *context, const char *what, const char *names, json_t **out) {
    *out = json_array();
    for (const char *at = names; *out != NULL && *at != '\0';) {
        size_t length = strcspn(at, ",");
        if (length == 0 || json_array_append_new(*out, json_stringn(at, length)) != 0) {
            json_decref(*out);
            *out = NULL;
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: \"%s\" is not a list of names", what, names);
        }
        at += length + (at[length] == ',');
    }
    if (*out == NULL) {
        return lk_out_of_memory(context, 0, "an adapter's configuration");
    }
    if (json_array_size(*out) == 0) {
        json_decref(*out);
        *out = NULL;
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: no name is given", what);
    }
    return LK_OK;
}

lk_status lk_peft_config_set_targets(lk_peft_config *config, const char *targets) {
    json_t *value = NULL;
    if (strcmp(targets, "all-linear") != 0) {
        LK_TRY(parse_names(config->context, "target modules", targets, &value));
    } else if ((value = json_string(targets)) == NULL) {
        return lk_out_of_memory(config->context, 0, "an adapter's configuration");
    }
    json_decref(config->target_modules);
    config->target_modules = value;
    return LK_OK;
}

lk_status lk_peft_config_set_saved(lk_peft_config *config, const char *names) {
    json_t *value = NULL;
    if (names != NULL && names[0] != '\0') {
        LK_TRY(parse_names(config->context, "modules to save", names, &value));
    }
    json_decref(config->modules_to_save);
    config->modules_to_save = value;
    return LK_OK;
}

/* ---- checks, shared by load and save ---- */

static bool is_list_of(const json_t *value, bool (*accepts)(const json_t *)) {
    if (!json_is_array(value)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (!accepts(json_array_get(value, i))) {
            return false;
        }
    }
    return true;
}

static bool is_text(const json_t *value) {
    return json_is_string(value) && json_string_length(value) > 0;
}

static bool is_index(const json_t *value) {
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

static lk_status check_names(lk_context *context, const char *path, const char *key, const json_t *value,
                             bool or_text) {
    if (value == NULL || is_list_of(value, is_text) || (or_text && is_text(value))) {
        return LK_OK;
    }
    return lk_fail(context, LK_STATUS_FORMAT, "%s: \"%s\" is not a list of names%s", path, key,
                   or_text ? " or a regular expression" : "");
}

static lk_status check_pattern(lk_context *context, const char *path, const char *key, const json_t *object,
                               bool rank) {
    const char *name;
    json_t *value;
    if (object != NULL && !json_is_object(object)) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"%s\" is not an object", path, key);
    }
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        json_int_t number = json_integer_value(value);
        bool good = rank ? json_is_integer(value) && number >= 1 && number <= RANK_MAX
                         : json_is_number(value) && isfinite(json_number_value(value));
        if (!good) {
            return lk_fail(context, LK_STATUS_FORMAT, "%s: \"%s\": the value of \"%s\" is not %s", path, key, name,
                           rank ? "a rank (1 to 65536)" : "a number");
        }
    }
    return LK_OK;
}

/* PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ change the base weights before training, so an adapter made with them does not
 * fit the plain base. Of PiSSA and OLoRA the change follows from the base alone. */
static lk_status check_init(lk_context *context, const char *path, const json_t *init) {
    static const char *const known[] = {"gaussian", "eva", "orthogonal", "pissa", "olora"};
    if (init == NULL || json_is_boolean(init)) {
        return LK_OK;
    }
    for (size_t i = 0; json_is_string(init) && i < LK_COUNT(known); i++) {
        if (strcmp(json_string_value(init), known[i]) == 0) {
            return LK_OK;
        }
    }
    return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: \"init_lora_weights\": \"%s\" is not supported", path,
                   json_is_string(init) ? json_string_value(init) : "(not a name)");
}

static lk_status check_bias(lk_context *context, const char *path, const char *bias) {
    static const char *const known[] = {"none", "all", "lora_only", "vera_only", "oft_only"};
    for (size_t i = 0; i < LK_COUNT(known); i++) {
        if (strcmp(bias, known[i]) == 0) {
            return LK_OK;
        }
    }
    return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: \"bias\" is \"%s\", expected none, all or lora_only", path,
                   bias);
}

static lk_status check(const lk_peft_config *config, const char *path) {
    lk_context *context = config->context;
    LK_TRY(check_names(context, path, "target_modules", config->target_modules, true));
    LK_TRY(check_names(context, path, "exclude_modules", config->exclude_modules, true));
    LK_TRY(check_names(context, path, "modules_to_save", config->modules_to_save, false));
    LK_TRY(check_names(context, path, "feedforward_modules", config->feedforward_modules, true));
    LK_TRY(check_names(context, path, "layers_pattern", config->layers_pattern, true));
    if (config->peft_type != LK_PEFT_ADALORA) { /* whose patterns are lists of what is kept */
        LK_TRY(check_pattern(context, path, "rank_pattern", config->rank_pattern, true));
    }
    LK_TRY(check_pattern(context, path, "alpha_pattern", config->alpha_pattern, false));
    LK_TRY(check_init(context, path, config->init_lora_weights));
    LK_TRY(check_bias(context, path, config->bias));
    const json_t *layers = config->layers_to_transform;
    if (layers != NULL && !is_index(layers) && !is_list_of(layers, is_index)) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"layers_to_transform\" is not a list of layers", path);
    }
    if (config->target_modules == NULL) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"target_modules\" is missing", path);
    }
    if (config->r < (config->peft_type != LK_PEFT_OFT) || config->r > RANK_MAX) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"r\" is %lld, expected 1 to %d", path, (long long)config->r,
                       RANK_MAX);
    }
    if (!isfinite(config->lora_alpha) || !(config->lora_dropout >= 0 && config->lora_dropout < 1)) {
        return lk_fail(context, LK_STATUS_FORMAT,
                       "%s: lora_alpha is %g and the dropout %g, expected a finite number and one from 0 up to 1", path,
                       config->lora_alpha, config->lora_dropout);
    }
    return LK_OK;
}

/* ---- loading ---- */

typedef struct reader {
    lk_peft_config *config;
    const char *path;
    const json_t *root;
} reader;

/* null, false, 0, "" and empty lists and objects leave an option off. */
static bool is_off(const json_t *value) {
    return value == NULL || json_is_null(value) || json_is_false(value) ||
           (json_is_integer(value) && json_integer_value(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static lk_status refuse_foreign_options(const reader *from) {
    static const char *const keys[] = {
        "alora_invocation_tokens", "arrow_config",      "corda_config", "ensure_weight_tying", "kasa_config",
        "layer_replication",       "loftq_config",      "lora_bias",    "lora_ga_config",      "megatron_config",
        "monteclora_config",       "target_parameters", "use_bdlora",   "use_qalora",          "velora_config",
        "trainable_token_indices",
    };
    for (size_t i = 0; i < LK_COUNT(keys); i++) {
        const json_t *value = json_object_get(from->root, keys[i]);
        if (!is_off(value)) {
            return lk_fail(from->config->context, LK_STATUS_UNSUPPORTED,
                           "%s: the option \"%s\" is on, which is not supported", from->path, keys[i]);
        }
    }
    return LK_OK;
}

static lk_status read_type(const reader *from) {
    const char *name;
    LK_TRY(lk_json_get_string(from->config->context, from->path, from->root, "peft_type", true, &name));
    for (int i = 0; i < LK_PEFT_TYPE_COUNT; i++) {
        if (strcmp(type_names[i], name) == 0) {
            from->config->peft_type = (lk_peft_type)i;
            return LK_OK;
        }
    }
    return lk_fail(from->config->context, LK_STATUS_UNSUPPORTED,
                   "%s: \"peft_type\" is \"%s\", expected LORA, VERA, IA3, LOHA, LOKR, OFT or ADALORA", from->path,
                   name);
}

static lk_status read_text(const reader *from, const char *key, char **field) {
    const char *value = *field;
    LK_TRY(lk_json_get_string(from->config->context, from->path, from->root, key, false, &value));
    return value == *field ? LK_OK : lk_peft_config_set_text(from->config, field, value);
}

static void read_value(const reader *from, const char *key, json_t **field) {
    json_t *value = json_object_get(from->root, key);
    *field = value == NULL || json_is_null(value) ? NULL : json_incref(value);
}

static lk_status read_field(const reader *from, size_t index) {
    lk_context *context = from->config->context;
    const char *key = fields[index].key;
    const json_t *found = json_object_get(from->root, key);
    void *field = field_of(from->config, index);
    double least = (double)fields[index].least, most = (double)fields[index].most;
    if (found == NULL || json_is_null(found)) {
        return LK_OK;
    }
    switch (fields[index].kind) {
    case FIELD_BOOL:
        return lk_json_get_bool(context, from->path, from->root, key, false, field);
    case FIELD_INT:
        return lk_json_get_int(context, from->path, from->root, key, false, fields[index].least, fields[index].most,
                               field);
    case FIELD_REAL:
        break;
    }
    LK_TRY(lk_json_get_double(context, from->path, from->root, key, false, field));
    double value = *(double *)field;
    return value >= least && value <= most ? LK_OK
                                           : lk_fail(context, LK_STATUS_FORMAT, "%s: \"%s\" is %g, expected %g to %g",
                                                     from->path, key, value, least, most);
}

static bool has_plain_alpha(const lk_peft_config *config) {
    return config->peft_type == LK_PEFT_LOHA || config->peft_type == LK_PEFT_LOKR;
}

static lk_status read_numbers(const reader *from) {
    lk_peft_config *config = from->config;
    lk_context *context = config->context;
    bool vera = config->peft_type == LK_PEFT_VERA;
    for (size_t i = 0; i < LK_COUNT(fields); i++) {
        LK_TRY(has_field(config, i) ? read_field(from, i) : LK_OK);
    }
    LK_TRY(lk_json_get_int(context, from->path, from->root, "r", false, config->peft_type != LK_PEFT_OFT, RANK_MAX,
                           &config->r));
    LK_TRY(lk_json_get_double(context, from->path, from->root, has_plain_alpha(config) ? "alpha" : "lora_alpha", false,
                              &config->lora_alpha));
    LK_TRY(lk_json_get_double(context, from->path, from->root, vera ? "vera_dropout" : "lora_dropout", false,
                              &config->lora_dropout));
    LK_TRY(lk_json_get_int(context, from->path, from->root, "projection_prng_key", false, 0, INT64_MAX,
                           &config->projection_prng_key));
    LK_TRY(lk_json_get_double(context, from->path, from->root, "d_initial", false, &config->d_initial));
    LK_TRY(lk_json_get_bool(context, from->path, from->root, "save_projection", false, &config->save_projection));
    LK_TRY(lk_json_get_bool(context, from->path, from->root, "use_rslora", false, &config->use_rslora));
    LK_TRY(lk_json_get_bool(context, from->path, from->root, "use_dora", false, &config->use_dora));
    LK_TRY(lk_json_get_bool(context, from->path, from->root, "fan_in_fan_out", false, &config->fan_in_fan_out));
    return lk_json_get_bool(context, from->path, from->root, "inference_mode", false, &config->inference_mode);
}

static lk_status read_config(const reader *from) {
    lk_peft_config *config = from->config;
    LK_TRY(read_type(from));
    config->r = config->peft_type == LK_PEFT_VERA ? 256 : config->peft_type == LK_PEFT_OFT ? 0 : config->r;
    LK_TRY(read_numbers(from));
    LK_TRY(read_text(from, "bias", &config->bias));
    LK_TRY(read_text(from, "task_type", &config->task_type));
    LK_TRY(read_text(from, "base_model_name_or_path", &config->base_model_name_or_path));
    read_value(from, "target_modules", &config->target_modules);
    read_value(from, "exclude_modules", &config->exclude_modules);
    read_value(from, "modules_to_save", &config->modules_to_save);
    read_value(from, "feedforward_modules", &config->feedforward_modules);
    read_value(from, "rank_pattern", &config->rank_pattern);
    read_value(from, "alpha_pattern", &config->alpha_pattern);
    read_value(from, "layers_to_transform", &config->layers_to_transform);
    read_value(from, "layers_pattern", &config->layers_pattern);
    read_value(from, "init_lora_weights", &config->init_lora_weights);
    LK_TRY(refuse_foreign_options(from));
    return check(config, from->path);
}

lk_status lk_peft_config_load(lk_context *context, const char *path, lk_peft_config *out) {
    LK_TRY(lk_peft_config_init(context, LK_PEFT_LORA, out));
    lk_status status = lk_json_load(context, path, &out->source);
    if (status == LK_OK) {
        status = json_is_object(out->source) ? read_config(&(reader){out, path, out->source})
                                             : lk_fail(context, LK_STATUS_FORMAT, "%s: not a JSON object", path);
    }
    if (status != LK_OK) {
        lk_peft_config_free(out);
    }
    return status;
}

/* ---- without a change of the base ---- */

bool lk_peft_changes_base(const lk_peft_config *config) {
    const char *init = json_string_value(config->init_lora_weights);
    return init != NULL && (strcmp(init, "pissa") == 0 || strcmp(init, "olora") == 0);
}

/* The pattern's numbers times a factor; NULL stays NULL. */
static json_t *scaled_pattern(const json_t *pattern, double factor, bool whole) {
    json_t *scaled = pattern ? json_object() : NULL, *value;
    const char *key;
    json_object_foreach((json_t *)(uintptr_t)pattern, key, value) {
        double product = factor * json_number_value(value);
        if (json_object_set_new(scaled, key, whole ? json_integer((json_int_t)product) : json_real(product)) != 0) {
            json_decref(scaled);
            return NULL;
        }
    }
    return scaled;
}

lk_status lk_peft_config_double_rank(const lk_peft_config *config, lk_peft_config *out) {
    double factor = config->use_rslora ? sqrt(2.0) : 2.0;
    *out = *config;
    out->r = 2 * config->r;
    out->lora_alpha = factor * config->lora_alpha;
    out->rank_pattern = scaled_pattern(config->rank_pattern, 2.0, true);
    out->alpha_pattern = scaled_pattern(config->alpha_pattern, factor, false);
    out->init_lora_weights = NULL;
    bool complete = (out->rank_pattern || !config->rank_pattern) && (out->alpha_pattern || !config->alpha_pattern);
    if (!complete) {
        lk_peft_config_free_doubled(out);
        return lk_out_of_memory(config->context, 0, "an adapter's configuration");
    }
    return LK_OK;
}

void lk_peft_config_free_doubled(lk_peft_config *doubled) {
    json_decref(doubled->rank_pattern);
    json_decref(doubled->alpha_pattern);
}

/* ---- saving ---- */

static json_t *text_or_null(const char *text) {
    return text ? json_string(text) : json_null();
}

static json_t *copy_or_null(const json_t *value) {
    return value ? json_deep_copy(value) : json_null();
}

static json_t *copy_or_empty(const json_t *value) {
    return value ? json_deep_copy(value) : json_object();
}

/* PEFT writes a whole alpha as an integer. */
static json_t *number(double value) {
    return value == floor(value) && fabs(value) < 1e15 ? json_integer((json_int_t)value) : json_real(value);
}

static bool set_fields(const lk_peft_config *config, json_t *root) {
    int failed = 0;
    for (size_t i = 0; i < LK_COUNT(fields); i++) {
        const void *field = field_of(config, i);
        if (has_field(config, i)) {
            json_t *value = fields[i].kind == FIELD_BOOL  ? json_boolean(*(const bool *)field)
                            : fields[i].kind == FIELD_INT ? json_integer(*(const int64_t *)field)
                                                          : json_real(*(const double *)field);
            failed |= json_object_set_new(root, fields[i].key, value);
        }
    }
    return failed == 0;
}

static bool set_lora(const lk_peft_config *config, json_t *root) {
    json_t *init = config->init_lora_weights ? json_incref(config->init_lora_weights) : json_true();
    int failed = json_object_set_new(root, "r", json_integer(config->r));
    failed |= json_object_set_new(root, "lora_alpha", number(config->lora_alpha));
    failed |= json_object_set_new(root, "lora_dropout", json_real(config->lora_dropout));
    failed |= json_object_set_new(root, "use_rslora", json_boolean(config->use_rslora));
    failed |= json_object_set_new(root, "use_dora", json_boolean(config->use_dora));
    failed |= json_object_set_new(root, "rank_pattern", copy_or_empty(config->rank_pattern));
    failed |= json_object_set_new(root, "alpha_pattern", copy_or_empty(config->alpha_pattern));
    failed |= json_object_set_new(root, "init_lora_weights", init);
    return failed == 0;
}

static bool set_vera(const lk_peft_config *config, json_t *root) {
    int failed = json_object_set_new(root, "r", json_integer(config->r));
    failed |= json_object_set_new(root, "vera_dropout", json_real(config->lora_dropout));
    failed |= json_object_set_new(root, "projection_prng_key", json_integer(config->projection_prng_key));
    failed |= json_object_set_new(root, "save_projection", json_boolean(config->save_projection));
    failed |= json_object_set_new(root, "d_initial", json_real(config->d_initial));
    return failed == 0;
}

static bool set_adalora(const lk_peft_config *config, json_t *root) {
    int failed = json_object_set_new(root, "lora_alpha", number(config->lora_alpha));
    failed |= json_object_set_new(root, "lora_dropout", json_real(config->lora_dropout));
    failed |= json_object_set_new(root, "rank_pattern", copy_or_null(config->rank_pattern));
    return failed == 0;
}

static bool set_lycoris(const lk_peft_config *config, json_t *root) {
    int failed = json_object_set_new(root, "r", json_integer(config->r));
    failed |= json_object_set_new(root, "alpha", number(config->lora_alpha));
    failed |= json_object_set_new(root, "rank_pattern", copy_or_empty(config->rank_pattern));
    failed |= json_object_set_new(root, "alpha_pattern", copy_or_empty(config->alpha_pattern));
    return failed == 0;
}

/* What is the type's own. */
static bool set_special(const lk_peft_config *config, json_t *root) {
    switch (config->peft_type) {
    case LK_PEFT_LORA:
    case LK_PEFT_DELTA_LORA:
        return set_lora(config, root);
    case LK_PEFT_VERA:
        return set_vera(config, root);
    case LK_PEFT_LOHA:
    case LK_PEFT_LOKR:
        return set_lycoris(config, root);
    case LK_PEFT_ADALORA:
        return set_adalora(config, root);
    case LK_PEFT_OFT:
        return json_object_set_new(root, "r", json_integer(config->r)) == 0;
    default:
        return true;
    }
}

static bool set_common(const lk_peft_config *config, json_t *root) {
    int failed = json_object_set_new(root, "peft_type", json_string(type_names[config->peft_type]));
    failed |= json_object_set_new(root, "task_type", text_or_null(config->task_type));
    failed |= json_object_set_new(root, "base_model_name_or_path", text_or_null(config->base_model_name_or_path));
    failed |= json_object_set_new(root, "inference_mode", json_boolean(config->inference_mode));
    if (!has_plain_alpha(config)) {
        failed |= json_object_set_new(root, "fan_in_fan_out", json_boolean(config->fan_in_fan_out));
    }
    failed |= json_object_set_new(root, "target_modules", copy_or_null(config->target_modules));
    failed |= json_object_set_new(root, "modules_to_save", copy_or_null(config->modules_to_save));
    if (config->peft_type == LK_PEFT_IA3) {
        failed |= json_object_set_new(root, "feedforward_modules", copy_or_null(config->feedforward_modules));
    } else {
        if (!has_plain_alpha(config)) {
            failed |= json_object_set_new(root, "bias", json_string(config->bias));
        }
        failed |= json_object_set_new(root, "layers_to_transform", copy_or_null(config->layers_to_transform));
        failed |= json_object_set_new(root, "layers_pattern", copy_or_null(config->layers_pattern));
    }
    if (config->peft_type != LK_PEFT_VERA) { /* which does not know the key */
        failed |= json_object_set_new(root, "exclude_modules", copy_or_null(config->exclude_modules));
    }
    return failed == 0;
}

lk_status lk_peft_config_save(const lk_peft_config *config, const char *path) {
    LK_TRY(check(config, path));
    json_t *root = config->source ? json_deep_copy(config->source) : json_object();
    bool set = root != NULL && set_common(config, root) && set_special(config, root) && set_fields(config, root);
    lk_status status = set ? lk_json_save(config->context, path, root) : lk_out_of_memory(config->context, 0, path);
    json_decref(root);
    return status;
}
