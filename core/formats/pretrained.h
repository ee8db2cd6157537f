/* A pretrained model on disk, whatever its format: configuration, and tensors by their Hugging Face names in the
 * Hugging Face layout. */
#ifndef LK_CORE_FORMATS_PRETRAINED_H
#define LK_CORE_FORMATS_PRETRAINED_H

#include "core/formats/gguf.h"
#include "core/formats/model_config.h"

typedef struct lk_pretrained lk_pretrained;

/* A Hugging Face folder (config.json and safetensors), a .gguf file, or a folder with exactly one of these. */
lk_status lk_pretrained_open(lk_context *context, const char *path, lk_pretrained **out);
void lk_pretrained_destroy(lk_pretrained *model);

const lk_model_config *lk_pretrained_config(const lk_pretrained *model);
const lk_gguf *lk_pretrained_gguf(const lk_pretrained *model); /* NULL: not a GGUF */
const char *lk_pretrained_path(const lk_pretrained *model);    /* as opened, for messages */
const char *
lk_pretrained_folder(const lk_pretrained *model); /* where tokenizer files stand; "." for a bare file name */

/* All tensors, in the file's order. GGUF tensors without a Hugging Face name keep theirs. */
size_t lk_pretrained_count(const lk_pretrained *model);
const lk_stored_tensor *lk_pretrained_at(const lk_pretrained *model, size_t index);

/* By Hugging Face name. As in transformers, the prefix of the family's base model ("model.", "transformer.", "bert.")
 * may be missing from the stored names, or be there in addition. The tensor's bytes are as stored: rows of a permuted
 * tensor (below) in the file's order. */
const lk_stored_tensor *lk_pretrained_lookup(const lk_pretrained *model, const char *name); /* NULL: not there */
lk_status lk_pretrained_find(const lk_pretrained *model, const char *name, const lk_stored_tensor **out);

/* llama.cpp stores the rows of llama's q and k projections interleaved within each head. The number of heads whose rows
 * must be put back into order, or 0; the read functions below do it. */
int64_t lk_pretrained_permuted_heads(const lk_pretrained *model, const lk_stored_tensor *tensor);

/* Reads a tensor of exactly this shape as f32, bf16 or f16, or in its own dtype without loss (quantised blocks too).
 * `destination` holds lk_dtype_size(dtype, product of shape) bytes. Errors name file, tensor, found and expected. */
lk_status lk_pretrained_read(const lk_pretrained *model, const char *name, int rank, const int64_t *shape,
                             lk_dtype dtype, void *destination);
lk_status lk_pretrained_read_f32(const lk_pretrained *model, const char *name, int rank, const int64_t *shape,
                                 float *destination);

#endif
