#include "core/formats/gguf_write.h"

#include <string.h>

#include "core/formats/gguf_file.h"

enum { ALIGNMENT = 32, VERSION = 3 };

void lk_gguf_writer_init(lk_gguf_writer *writer, lk_context *context) {
    *writer = (lk_gguf_writer){.context = context};
    lk_text_init(&writer->entries, context);
}

void lk_gguf_writer_free(lk_gguf_writer *writer) {
    lk_text_free(&writer->entries);
}

/* ---- values; files are little-endian, and so are the machines we run on ---- */

static void append(lk_text *text, const void *bytes, size_t size) {
    if (size > 0) {
        lk_text_append(text, bytes, size);
    }
}

static void append_u32(lk_text *text, uint32_t value) {
    append(text, &value, sizeof value);
}

static void append_u64(lk_text *text, uint64_t value) {
    append(text, &value, sizeof value);
}

static void append_string(lk_text *text, const char *bytes, size_t length) {
    append_u64(text, length);
    append(text, bytes, length);
}

static void put_key(lk_gguf_writer *writer, const char *key, lk_gguf_type type) {
    append_string(&writer->entries, key, strlen(key));
    append_u32(&writer->entries, (uint32_t)type);
    writer->count++;
}

void lk_gguf_put_text(lk_gguf_writer *writer, const char *key, const char *text) {
    put_key(writer, key, LK_GGUF_STRING);
    append_string(&writer->entries, text, strlen(text));
}

void lk_gguf_put_u32(lk_gguf_writer *writer, const char *key, uint32_t value) {
    put_key(writer, key, LK_GGUF_U32);
    append_u32(&writer->entries, value);
}

void lk_gguf_put_f32(lk_gguf_writer *writer, const char *key, float value) {
    put_key(writer, key, LK_GGUF_F32);
    append(&writer->entries, &value, sizeof value);
}

void lk_gguf_put_bool(lk_gguf_writer *writer, const char *key, bool value) {
    const uint8_t byte = value;
    put_key(writer, key, LK_GGUF_BOOL);
    append(&writer->entries, &byte, 1);
}

void lk_gguf_put_array(lk_gguf_writer *writer, const char *key, lk_gguf_type type, uint64_t count) {
    put_key(writer, key, LK_GGUF_ARRAY);
    append_u32(&writer->entries, (uint32_t)type);
    append_u64(&writer->entries, count);
}

void lk_gguf_add_text(lk_gguf_writer *writer, const char *text, size_t length) {
    append_string(&writer->entries, text, length);
}

void lk_gguf_add_i32(lk_gguf_writer *writer, int32_t value) {
    append(&writer->entries, &value, sizeof value);
}

void lk_gguf_add_f32(lk_gguf_writer *writer, float value) {
    append(&writer->entries, &value, sizeof value);
}

void lk_gguf_put_copy(lk_gguf_writer *writer, const lk_gguf *from, size_t index) {
    lk_gguf_type type;
    lk_gguf_string key = lk_gguf_key_at(from, index, &type);
    size_t size;
    const void *value = lk_gguf_raw_value(from, index, &size);
    append_string(&writer->entries, key.data, key.length);
    append_u32(&writer->entries, (uint32_t)type);
    append(&writer->entries, value, size);
    writer->count++;
}

/* ---- the file ---- */

static size_t padding(size_t size) {
    return (ALIGNMENT - size % ALIGNMENT) % ALIGNMENT;
}

/* A tensor's row in the table; *offset moves behind its data. */
static lk_status describe(lk_context *context, const char *path, const lk_stored_tensor *tensor, size_t *offset,
                          size_t *bytes, lk_text *table) {
    uint32_t number;
    int64_t elements;
    int64_t row = tensor->rank > 0 ? tensor->shape[tensor->rank - 1] : 1;
    if (!lk_gguf_type_number(tensor->dtype, &number) || row % lk_dtype_block_size(tensor->dtype) != 0) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: tensor %s: rows of %lld cannot be written as %s", path,
                       tensor->name, (long long)row, lk_dtype_name(tensor->dtype));
    }
    if (tensor->rank < 1 || tensor->rank > LK_STORED_RANK_MAX ||
        !lk_shape_elements(tensor->shape, tensor->rank, &elements) || !lk_dtype_size(tensor->dtype, elements, bytes)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: tensor %s has an impossible shape", path,
                       tensor->name);
    }
    append_string(table, tensor->name, strlen(tensor->name));
    append_u32(table, (uint32_t)tensor->rank);
    for (int i = tensor->rank - 1; i >= 0; i--) {
        append_u64(table, (uint64_t)tensor->shape[i]);
    }
    append_u32(table, number);
    append_u64(table, *offset);
    if (!lk_add_size(*offset, *bytes, offset) || !lk_add_size(*offset, padding(*offset), offset)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: the tensors are too large", path);
    }
    return LK_OK;
}

static lk_status write_padding(lk_atomic_file *file, size_t size) {
    static const char zeros[ALIGNMENT];
    return lk_atomic_file_write(file, zeros, padding(size));
}

static lk_status write_all(const char *path, lk_atomic_file *file, const lk_text *head, const lk_stored_tensor *tensors,
                           const size_t *bytes, size_t count, lk_safetensors_source source, void *user,
                           lk_context *context) {
    LK_TRY(lk_atomic_file_write(file, head->data, head->length));
    LK_TRY(write_padding(file, head->length));
    for (size_t i = 0; i < count; i++) {
        const void *data = tensors[i].data;
        if (source != NULL) {
            LK_TRY(source(user, i, &data));
        }
        if (data == NULL && bytes[i] > 0) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: tensor %s has no data", path, tensors[i].name);
        }
        LK_TRY(lk_atomic_file_write(file, data, bytes[i]));
        LK_TRY(write_padding(file, bytes[i]));
    }
    return LK_OK;
}

lk_status lk_gguf_write(lk_gguf_writer *writer, const char *path, const lk_stored_tensor *tensors, size_t count,
                        lk_safetensors_source source, void *user) {
    lk_context *context = writer->context;
    lk_text head;
    lk_atomic_file *file = NULL;
    size_t offset = 0;
    lk_status status = LK_OK;
    lk_text_init(&head, context);
    size_t *bytes = lk_calloc(context, count + 1, sizeof *bytes);
    append(&head, "GGUF", 4);
    append_u32(&head, VERSION);
    append_u64(&head, count);
    append_u64(&head, writer->count);
    append(&head, writer->entries.data, writer->entries.length);
    for (size_t i = 0; i < count && bytes != NULL && status == LK_OK; i++) {
        status = describe(context, path, &tensors[i], &offset, &bytes[i], &head);
    }
    if (bytes == NULL || writer->entries.failed || head.failed) {
        status = lk_out_of_memory(context, head.length, path);
    }
    status = status == LK_OK ? lk_atomic_file_open(context, path, &file) : status;
    status = status == LK_OK ? write_all(path, file, &head, tensors, bytes, count, source, user, context) : status;
    if (status == LK_OK) {
        status = lk_atomic_file_commit(file);
        file = NULL;
    }
    lk_atomic_file_abort(file);
    lk_text_free(&head);
    lk_free(context, bytes);
    return status;
}
