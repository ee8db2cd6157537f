/* Encoding, decoding and look-ups; tokenizer_load.c makes tokenizers. */
#include "core/text/tokenizer.h"

#include <string.h>

#include "core/text/tokenizer_internal.h"
#include "core/text/utf8.h"

/* ---- encoding ---- */

/* Text without added tokens in it that is normalised already: cut it, encode the pieces. */
static lk_status encode_pieces(lk_tokenizer *tokenizer, lk_ids *ids) {
    LK_TRY(lk_steps_run(tokenizer, &tokenizer->pre_tokenizers, &tokenizer->pieces, &tokenizer->spare));
    const lk_pieces *pieces = &tokenizer->pieces;
    for (size_t i = 0; i < pieces->count; i++) {
        if (pieces->items[i].length > 0) {
            LK_TRY(tokenizer->model->encode(tokenizer, pieces->text.data + pieces->items[i].begin,
                                            pieces->items[i].length, ids));
        }
    }
    return LK_OK;
}

/* Text between added tokens that are looked for before normalising. */
static lk_status encode_section(lk_tokenizer *tokenizer, const char *text, size_t length, bool at_start,
                                bool parse_special, lk_ids *ids) {
    lk_pieces *pieces = &tokenizer->pieces;
    lk_pieces_clear(pieces);
    LK_TRY(lk_pieces_add_text(pieces, text, length, at_start));
    LK_TRY(lk_steps_run(tokenizer, &tokenizer->normalizers, pieces, &tokenizer->spare));
    if (tokenizer->normalized_trie.nodes == 0) {
        return encode_pieces(tokenizer, ids);
    }
    lk_text normalized; /* pieces are overwritten for each section */
    lk_text_init(&normalized, tokenizer->context);
    lk_text_append(&normalized, pieces->text.data + pieces->items[0].begin, pieces->items[0].length);
    lk_status status;
    LK_TRY_GOTO(lk_text_status(&normalized), done);
    lk_section_scan scan;
    lk_section section;
    lk_section_scan_init(&scan, &tokenizer->normalized_trie, normalized.data, normalized.length, parse_special);
    while (lk_section_scan_next(tokenizer, &scan, &section)) {
        if (section.id >= 0) {
            LK_TRY_GOTO(lk_ids_push(ids, section.id), done);
            continue;
        }
        lk_pieces_clear(pieces);
        LK_TRY_GOTO(lk_pieces_add_text(pieces, normalized.data + section.begin, section.end - section.begin,
                                       at_start && section.begin == 0),
                    done);
        LK_TRY_GOTO(encode_pieces(tokenizer, ids), done);
    }
done:
    lk_text_free(&normalized);
    return status;
}

/* How many tokens of ids[from..) the text before the mark gives when it is encoded alone. */
static lk_status tokens_before_mark(lk_tokenizer *tokenizer, const char *text, size_t length, bool at_start,
                                    bool parse_special, const lk_ids *ids, size_t from, size_t *out) {
    lk_ids alone;
    lk_ids_init(&alone, tokenizer->context);
    lk_status status = encode_section(tokenizer, text, length, at_start, parse_special, &alone);
    size_t same = 0;
    while (status == LK_OK && same < alone.count && from + same < ids->count &&
           alone.data[same] == ids->data[from + same]) {
        same++;
    }
    *out = same;
    lk_ids_free(&alone);
    return status;
}

typedef struct mark_list {
    const size_t *offsets;
    size_t count, next, first_token;
    size_t *tokens;
} mark_list;

/* text is valid UTF-8. */
static lk_status encode_valid(lk_tokenizer *tokenizer, const char *text, size_t length, bool parse_special,
                              mark_list *marks, lk_ids *ids) {
    lk_section_scan scan;
    lk_section section;
    lk_section_scan_init(&scan, &tokenizer->raw_trie, text, length, parse_special);
    while (lk_section_scan_next(tokenizer, &scan, &section)) {
        size_t before = ids->count;
        const char *begin = text + section.begin;
        if (section.id >= 0) {
            LK_TRY(lk_ids_push(ids, section.id));
        } else {
            LK_TRY(
                encode_section(tokenizer, begin, section.end - section.begin, section.begin == 0, parse_special, ids));
        }
        for (; marks->next < marks->count && marks->offsets[marks->next] < section.end; marks->next++) {
            size_t offset = marks->offsets[marks->next], inside = 0;
            if (section.id < 0 && offset > section.begin) {
                LK_TRY(tokens_before_mark(tokenizer, begin, offset - section.begin, section.begin == 0, parse_special,
                                          ids, before, &inside));
            }
            marks->tokens[marks->next] = before + inside - marks->first_token;
        }
    }
    for (; marks->next < marks->count; marks->next++) {
        marks->tokens[marks->next] = ids->count - marks->first_token;
    }
    return LK_OK;
}

/* Repairs the text where it must be, between marks, so that marks keep their places. */
static lk_status encode_text(lk_tokenizer *tokenizer, const char *text, size_t length, unsigned flags, mark_list *marks,
                             lk_ids *ids) {
    bool parse_special = (flags & LK_ENCODE_PARSE_SPECIAL) != 0;
    if (length == 0 || lk_utf8_valid_prefix(text, length) == length) {
        return encode_valid(tokenizer, length == 0 ? "" : text, length, parse_special, marks, ids);
    }
    lk_text *repaired = &tokenizer->repaired;
    repaired->length = 0;
    repaired->failed = false;
    size_t *offsets = lk_calloc(tokenizer->context, marks->count + 1, sizeof *offsets);
    if (offsets == NULL) {
        return lk_out_of_memory(tokenizer->context, marks->count * sizeof *offsets, "encoding a text");
    }
    size_t at = 0;
    for (size_t i = 0; i < marks->count; i++) {
        lk_utf8_append_repaired(repaired, text + at, marks->offsets[i] - at);
        at = marks->offsets[i];
        offsets[i] = repaired->length;
    }
    lk_utf8_append_repaired(repaired, text + at, length - at);
    lk_status status = lk_text_status(repaired);
    if (status == LK_OK) {
        marks->offsets = offsets;
        status = encode_valid(tokenizer, repaired->data, repaired->length, parse_special, marks, ids);
    }
    lk_free(tokenizer->context, offsets);
    return status;
}

/* Texts and special tokens in the order of a template. */
static lk_status encode_template(lk_tokenizer *tokenizer, const lk_template *template, const lk_slice texts[2],
                                 unsigned flags, mark_list *marks, lk_ids *ids, lk_ids *type_ids) {
    for (size_t i = 0; i < template->count; i++) {
        lk_template_item item = template->items[i];
        if (item.id >= 0 && (flags & LK_ENCODE_ADD_SPECIAL) == 0) {
            continue;
        }
        if (item.id >= 0) {
            LK_TRY(lk_ids_push(ids, item.id));
        } else {
            lk_slice text = texts[item.sequence];
            LK_TRY(encode_text(tokenizer, text.bytes, text.length, flags, marks, ids));
        }
        while (type_ids != NULL && type_ids->count < ids->count) {
            LK_TRY(lk_ids_push(type_ids, item.type_id));
        }
    }
    return LK_OK;
}

lk_status lk_tokenizer_encode_marked(lk_tokenizer *tokenizer, const char *text, size_t length, unsigned flags,
                                     const size_t *offsets, size_t mark_count, size_t *token_marks, lk_ids *ids) {
    for (size_t i = 0; i < mark_count; i++) {
        if (offsets[i] > length || (i > 0 && offsets[i] < offsets[i - 1])) {
            return lk_fail(tokenizer->context, LK_STATUS_INVALID_ARGUMENT,
                           "mark %zu is at %zu: marks must ascend and lie within the text of %zu bytes", i, offsets[i],
                           length);
        }
    }
    size_t before = ids->count;
    mark_list marks = {offsets, mark_count, 0, before, token_marks};
    const lk_slice texts[2] = {{text, length}, {"", 0}};
    lk_status status = encode_template(tokenizer, &tokenizer->single, texts, flags, &marks, ids, NULL);
    if (status != LK_OK) {
        ids->count = before;
    }
    return status;
}

lk_status lk_tokenizer_encode(lk_tokenizer *tokenizer, const char *text, size_t length, unsigned flags, lk_ids *ids) {
    return lk_tokenizer_encode_marked(tokenizer, text, length, flags, NULL, 0, NULL, ids);
}

lk_status lk_tokenizer_encode_pair(lk_tokenizer *tokenizer, const char *first, size_t first_length, const char *second,
                                   size_t second_length, unsigned flags, lk_ids *ids, lk_ids *type_ids) {
    size_t before = ids->count;
    if (type_ids != NULL && type_ids->count != before) {
        return lk_fail(tokenizer->context, LK_STATUS_INVALID_ARGUMENT, "%zu ids but %zu type ids are there already",
                       before, type_ids->count);
    }
    mark_list none = {0};
    const lk_slice texts[2] = {{first, first_length}, {second, second_length}};
    lk_status status = encode_template(tokenizer, &tokenizer->pair, texts, flags, &none, ids, type_ids);
    if (status != LK_OK) {
        ids->count = before;
        if (type_ids != NULL) {
            type_ids->count = before;
        }
    }
    return status;
}

void lk_tokenizer_special_counts(const lk_tokenizer *tokenizer, size_t *before, size_t *after) {
    *before = *after = 0;
    bool behind = false;
    for (size_t i = 0; i < tokenizer->single.count; i++) {
        if (tokenizer->single.items[i].id < 0) {
            behind = true;
        } else {
            *(behind ? after : before) += 1;
        }
    }
}

/* ---- decoding ---- */

static lk_status decode(lk_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special, bool raw,
                        lk_text *text) {
    lk_pieces *pieces = &tokenizer->pieces;
    lk_pieces_clear(pieces);
    for (size_t i = 0; i < count; i++) {
        const char *token = lk_tokenizer_id_to_token(tokenizer, ids[i]);
        if (token == NULL) {
            return lk_fail(tokenizer->context, LK_STATUS_INVALID_ARGUMENT,
                           "id %d is not in the tokenizer's vocabulary of %d", (int)ids[i],
                           (int)tokenizer->token_count);
        }
        if (!skip_special || !lk_tokenizer_is_special(tokenizer, ids[i])) {
            LK_TRY(lk_pieces_add_text(pieces, token, tokenizer->tokens[ids[i]].length, i == 0));
        }
    }
    tokenizer->raw_bytes = raw && tokenizer->decodes_raw;
    LK_TRY(lk_steps_run(tokenizer, &tokenizer->decoders, pieces, &tokenizer->spare));
    for (size_t i = 0; i < pieces->count; i++) {
        lk_text_append(text, " ", i > 0 && tokenizer->decoders.count == 0);
        lk_text_append(text, pieces->text.data + pieces->items[i].begin, pieces->items[i].length);
    }
    return lk_text_status(text);
}

lk_status lk_tokenizer_decode(lk_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                              lk_text *text) {
    return decode(tokenizer, ids, count, skip_special, false, text);
}

void lk_decode_stream_init(lk_decode_stream *stream, lk_tokenizer *tokenizer, bool skip_special) {
    *stream = (lk_decode_stream){.tokenizer = tokenizer, .skip_special = skip_special, .previous = -1};
    lk_text_init(&stream->held, tokenizer->context);
    lk_text_append(&stream->held, "", 0);
}

void lk_decode_stream_free(lk_decode_stream *stream) {
    lk_text_free(&stream->held);
}

/* What `id` adds to the text of the token before it: a token alone may lose a space that it has behind another. */
static lk_status stream_add(lk_decode_stream *stream, int32_t id, lk_text *alone, lk_text *both) {
    const int32_t ids[2] = {stream->previous, id};
    size_t first = stream->previous < 0 ? 1 : 0;
    LK_TRY(decode(stream->tokenizer, ids, 1 - first, false, true, alone));
    LK_TRY(decode(stream->tokenizer, ids + first, 2 - first, false, true, both));
    size_t known = LK_MIN(alone->length, both->length);
    lk_text_append(&stream->held, both->data + known, both->length - known);
    return lk_text_status(&stream->held);
}

lk_status lk_decode_stream_push(lk_decode_stream *stream, int32_t id, lk_text *text) {
    lk_tokenizer *tokenizer = stream->tokenizer;
    if (stream->skip_special && lk_tokenizer_is_special(tokenizer, id)) {
        return LK_OK;
    }
    lk_text alone, both;
    lk_text_init(&alone, tokenizer->context);
    lk_text_init(&both, tokenizer->context);
    lk_text_append(&both, "", 0);
    lk_status status = stream_add(stream, id, &alone, &both);
    lk_text_free(&alone);
    lk_text_free(&both);
    LK_TRY(status);
    stream->previous = id;
    lk_text *held = &stream->held;
    size_t complete;
    (void)lk_utf8_ends_open(held->data, held->length, &complete);
    lk_utf8_append_repaired(text, held->data, complete);
    memmove(held->data, held->data + complete, held->length - complete);
    held->length -= complete;
    return lk_text_status(text);
}

lk_status lk_decode_stream_finish(lk_decode_stream *stream, lk_text *text) {
    lk_utf8_append_repaired(text, stream->held.data, stream->held.length);
    stream->held.length = 0;
    return lk_text_status(text);
}

/* ---- look-ups ---- */

int32_t lk_tokenizer_vocab_size(const lk_tokenizer *tokenizer) {
    return tokenizer->token_count;
}

int32_t lk_tokenizer_bos_id(const lk_tokenizer *tokenizer) {
    return tokenizer->bos;
}

int32_t lk_tokenizer_eos_id(const lk_tokenizer *tokenizer) {
    return tokenizer->eos;
}

int32_t lk_tokenizer_pad_id(const lk_tokenizer *tokenizer) {
    return tokenizer->pad;
}

int32_t lk_tokenizer_find(const lk_tokenizer *tokenizer, const char *bytes, size_t length) {
    int32_t id = lk_token_map_find(&tokenizer->added_map, tokenizer->tokens, bytes, length);
    return id >= 0 ? id : lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, bytes, length);
}

int32_t lk_tokenizer_token_to_id(const lk_tokenizer *tokenizer, const char *token) {
    return lk_tokenizer_find(tokenizer, token, strlen(token));
}

const char *lk_tokenizer_id_to_token(const lk_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->token_count ? tokenizer->tokens[id].bytes : NULL;
}

bool lk_tokenizer_is_special(const lk_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->token_count && (tokenizer->token_flags[id] & LK_TOKEN_SPECIAL) != 0;
}

const char *lk_tokenizer_chat_template(const lk_tokenizer *tokenizer) {
    return tokenizer->chat_template;
}

uint64_t lk_tokenizer_identity(const lk_tokenizer *tokenizer) {
    uint64_t identity = 0;
    for (int i = 0; i < LK_FILE_COUNT; i++) {
        const lk_tokenizer_file *file = &tokenizer->files[i];
        identity = lk_hash64(file->bytes != NULL ? file->bytes : "", file->size, identity + (uint64_t)i);
    }
    /* config.json may have given these two */
    const int32_t ids[2] = {tokenizer->bos, tokenizer->eos};
    return lk_hash64(ids, sizeof ids, identity);
}
