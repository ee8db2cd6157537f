/* GGUF, the container of llama.cpp, versions 2 and 3: typed metadata, then tensors. The reader maps the file and checks
 * every length, type and offset before it returns; metadata and tensors are borrowed views of the mapping.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#ifndef LK_CORE_FORMATS_GGUF_H
#define LK_CORE_FORMATS_GGUF_H

#include "core/formats/stored_tensor.h"

typedef struct lk_gguf lk_gguf;

/* The format's own numbers. */
typedef enum lk_gguf_type {
    LK_GGUF_U8,
    LK_GGUF_I8,
    LK_GGUF_U16,
    LK_GGUF_I16,
    LK_GGUF_U32,
    LK_GGUF_I32,
    LK_GGUF_F32,
    LK_GGUF_BOOL,
    LK_GGUF_STRING,
    LK_GGUF_ARRAY,
    LK_GGUF_U64,
    LK_GGUF_I64,
    LK_GGUF_F64,
    LK_GGUF_TYPE_COUNT
} lk_gguf_type;

/* Not NUL-terminated; may hold any bytes. */
typedef struct lk_gguf_string {
    const char *data;
    size_t length;
} lk_gguf_string;

/* A view that reading from the front consumes: copy it to start again. All elements were checked at opening. */
typedef struct lk_gguf_array {
    lk_gguf_type type; /* of the elements */
    size_t count;      /* elements still to come */
    const uint8_t *next;
} lk_gguf_array;

lk_status lk_gguf_open(lk_context *context, const char *path, lk_gguf **out);
void lk_gguf_destroy(lk_gguf *gguf);
const char *lk_gguf_path(const lk_gguf *gguf);

/* ---- metadata ---- */

/* Keys in the file's order. */
size_t lk_gguf_key_count(const lk_gguf *gguf);
lk_gguf_string lk_gguf_key_at(const lk_gguf *gguf, size_t index, lk_gguf_type *type);
bool lk_gguf_has(const lk_gguf *gguf, const char *key);

/* As with lk_json_get_*: an absent key leaves *value as the caller set it unless it is required; a wrong type or a
 * value out of range is an error that names file, key, what was found and what was expected. Integers of any width and
 * signedness are taken by get_int, these and both floats by get_double. */
lk_status lk_gguf_get_int(const lk_gguf *gguf, const char *key, bool required, int64_t minimum, int64_t maximum,
                          int64_t *value);
lk_status lk_gguf_get_double(const lk_gguf *gguf, const char *key, bool required, double *value);
lk_status lk_gguf_get_bool(const lk_gguf *gguf, const char *key, bool required, bool *value);
lk_status lk_gguf_get_string(const lk_gguf *gguf, const char *key, bool required, lk_gguf_string *value);
/* Arrays by what their elements can be read as. */
lk_status lk_gguf_get_strings(const lk_gguf *gguf, const char *key, bool required, lk_gguf_array *value);
lk_status lk_gguf_get_ints(const lk_gguf *gguf, const char *key, bool required, lk_gguf_array *value);
lk_status lk_gguf_get_doubles(const lk_gguf *gguf, const char *key, bool required, lk_gguf_array *value);

/* The next element, and false at the end. Only for arrays that the matching getter returned. A u64 above INT64_MAX
 * reads as INT64_MAX. */
bool lk_gguf_next_string(lk_gguf_array *array, lk_gguf_string *value);
bool lk_gguf_next_int(lk_gguf_array *array, int64_t *value);
bool lk_gguf_next_double(lk_gguf_array *array, double *value);

bool lk_gguf_string_equals(lk_gguf_string string, const char *text);

/* ---- tensors, by GGUF name ("blk.0.attn_q.weight"), in the file's order; shapes are row-major ---- */

size_t lk_gguf_count(const lk_gguf *gguf);
const lk_stored_tensor *lk_gguf_at(const lk_gguf *gguf, size_t index);
const lk_stored_tensor *lk_gguf_lookup(const lk_gguf *gguf, const char *name); /* NULL: not there */
lk_status lk_gguf_find(const lk_gguf *gguf, const char *name, const lk_stored_tensor **out);

#endif
