/* Opening a GGUF file: one pass over the header with a cursor that cannot leave the mapping. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/formats/gguf_file.h"

enum { NESTING_MAX = 4, ALIGNMENT_DEFAULT = 32, ALIGNMENT_MAX = 1 << 20, KEY_MAX = 65535, NAME_MAX_LENGTH = 1023 };

/* ---- the cursor ---- */

typedef struct cursor {
    lk_gguf *gguf;
    size_t position;
    const char *where; /* what is being read, for messages */
} cursor;

static lk_status take(cursor *at, uint64_t bytes, const uint8_t **out) {
    size_t size = at->gguf->mapping.size;
    if (bytes > size - at->position) {
        return lk_fail(at->gguf->context, LK_STATUS_FORMAT,
                       "%s: %s at byte %zu needs %" PRIu64 " bytes, but the file ends after %zu (is it cut short?)",
                       at->gguf->path, at->where, at->position, bytes, size - at->position);
    }
    *out = at->gguf->mapping.data + at->position;
    at->position += (size_t)bytes;
    return LK_OK;
}

static lk_status take_u32(cursor *at, uint32_t *out) {
    const uint8_t *bytes;
    LK_TRY(take(at, 4, &bytes));
    memcpy(out, bytes, 4);
    return LK_OK;
}

static lk_status take_u64(cursor *at, uint64_t *out) {
    const uint8_t *bytes;
    LK_TRY(take(at, 8, &bytes));
    memcpy(out, bytes, 8);
    return LK_OK;
}

static lk_status take_string(cursor *at, lk_gguf_string *out) {
    uint64_t length;
    const uint8_t *bytes;
    LK_TRY(take_u64(at, &length));
    LK_TRY(take(at, length, &bytes));
    *out = (lk_gguf_string){(const char *)bytes, (size_t)length};
    return LK_OK;
}

/* ---- metadata ---- */

static const uint8_t type_bytes[LK_GGUF_TYPE_COUNT] = {
    [LK_GGUF_U8] = 1,  [LK_GGUF_I8] = 1,   [LK_GGUF_U16] = 2, [LK_GGUF_I16] = 2, [LK_GGUF_U32] = 4, [LK_GGUF_I32] = 4,
    [LK_GGUF_F32] = 4, [LK_GGUF_BOOL] = 1, [LK_GGUF_U64] = 8, [LK_GGUF_I64] = 8, [LK_GGUF_F64] = 8};

static lk_status take_type(cursor *at, lk_gguf_type *out) {
    uint32_t type;
    LK_TRY(take_u32(at, &type));
    if (type >= LK_GGUF_TYPE_COUNT) {
        return lk_fail(at->gguf->context, LK_STATUS_FORMAT, "%s: %s has the unknown value type %" PRIu32,
                       at->gguf->path, at->where, type);
    }
    *out = (lk_gguf_type)type;
    return LK_OK;
}

static lk_status take_value(cursor *at, lk_gguf_type type, int depth);

static lk_status take_array(cursor *at, int depth) {
    lk_gguf_type type;
    uint64_t count;
    const uint8_t *bytes;
    if (depth == NESTING_MAX) {
        return lk_fail(at->gguf->context, LK_STATUS_FORMAT, "%s: %s has arrays nested more than %d deep",
                       at->gguf->path, at->where, NESTING_MAX);
    }
    LK_TRY(take_type(at, &type));
    LK_TRY(take_u64(at, &count));
    if (type_bytes[type] > 0) {
        size_t size;
        if (count > SIZE_MAX || !lk_mul_size((size_t)count, type_bytes[type], &size)) {
            size = SIZE_MAX;
        }
        return take(at, size, &bytes);
    }
    for (uint64_t i = 0; i < count; i++) { /* each element takes bytes, so a false count ends at the file's end */
        LK_TRY(take_value(at, type, depth + 1));
    }
    return LK_OK;
}

static lk_status take_value(cursor *at, lk_gguf_type type, int depth) {
    const uint8_t *bytes;
    lk_gguf_string string;
    switch (type) {
    case LK_GGUF_STRING:
        return take_string(at, &string);
    case LK_GGUF_ARRAY:
        return take_array(at, depth);
    default:
        return take(at, type_bytes[type], &bytes);
    }
}

static lk_status read_entries(cursor *at, uint64_t count) {
    lk_gguf *gguf = at->gguf;
    /* A key and its value take 13 bytes at least, so that a false count cannot make us allocate more than the file. */
    if (count > (gguf->mapping.size - at->position) / 13) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: %" PRIu64 " metadata keys do not fit into the file",
                       gguf->path, count);
    }
    gguf->entries = lk_calloc(gguf->context, (size_t)count, sizeof *gguf->entries);
    if (gguf->entries == NULL) {
        return lk_out_of_memory(gguf->context, (size_t)count * sizeof *gguf->entries, gguf->path);
    }
    for (size_t i = 0; i < count; i++) {
        lk_gguf_entry *entry = &gguf->entries[i];
        at->where = "a metadata key";
        LK_TRY(take_string(at, &entry->key));
        if (entry->key.length == 0 || entry->key.length > KEY_MAX) {
            return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: metadata key %zu has %zu characters", gguf->path, i,
                           entry->key.length);
        }
        at->where = lk_arena_printf(&gguf->names, "metadata %.*s", (int)LK_MIN(entry->key.length, (size_t)200),
                                    entry->key.data);
        if (at->where == NULL) {
            return lk_out_of_memory(gguf->context, entry->key.length, gguf->path);
        }
        LK_TRY(take_type(at, &entry->type));
        entry->value = gguf->mapping.data + at->position;
        LK_TRY(take_value(at, entry->type, 0));
        entry->size = (size_t)(gguf->mapping.data + at->position - entry->value);
        gguf->entry_count++;
    }
    return lk_gguf_sort_entries(gguf);
}

/* ---- tensors ---- */

typedef struct type_row {
    uint32_t number;
    const char *name;
    lk_dtype dtype; /* LK_DTYPE_COUNT: known by name only */
} type_row;

static const type_row tensor_types[] = {
    {0, "F32", LK_DTYPE_F32},       {1, "F16", LK_DTYPE_F16},        {2, "Q4_0", LK_DTYPE_Q4_0},
    {3, "Q4_1", LK_DTYPE_Q4_1},     {6, "Q5_0", LK_DTYPE_Q5_0},      {7, "Q5_1", LK_DTYPE_Q5_1},
    {8, "Q8_0", LK_DTYPE_Q8_0},     {9, "Q8_1", LK_DTYPE_COUNT},     {10, "Q2_K", LK_DTYPE_Q2_K},
    {11, "Q3_K", LK_DTYPE_Q3_K},    {12, "Q4_K", LK_DTYPE_Q4_K},     {13, "Q5_K", LK_DTYPE_Q5_K},
    {14, "Q6_K", LK_DTYPE_Q6_K},    {15, "Q8_K", LK_DTYPE_COUNT},    {16, "IQ2_XXS", LK_DTYPE_COUNT},
    {17, "IQ2_XS", LK_DTYPE_COUNT}, {18, "IQ3_XXS", LK_DTYPE_COUNT}, {19, "IQ1_S", LK_DTYPE_COUNT},
    {20, "IQ4_NL", LK_DTYPE_COUNT}, {21, "IQ3_S", LK_DTYPE_COUNT},   {22, "IQ2_S", LK_DTYPE_COUNT},
    {23, "IQ4_XS", LK_DTYPE_COUNT}, {24, "I8", LK_DTYPE_COUNT},      {25, "I16", LK_DTYPE_COUNT},
    {26, "I32", LK_DTYPE_I32},      {27, "I64", LK_DTYPE_COUNT},     {28, "F64", LK_DTYPE_F64},
    {29, "IQ1_M", LK_DTYPE_COUNT},  {30, "BF16", LK_DTYPE_BF16},     {34, "TQ1_0", LK_DTYPE_COUNT},
    {35, "TQ2_0", LK_DTYPE_COUNT},  {39, "MXFP4", LK_DTYPE_COUNT},
};

bool lk_gguf_type_number(lk_dtype dtype, uint32_t *number) {
    for (size_t i = 0; i < LK_COUNT(tensor_types); i++) {
        if (tensor_types[i].dtype == dtype && dtype != LK_DTYPE_COUNT) {
            *number = tensor_types[i].number;
            return true;
        }
    }
    return false;
}

static lk_status set_type(lk_gguf *gguf, uint32_t number, lk_stored_tensor *tensor) {
    for (size_t i = 0; i < LK_COUNT(tensor_types); i++) {
        if (tensor_types[i].number == number) {
            tensor->dtype = tensor_types[i].dtype;
            if (tensor->dtype != LK_DTYPE_COUNT) {
                return LK_OK;
            }
            tensor->unsupported = lk_arena_printf(&gguf->names, "dtype %s", tensor_types[i].name);
            break;
        }
    }
    if (tensor->unsupported == NULL) {
        tensor->unsupported = lk_arena_printf(&gguf->names, "the unknown dtype %" PRIu32, number);
    }
    return tensor->unsupported ? LK_OK : lk_out_of_memory(gguf->context, 32, gguf->path);
}

/* name, number of extents, extents (the contiguous one first), type, offset; the offset is kept in `bytes` until the
 * start of the data is known. */
static lk_status read_tensor(cursor *at, lk_stored_tensor *tensor) {
    lk_gguf *gguf = at->gguf;
    lk_gguf_string name;
    uint32_t rank, type;
    uint64_t offset;
    at->where = "a tensor's name";
    LK_TRY(take_string(at, &name));
    if (name.length == 0 || name.length > NAME_MAX_LENGTH || memchr(name.data, 0, name.length) != NULL) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: the name of tensor %zu is malformed (%zu bytes)",
                       gguf->path, gguf->table.count, name.length);
    }
    *tensor = (lk_stored_tensor){.file = gguf->path};
    tensor->name = at->where = lk_arena_printf(&gguf->names, "%.*s", (int)name.length, name.data);
    if (tensor->name == NULL) {
        return lk_out_of_memory(gguf->context, name.length, gguf->path);
    }
    LK_TRY(take_u32(at, &rank));
    if (rank > LK_STORED_RANK_MAX) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: tensor %s has %" PRIu32 " dimensions, expected at most %d",
                       gguf->path, tensor->name, rank, LK_STORED_RANK_MAX);
    }
    tensor->rank = (int)rank;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        uint64_t extent;
        LK_TRY(take_u64(at, &extent));
        if (extent > INT64_MAX) {
            return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: tensor %s has the extent %" PRIu64, gguf->path,
                           tensor->name, extent);
        }
        tensor->shape[i] = (int64_t)extent;
    }
    LK_TRY(take_u32(at, &type));
    LK_TRY(set_type(gguf, type, tensor));
    LK_TRY(take_u64(at, &offset));
    if (offset > gguf->mapping.size) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT,
                       "%s: tensor %s begins at byte %" PRIu64 " of the data, but the "
                       "file has %zu bytes (is it cut short?)",
                       gguf->path, tensor->name, offset, gguf->mapping.size);
    }
    tensor->bytes = (size_t)offset;
    return LK_OK;
}

/* From offsets to pointers, with everything checked that the type allows to check. */
static lk_status place_tensor(lk_gguf *gguf, lk_stored_tensor *tensor, size_t data_start, size_t alignment) {
    size_t offset = tensor->bytes, available = gguf->mapping.size - LK_MIN(data_start, gguf->mapping.size);
    char shape[LK_SHAPE_TEXT];
    int64_t elements;
    if (offset % alignment != 0) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT,
                       "%s: tensor %s begins at byte %zu of the data, which is not a "
                       "multiple of %zu",
                       gguf->path, tensor->name, offset, alignment);
    }
    if (!lk_shape_elements(tensor->shape, tensor->rank, &elements)) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: tensor %s has the impossible shape %s", gguf->path,
                       tensor->name, lk_shape_format(tensor->shape, tensor->rank, shape, sizeof shape));
    }
    size_t bytes = 0;
    if (tensor->unsupported == NULL) {
        int64_t row = tensor->rank > 0 ? tensor->shape[tensor->rank - 1] : 1;
        if (row % lk_dtype_block_size(tensor->dtype) != 0 || !lk_dtype_size(tensor->dtype, elements, &bytes)) {
            return lk_fail(gguf->context, LK_STATUS_FORMAT,
                           "%s: tensor %s: rows of shape %s do not fill whole blocks "
                           "of %s",
                           gguf->path, tensor->name, lk_shape_format(tensor->shape, tensor->rank, shape, sizeof shape),
                           lk_dtype_name(tensor->dtype));
        }
    }
    if (offset > available || bytes > available - offset) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT,
                       "%s: tensor %s takes %zu bytes from byte %zu of the data, which "
                       "has %zu (is the file cut short?)",
                       gguf->path, tensor->name, bytes, offset, available);
    }
    tensor->data = available > 0 ? gguf->mapping.data + data_start + offset : NULL;
    tensor->bytes = bytes;
    return LK_OK;
}

static int compare_position(const void *left, const void *right) {
    const lk_stored_tensor *a = *(const lk_stored_tensor *const *)left, *b = *(const lk_stored_tensor *const *)right;
    if (a->data != b->data) {
        return (const uint8_t *)a->data < (const uint8_t *)b->data ? -1 : 1;
    }
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static lk_status check_overlap(lk_gguf *gguf) {
    size_t count = gguf->table.count;
    const lk_stored_tensor **order = lk_calloc(gguf->context, count, sizeof *order);
    if (order == NULL) {
        return lk_out_of_memory(gguf->context, count * sizeof *order, gguf->path);
    }
    for (size_t i = 0; i < count; i++) {
        order[i] = &gguf->table.tensors[i];
    }
    qsort(order, count, sizeof *order, compare_position);
    lk_status status = LK_OK;
    for (size_t i = 1; i < count && status == LK_OK; i++) {
        if ((const uint8_t *)order[i - 1]->data + order[i - 1]->bytes > (const uint8_t *)order[i]->data) {
            status = lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: tensors %s and %s overlap", gguf->path,
                             order[i - 1]->name, order[i]->name);
        }
    }
    lk_free(gguf->context, order);
    return status;
}

static lk_status read_tensors(cursor *at, uint64_t count) {
    lk_gguf *gguf = at->gguf;
    int64_t alignment = ALIGNMENT_DEFAULT;
    LK_TRY(lk_gguf_get_int(gguf, "general.alignment", false, 1, ALIGNMENT_MAX, &alignment));
    if ((alignment & (alignment - 1)) != 0) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: general.alignment is %" PRId64 ", expected a power of two",
                       gguf->path, alignment);
    }
    for (uint64_t i = 0; i < count; i++) {
        lk_stored_tensor tensor;
        LK_TRY(read_tensor(at, &tensor));
        LK_TRY(lk_tensor_table_add(&gguf->table, &tensor));
    }
    size_t mask = (size_t)alignment - 1, data_start = (at->position + mask) & ~mask;
    for (size_t i = 0; i < gguf->table.count; i++) {
        LK_TRY(place_tensor(gguf, &gguf->table.tensors[i], data_start, (size_t)alignment));
    }
    if (gguf->table.count > 0) {
        LK_TRY(check_overlap(gguf));
    }
    return lk_tensor_table_seal(&gguf->table);
}

/* ---- the file ---- */

static lk_status read_file(lk_gguf *gguf) {
    cursor at = {.gguf = gguf, .where = "the header"};
    uint32_t version;
    uint64_t tensor_count, entry_count;
    LK_TRY(lk_mapping_open(gguf->context, gguf->path, &gguf->mapping));
    if (gguf->mapping.size < 4 || memcmp(gguf->mapping.data, "GGUF", 4) != 0) {
        return lk_fail(gguf->context, LK_STATUS_FORMAT, "%s: not a GGUF file: it does not begin with \"GGUF\"",
                       gguf->path);
    }
    at.position = 4;
    LK_TRY(take_u32(&at, &version));
    if (version != 2 && version != 3) {
        bool swapped = (version & 0xffffu) == 0 && version != 0;
        return lk_fail(gguf->context, LK_STATUS_UNSUPPORTED, "%s: GGUF version %" PRIu32 "%s, expected 2 or 3",
                       gguf->path, version, swapped ? " (a big-endian file)" : "");
    }
    LK_TRY(take_u64(&at, &tensor_count));
    LK_TRY(take_u64(&at, &entry_count));
    LK_TRY(read_entries(&at, entry_count));
    return read_tensors(&at, tensor_count);
}

lk_status lk_gguf_open(lk_context *context, const char *path, lk_gguf **out) {
    *out = NULL;
    lk_gguf *gguf = lk_calloc(context, 1, sizeof *gguf);
    if (gguf == NULL) {
        return lk_out_of_memory(context, sizeof *gguf, path);
    }
    gguf->context = context;
    lk_arena_init(&gguf->names, context);
    lk_tensor_table_init(&gguf->table, context);
    gguf->path = lk_strdup(context, path);
    lk_status status = gguf->path ? read_file(gguf) : lk_out_of_memory(context, strlen(path), "a path");
    if (status != LK_OK) {
        lk_gguf_destroy(gguf);
        return status;
    }
    *out = gguf;
    return LK_OK;
}

void lk_gguf_destroy(lk_gguf *gguf) {
    if (gguf == NULL) {
        return;
    }
    lk_mapping_close(&gguf->mapping);
    lk_tensor_table_free(&gguf->table);
    lk_arena_free(&gguf->names);
    lk_free(gguf->context, gguf->entries);
    lk_free(gguf->context, gguf->path);
    lk_free(gguf->context, gguf);
}

const char *lk_gguf_path(const lk_gguf *gguf) {
    return gguf->path;
}

size_t lk_gguf_count(const lk_gguf *gguf) {
    return gguf->table.count;
}

const lk_stored_tensor *lk_gguf_at(const lk_gguf *gguf, size_t index) {
    return &gguf->table.tensors[index];
}

const lk_stored_tensor *lk_gguf_lookup(const lk_gguf *gguf, const char *name) {
    return lk_tensor_table_lookup(&gguf->table, name);
}

lk_status lk_gguf_find(const lk_gguf *gguf, const char *name, const lk_stored_tensor **out) {
    return lk_tensor_table_find(&gguf->table, gguf->path, name, out);
}
