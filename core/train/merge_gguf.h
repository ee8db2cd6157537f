/* The part of merging that is about GGUF files. */
#ifndef LK_CORE_TRAIN_MERGE_GGUF_H
#define LK_CORE_TRAIN_MERGE_GGUF_H

#include "core/formats/safetensors.h"
#include "core/models/model.h"

/* Gives a tensor (with its Hugging Face name) its name and type in GGUF, and the heads whose rows llama.cpp
 * interleaves. Vectors stay fp32; rows that do not fill blocks of q8_0 become f16. */
lk_status lk_merge_gguf_tensor(lk_model *model, lk_dtype dtype, lk_stored_tensor *tensor, int64_t *permuted_heads);
/* Interleaves the halves of each head's rows, by way of `other`, which is as large. */
lk_status lk_merge_permute(lk_context *context, const lk_stored_tensor *tensor, int64_t heads, float *values,
                           float *other);
lk_status lk_merge_write_gguf(lk_model *model, lk_dtype dtype, const char *path, const lk_stored_tensor *tensors,
                              size_t count, lk_safetensors_source source, void *user);

#endif
