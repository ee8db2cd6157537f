/* Chat templates without a template engine: the known families are recognised by what stands in the model's own
 * (Jinja) template, and rendered as their template would. */
#ifndef LK_CORE_TEXT_CHAT_H
#define LK_CORE_TEXT_CHAT_H

#include "core/base/base.h"

typedef struct lk_chat_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *content;
} lk_chat_message;

/* text[begin, end) is what the assistant says, with the token that ends its turn: what the loss is taken on. */
typedef struct lk_chat_span {
    size_t begin, end;
} lk_chat_span;

typedef struct lk_chat_text {
    lk_text text; /* to be encoded with LK_ENCODE_PARSE_SPECIAL and without LK_ENCODE_ADD_SPECIAL */
    lk_chat_span *spans;
    size_t span_count, span_capacity;
} lk_chat_text;

typedef struct lk_chat_template lk_chat_template;

/* Recognises a template by its text. NULL or unknown: UNSUPPORTED, with the names of those that are known. */
lk_status lk_chat_template_find(lk_context *context, const char *template_text, const lk_chat_template **out);
const char *lk_chat_template_name(const lk_chat_template *chat_template);

/* Appends to *out, which must be zeroed or come from an earlier call; bos and eos are the tokenizer's tokens ("" where
 * there is none). A conversation that the family cannot express (an unknown role, users and assistants that do not
 * alternate where they must) is INVALID_ARGUMENT. */
lk_status lk_chat_render(lk_context *context, const lk_chat_template *chat_template, const char *bos, const char *eos,
                         const lk_chat_message *messages, size_t count, bool add_generation_prompt, lk_chat_text *out);
void lk_chat_text_free(lk_context *context, lk_chat_text *text);

#endif
