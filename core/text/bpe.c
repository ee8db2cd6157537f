/* Byte pair encoding: start from characters, always join the neighbours whose merge has the lowest rank (leftmost
 * first). A heap of candidate merges makes a word of n characters O(n log n). */
#include <stdio.h>
#include <string.h>

#include "core/text/tokenizer_internal.h"
#include "core/text/utf8.h"

typedef struct lk_bpe_symbol {
    int32_t id; /* -1: joined to the one before */
    int32_t previous, next;
} lk_bpe_symbol;

typedef struct lk_bpe_candidate {
    uint64_t key; /* rank << 32 | position: the order of merging */
    uint32_t id;  /* what the two become */
} lk_bpe_candidate;

enum { CACHED_WORD = 256 }; /* longer words are hardly ever seen twice */
static const char word_mark[] = "\xE2\x96\x81";

/* ---- loading ---- */

static lk_status load_affix(lk_tokenizer *tokenizer, const char *source, const json_t *json, const char *key,
                            lk_slice *out) {
    const char *value = "";
    LK_TRY(lk_json_get_string(tokenizer->context, source, json, key, false, &value));
    return lk_tokenizer_keep(tokenizer, value, strlen(value), out);
}

/* A merge is "left right" or ["left", "right"]. */
static lk_status split_merge(lk_context *context, const char *source, const json_t *item, size_t index, lk_slice *left,
                             lk_slice *right) {
    if (json_is_string(item)) {
        const char *text = json_string_value(item);
        const char *space = strchr(text, ' ');
        if (space != NULL && strchr(space + 1, ' ') == NULL) {
            *left = (lk_slice){text, (size_t)(space - text)};
            *right = (lk_slice){space + 1, strlen(space + 1)};
            return LK_OK;
        }
    } else if (json_array_size(item) == 2 && json_is_string(json_array_get(item, 0)) &&
               json_is_string(json_array_get(item, 1))) {
        const json_t *first = json_array_get(item, 0), *second = json_array_get(item, 1);
        *left = (lk_slice){json_string_value(first), json_string_length(first)};
        *right = (lk_slice){json_string_value(second), json_string_length(second)};
        return LK_OK;
    }
    return lk_fail(context, LK_STATUS_FORMAT, "%s: \"merges\"[%zu] is not a pair of tokens", source, index);
}

static lk_status find_part(lk_tokenizer *tokenizer, const char *source, lk_slice part, size_t index, int32_t *id) {
    *id = lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, part.bytes, part.length);
    if (*id < 0) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s: \"merges\"[%zu]: \"%.*s\" is not in the vocabulary",
                       source, index, (int)LK_MIN(part.length, (size_t)200), part.bytes);
    }
    return LK_OK;
}

static lk_status load_merges(lk_tokenizer *tokenizer, const char *source, const json_t *merges) {
    lk_context *context = tokenizer->context;
    lk_bpe *bpe = &tokenizer->bpe;
    lk_text joined;
    lk_text_init(&joined, context);
    lk_status status = LK_OK;
    size_t count = json_array_size(merges);
    if (count > INT32_MAX) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: %zu merges are too many", source, count);
    }
    for (size_t i = 0; i < count; i++) {
        lk_slice left = {0}, right = {0};
        int32_t left_id = -1, right_id = -1, id = -1;
        LK_TRY_GOTO(split_merge(context, source, json_array_get(merges, i), i, &left, &right), done);
        LK_TRY_GOTO(find_part(tokenizer, source, left, i, &left_id), done);
        LK_TRY_GOTO(find_part(tokenizer, source, right, i, &right_id), done);
        size_t skip = right.length >= bpe->prefix.length ? bpe->prefix.length : 0;
        joined.length = 0;
        lk_text_append(&joined, left.bytes, left.length);
        lk_text_append(&joined, right.bytes + skip, right.length - skip);
        LK_TRY_GOTO(lk_text_status(&joined), done);
        LK_TRY_GOTO(find_part(tokenizer, source, (lk_slice){joined.data, joined.length}, i, &id), done);
        LK_TRY_GOTO(lk_pair_map_set(&bpe->merges, (uint32_t)left_id, (uint32_t)right_id, (uint32_t)i, (uint32_t)id),
                    done);
    }
done:
    lk_text_free(&joined);
    return status;
}

/* Whether a mark stands behind another character in the token. */
static bool has_inner_mark(lk_slice token) {
    bool other = false;
    for (size_t at = 0; at < token.length;) {
        bool mark = token.length - at >= 3 && memcmp(token.bytes + at, word_mark, 3) == 0;
        if (mark && other) {
            return true;
        }
        other = !mark;
        at += mark ? 3 : 1;
    }
    return false;
}

static bool may_cut_at_word_mark(const lk_tokenizer *tokenizer) {
    const lk_bpe *bpe = &tokenizer->bpe;
    if (bpe->prefix.length > 0 || bpe->suffix.length > 0 || bpe->ignore_merges ||
        lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, word_mark, 3) < 0) {
        return false;
    }
    for (int32_t id = 0; id < tokenizer->token_count; id++) {
        if ((tokenizer->token_flags[id] & LK_TOKEN_IN_MODEL) && has_inner_mark(tokenizer->tokens[id])) {
            return false;
        }
    }
    return true;
}

lk_status lk_bpe_load(lk_tokenizer *tokenizer, const char *source, const json_t *json) {
    lk_context *context = tokenizer->context;
    lk_bpe *bpe = &tokenizer->bpe;
    bpe->merges.context = context;
    double dropout = 0;
    LK_TRY(lk_json_get_double(context, source, json, "dropout", false, &dropout));
    if (dropout != 0) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: \"dropout\" is %g, only 0 is supported", source, dropout);
    }
    LK_TRY(load_affix(tokenizer, source, json, "continuing_subword_prefix", &bpe->prefix));
    LK_TRY(load_affix(tokenizer, source, json, "end_of_word_suffix", &bpe->suffix));
    LK_TRY(lk_json_get_bool(context, source, json, "fuse_unk", false, &bpe->fuse_unknown));
    LK_TRY(lk_json_get_bool(context, source, json, "byte_fallback", false, &bpe->byte_fallback));
    LK_TRY(lk_json_get_bool(context, source, json, "ignore_merges", false, &bpe->ignore_merges));
    const char *unknown = NULL;
    LK_TRY(lk_json_get_string(context, source, json, "unk_token", false, &unknown));
    bpe->unknown = -1;
    if (unknown != NULL) {
        bpe->unknown = lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, unknown, strlen(unknown));
        if (bpe->unknown < 0) {
            return lk_fail(context, LK_STATUS_FORMAT, "%s: \"unk_token\" \"%s\" is not in the vocabulary", source,
                           unknown);
        }
    }
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        bpe->byte_ids[byte] = lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, name, 6);
    }
    json_t *merges = NULL;
    LK_TRY(lk_json_get_array(context, source, json, "merges", true, &merges));
    LK_TRY(load_merges(tokenizer, source, merges));
    bpe->cut_at_word_mark = may_cut_at_word_mark(tokenizer);
    return LK_OK;
}

void lk_bpe_free(lk_context *context, lk_bpe *bpe) {
    lk_pair_map_free(&bpe->merges);
    lk_free(context, bpe->symbols);
    lk_free(context, bpe->heap);
}

/* ---- the heap ---- */

static lk_status heap_push(lk_context *context, lk_bpe *bpe, lk_bpe_candidate candidate) {
    if (bpe->heap_count == bpe->heap_capacity) {
        size_t capacity = LK_MAX((size_t)256, bpe->heap_capacity * 2);
        lk_bpe_candidate *heap = lk_realloc(context, bpe->heap, capacity, sizeof *heap);
        if (heap == NULL) {
            return lk_out_of_memory(context, capacity * sizeof *heap, "merging tokens");
        }
        bpe->heap = heap;
        bpe->heap_capacity = capacity;
    }
    size_t at = bpe->heap_count++;
    while (at > 0 && bpe->heap[(at - 1) / 2].key > candidate.key) {
        bpe->heap[at] = bpe->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    bpe->heap[at] = candidate;
    return LK_OK;
}

static lk_bpe_candidate heap_pop(lk_bpe *bpe) {
    lk_bpe_candidate top = bpe->heap[0], last = bpe->heap[--bpe->heap_count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < bpe->heap_count; at = child) {
        child += child + 1 < bpe->heap_count && bpe->heap[child + 1].key < bpe->heap[child].key;
        if (bpe->heap[child].key >= last.key) {
            break;
        }
        bpe->heap[at] = bpe->heap[child];
    }
    bpe->heap[at] = last;
    return top;
}

/* ---- encoding ---- */

/* The single characters of a word as tokens. An unknown character waits in *pending, so that neighbours can be fused.
 */
static lk_status start_symbols(lk_tokenizer *tokenizer, const char *word, size_t length, size_t *out_count) {
    lk_context *context = tokenizer->context;
    lk_bpe *bpe = &tokenizer->bpe;
    if (length > INT32_MAX / 4) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "a word of %zu bytes is too long", length);
    }
    if (length + 1 > bpe->symbol_capacity) { /* a character gives no more symbols than it has bytes */
        lk_bpe_symbol *symbols = lk_realloc(context, bpe->symbols, length + 1, sizeof *symbols);
        if (symbols == NULL) {
            return lk_out_of_memory(context, (length + 1) * sizeof *symbols, "merging tokens");
        }
        bpe->symbols = symbols;
        bpe->symbol_capacity = length + 1;
    }
    size_t count = 0;
    bool pending = false;
    lk_text decorated;
    lk_text_init(&decorated, context);
    for (size_t at = 0; at < length;) {
        int32_t character;
        size_t size = lk_utf8_next(word + at, &character);
        const char *text = word + at;
        size_t text_length = size;
        bool first = at == 0, last = at + size == length;
        if ((!first && bpe->prefix.length > 0) || (last && bpe->suffix.length > 0)) {
            decorated.length = 0;
            lk_text_append(&decorated, bpe->prefix.bytes, first ? 0 : bpe->prefix.length);
            lk_text_append(&decorated, text, size);
            lk_text_append(&decorated, bpe->suffix.bytes, last ? bpe->suffix.length : 0);
            if (decorated.failed) {
                lk_text_free(&decorated);
                return lk_out_of_memory(context, size, "a word");
            }
            text = decorated.data;
            text_length = decorated.length;
        }
        int32_t id = lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, text, text_length);
        if (id >= 0) {
            if (pending) {
                bpe->symbols[count++].id = bpe->unknown;
                pending = false;
            }
            bpe->symbols[count++].id = id;
        } else {
            bool bytes_known = bpe->byte_fallback && text_length == size;
            for (size_t i = 0; i < size && bytes_known; i++) {
                bytes_known = bpe->byte_ids[(unsigned char)text[i]] >= 0;
            }
            for (size_t i = 0; i < size && bytes_known; i++) {
                bpe->symbols[count++].id = bpe->byte_ids[(unsigned char)text[i]];
            }
            if (!bytes_known && bpe->unknown >= 0) {
                if (pending && !bpe->fuse_unknown) {
                    bpe->symbols[count++].id = bpe->unknown;
                }
                pending = true;
            }
        }
        at += size;
    }
    lk_text_free(&decorated);
    if (pending) {
        bpe->symbols[count++].id = bpe->unknown;
    }
    *out_count = count;
    return LK_OK;
}

static lk_status push_pair(lk_tokenizer *tokenizer, int32_t left, int32_t right) {
    lk_bpe *bpe = &tokenizer->bpe;
    const lk_pair_entry *merge =
        lk_pair_map_find(&bpe->merges, (uint32_t)bpe->symbols[left].id, (uint32_t)bpe->symbols[right].id);
    if (merge == NULL) {
        return LK_OK;
    }
    return heap_push(tokenizer->context, bpe, (lk_bpe_candidate){(uint64_t)merge->a << 32 | (uint32_t)left, merge->b});
}

static lk_status merge_symbols(lk_tokenizer *tokenizer, size_t count) {
    lk_bpe *bpe = &tokenizer->bpe;
    lk_bpe_symbol *symbols = bpe->symbols;
    bpe->heap_count = 0;
    for (size_t i = 0; i < count; i++) {
        symbols[i].previous = (int32_t)i - 1;
        symbols[i].next = i + 1 < count ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < count; i++) {
        LK_TRY(push_pair(tokenizer, (int32_t)i, (int32_t)i + 1));
    }
    while (bpe->heap_count > 0) {
        lk_bpe_candidate top = heap_pop(bpe);
        int32_t left = (int32_t)(uint32_t)top.key;
        int32_t right = symbols[left].id < 0 ? -1 : symbols[left].next;
        if (right < 0) {
            continue;
        }
        const lk_pair_entry *merge =
            lk_pair_map_find(&bpe->merges, (uint32_t)symbols[left].id, (uint32_t)symbols[right].id);
        if (merge == NULL || merge->b != top.id) {
            continue; /* one of the two was joined to something else meanwhile */
        }
        symbols[left].id = (int32_t)top.id;
        symbols[left].next = symbols[right].next;
        symbols[right].id = -1;
        if (symbols[left].next >= 0) {
            symbols[symbols[left].next].previous = left;
            LK_TRY(push_pair(tokenizer, left, symbols[left].next));
        }
        if (symbols[left].previous >= 0) {
            LK_TRY(push_pair(tokenizer, symbols[left].previous, left));
        }
    }
    return LK_OK;
}

static lk_status encode_word(lk_tokenizer *tokenizer, const char *word, size_t length, lk_ids *ids) {
    uint64_t hash = 0;
    if (length <= CACHED_WORD) {
        const int32_t *known;
        size_t count;
        hash = lk_hash64(word, length, 0);
        if (lk_word_cache_find(&tokenizer->cache, hash, word, length, &known, &count)) {
            return lk_ids_append(ids, known, count);
        }
    }
    size_t count = 0, before = ids->count;
    LK_TRY(start_symbols(tokenizer, word, length, &count));
    LK_TRY(merge_symbols(tokenizer, count));
    for (int32_t i = count > 0 ? 0 : -1; i >= 0; i = tokenizer->bpe.symbols[i].next) {
        LK_TRY(lk_ids_push(ids, tokenizer->bpe.symbols[i].id));
    }
    if (length <= CACHED_WORD) {
        lk_word_cache_put(&tokenizer->cache, hash, word, length, ids->data + before, ids->count - before);
    }
    return LK_OK;
}

lk_status lk_bpe_encode(lk_tokenizer *tokenizer, const char *bytes, size_t length, lk_ids *ids) {
    if (tokenizer->bpe.ignore_merges) {
        int32_t id = lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, bytes, length);
        if (id >= 0) {
            return lk_ids_push(ids, id);
        }
    }
    size_t begin = 0;
    bool in_marks = true;
    for (size_t at = 0; tokenizer->bpe.cut_at_word_mark && at < length;) {
        bool mark = length - at >= 3 && memcmp(bytes + at, word_mark, 3) == 0;
        if (mark && !in_marks) {
            LK_TRY(encode_word(tokenizer, bytes + begin, at - begin, ids));
            begin = at;
        }
        in_marks = mark;
        at += mark ? 3 : 1;
    }
    return encode_word(tokenizer, bytes + begin, length - begin, ids);
}
