#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/formats/safetensors.h"
#include "core/text/utf8.h"

typedef struct item {
    const lk_stored_tensor *tensor;
    size_t index, bytes;
} item;

static int compare_items(const void *left, const void *right) {
    const lk_stored_tensor *a = ((const item *)left)->tensor, *b = ((const item *)right)->tensor;
    size_t a_size = lk_dtype_block_bytes(a->dtype), b_size = lk_dtype_block_bytes(b->dtype);
    if (a_size != b_size) {
        return a_size > b_size ? -1 : 1;
    }
    return strcmp(a->name, b->name);
}

static lk_status check_items(lk_context *context, const char *path, const lk_stored_tensor *tensors, size_t count,
                             item *items) {
    for (size_t i = 0; i < count; i++) {
        const lk_stored_tensor *tensor = &tensors[i];
        int64_t elements;
        if (lk_dtype_safetensors_name(tensor->dtype) == NULL) {
            return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: tensor %s: safetensors has no dtype %s", path,
                           tensor->name, lk_dtype_name(tensor->dtype));
        }
        items[i] = (item){.tensor = tensor, .index = i};
        if (tensor->rank < 0 || tensor->rank > LK_STORED_RANK_MAX ||
            !lk_shape_elements(tensor->shape, tensor->rank, &elements) ||
            !lk_dtype_size(tensor->dtype, elements, &items[i].bytes)) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: tensor %s has an impossible shape", path,
                           tensor->name);
        }
    }
    if (count > 0) {
        qsort(items, count, sizeof *items, compare_items);
    }
    return LK_OK;
}

/* "name": {"dtype": ..., "shape": [...], "data_offsets": [begin, end]} */
static json_t *describe(const lk_stored_tensor *tensor, size_t begin, size_t end) {
    json_t *shape = json_array();
    for (int i = 0; i < tensor->rank; i++) {
        if (json_array_append_new(shape, json_integer(tensor->shape[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", lk_dtype_safetensors_name(tensor->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

static lk_status build_header(lk_context *context, const char *path, const item *items, size_t count,
                              const json_t *metadata, json_t *header) {
    json_t *copy = metadata ? json_deep_copy(metadata) : json_pack("{s:s}", "format", "pt");
    if (json_object_set_new(header, "__metadata__", copy) != 0) {
        return lk_out_of_memory(context, 0, "a safetensors header");
    }
    size_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = items[i].tensor->name;
        size_t begin = offset;
        if (!lk_add_size(offset, items[i].bytes, &offset)) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: the tensors are too large", path);
        }
        if (json_object_get(header, name) != NULL) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: tensor name %s cannot be used twice", path, name);
        }
        if (lk_utf8_valid_prefix(name, strlen(name)) != strlen(name)) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: tensor name %s is not UTF-8", path, name);
        }
        json_t *entry = describe(items[i].tensor, begin, offset);
        if (json_object_set_new(header, name, entry) != 0) { /* also where entry is NULL */
            return lk_out_of_memory(context, 0, "a safetensors header");
        }
    }
    return LK_OK;
}

/* The length and the JSON, padded with spaces so that the data begin at a multiple of 8 bytes. */
static lk_status write_header(lk_context *context, lk_atomic_file *file, const json_t *header) {
    lk_text text;
    lk_text_init(&text, context);
    lk_json_print(&text, header, JSON_COMPACT);
    lk_status status = lk_text_status(&text);
    size_t length = text.length, padded = (length + 7) / 8 * 8;
    uint8_t size[8];
    for (int i = 0; i < 8; i++) {
        size[i] = (uint8_t)((uint64_t)padded >> 8 * i);
    }
    if (status == LK_OK) {
        status = lk_atomic_file_write(file, size, sizeof size);
    }
    if (status == LK_OK) {
        status = lk_atomic_file_write(file, text.data, length);
    }
    if (status == LK_OK) {
        status = lk_atomic_file_write(file, "       ", padded - length);
    }
    lk_text_free(&text);
    return status;
}

static lk_status write_data(lk_context *context, const char *path, lk_atomic_file *file, const item *items,
                            size_t count, lk_safetensors_source source, void *user) {
    for (size_t i = 0; i < count; i++) {
        const void *data = items[i].tensor->data;
        if (source != NULL) {
            data = NULL;
            LK_TRY(source(user, items[i].index, &data));
        }
        if (data == NULL && items[i].bytes > 0) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: tensor %s has no data", path,
                           items[i].tensor->name);
        }
        LK_TRY(lk_atomic_file_write(file, data, items[i].bytes));
    }
    return LK_OK;
}

lk_status lk_safetensors_write(lk_context *context, const char *path, const lk_stored_tensor *tensors, size_t count,
                               const json_t *metadata, lk_safetensors_source source, void *user) {
    lk_atomic_file *file = NULL;
    lk_status status;
    json_t *header = json_object();
    item *items = lk_calloc(context, count, sizeof *items);
    if (items == NULL || header == NULL) {
        status = lk_out_of_memory(context, count * sizeof *items, path);
        goto done;
    }
    LK_TRY_GOTO(check_items(context, path, tensors, count, items), done);
    LK_TRY_GOTO(build_header(context, path, items, count, metadata, header), done);
    LK_TRY_GOTO(lk_atomic_file_open(context, path, &file), done);
    LK_TRY_GOTO(write_header(context, file, header), done);
    LK_TRY_GOTO(write_data(context, path, file, items, count, source, user), done);
    status = lk_atomic_file_commit(file);
    file = NULL;
done:
    lk_atomic_file_abort(file);
    lk_free(context, items);
    json_decref(header);
    return status;
}
