/* The names of a decoder's tensors in GGUF and in Hugging Face checkpoints. */
#ifndef LK_CORE_FORMATS_GGUF_NAMES_H
#define LK_CORE_FORMATS_GGUF_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* "blk.3.attn_q.weight" <-> "model.layers.3.self_attn.q_proj.weight". False for a name that has no counterpart, or does
 * not fit; `out` is then empty. */
bool lk_gguf_name_to_hf(const char *gguf_name, char *out, size_t size);
bool lk_gguf_name_from_hf(const char *hf_name, char *out, size_t size);

#endif
