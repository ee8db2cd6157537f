#include <stdio.h>
#include <string.h>

#include "core/text/tokenizer_internal.h"
#include "core/text/utf8.h"

void lk_pieces_init(lk_pieces *pieces, lk_context *context) {
    *pieces = (lk_pieces){0};
    lk_text_init(&pieces->text, context);
}

void lk_pieces_free(lk_pieces *pieces) {
    lk_free(pieces->text.context, pieces->items);
    lk_text_free(&pieces->text);
    lk_pieces_init(pieces, pieces->text.context);
}

void lk_pieces_clear(lk_pieces *pieces) {
    pieces->text.length = 0;
    pieces->text.failed = false;
    pieces->count = 0;
    lk_text_append(&pieces->text, "", 0); /* so that data is never NULL */
}

lk_status lk_pieces_add(lk_pieces *pieces, size_t begin, size_t length, bool at_start) {
    if (pieces->count == pieces->capacity) {
        size_t capacity = LK_MAX((size_t)64, pieces->capacity * 2);
        lk_piece *items = lk_realloc(pieces->text.context, pieces->items, capacity, sizeof *items);
        if (items == NULL) {
            return lk_out_of_memory(pieces->text.context, capacity * sizeof *items, "pieces of a text");
        }
        pieces->items = items;
        pieces->capacity = capacity;
    }
    pieces->items[pieces->count++] = (lk_piece){begin, length, at_start};
    return LK_OK;
}

lk_status lk_pieces_close(lk_pieces *pieces, size_t begin, bool at_start) {
    LK_TRY(lk_text_status(&pieces->text));
    return lk_pieces_add(pieces, begin, pieces->text.length - begin, at_start);
}

lk_status lk_pieces_add_text(lk_pieces *pieces, const char *bytes, size_t length, bool at_start) {
    size_t begin = pieces->text.length;
    lk_text_append(&pieces->text, bytes, length);
    return lk_pieces_close(pieces, begin, at_start);
}

static const lk_step_kind *find_kind(const lk_step_table *table, const char *type) {
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->kinds[i].type, type) == 0) {
            return &table->kinds[i];
        }
    }
    return NULL;
}

/* Counts the steps (out->items NULL) or loads them; sequences may be nested to a small depth. */
static lk_status walk(lk_tokenizer *tokenizer, const lk_step_table *table, const json_t *json, int depth,
                      lk_steps *out) {
    char source[64];
    snprintf(source, sizeof source, "tokenizer.json: %s", table->section);
    if (!json_is_object(json)) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s is not an object", source);
    }
    const char *type = NULL;
    LK_TRY(lk_json_get_string(tokenizer->context, source, json, "type", true, &type));
    if (strcmp(type, "Sequence") == 0) {
        json_t *parts = NULL;
        LK_TRY(lk_json_get_array(tokenizer->context, source, json, table->list, true, &parts));
        if (depth == 8) {
            return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s: sequences are nested too deeply", source);
        }
        for (size_t i = 0; i < json_array_size(parts); i++) {
            LK_TRY(walk(tokenizer, table, json_array_get(parts, i), depth + 1, out));
        }
        return LK_OK;
    }
    const lk_step_kind *kind = find_kind(table, type);
    if (kind == NULL) {
        return lk_fail(tokenizer->context, LK_STATUS_UNSUPPORTED, "tokenizer.json: %s of type \"%s\" is not supported",
                       table->section, type);
    }
    if (out->items != NULL) {
        snprintf(source, sizeof source, "tokenizer.json: %s %s", table->section, type);
        lk_step *step = &out->items[out->count];
        step->kind = kind;
        LK_TRY(kind->load(tokenizer, source, json, step));
    }
    out->count++;
    return LK_OK;
}

lk_status lk_steps_load(lk_tokenizer *tokenizer, const lk_step_table *table, const json_t *json, lk_steps *out) {
    *out = (lk_steps){0};
    if (json == NULL || json_is_null(json)) {
        return LK_OK;
    }
    LK_TRY(walk(tokenizer, table, json, 0, out));
    out->items = lk_arena_alloc(&tokenizer->arena, (out->count + 1) * sizeof *out->items);
    if (out->items == NULL) {
        return lk_out_of_memory(tokenizer->context, out->count * sizeof *out->items, table->section);
    }
    out->count = 0;
    return walk(tokenizer, table, json, 0, out);
}

lk_status lk_steps_run(lk_tokenizer *tokenizer, const lk_steps *steps, lk_pieces *pieces, lk_pieces *spare) {
    for (size_t i = 0; i < steps->count; i++) {
        lk_pieces_clear(spare);
        LK_TRY(steps->items[i].kind->run(tokenizer, &steps->items[i], pieces, spare));
        LK_TRY(lk_text_status(&spare->text));
        lk_pieces swapped = *pieces;
        *pieces = *spare;
        *spare = swapped;
    }
    return LK_OK;
}

lk_status lk_step_load_nothing(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    (void)tokenizer;
    (void)source;
    (void)json;
    (void)step;
    return LK_OK;
}

lk_status lk_step_load_text(lk_tokenizer *tokenizer, const char *source, const json_t *json, const char *key,
                            bool required, lk_slice *out) {
    const char *value = out->bytes;
    LK_TRY(lk_json_get_string(tokenizer->context, source, json, key, required, &value));
    return value == NULL ? LK_OK : lk_tokenizer_keep(tokenizer, value, strlen(value), out);
}

lk_status lk_step_load_pattern(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    json_t *pattern = NULL;
    LK_TRY(lk_json_get_object(tokenizer->context, source, json, "pattern", true, &pattern));
    LK_TRY(lk_step_load_text(tokenizer, source, pattern, "String", false, &step->pattern));
    if (step->pattern.bytes != NULL) {
        return LK_OK;
    }
    const char *text = NULL;
    LK_TRY(lk_json_get_string(tokenizer->context, source, pattern, "Regex", true, &text));
    return lk_tokenizer_regex(tokenizer, source, text, strlen(text), &step->regex);
}

static bool find_literal(const lk_matches *matches, size_t *begin, size_t *end) {
    lk_slice pattern = matches->step->pattern;
    if (pattern.length == 0 || matches->length < pattern.length) {
        return false;
    }
    size_t last = matches->length - pattern.length;
    for (size_t at = matches->from; at <= last; at++) {
        const char *hit = memchr(matches->text + at, pattern.bytes[0], last - at + 1);
        if (hit == NULL) {
            return false;
        }
        at = (size_t)(hit - matches->text);
        if (memcmp(hit, pattern.bytes, pattern.length) == 0) {
            *begin = at;
            *end = at + pattern.length;
            return true;
        }
    }
    return false;
}

lk_status lk_matches_next(lk_matches *matches, bool *found, size_t *begin, size_t *end) {
    *found = false;
    while (matches->from <= matches->length) {
        if (matches->step->regex == NULL) {
            *found = find_literal(matches, begin, end);
        } else {
            LK_TRY(
                lk_regex_find(matches->step->regex, matches->text, matches->length, matches->from, found, begin, end));
        }
        if (!*found) {
            matches->from = matches->length + 1;
            return LK_OK;
        }
        if (*begin != *end || !matches->any || *end != matches->last_end) {
            matches->from = matches->last_end = *end;
            matches->any = true;
            return LK_OK;
        }
        /* an empty match right behind the last one: look again from the next character */
        int32_t character;
        matches->from += matches->from < matches->length ? lk_utf8_next(matches->text + matches->from, &character) : 1;
        *found = false;
    }
    return LK_OK;
}
