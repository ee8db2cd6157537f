/* The reverse of tokenizer_gguf.c: tokens, their types, merges or scores, from tokenizer.json. */
#include "core/text/tokenizer_to_gguf.h"

#include <stdio.h>
#include <string.h>

#include "core/base/json.h"
#include "core/text/tokenizer_internal.h"

enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6
};

#define KEY(name) "tokenizer.ggml." name

static void copy_keys(const lk_gguf *source, lk_gguf_writer *writer) {
    static const char prefix[] = "tokenizer.";
    for (size_t i = 0; i < lk_gguf_key_count(source); i++) {
        lk_gguf_type type;
        lk_gguf_string key = lk_gguf_key_at(source, i, &type);
        if (key.length > strlen(prefix) && memcmp(key.data, prefix, strlen(prefix)) == 0) {
            lk_gguf_put_copy(writer, source, i);
        }
    }
}

/* ---- which pre-tokenizer ---- */

/* The first Split's pattern, and whether digits stand alone, wherever they lie in (nested) sequences. */
static void look_at(const json_t *step, const char **pattern, bool *digits) {
    const char *type = json_string_value(json_object_get(step, "type"));
    if (type != NULL && strcmp(type, "Split") == 0 && *pattern == NULL) {
        *pattern = json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
    }
    *digits = *digits || (type != NULL && strcmp(type, "Digits") == 0);
    const json_t *parts = json_object_get(step, "pretokenizers");
    for (size_t i = 0; i < json_array_size(parts); i++) {
        look_at(json_array_get(parts, i), pattern, digits);
    }
}

static lk_status put_kind(lk_context *context, const json_t *root, bool sentence_piece, lk_gguf_writer *writer) {
    const char *pattern = NULL, *name;
    bool digits = false;
    lk_gguf_put_text(writer, KEY("model"), sentence_piece ? "llama" : "gpt2");
    if (sentence_piece) {
        return LK_OK;
    }
    look_at(json_object_get(root, "pre_tokenizer"), &pattern, &digits);
    name = lk_gguf_pre_tokenizer_name(pattern, digits);
    if (name == NULL) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED,
                       "tokenizer.json splits texts by \"%.60s\", for which llama.cpp has no name here", pattern);
    }
    lk_gguf_put_text(writer, KEY("pre"), name);
    return LK_OK;
}

/* ---- tokens ---- */

static bool is_byte(const char *token) {
    return strlen(token) == 6 && strncmp(token, "<0x", 3) == 0 && token[5] == '>';
}

static int32_t type_of(const lk_tokenizer *tokenizer, int32_t id, const char *unknown, bool sentence_piece) {
    const char *token = tokenizer->tokens[id].bytes;
    if (token == NULL) {
        return TOKEN_UNUSED;
    }
    if (sentence_piece && unknown != NULL && strcmp(token, unknown) == 0) {
        return TOKEN_UNKNOWN;
    }
    if (tokenizer->token_flags[id] & LK_TOKEN_ADDED) {
        return tokenizer->token_flags[id] & LK_TOKEN_SPECIAL ? TOKEN_CONTROL : TOKEN_USER_DEFINED;
    }
    return sentence_piece && is_byte(token) ? TOKEN_BYTE : TOKEN_NORMAL;
}

static void put_tokens(const lk_tokenizer *tokenizer, int64_t vocab_size, const char *unknown, bool sentence_piece,
                       lk_gguf_writer *writer) {
    lk_gguf_put_array(writer, KEY("tokens"), LK_GGUF_STRING, (uint64_t)vocab_size);
    for (int64_t id = 0; id < vocab_size; id++) {
        const char *token = id < tokenizer->token_count ? tokenizer->tokens[id].bytes : NULL;
        char padding[32];
        snprintf(padding, sizeof padding, "[PAD%lld]", (long long)id);
        token = token != NULL ? token : padding;
        lk_gguf_add_text(writer, token, strlen(token));
    }
    lk_gguf_put_array(writer, KEY("token_type"), LK_GGUF_I32, (uint64_t)vocab_size);
    for (int64_t id = 0; id < vocab_size; id++) {
        bool there = id < tokenizer->token_count;
        lk_gguf_add_i32(writer, there ? type_of(tokenizer, (int32_t)id, unknown, sentence_piece) : TOKEN_UNUSED);
    }
}

/* A merge is a pair, or a text with a space between its parts. */
static bool merge_text(const json_t *merge, lk_text *out) {
    const char *text = json_string_value(merge), *left = json_string_value(json_array_get(merge, 0));
    const char *right = json_string_value(json_array_get(merge, 1));
    out->length = 0;
    if (text != NULL) {
        lk_text_printf(out, "%s", text);
    } else if (left != NULL && right != NULL) {
        lk_text_printf(out, "%s %s", left, right);
    }
    return !out->failed && out->length > 0;
}

static lk_status put_merges(lk_context *context, const json_t *merges, lk_gguf_writer *writer) {
    lk_text text;
    lk_text_init(&text, context);
    bool right = true;
    lk_gguf_put_array(writer, KEY("merges"), LK_GGUF_STRING, json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges) && right; i++) {
        right = merge_text(json_array_get(merges, i), &text);
        lk_gguf_add_text(writer, right ? text.data : "", text.length);
    }
    lk_text_free(&text);
    return right ? LK_OK : lk_fail(context, LK_STATUS_FORMAT, "tokenizer.json: a merge is not a pair of tokens");
}

/* llama.cpp merges what makes the token with the highest score: the earlier a merge, the higher. */
static lk_status put_scores(lk_context *context, const lk_tokenizer *tokenizer, const json_t *merges,
                            int64_t vocab_size, lk_gguf_writer *writer) {
    float *scores = lk_calloc(context, (size_t)vocab_size, sizeof *scores);
    if (scores == NULL) {
        return lk_out_of_memory(context, (size_t)vocab_size * sizeof *scores, "scores");
    }
    lk_text text;
    lk_text_init(&text, context);
    for (size_t i = json_array_size(merges); i-- > 0;) {
        if (merge_text(json_array_get(merges, i), &text)) {
            char *space = strchr(text.data + 1, ' ');
            if (space != NULL) {
                memmove(space, space + 1, strlen(space));
            }
            int32_t id = lk_tokenizer_token_to_id(tokenizer, text.data);
            if (id >= 0 && id < vocab_size) {
                scores[id] = -(float)(i + 1);
            }
        }
    }
    lk_gguf_put_array(writer, KEY("scores"), LK_GGUF_F32, (uint64_t)vocab_size);
    for (int64_t i = 0; i < vocab_size; i++) {
        lk_gguf_add_f32(writer, scores[i]);
    }
    lk_text_free(&text);
    lk_free(context, scores);
    return LK_OK;
}

/* ---- all of it ---- */

/* Whether a normalizer, or one of a sequence, puts a mark before the text. */
static bool has_prepend(const json_t *step) {
    const char *type = json_string_value(json_object_get(step, "type"));
    const json_t *parts = json_object_get(step, "normalizers");
    bool found = type != NULL && strcmp(type, "Prepend") == 0;
    for (size_t i = 0; i < json_array_size(parts) && !found; i++) {
        found = has_prepend(json_array_get(parts, i));
    }
    return found;
}

static lk_status put_all(lk_context *context, const lk_tokenizer *tokenizer, const json_t *root, int64_t vocab_size,
                         lk_gguf_writer *writer) {
    const json_t *model = json_object_get(root, "model"), *merges = json_object_get(model, "merges");
    const char *type = json_string_value(json_object_get(model, "type"));
    bool sentence_piece = json_is_true(json_object_get(model, "byte_fallback"));
    if (type == NULL || strcmp(type, "BPE") != 0 || tokenizer->token_count > vocab_size) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED,
                       "tokenizer.json: a %s model with %d tokens, expected BPE with at most %lld, the model's",
                       type ? type : "nameless", tokenizer->token_count, (long long)vocab_size);
    }
    LK_TRY(put_kind(context, root, sentence_piece, writer));
    put_tokens(tokenizer, vocab_size, json_string_value(json_object_get(model, "unk_token")), sentence_piece, writer);
    if (sentence_piece) {
        LK_TRY(put_scores(context, tokenizer, merges, vocab_size, writer));
        lk_gguf_put_bool(writer, KEY("add_space_prefix"), has_prepend(json_object_get(root, "normalizer")));
    } else {
        LK_TRY(put_merges(context, merges, writer));
    }
    const struct {
        const char *key;
        int32_t id;
    } ids[] = {{KEY("bos_token_id"), tokenizer->bos},
               {KEY("eos_token_id"), tokenizer->eos},
               {KEY("padding_token_id"), tokenizer->pad}};
    for (size_t i = 0; i < LK_COUNT(ids); i++) {
        if (ids[i].id >= 0) {
            lk_gguf_put_u32(writer, ids[i].key, (uint32_t)ids[i].id);
        }
    }
    size_t before, after;
    lk_tokenizer_special_counts(tokenizer, &before, &after);
    lk_gguf_put_bool(writer, KEY("add_bos_token"), before > 0);
    lk_gguf_put_bool(writer, KEY("add_eos_token"), after > 0);
    if (tokenizer->chat_template != NULL) {
        lk_gguf_put_text(writer, "tokenizer.chat_template", tokenizer->chat_template);
    }
    return LK_OK;
}

lk_status lk_tokenizer_to_gguf(lk_context *context, const lk_tokenizer *tokenizer, const lk_gguf *source,
                               int64_t vocab_size, lk_gguf_writer *writer) {
    const lk_tokenizer_file *file = &tokenizer->files[LK_FILE_TOKENIZER];
    json_t *root;
    if (source != NULL) {
        copy_keys(source, writer);
        return LK_OK;
    }
    LK_TRY(lk_json_parse(context, file->name, file->bytes, file->size, &root));
    lk_status status = put_all(context, tokenizer, root, vocab_size, writer);
    json_decref(root);
    return status;
}
