/* Typed reads from JSON (jansson) whose messages name the file, the key, what was found and what was expected. */
#ifndef LK_CORE_BASE_JSON_H
#define LK_CORE_BASE_JSON_H

#include <jansson.h>

#include "core/base/base.h"

/* `source` is used in messages only. The caller owns *out (json_decref). When a number is an integer beyond 64 bits,
 * all numbers come as reals; lk_json_get_int takes those that are whole. */
lk_status lk_json_parse(lk_context *context, const char *source, const void *bytes, size_t size, json_t **out);
lk_status lk_json_load(lk_context *context, const char *path, json_t **out);
/* Appends JSON text; flags are jansson's. Through our own memory: json_dumps' would need jansson's own free. */
void lk_json_print(lk_text *text, const json_t *value, size_t flags);
/* Writes beside the target and renames, indented by two spaces. */
lk_status lk_json_save(lk_context *context, const char *path, const json_t *root);

/* Each reads object[key]. An absent or null key leaves *value as the caller set it (its default) when `required` is
 * false, and is an error otherwise. A wrong type or a value out of range is an error either way. Strings are borrowed.
 */
lk_status lk_json_get_int(lk_context *context, const char *source, const json_t *object, const char *key, bool required,
                          int64_t minimum, int64_t maximum, int64_t *value);
lk_status lk_json_get_double(lk_context *context, const char *source, const json_t *object, const char *key,
                             bool required, double *value);
lk_status lk_json_get_bool(lk_context *context, const char *source, const json_t *object, const char *key,
                           bool required, bool *value);
lk_status lk_json_get_string(lk_context *context, const char *source, const json_t *object, const char *key,
                             bool required, const char **value);
lk_status lk_json_get_object(lk_context *context, const char *source, const json_t *object, const char *key,
                             bool required, json_t **value);
lk_status lk_json_get_array(lk_context *context, const char *source, const json_t *object, const char *key,
                            bool required, json_t **value);

#endif
