/* What the tests of the readers share: a temporary folder, byte-exact files, and a GGUF file from scratch. */
#ifndef LK_TESTS_FORMATS_FILES_H
#define LK_TESTS_FORMATS_FILES_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/formats/gguf.h"
#include "core/formats/safetensors.h"

/* One context and one empty folder per test: checked fixtures. */
extern lk_context *context;
void files_setup(void);
void files_teardown(void); /* removes the folder with all in it */

/* The path of a name in the folder; four of them stay valid at a time. */
const char *in_folder(const char *name);
const char *folder_path(void);
const char *put_file(const char *name, const void *bytes, size_t size); /* returns the path */
const char *put_text(const char *name, const char *text);

/* Asserts that the context's message contains each of the (up to four) parts; NULL ends them. */
void assert_message(const char *first, const char *second, const char *third, const char *fourth);

typedef struct byte_list {
    uint8_t *data;
    size_t size;
} byte_list;
void add_bytes(byte_list *to, const void *data, size_t size);
void add_u32(byte_list *to, uint32_t value);
void add_u64(byte_list *to, uint64_t value);
void add_string(byte_list *to, const char *text); /* u64 length, characters */
void bytes_free(byte_list *of);

/* length, header, data */
const char *put_safetensors(const char *name, const char *header, const void *data, size_t size);

/* A GGUF file under construction: metadata, then tensor descriptions, each with its data. */
typedef struct gguf_builder {
    byte_list metadata, tensors, data;
    uint64_t metadata_count, tensor_count;
} gguf_builder;
void gguf_add_u32(gguf_builder *builder, const char *key, uint32_t value);
void gguf_add_f32(gguf_builder *builder, const char *key, float value);
void gguf_add_bool(gguf_builder *builder, const char *key, bool value);
void gguf_add_string(gguf_builder *builder, const char *key, const char *value);
void gguf_add_raw(gguf_builder *builder, const char *key, uint32_t type, const void *value, size_t size);
/* Extents in GGUF's order, the contiguous one first; the type is GGUF's number. */
void gguf_add_tensor(gguf_builder *builder, const char *name, uint32_t type, int rank, const uint64_t *extents,
                     const void *data, size_t size);
byte_list gguf_finish(gguf_builder *builder); /* releases the builder's parts */
const char *put_gguf(const char *name, gguf_builder *builder);

/* A small generator for mutations: the same numbers everywhere. */
uint64_t next_random(uint64_t *state);

#endif
