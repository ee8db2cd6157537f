/* A tensor as it lies in a file, and a table of them by name. Every reader (safetensors, GGUF) hands these out. */
#ifndef LK_CORE_FORMATS_STORED_TENSOR_H
#define LK_CORE_FORMATS_STORED_TENSOR_H

#include "core/base/base.h"
#include "core/base/dtype.h"

enum { LK_STORED_RANK_MAX = 4 };

/* Everything is borrowed from the reader. `data` points into a mapping: read-only, little-endian, and not necessarily
 * aligned for the dtype, so read it through lk_convert, lk_dequantize or memcpy. The shape is row-major (the last
 * extent is contiguous), for GGUF too, whose own order is the reverse; its quantised blocks run along the last extent.
 */
typedef struct lk_stored_tensor {
    const char *name;
    lk_dtype dtype;
    int rank; /* 0 for a scalar */
    int64_t shape[LK_STORED_RANK_MAX];
    const void *data;
    size_t bytes;
    const char *file; /* where it lies; for messages */
    const char
        *unsupported; /* NULL, or what keeps it from being read ("dtype F8_E4M3"): dtype and shape are then void */
} lk_stored_tensor;

/* "[512, 64]" into buffer, cut to its size; returns buffer. */
const char *lk_shape_format(const int64_t *shape, int rank, char *buffer, size_t size);
enum { LK_SHAPE_TEXT = 96 };

/* LK_OK, or FORMAT naming file, tensor, the shape found and the shape expected. */
lk_status lk_stored_tensor_expect_shape(lk_context *context, const lk_stored_tensor *tensor, int rank,
                                        const int64_t *shape);

/* Add all, then seal once (which refuses duplicate names), then look up in O(log n). */
typedef struct lk_tensor_table {
    lk_context *context;
    lk_stored_tensor *tensors;
    size_t count, capacity;
    size_t *by_name; /* positions in order of name, once sealed */
} lk_tensor_table;
void lk_tensor_table_init(lk_tensor_table *table, lk_context *context);
lk_status lk_tensor_table_add(lk_tensor_table *table, const lk_stored_tensor *tensor);
lk_status lk_tensor_table_seal(lk_tensor_table *table);
const lk_stored_tensor *lk_tensor_table_lookup(const lk_tensor_table *table, const char *name); /* NULL: not there */
/* As lookup, but NOT_FOUND naming `source` and the tensor, or UNSUPPORTED naming file, tensor and reason. */
lk_status lk_tensor_table_find(const lk_tensor_table *table, const char *source, const char *name,
                               const lk_stored_tensor **out);
void lk_tensor_table_free(lk_tensor_table *table);

#endif
