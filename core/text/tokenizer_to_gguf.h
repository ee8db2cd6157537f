#ifndef LK_CORE_TEXT_TOKENIZER_TO_GGUF_H
#define LK_CORE_TEXT_TOKENIZER_TO_GGUF_H

#include "core/formats/gguf_write.h"
#include "core/text/tokenizer.h"

/* Puts a tokenizer's keys ("tokenizer.*") into a GGUF file for a model with vocab_size tokens; source: the GGUF that it
 * was read from, whose keys are copied, or NULL. UNSUPPORTED, with a message, for tokenizers that llama.cpp has no
 * equal of. */
lk_status lk_tokenizer_to_gguf(lk_context *context, const lk_tokenizer *tokenizer, const lk_gguf *source,
                               int64_t vocab_size, lk_gguf_writer *writer);

#endif
