/* The pre-tokenizers of tokenizer.json: they cut pieces into smaller ones that the model encodes one by one. */
#include <string.h>

#include "core/text/tokenizer_internal.h"
#include "core/text/utf8.h"

/* Cuts one piece at matches, which are given from left to right, by one of the behaviours. Empty pieces vanish. */
typedef struct cutter {
    lk_pieces *out;
    lk_split_behavior behavior;
    bool invert;
    lk_piece whole;
    size_t at;     /* end of what was given so far, within the piece */
    bool has_last; /* `last` waits: the next part may join it */
    lk_piece last;
    bool last_match; /* whether the part given last was a match */
} cutter;

static lk_status put(cutter *cut, size_t begin, size_t end) {
    return begin == end
               ? LK_OK
               : lk_pieces_add(cut->out, cut->whole.begin + begin, end - begin, cut->whole.at_start && begin == 0);
}

static lk_status flush(cutter *cut) {
    if (cut->has_last) {
        cut->has_last = false;
        return put(cut, cut->last.begin, cut->last.begin + cut->last.length);
    }
    return LK_OK;
}

static lk_status give(cutter *cut, size_t begin, size_t end, bool match) {
    match = match != cut->invert;
    bool joins = false;
    switch (cut->behavior) {
    case LK_SPLIT_REMOVED:
        return match ? LK_OK : put(cut, begin, end);
    case LK_SPLIT_ISOLATED:
        return put(cut, begin, end);
    case LK_SPLIT_MERGED_WITH_PREVIOUS:
        joins = match && !cut->last_match;
        break;
    case LK_SPLIT_MERGED_WITH_NEXT:
        joins = !match && cut->last_match;
        break;
    case LK_SPLIT_CONTIGUOUS:
        joins = match == cut->last_match;
        break;
    }
    cut->last_match = match;
    if (joins && cut->has_last) {
        cut->last.length = end - cut->last.begin;
        return LK_OK;
    }
    LK_TRY(flush(cut));
    cut->last = (lk_piece){.begin = begin, .length = end - begin};
    cut->has_last = true;
    return LK_OK;
}

static lk_status cut_match(cutter *cut, size_t begin, size_t end) {
    if (cut->at < begin) {
        LK_TRY(give(cut, cut->at, begin, false));
    }
    cut->at = end;
    return give(cut, begin, end, true);
}

static lk_status cut_end(cutter *cut) {
    if (cut->at < cut->whole.length) {
        LK_TRY(give(cut, cut->at, cut->whole.length, false));
    }
    return flush(cut);
}

/* Steps that only cut leave the text as it is. */
static void take_text(lk_pieces *in, lk_pieces *out) {
    lk_text text = out->text;
    out->text = in->text;
    in->text = text;
}

/* Every character of which `is` holds is a match. */
static lk_status cut_characters(lk_pieces *in, lk_pieces *out, bool (*is)(int32_t), lk_split_behavior behavior) {
    take_text(in, out);
    for (size_t i = 0; i < in->count; i++) {
        cutter cut = {.out = out, .behavior = behavior, .whole = in->items[i]};
        for (size_t at = 0; at < cut.whole.length;) {
            int32_t character;
            size_t size = lk_utf8_next(out->text.data + cut.whole.begin + at, &character);
            if (is(character)) {
                LK_TRY(cut_match(&cut, at, at + size));
            }
            at += size;
        }
        LK_TRY(cut_end(&cut));
    }
    return LK_OK;
}

static lk_status cut_pattern(const lk_step *step, lk_pieces *in, lk_pieces *out) {
    take_text(in, out);
    for (size_t i = 0; i < in->count; i++) {
        cutter cut = {.out = out, .behavior = step->behavior, .invert = step->invert, .whole = in->items[i]};
        lk_matches matches = {.step = step, .text = out->text.data + cut.whole.begin, .length = cut.whole.length};
        for (bool found = true; found;) {
            size_t begin, end;
            LK_TRY(lk_matches_next(&matches, &found, &begin, &end));
            if (found) {
                LK_TRY(cut_match(&cut, begin, end));
            }
        }
        LK_TRY(cut_end(&cut));
    }
    return LK_OK;
}

static lk_status load_behavior(lk_tokenizer *tokenizer, const char *source, const json_t *json, bool required,
                               lk_step *step) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = names[step->behavior];
    LK_TRY(lk_json_get_string(tokenizer->context, source, json, "behavior", required, &name));
    for (size_t i = 0; i < LK_COUNT(names); i++) {
        if (strcmp(names[i], name) == 0) {
            step->behavior = (lk_split_behavior)i;
            return LK_OK;
        }
    }
    return lk_fail(tokenizer->context, LK_STATUS_UNSUPPORTED, "%s: \"behavior\" is \"%s\", which is not known", source,
                   name);
}

/* ---- ByteLevel ---- */

static lk_status load_byte_level(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    step->always = true;
    step->split = true;
    LK_TRY(lk_json_get_bool(tokenizer->context, source, json, "add_prefix_space", false, &step->always));
    LK_TRY(lk_json_get_bool(tokenizer->context, source, json, "use_regex", false, &step->split));
    return step->split ? lk_tokenizer_regex(tokenizer, source, gpt2, sizeof gpt2 - 1, &step->regex) : LK_OK;
}

static lk_status put_bytes(lk_pieces *out, const char *bytes, size_t length, bool at_start) {
    size_t begin = out->text.length;
    lk_byte_map_append(&out->text, bytes, length);
    return lk_pieces_close(out, begin, at_start);
}

static lk_status run_byte_level(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    lk_text spaced;
    lk_text_init(&spaced, tokenizer->context);
    lk_status status = LK_OK;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + in->items[i].begin;
        size_t length = in->items[i].length;
        if (step->always && length > 0 && text[0] != ' ') {
            spaced.length = 0;
            lk_text_append(&spaced, " ", 1);
            lk_text_append(&spaced, text, length);
            LK_TRY_GOTO(lk_text_status(&spaced), done);
            text = spaced.data;
            length = spaced.length;
        }
        if (!step->split) {
            LK_TRY_GOTO(put_bytes(out, text, length, in->items[i].at_start), done);
            continue;
        }
        lk_matches matches = {.step = step, .text = text, .length = length};
        for (bool found = true; found;) {
            size_t begin, end;
            LK_TRY_GOTO(lk_matches_next(&matches, &found, &begin, &end), done);
            if (found) { /* the expression matches everywhere, so there is nothing between matches */
                LK_TRY_GOTO(put_bytes(out, text + begin, end - begin, in->items[i].at_start && begin == 0), done);
            }
        }
    }
done:
    lk_text_free(&spaced);
    return status;
}

/* ---- Metaspace ---- */

static lk_status load_metaspace(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    lk_context *context = tokenizer->context;
    bool prefix = true;
    step->split = true;
    const char *scheme = NULL;
    step->content = (lk_slice){"\xE2\x96\x81", 3};
    LK_TRY(lk_step_load_text(tokenizer, source, json, "replacement", false, &step->content));
    LK_TRY(lk_json_get_bool(context, source, json, "add_prefix_space", false, &prefix));
    LK_TRY(lk_json_get_string(context, source, json, "prepend_scheme", false, &scheme));
    LK_TRY(lk_json_get_bool(context, source, json, "split", false, &step->split));
    if (scheme == NULL) {
        scheme = prefix ? "always" : "never";
    }
    step->always = strcmp(scheme, "always") == 0;
    step->first = strcmp(scheme, "first") == 0;
    if (!step->always && !step->first && strcmp(scheme, "never") != 0) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"prepend_scheme\" is \"%s\", expected first, always or never",
                       source, scheme);
    }
    if (step->content.length == 0) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"replacement\" is empty", source);
    }
    return LK_OK;
}

static lk_status run_metaspace(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    lk_slice mark = step->content;
    for (size_t i = 0; i < in->count; i++) {
        lk_piece piece = in->items[i];
        const char *text = in->text.data + piece.begin;
        size_t begin = out->text.length;
        bool marked = piece.length > 0 &&
                      (text[0] == ' ' || (piece.length >= mark.length && memcmp(text, mark.bytes, mark.length) == 0));
        if (!marked && (step->always || (step->first && piece.at_start))) {
            lk_text_append(&out->text, mark.bytes, mark.length);
        }
        for (size_t at = 0; at < piece.length;) {
            const char *space = memchr(text + at, ' ', piece.length - at);
            size_t run = space == NULL ? piece.length - at : (size_t)(space - text) - at;
            lk_text_append(&out->text, text + at, run);
            if (space != NULL) {
                lk_text_append(&out->text, mark.bytes, mark.length);
            }
            at += run + (space != NULL);
        }
        LK_TRY(lk_text_status(&out->text));
        cutter cut = {.out = out,
                      .behavior = LK_SPLIT_MERGED_WITH_NEXT,
                      .whole = {begin, out->text.length - begin, piece.at_start}};
        lk_step literal = {.pattern = mark};
        lk_matches matches = {.step = &literal, .text = out->text.data + begin, .length = out->text.length - begin};
        for (bool found = step->split; found;) {
            size_t from, to;
            LK_TRY(lk_matches_next(&matches, &found, &from, &to));
            if (found) {
                LK_TRY(cut_match(&cut, from, to));
            }
        }
        LK_TRY(cut_end(&cut));
    }
    return LK_OK;
}

/* ---- the small ones ---- */

static lk_status load_split(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    LK_TRY(lk_step_load_pattern(tokenizer, source, json, step));
    LK_TRY(load_behavior(tokenizer, source, json, true, step));
    return lk_json_get_bool(tokenizer->context, source, json, "invert", false, &step->invert);
}

static lk_status run_split(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    return cut_pattern(step, in, out);
}

static lk_status load_delimiter(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    step->behavior = LK_SPLIT_REMOVED;
    return lk_step_load_text(tokenizer, source, json, "delimiter", true, &step->pattern);
}

static lk_status load_digits(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    bool individual = false;
    LK_TRY(lk_json_get_bool(tokenizer->context, source, json, "individual_digits", false, &individual));
    step->behavior = individual ? LK_SPLIT_ISOLATED : LK_SPLIT_CONTIGUOUS;
    return LK_OK;
}

static lk_status run_digits(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    return cut_characters(in, out, lk_char_is_numeric, step->behavior);
}

static lk_status load_punctuation(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    step->behavior = LK_SPLIT_ISOLATED;
    return load_behavior(tokenizer, source, json, false, step);
}

static lk_status run_punctuation(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    return cut_characters(in, out, lk_char_is_punctuation, step->behavior);
}

static lk_status run_whitespace_split(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    (void)step;
    return cut_characters(in, out, lk_char_is_space, LK_SPLIT_REMOVED);
}

static lk_status run_bert(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    (void)step;
    LK_TRY(cut_characters(in, out, lk_char_is_space, LK_SPLIT_REMOVED));
    lk_pieces words = *out;
    *out = *in;
    *in = words;
    out->count = 0;
    return cut_characters(in, out, lk_char_is_punctuation, LK_SPLIT_ISOLATED);
}

static lk_status load_whitespace(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    static const char pattern[] = "\\w+|[^\\w\\s]+";
    (void)json;
    step->behavior = LK_SPLIT_REMOVED;
    step->invert = true;
    return lk_tokenizer_regex(tokenizer, source, pattern, sizeof pattern - 1, &step->regex);
}

static const lk_step_kind kinds[] = {
    {"ByteLevel", false, load_byte_level, run_byte_level},
    {"Split", false, load_split, run_split},
    {"Digits", false, load_digits, run_digits},
    {"Metaspace", false, load_metaspace, run_metaspace},
    {"BertPreTokenizer", false, lk_step_load_nothing, run_bert},
    {"Whitespace", false, load_whitespace, run_split},
    {"WhitespaceSplit", false, lk_step_load_nothing, run_whitespace_split},
    {"Punctuation", false, load_punctuation, run_punctuation},
    {"CharDelimiterSplit", false, load_delimiter, run_split},
};
const lk_step_table lk_pre_tokenizers = {"pre_tokenizer", "pretokenizers", kinds, LK_COUNT(kinds)};
