/* The inside of lk_gguf, for gguf.c (opening) and gguf_metadata.c (typed reads). */
#ifndef LK_CORE_FORMATS_GGUF_FILE_H
#define LK_CORE_FORMATS_GGUF_FILE_H

#include "core/formats/gguf.h"

typedef struct lk_gguf_entry {
    lk_gguf_string key;
    lk_gguf_type type;
    const uint8_t *value; /* checked to lie in the mapping as a whole */
    size_t size;          /* of the value */
    size_t position;      /* in the file's order */
} lk_gguf_entry;

struct lk_gguf {
    lk_context *context;
    char *path;
    lk_mapping mapping;
    lk_gguf_entry *entries; /* in order of key */
    size_t entry_count;
    lk_arena names;
    lk_tensor_table table;
};

/* The format's number of a dtype; false where it has none that is read back. */
bool lk_gguf_type_number(lk_dtype dtype, uint32_t *number);
/* The bytes of the value of the key that lk_gguf_key_at gives for the same index. */
const void *lk_gguf_raw_value(const lk_gguf *gguf, size_t index, size_t *size);

/* Sorts by key and refuses duplicates. */
lk_status lk_gguf_sort_entries(lk_gguf *gguf);

#endif
