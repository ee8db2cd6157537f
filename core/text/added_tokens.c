/* Tokens that are found in the text before everything else: "<|im_end|>" and the like. */
#include <string.h>

#include "core/text/tokenizer_internal.h"
#include "core/text/utf8.h"

lk_status lk_added_tokens_load(lk_tokenizer *tokenizer, const char *source, const json_t *json) {
    lk_context *context = tokenizer->context;
    json_t *list = NULL;
    LK_TRY(lk_json_get_array(context, source, json, "added_tokens", false, &list));
    size_t count = json_array_size(list);
    tokenizer->added = lk_arena_alloc(&tokenizer->arena, (count + 1) * sizeof *tokenizer->added);
    if (tokenizer->added == NULL) {
        return lk_out_of_memory(context, count * sizeof *tokenizer->added, "added tokens");
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_object(item)) {
            return lk_fail(context, LK_STATUS_FORMAT, "%s: \"added_tokens\"[%zu] is not an object", source, i);
        }
        const char *content = NULL;
        int64_t id = 0;
        lk_added_token token = {.normalized = false};
        LK_TRY(lk_json_get_string(context, source, item, "content", true, &content));
        LK_TRY(lk_json_get_int(context, source, item, "id", true, 0, INT32_MAX - 1, &id));
        LK_TRY(lk_json_get_bool(context, source, item, "special", false, &token.special));
        LK_TRY(lk_json_get_bool(context, source, item, "single_word", false, &token.single_word));
        LK_TRY(lk_json_get_bool(context, source, item, "lstrip", false, &token.lstrip));
        LK_TRY(lk_json_get_bool(context, source, item, "rstrip", false, &token.rstrip));
        token.normalized = !token.special;
        LK_TRY(lk_json_get_bool(context, source, item, "normalized", false, &token.normalized));
        size_t length = strlen(content);
        if (length == 0) {
            continue;
        }
        int32_t known = lk_token_map_find(&tokenizer->model_map, tokenizer->tokens, content, length);
        token.id = known >= 0 ? known : (int32_t)id;
        if (known < 0) {
            /* ids beyond the model's are dense but for a few: a wild one is a damaged file, not a huge table */
            if (id > (int64_t)tokenizer->token_count + (int64_t)count + 65536) {
                return lk_fail(context, LK_STATUS_FORMAT,
                               "%s: added token \"%s\" has id %lld, far beyond the vocabulary", source, content,
                               (long long)id);
            }
            LK_TRY(lk_tokenizer_reserve(tokenizer, source, id + 1));
        }
        LK_TRY(lk_tokenizer_put(tokenizer, source, content, length, token.id,
                                (uint8_t)(LK_TOKEN_ADDED | (token.special ? LK_TOKEN_SPECIAL : 0))));
        token.content = tokenizer->tokens[token.id];
        LK_TRY(lk_token_map_add(&tokenizer->added_map, tokenizer->tokens, token.id));
        tokenizer->added[tokenizer->added_count++] = token;
    }
    return LK_OK;
}

/* ---- tries ---- */

static lk_status trie_node(lk_context *context, lk_trie *trie, uint32_t *out) {
    if (trie->nodes == trie->capacity) {
        size_t capacity = LK_MAX((size_t)256, trie->capacity * 2);
        int32_t *token = capacity > UINT32_MAX ? NULL : lk_realloc(context, trie->token, capacity, sizeof *token);
        if (token == NULL) {
            return lk_out_of_memory(context, capacity * sizeof *token, "added tokens");
        }
        trie->token = token;
        trie->capacity = capacity;
    }
    trie->token[trie->nodes] = -1;
    *out = (uint32_t)trie->nodes++;
    return LK_OK;
}

static lk_status trie_add(lk_context *context, lk_trie *trie, const char *bytes, size_t length, int32_t token) {
    uint32_t node = 0;
    trie->children.context = context;
    if (trie->nodes == 0) {
        LK_TRY(trie_node(context, trie, &node));
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        const lk_pair_entry *child = lk_pair_map_find(&trie->children, node, byte);
        if (child != NULL) {
            node = child->a;
        } else {
            uint32_t added = 0;
            LK_TRY(trie_node(context, trie, &added));
            LK_TRY(lk_pair_map_set(&trie->children, node, byte, added, 0));
            node = added;
        }
    }
    if (length > 0) {
        trie->starts[(unsigned char)bytes[0]] = true;
        trie->token[node] = token;
    }
    return LK_OK;
}

void lk_trie_free(lk_context *context, lk_trie *trie) {
    lk_pair_map_free(&trie->children);
    lk_free(context, trie->token);
}

lk_status lk_added_tokens_index(lk_tokenizer *tokenizer) {
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        const lk_added_token *token = &tokenizer->added[i];
        if (!token->normalized) {
            LK_TRY(trie_add(tokenizer->context, &tokenizer->raw_trie, token->content.bytes, token->content.length,
                            (int32_t)i));
            continue;
        }
        lk_pieces *pieces = &tokenizer->pieces;
        lk_pieces_clear(pieces);
        LK_TRY(lk_pieces_add_text(pieces, token->content.bytes, token->content.length, true));
        LK_TRY(lk_steps_run(tokenizer, &tokenizer->normalizers, pieces, &tokenizer->spare));
        LK_TRY(trie_add(tokenizer->context, &tokenizer->normalized_trie, pieces->text.data + pieces->items[0].begin,
                        pieces->items[0].length, (int32_t)i));
    }
    return LK_OK;
}

/* The longest token that starts at text[0]; -1: none. */
static int32_t trie_longest(const lk_trie *trie, const char *text, size_t length, size_t *size) {
    int32_t best = -1;
    uint32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        const lk_pair_entry *child = lk_pair_map_find(&trie->children, node, (unsigned char)text[i]);
        if (child == NULL) {
            break;
        }
        node = child->a;
        if (trie->token[node] >= 0) {
            best = trie->token[node];
            *size = i + 1;
        }
    }
    return best;
}

/* ---- sections ---- */

void lk_section_scan_init(lk_section_scan *scan, const lk_trie *trie, const char *text, size_t length,
                          bool parse_special) {
    *scan = (lk_section_scan){trie, text, length, 0, 0, parse_special, {0, 0, -1}};
}

static bool word_before(const char *text, size_t at) {
    int32_t character = 0;
    if (at > 0) {
        (void)lk_utf8_next(text + lk_utf8_previous(text, at), &character);
    }
    return at > 0 && lk_char_is_word(character);
}

static bool word_after(const char *text, size_t length, size_t at) {
    int32_t character = 0;
    if (at < length) {
        (void)lk_utf8_next(text + at, &character);
    }
    return at < length && lk_char_is_word(character);
}

/* Whether a token found at [begin, end) counts; widens it over the spaces that it takes with it. */
static bool accept(const lk_added_token *token, const lk_section_scan *scan, size_t *begin, size_t *end) {
    const char *text = scan->text;
    if (token->special && !scan->parse_special) {
        return false;
    }
    if (token->single_word && (word_before(text, *begin) || word_after(text, scan->length, *end))) {
        return false;
    }
    int32_t character;
    while (token->lstrip && *begin > scan->position) {
        size_t previous = lk_utf8_previous(text, *begin);
        (void)lk_utf8_next(text + previous, &character);
        if (!lk_char_is_space(character)) {
            break;
        }
        *begin = previous;
    }
    while (token->rstrip && *end < scan->length) {
        size_t size = lk_utf8_next(text + *end, &character);
        if (!lk_char_is_space(character)) {
            break;
        }
        *end += size;
    }
    return true;
}

bool lk_section_scan_next(const lk_tokenizer *tokenizer, lk_section_scan *scan, lk_section *out) {
    if (scan->pending.id >= 0) {
        *out = scan->pending;
        scan->pending.id = -1;
        return true;
    }
    while (scan->trie->nodes > 0 && scan->search < scan->length) {
        size_t size = 0;
        size_t at = scan->search;
        int32_t index = scan->trie->starts[(unsigned char)scan->text[at]]
                            ? trie_longest(scan->trie, scan->text + at, scan->length - at, &size)
                            : -1;
        if (index < 0) {
            scan->search++;
            continue;
        }
        scan->search += size;
        size_t begin = at, end = at + size;
        if (!accept(&tokenizer->added[index], scan, &begin, &end)) {
            continue;
        }
        scan->search = LK_MAX(scan->search, end);
        lk_section token = {begin, end, tokenizer->added[index].id};
        bool text_first = scan->position < begin;
        *out = text_first ? (lk_section){scan->position, begin, -1} : token;
        if (text_first) {
            scan->pending = token;
        }
        scan->position = end;
        return true;
    }
    if (scan->position < scan->length) {
        *out = (lk_section){scan->position, scan->length, -1};
        scan->position = scan->length;
        return true;
    }
    return false;
}
