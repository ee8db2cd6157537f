/* WordPiece (BERT): the longest token that starts a word, then the longest that continues it, and so on. */
#include <string.h>

#include "core/text/tokenizer_internal.h"
#include "core/text/utf8.h"

lk_status lk_word_piece_load(lk_tokenizer *tokenizer, const char *source, const json_t *json) {
    lk_context *context = tokenizer->context;
    lk_word_piece *model = &tokenizer->word_piece;
    const char *prefix = "##", *unknown = "[UNK]";
    int64_t maximum = 100;
    LK_TRY(lk_json_get_string(context, source, json, "continuing_subword_prefix", false, &prefix));
    LK_TRY(lk_json_get_string(context, source, json, "unk_token", false, &unknown));
    LK_TRY(lk_json_get_int(context, source, json, "max_input_chars_per_word", false, 1, 10000, &maximum));
    LK_TRY(lk_tokenizer_keep(tokenizer, prefix, strlen(prefix), &model->prefix));
    model->max_characters = (size_t)maximum;
    model->unknown = lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, unknown, strlen(unknown));
    if (model->unknown < 0) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"unk_token\" \"%s\" is not in the vocabulary", source, unknown);
    }
    lk_text_init(&model->candidate, context);
    return LK_OK;
}

static size_t count_characters(const char *bytes, size_t length) {
    size_t count = 0;
    for (size_t i = 0; i < length; i++) {
        count += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    }
    return count;
}

static lk_status encode_word(lk_tokenizer *tokenizer, const char *word, size_t length, lk_ids *ids) {
    lk_word_piece *model = &tokenizer->word_piece;
    size_t before = ids->count;
    if (count_characters(word, length) > model->max_characters) {
        return lk_ids_push(ids, model->unknown);
    }
    for (size_t begin = 0; begin < length;) {
        lk_text *candidate = &model->candidate;
        candidate->length = 0;
        lk_text_append(candidate, model->prefix.bytes, begin > 0 ? model->prefix.length : 0);
        lk_text_append(candidate, word + begin, length - begin);
        LK_TRY(lk_text_status(candidate));
        size_t end = length;
        int32_t id = -1;
        for (; end > begin; end = begin + lk_utf8_previous(word + begin, end - begin)) {
            id = lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, candidate->data,
                                   candidate->length - (length - end));
            if (id >= 0) {
                break;
            }
        }
        if (id < 0) { /* a part is unknown: so is the word */
            ids->count = before;
            return lk_ids_push(ids, model->unknown);
        }
        LK_TRY(lk_ids_push(ids, id));
        begin = end;
    }
    return LK_OK;
}

lk_status lk_word_piece_encode(lk_tokenizer *tokenizer, const char *bytes, size_t length, lk_ids *ids) {
    const int32_t *known;
    size_t count, before = ids->count;
    uint64_t hash = lk_hash64(bytes, length, 0);
    if (lk_word_cache_find(&tokenizer->cache, hash, bytes, length, &known, &count)) {
        return lk_ids_append(ids, known, count);
    }
    LK_TRY(encode_word(tokenizer, bytes, length, ids));
    lk_word_cache_put(&tokenizer->cache, hash, bytes, length, ids->data + before, ids->count - before);
    return LK_OK;
}
