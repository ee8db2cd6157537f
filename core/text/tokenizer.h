/* Tokenizers: from a Hugging Face folder (tokenizer.json) or from the metadata of a GGUF file; text to ids and back.
 *
 * Ids are those of the Hugging Face `tokenizers` library (but for BERT tokenizers, on some 570 marks and punctuation
 * characters that Unicode has taken in since version 8, whose tables that library uses there). Any bytes may be
 * encoded: text that is not valid UTF-8 has each maximal invalid part replaced by U+FFFD first (as Python's
 * errors="replace"). Truncation and padding sections of tokenizer.json are ignored: datasets and batches do that. A
 * type of normalizer, pre-tokenizer, model, post-processor or decoder that is not known is UNSUPPORTED, with a message
 * that names file and type.
 *
 * A tokenizer keeps working memory and a cache of words, so it belongs to one thread at a time, like its context. */
#ifndef LK_CORE_TEXT_TOKENIZER_H
#define LK_CORE_TEXT_TOKENIZER_H

#include "core/base/base.h"
#include "core/text/ids.h"

struct lk_gguf;

/* Exactly one of folder and gguf is given; gguf is borrowed during the call. A folder needs tokenizer.json;
 * tokenizer_config.json, special_tokens_map.json, config.json and chat_template.jinja are read when they are there. */
lk_status lk_tokenizer_load(lk_context *context, const char *folder, const struct lk_gguf *gguf, lk_tokenizer **out);
/* From the text of a tokenizer.json and, or NULL, of a tokenizer_config.json; `source` stands in messages. */
lk_status lk_tokenizer_parse(lk_context *context, const char *source, const char *json, size_t json_size,
                             const char *config, size_t config_size, lk_tokenizer **out);
void lk_tokenizer_destroy(lk_tokenizer *tokenizer);

/* Writes tokenizer.json and tokenizer_config.json (with the chat template) into an existing folder. Files that were
 * read are copied; those of a GGUF are made so that Hugging Face loads them and encodes identically. */
lk_status lk_tokenizer_save(lk_context *context, const lk_tokenizer *tokenizer, const char *folder);

/* ---- encoding; ids are appended to what `ids` holds, and removed again on failure ---- */

enum {
    LK_ENCODE_ADD_SPECIAL = 1,  /* what the post-processor adds: beginning-of-text, [CLS], [SEP] ... */
    LK_ENCODE_PARSE_SPECIAL = 2 /* "<|im_end|>" in the text is that token; otherwise it is ordinary text */
};
#define LK_ENCODE_DEFAULT (LK_ENCODE_ADD_SPECIAL | LK_ENCODE_PARSE_SPECIAL) /* as Hugging Face's tokenizer(text) */

lk_status lk_tokenizer_encode(lk_tokenizer *tokenizer, const char *text, size_t length, unsigned flags, lk_ids *ids);

/* Also finds, for each of the ascending byte offsets, the first token that reaches beyond it: ids appended
 * before token_marks[i] (counted from the first appended) are exactly the encoding of text[0..offsets[i]) as far as the
 * two agree, so a token that straddles the mark counts as after it. */
lk_status lk_tokenizer_encode_marked(lk_tokenizer *tokenizer, const char *text, size_t length, unsigned flags,
                                     const size_t *offsets, size_t mark_count, size_t *token_marks, lk_ids *ids);

/* Two texts as one input, e.g. [CLS] a [SEP] b [SEP]; type_ids (may be NULL) gets one entry a token. */
lk_status lk_tokenizer_encode_pair(lk_tokenizer *tokenizer, const char *first, size_t first_length, const char *second,
                                   size_t second_length, unsigned flags, lk_ids *ids, lk_ids *type_ids);

/* How many tokens the post-processor puts before and after a single text. */
void lk_tokenizer_special_counts(const lk_tokenizer *tokenizer, size_t *before, size_t *after);

/* ---- decoding ---- */

/* Appends the text of ids. Ids outside the vocabulary are INVALID_ARGUMENT. */
lk_status lk_tokenizer_decode(lk_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                              lk_text *text);

/* Decoding token by token: bytes are held back while they end inside a UTF-8 character, so that each appended part is
 * valid UTF-8. All parts together are what lk_tokenizer_decode gives for all ids, but for a run of byte tokens
 * ("<0xFF>") that is not valid as a whole: there, only its invalid parts become U+FFFD. */
typedef struct lk_decode_stream {
    lk_tokenizer *tokenizer;
    bool skip_special;
    int32_t previous; /* what the next token is decoded behind; -1: nothing */
    lk_text held;
} lk_decode_stream;
void lk_decode_stream_init(lk_decode_stream *stream, lk_tokenizer *tokenizer, bool skip_special);
lk_status lk_decode_stream_push(lk_decode_stream *stream, int32_t id, lk_text *text);
lk_status lk_decode_stream_finish(lk_decode_stream *stream, lk_text *text); /* what was held back */
void lk_decode_stream_free(lk_decode_stream *stream);

/* ---- look-ups ---- */

/* One more than the largest id. A model's vocabulary may be larger (padded). */
int32_t lk_tokenizer_vocab_size(const lk_tokenizer *tokenizer);
/* -1 when there is none. */
int32_t lk_tokenizer_bos_id(const lk_tokenizer *tokenizer);
int32_t lk_tokenizer_eos_id(const lk_tokenizer *tokenizer);
int32_t lk_tokenizer_pad_id(const lk_tokenizer *tokenizer);
/* The exact token ("Ġthe", "<0x0A>", "<s>"), not text; -1 when it is not in the vocabulary. */
int32_t lk_tokenizer_token_to_id(const lk_tokenizer *tokenizer, const char *token);
/* NULL when no token has this id; NUL-terminated, borrowed. */
const char *lk_tokenizer_id_to_token(const lk_tokenizer *tokenizer, int32_t id);
bool lk_tokenizer_is_special(const lk_tokenizer *tokenizer, int32_t id);
/* The model's own (Jinja) chat template; NULL when it has none. Borrowed. */
const char *lk_tokenizer_chat_template(const lk_tokenizer *tokenizer);
/* The same for tokenizers that encode alike and have the same chat template: the key of caches. */
uint64_t lk_tokenizer_identity(const lk_tokenizer *tokenizer);

#endif
