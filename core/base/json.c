#include "core/base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

lk_status lk_json_parse(lk_context *context, const char *source, const void *bytes, size_t size, json_t **out) {
    json_error_t error;
    *out = json_loadb(bytes ? bytes : "", size, JSON_REJECT_DUPLICATES, &error);
    if (*out == NULL && json_error_code(&error) == json_error_numeric_overflow) {
        /* Hugging Face writes "no limit" as 1e30 with all its digits */
        *out = json_loadb(bytes, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    }
    if (*out == NULL) {
        if (json_error_code(&error) == json_error_out_of_memory || error.text[0] == '\0') { /* jansson's silence */
            return lk_out_of_memory(context, size, source);
        }
        return lk_fail(context, LK_STATUS_FORMAT, "%s: not valid JSON: line %d, column %d: %s", source, error.line,
                       error.column, error.text);
    }
    return LK_OK;
}

lk_status lk_json_load(lk_context *context, const char *path, json_t **out) {
    *out = NULL;
    lk_mapping mapping;
    LK_TRY(lk_mapping_open(context, path, &mapping));
    lk_status status = lk_json_parse(context, path, mapping.data, mapping.size, out);
    lk_mapping_close(&mapping);
    return status;
}

static int append(const char *buffer, size_t size, void *data) {
    lk_text_append(data, buffer, size);
    return 0;
}

void lk_json_print(lk_text *text, const json_t *value, size_t flags) {
    if (json_dump_callback(value, append, text, flags | JSON_ENCODE_ANY) != 0) {
        text->failed = true; /* the values are our own: only memory can be wanting */
    }
}

lk_status lk_json_save(lk_context *context, const char *path, const json_t *root) {
    lk_text text;
    lk_text_init(&text, context);
    lk_json_print(&text, root, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    lk_text_append(&text, "\n", 1);
    lk_status status = lk_text_status(&text);
    if (status == LK_OK) {
        status = lk_write_file(context, path, text.data, text.length);
    }
    lk_text_free(&text);
    return status;
}

static const char *type_name(const json_t *value) {
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    return names[json_typeof(value)];
}

/* Finds object[key]; *found stays NULL when it is absent and may be. */
static lk_status find(lk_context *context, const char *source, const json_t *object, const char *key, bool required,
                      json_t **found) {
    *found = json_object_get(object, key);
    if (json_is_null(*found)) {
        *found = NULL;
    }
    if (*found == NULL && required) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"%s\" is missing", source, key);
    }
    return LK_OK;
}

static lk_status wrong_type(lk_context *context, const char *source, const char *key, const json_t *value,
                            const char *expected) {
    return lk_fail(context, LK_STATUS_FORMAT, "%s: \"%s\" is %s, expected %s", source, key, type_name(value), expected);
}

lk_status lk_json_get_int(lk_context *context, const char *source, const json_t *object, const char *key, bool required,
                          int64_t minimum, int64_t maximum, int64_t *value) {
    json_t *found;
    LK_TRY(find(context, source, object, key, required, &found));
    if (found == NULL) {
        return LK_OK;
    }
    double real = json_number_value(found);
    bool integral =
        json_is_integer(found) || (json_is_real(found) && fabs(real) <= 9007199254740992.0 && real == floor(real));
    if (!integral) {
        return wrong_type(context, source, key, found, "an integer");
    }
    int64_t number = json_is_integer(found) ? json_integer_value(found) : (int64_t)real;
    if (number < minimum || number > maximum) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"%s\" is %lld, expected %lld to %lld", source, key,
                       (long long)number, (long long)minimum, (long long)maximum);
    }
    *value = number;
    return LK_OK;
}

lk_status lk_json_get_double(lk_context *context, const char *source, const json_t *object, const char *key,
                             bool required, double *value) {
    json_t *found;
    LK_TRY(find(context, source, object, key, required, &found));
    if (found == NULL) {
        return LK_OK;
    }
    if (!json_is_number(found)) {
        return wrong_type(context, source, key, found, "a number");
    }
    *value = json_number_value(found);
    return LK_OK;
}

lk_status lk_json_get_bool(lk_context *context, const char *source, const json_t *object, const char *key,
                           bool required, bool *value) {
    json_t *found;
    LK_TRY(find(context, source, object, key, required, &found));
    if (found == NULL) {
        return LK_OK;
    }
    if (!json_is_boolean(found)) {
        return wrong_type(context, source, key, found, "true or false");
    }
    *value = json_is_true(found);
    return LK_OK;
}

lk_status lk_json_get_string(lk_context *context, const char *source, const json_t *object, const char *key,
                             bool required, const char **value) {
    json_t *found;
    LK_TRY(find(context, source, object, key, required, &found));
    if (found == NULL) {
        return LK_OK;
    }
    if (!json_is_string(found)) {
        return wrong_type(context, source, key, found, "a string");
    }
    *value = json_string_value(found);
    return LK_OK;
}

lk_status lk_json_get_object(lk_context *context, const char *source, const json_t *object, const char *key,
                             bool required, json_t **value) {
    json_t *found;
    LK_TRY(find(context, source, object, key, required, &found));
    if (found == NULL) {
        return LK_OK;
    }
    if (!json_is_object(found)) {
        return wrong_type(context, source, key, found, "an object");
    }
    *value = found;
    return LK_OK;
}

lk_status lk_json_get_array(lk_context *context, const char *source, const json_t *object, const char *key,
                            bool required, json_t **value) {
    json_t *found;
    LK_TRY(find(context, source, object, key, required, &found));
    if (found == NULL) {
        return LK_OK;
    }
    if (!json_is_array(found)) {
        return wrong_type(context, source, key, found, "an array");
    }
    *value = found;
    return LK_OK;
}
