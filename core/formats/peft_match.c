/* Which modules an adapter's configuration means: the rules of PEFT's check_target_module_exists and get_pattern_key.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/formats/peft_config.h"
#include "core/text/regex.h"

/* Whether before + pattern + after, taken as one expression, matches the whole of the path. */
static lk_status matches(const lk_peft_config *config, const char *key, const char *before, const char *pattern,
                         const char *after, const char *module, bool *out) {
    lk_context *context = config->context;
    lk_text text;
    lk_regex *regex = NULL;
    size_t begin, end;
    *out = false;
    lk_text_init(&text, context);
    lk_text_printf(&text, "\\A(?:%s(?:%s)%s)\\z", before, pattern, after);
    lk_status status = lk_text_status(&text);
    if (status == LK_OK) {
        status = lk_regex_compile(context, key, text.data, text.length, &regex);
    }
    if (status == LK_OK) {
        status = lk_regex_find(regex, module, strlen(module), 0, out, &begin, &end);
    }
    lk_regex_free(regex);
    lk_text_free(&text);
    return status;
}

/* name, or anything that ends in .name */
static bool ends_in(const char *module, const char *name) {
    size_t length = strlen(module), name_length = strlen(name);
    return length >= name_length && strcmp(module + length - name_length, name) == 0 &&
           (length == name_length || module[length - name_length - 1] == '.');
}

/* A list of names, or a regular expression for the whole path. */
static lk_status selected(const lk_peft_config *config, const char *key, const json_t *selector, const char *module,
                          bool *exact, bool *out) {
    *exact = *out = false;
    if (json_is_string(selector)) {
        *exact = true;
        return matches(config, key, "", json_string_value(selector), "", module, out);
    }
    for (size_t i = 0; i < json_array_size(selector); i++) {
        const char *name = json_string_value(json_array_get(selector, i));
        *exact = *exact || strcmp(module, name) == 0;
        *out = *out || ends_in(module, name);
    }
    return LK_OK;
}

/* Whether one of modules_to_save is in the path: such modules are never adapted. */
static lk_status within_saved(const lk_peft_config *config, const char *module, bool *out) {
    *out = false;
    for (size_t i = 0; i < json_array_size(config->modules_to_save) && !*out; i++) {
        LK_TRY(matches(config, "modules_to_save", "(?:.*\\.)?",
                       json_string_value(json_array_get(config->modules_to_save, i)), "(?:\\..*)?", module, out));
    }
    return LK_OK;
}

/* ---- layers_to_transform ---- */

/* The number after "<pattern>." in the path; with no pattern, the first segment that is a number, but the second
 * segment at the earliest, and not the last. -1: there is none. */
static int64_t layer_index(const char *module, const char *pattern) {
    size_t position = 0;
    for (const char *segment = module; segment != NULL; position++) {
        const char *next = strchr(segment, '.'), *after = next ? strchr(next + 1, '.') : NULL;
        if (next == NULL || after == NULL) {
            return -1;
        }
        size_t digits = strspn(next + 1, "0123456789");
        bool number = digits > 0 && next + 1 + digits == after;
        bool fits = pattern == NULL
                        ? position > 0
                        : (size_t)(next - segment) == strlen(pattern) && memcmp(segment, pattern, strlen(pattern)) == 0;
        if (number && fits) {
            return strtoll(next + 1, NULL, 10);
        }
        segment = next + 1;
    }
    return -1;
}

static bool in_layers(const lk_peft_config *config, const char *module) {
    const json_t *layers = config->layers_to_transform, *patterns = config->layers_pattern;
    if (layers == NULL || (json_is_array(layers) && json_array_size(layers) == 0)) {
        return true;
    }
    int64_t index = -1;
    if (json_is_string(patterns)) {
        index = layer_index(module, json_string_value(patterns));
    } else if (json_array_size(patterns) == 0) {
        index = layer_index(module, NULL);
    }
    for (size_t i = 0; i < json_array_size(patterns) && index < 0; i++) {
        index = layer_index(module, json_string_value(json_array_get(patterns, i)));
    }
    if (json_is_integer(layers)) {
        return index == json_integer_value(layers);
    }
    for (size_t i = 0; i < json_array_size(layers); i++) {
        if (index == json_integer_value(json_array_get(layers, i))) {
            return true;
        }
    }
    return false;
}

/* ---- the rules ---- */

static bool is_all_linear(const json_t *targets) {
    static const char wanted[] = "all-linear";
    const char *text = json_string_value(targets);
    for (size_t i = 0; text != NULL && i < sizeof wanted; i++) {
        char c = text[i];
        if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != wanted[i]) {
            return false;
        }
    }
    return text != NULL;
}

lk_status lk_peft_targets_module(const lk_peft_config *config, const char *module, bool linear, bool *out) {
    bool exact, excluded;
    *out = false;
    LK_TRY(selected(config, "exclude_modules", config->exclude_modules, module, &exact, &excluded));
    if (!excluded) {
        LK_TRY(within_saved(config, module, &excluded));
    }
    if (excluded) {
        return LK_OK;
    }
    if (is_all_linear(config->target_modules)) {
        *out = linear;
        return LK_OK;
    }
    bool found;
    LK_TRY(selected(config, "target_modules", config->target_modules, module, &exact, &found));
    *out = found && (exact || in_layers(config, module));
    return LK_OK;
}

/* Whether the path, or that of a module around it, ends in name. As in PEFT the name may begin within a segment:
 * "classifier" means DistilBERT's pre_classifier too. */
static bool contains(const char *module, const char *name) {
    size_t length = strlen(name);
    for (const char *at = module; (at = strstr(at, name)) != NULL; at++) {
        if (at[length] == '\0' || at[length] == '.') {
            return true;
        }
    }
    return false;
}

bool lk_peft_saves_module(const lk_peft_config *config, const char *module) {
    for (size_t i = 0; i < json_array_size(config->modules_to_save); i++) {
        if (contains(module, json_string_value(json_array_get(config->modules_to_save, i)))) {
            return true;
        }
    }
    return false;
}

lk_status lk_peft_is_feedforward(const lk_peft_config *config, const char *module, bool *out) {
    bool exact;
    return selected(config, "feedforward_modules", config->feedforward_modules, module, &exact, out);
}

static lk_status pattern_value(const lk_peft_config *config, const char *key, const json_t *patterns,
                               const char *module, double *value) {
    const char *pattern;
    json_t *found;
    json_object_foreach((json_t *)(uintptr_t)patterns, pattern, found) {
        bool fits;
        LK_TRY(matches(config, key, "(?:.*\\.)?", pattern, "", module, &fits));
        if (fits) {
            *value = json_number_value(found);
            return LK_OK;
        }
    }
    return LK_OK;
}

/* AdaLoRA: the ranks that the pattern leaves of init_r, and alpha / (init_r + 1e-5), with init_r for an alpha of 0. */
static lk_status adalora_scaling_of(const lk_peft_config *config, const char *module, lk_peft_scaling *out) {
    double alpha = config->lora_alpha > 0.0 ? config->lora_alpha : (double)config->init_r;
    *out = (lk_peft_scaling){config->init_r, alpha, alpha / ((double)config->init_r + 1e-5)};
    lk_text key;
    lk_text_init(&key, config->context);
    lk_text_printf(&key, "%s.lora_E", module);
    lk_status status = lk_text_status(&key);
    const json_t *list = status == LK_OK ? json_object_get(config->rank_pattern, key.data) : NULL;
    lk_text_free(&key);
    if (list == NULL) {
        return status;
    }
    out->rank = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        out->rank += json_is_true(json_array_get(list, i));
    }
    return LK_OK;
}

lk_status lk_peft_scaling_of(const lk_peft_config *config, const char *module, lk_peft_scaling *out) {
    double rank = (double)config->r, alpha = config->lora_alpha;
    if (config->peft_type == LK_PEFT_ADALORA) {
        return adalora_scaling_of(config, module, out);
    }
    *out = (lk_peft_scaling){0};
    LK_TRY(pattern_value(config, "rank_pattern", config->rank_pattern, module, &rank));
    LK_TRY(pattern_value(config, "alpha_pattern", config->alpha_pattern, module, &alpha));
    *out = (lk_peft_scaling){(int64_t)rank, alpha, alpha / (config->use_rslora ? sqrt(rank) : rank)};
    return LK_OK;
}
