/* The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes without gaps.
 * The reader maps the file (or all shards of a model) and checks every name, shape and offset before it returns. */
#ifndef LK_CORE_FORMATS_SAFETENSORS_H
#define LK_CORE_FORMATS_SAFETENSORS_H

#include <jansson.h>

#include "core/formats/stored_tensor.h"

typedef struct lk_safetensors lk_safetensors;

/* `path` is a .safetensors file, or an index (its name ends in ".json") whose "weight_map" names the shards beside it.
 */
lk_status lk_safetensors_open(lk_context *context, const char *path, lk_safetensors **out);
/* <folder>/model.safetensors, or else <folder>/model.safetensors.index.json. */
lk_status lk_safetensors_open_folder(lk_context *context, const char *folder, lk_safetensors **out);
void lk_safetensors_destroy(lk_safetensors *file);

/* In the order of the files' bytes. Tensors whose dtype or rank is not supported are listed too. */
size_t lk_safetensors_count(const lk_safetensors *file);
const lk_stored_tensor *lk_safetensors_at(const lk_safetensors *file, size_t index);
const lk_stored_tensor *lk_safetensors_lookup(const lk_safetensors *file, const char *name); /* NULL: not there */
/* NOT_FOUND or UNSUPPORTED with a message that names file, tensor and dtype. */
lk_status lk_safetensors_find(const lk_safetensors *file, const char *name, const lk_stored_tensor **out);
/* A value of the (first) file's "__metadata__"; NULL when absent. */
const char *lk_safetensors_metadata(const lk_safetensors *file, const char *key);

/* Gives the bytes of tensors[index], which stay valid until the next call or the end of the write. */
typedef lk_status (*lk_safetensors_source)(void *user, size_t index, const void **data);

/* Writes atomically. Of each tensor name, dtype, rank, shape and data are used (bytes and file are not); when `source`
 * is given it is asked for the data instead, one tensor at a time, so that a merged model is never held whole. The
 * order in the file is by element size, largest first (so that all are aligned), then by name, whatever the order of
 * `tensors`. `metadata` is an object of strings; NULL writes {"format": "pt"}, without which transformers refuses. */
lk_status lk_safetensors_write(lk_context *context, const char *path, const lk_stored_tensor *tensors, size_t count,
                               const json_t *metadata, lk_safetensors_source source, void *user);

#endif
