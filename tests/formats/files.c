#include "files.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

lk_context *context;
static char folder[256];

void files_setup(void) {
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/lk-formats-XXXXXX", base ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void remove_folder(const char *path) {
    DIR *directory = opendir(path);
    ck_assert_ptr_nonnull(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        char child[1024];
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (lk_path_is_directory(child)) {
            remove_folder(child);
        } else {
            unlink(child);
        }
    }
    closedir(directory);
    rmdir(path);
}

void files_teardown(void) {
    remove_folder(folder);
    lk_context_destroy(context);
}

const char *in_folder(const char *name) {
    static char paths[4][512];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

const char *folder_path(void) {
    return folder;
}

const char *put_file(const char *name, const void *bytes, size_t size) {
    const char *path = in_folder(name);
    remove(path); /* some file systems flush a file that is truncated, at the cost of milliseconds */
    FILE *stream = fopen(path, "wb");
    ck_assert_ptr_nonnull(stream);
    ck_assert_uint_eq(fwrite(bytes ? bytes : "", 1, size, stream), size);
    ck_assert_int_eq(fclose(stream), 0);
    return path;
}

const char *put_text(const char *name, const char *text) {
    return put_file(name, text, strlen(text));
}

void assert_message(const char *first, const char *second, const char *third, const char *fourth) {
    const char *parts[] = {first, second, third, fourth};
    const char *message = lk_error_message(context);
    for (size_t i = 0; i < LK_COUNT(parts) && parts[i] != NULL; i++) {
        ck_assert_msg(strstr(message, parts[i]) != NULL, "\"%s\" is not in the message \"%s\"", parts[i], message);
    }
}

void add_bytes(byte_list *to, const void *data, size_t size) {
    to->data = realloc(to->data, to->size + size + 1);
    ck_assert_ptr_nonnull(to->data);
    if (size > 0) {
        memcpy(to->data + to->size, data, size);
    }
    to->size += size;
}

void add_u32(byte_list *to, uint32_t value) {
    add_bytes(to, &value, sizeof value);
}

void add_u64(byte_list *to, uint64_t value) {
    add_bytes(to, &value, sizeof value);
}

void add_string(byte_list *to, const char *text) {
    add_u64(to, strlen(text));
    add_bytes(to, text, strlen(text));
}

void bytes_free(byte_list *of) {
    free(of->data);
    *of = (byte_list){0};
}

const char *put_safetensors(const char *name, const char *header, const void *data, size_t size) {
    byte_list file = {0};
    add_string(&file, header);
    add_bytes(&file, data, size);
    const char *path = put_file(name, file.data, file.size);
    bytes_free(&file);
    return path;
}

void gguf_add_raw(gguf_builder *builder, const char *key, uint32_t type, const void *value, size_t size) {
    add_string(&builder->metadata, key);
    add_u32(&builder->metadata, type);
    add_bytes(&builder->metadata, value, size);
    builder->metadata_count++;
}

void gguf_add_u32(gguf_builder *builder, const char *key, uint32_t value) {
    gguf_add_raw(builder, key, LK_GGUF_U32, &value, sizeof value);
}

void gguf_add_f32(gguf_builder *builder, const char *key, float value) {
    gguf_add_raw(builder, key, LK_GGUF_F32, &value, sizeof value);
}

void gguf_add_bool(gguf_builder *builder, const char *key, bool value) {
    uint8_t byte = value;
    gguf_add_raw(builder, key, LK_GGUF_BOOL, &byte, 1);
}

void gguf_add_string(gguf_builder *builder, const char *key, const char *value) {
    byte_list string = {0};
    add_string(&string, value);
    gguf_add_raw(builder, key, LK_GGUF_STRING, string.data, string.size);
    bytes_free(&string);
}

static void pad_to_32(byte_list *to) {
    static const uint8_t zeros[32];
    add_bytes(to, zeros, (32 - to->size % 32) % 32);
}

void gguf_add_tensor(gguf_builder *builder, const char *name, uint32_t type, int rank, const uint64_t *extents,
                     const void *data, size_t size) {
    pad_to_32(&builder->data);
    add_string(&builder->tensors, name);
    add_u32(&builder->tensors, (uint32_t)rank);
    for (int i = 0; i < rank; i++) {
        add_u64(&builder->tensors, extents[i]);
    }
    add_u32(&builder->tensors, type);
    add_u64(&builder->tensors, builder->data.size);
    add_bytes(&builder->data, data, size);
    builder->tensor_count++;
}

byte_list gguf_finish(gguf_builder *builder) {
    byte_list file = {0};
    add_bytes(&file, "GGUF", 4);
    add_u32(&file, 3);
    add_u64(&file, builder->tensor_count);
    add_u64(&file, builder->metadata_count);
    add_bytes(&file, builder->metadata.data, builder->metadata.size);
    add_bytes(&file, builder->tensors.data, builder->tensors.size);
    pad_to_32(&file);
    add_bytes(&file, builder->data.data, builder->data.size);
    bytes_free(&builder->metadata);
    bytes_free(&builder->tensors);
    bytes_free(&builder->data);
    return file;
}

const char *put_gguf(const char *name, gguf_builder *builder) {
    byte_list file = gguf_finish(builder);
    const char *path = put_file(name, file.data, file.size);
    bytes_free(&file);
    return path;
}

uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
