/* Writing a GGUF file, version 3: metadata is collected first, then everything is written at once, atomically. */
#ifndef LK_CORE_FORMATS_GGUF_WRITE_H
#define LK_CORE_FORMATS_GGUF_WRITE_H

#include "core/formats/gguf.h"
#include "core/formats/safetensors.h"

typedef struct lk_gguf_writer {
    lk_context *context;
    lk_text entries; /* as in the file */
    uint64_t count;
} lk_gguf_writer;

void lk_gguf_writer_init(lk_gguf_writer *writer, lk_context *context);
void lk_gguf_writer_free(lk_gguf_writer *writer);

/* Each key once. Failures (memory) surface in lk_gguf_write. */
void lk_gguf_put_text(lk_gguf_writer *writer, const char *key, const char *text);
void lk_gguf_put_u32(lk_gguf_writer *writer, const char *key, uint32_t value);
void lk_gguf_put_f32(lk_gguf_writer *writer, const char *key, float value);
void lk_gguf_put_bool(lk_gguf_writer *writer, const char *key, bool value);
/* Arrays: announce the elements, then add exactly as many. */
void lk_gguf_put_array(lk_gguf_writer *writer, const char *key, lk_gguf_type type, uint64_t count);
void lk_gguf_add_text(lk_gguf_writer *writer, const char *text, size_t length);
void lk_gguf_add_i32(lk_gguf_writer *writer, int32_t value);
void lk_gguf_add_f32(lk_gguf_writer *writer, float value);
/* Entry `index` of another file as it is (lk_gguf_key_at). */
void lk_gguf_put_copy(lk_gguf_writer *writer, const lk_gguf *from, size_t index);

/* As lk_safetensors_write, in the order of `tensors`; any dtype but F64 whose rows fill whole blocks. Shapes are
 * row-major here as everywhere. */
lk_status lk_gguf_write(lk_gguf_writer *writer, const char *path, const lk_stored_tensor *tensors, size_t count,
                        lk_safetensors_source source, void *user);

#endif
