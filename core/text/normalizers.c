/* The normalizers of tokenizer.json. Each rewrites every piece; text is valid UTF-8 throughout. */
#include <string.h>
#include <utf8proc.h>

#include "core/text/tokenizer_internal.h"
#include "core/text/utf8.h"

static void append_character(lk_text *text, int32_t character) {
    char bytes[4];
    lk_text_append(text, bytes, lk_utf8_encode(character, bytes));
}

/* ---- Unicode normal forms ---- */

static lk_status append_mapped(lk_tokenizer *tokenizer, lk_text *out, const char *bytes, size_t length, int options) {
    if (length > INT32_MAX / 32) {
        return lk_fail(tokenizer->context, LK_STATUS_UNSUPPORTED, "a text of %zu bytes is too long to be normalised",
                       length);
    }
    utf8proc_ssize_t count = utf8proc_decompose((const utf8proc_uint8_t *)bytes, (utf8proc_ssize_t)length, NULL, 0,
                                                (utf8proc_option_t)options);
    if (count < 0) {
        return lk_fail(tokenizer->context, LK_STATUS_INTERNAL, "Unicode normalisation failed: %s",
                       utf8proc_errmsg(count));
    }
    utf8proc_int32_t *buffer = lk_alloc(tokenizer->context, ((size_t)count + 1) * sizeof *buffer);
    if (buffer == NULL) {
        return lk_out_of_memory(tokenizer->context, ((size_t)count + 1) * sizeof *buffer, "Unicode normalisation");
    }
    (void)utf8proc_decompose((const utf8proc_uint8_t *)bytes, (utf8proc_ssize_t)length, buffer, count,
                             (utf8proc_option_t)options);
    utf8proc_ssize_t written = utf8proc_reencode(buffer, count, (utf8proc_option_t)options);
    lk_text_append(out, (const char *)buffer, (size_t)written);
    lk_free(tokenizer->context, buffer);
    return LK_OK;
}

static bool is_ascii(const char *bytes, size_t length) {
    unsigned char seen = 0;
    for (size_t i = 0; i < length; i++) {
        seen |= (unsigned char)bytes[i];
    }
    return seen < 0x80;
}

/* ASCII is its own normal form; it is most of most texts, so it is copied line by line where that is safe. */
static lk_status normalise(lk_tokenizer *tokenizer, lk_pieces *in, lk_pieces *out, int options) {
    for (size_t i = 0; i < in->count; i++) {
        const char *bytes = in->text.data + in->items[i].begin;
        size_t length = in->items[i].length, begin = out->text.length;
        for (size_t at = 0; at < length;) {
            /* a line feed composes with nothing and is never reordered: a safe place to cut */
            const char *line = memchr(bytes + at, '\n', length - at);
            size_t size = line == NULL ? length - at : (size_t)(line - bytes) + 1 - at;
            if (is_ascii(bytes + at, size)) {
                lk_text_append(&out->text, bytes + at, size);
            } else {
                LK_TRY(append_mapped(tokenizer, &out->text, bytes + at, size, options));
            }
            at += size;
        }
        LK_TRY(lk_pieces_close(out, begin, in->items[i].at_start));
    }
    return LK_OK;
}

static lk_status run_nfc(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)step;
    return normalise(tokenizer, in, out, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
}

static lk_status run_nfd(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)step;
    return normalise(tokenizer, in, out, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
}

static lk_status run_nfkc(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)step;
    return normalise(tokenizer, in, out, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
}

static lk_status run_nfkd(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)step;
    return normalise(tokenizer, in, out, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}

/* ---- one character at a time ---- */

/* Appends what a character becomes. */
typedef void (*character_map)(lk_text *out, int32_t character);

static lk_status map_characters(lk_pieces *in, lk_pieces *out, character_map map) {
    for (size_t i = 0; i < in->count; i++) {
        const char *at = in->text.data + in->items[i].begin, *end = at + in->items[i].length;
        size_t begin = out->text.length;
        while (at < end) {
            int32_t character;
            at += lk_utf8_next(at, &character);
            map(&out->text, character);
        }
        LK_TRY(lk_pieces_close(out, begin, in->items[i].at_start));
    }
    return LK_OK;
}

static void to_lower(lk_text *out, int32_t character) {
    if (character == 0x130) { /* the only character whose lower case is two (without regard to its neighbours) */
        lk_text_append(out, "i\xCC\x87", 3);
    } else {
        append_character(out, utf8proc_tolower(character));
    }
}

static void without_marks(lk_text *out, int32_t character) {
    if (!lk_char_is_mark(character)) {
        append_character(out, character);
    }
}

static void without_nonspacing(lk_text *out, int32_t character) {
    if (!lk_char_is_nonspacing(character)) {
        append_character(out, character);
    }
}

static void cleaned(lk_text *out, int32_t character) {
    if (character == '\t' || character == '\n' || character == '\r') {
        lk_text_append(out, " ", 1);
    } else if (character != 0xFFFD && !lk_char_is_other(character)) {
        append_character(out, lk_char_is_space(character) ? ' ' : character);
    }
}

static void cjk_apart(lk_text *out, int32_t character) {
    bool apart = lk_char_is_cjk(character);
    lk_text_append(out, " ", apart);
    append_character(out, character);
    lk_text_append(out, " ", apart);
}

static lk_status run_lowercase(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    (void)step;
    return map_characters(in, out, to_lower);
}

static lk_status run_strip_accents(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    (void)step;
    return map_characters(in, out, without_marks);
}

static void swap(lk_pieces *a, lk_pieces *b) {
    lk_pieces kept = *a;
    *a = *b;
    *b = kept;
    lk_pieces_clear(b);
}

static lk_status load_bert(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    lk_context *context = tokenizer->context;
    step->clean_text = step->cjk = step->lowercase = true;
    LK_TRY(lk_json_get_bool(context, source, json, "clean_text", false, &step->clean_text));
    LK_TRY(lk_json_get_bool(context, source, json, "handle_chinese_chars", false, &step->cjk));
    LK_TRY(lk_json_get_bool(context, source, json, "lowercase", false, &step->lowercase));
    step->strip_accents = step->lowercase;
    return lk_json_get_bool(context, source, json, "strip_accents", false, &step->strip_accents);
}

static lk_status run_bert(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    /* each part writes *out, which is then the next one's input */
    if (step->clean_text) {
        LK_TRY(map_characters(in, out, cleaned));
        swap(in, out);
    }
    if (step->cjk) {
        LK_TRY(map_characters(in, out, cjk_apart));
        swap(in, out);
    }
    if (step->strip_accents) {
        LK_TRY(normalise(tokenizer, in, out, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE));
        swap(in, out);
        LK_TRY(map_characters(in, out, without_nonspacing));
        swap(in, out);
    }
    if (step->lowercase) {
        LK_TRY(map_characters(in, out, to_lower));
        swap(in, out);
    }
    swap(out, in);
    return LK_OK;
}

/* ---- whole pieces ---- */

static lk_status load_prepend(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    return lk_step_load_text(tokenizer, source, json, "prepend", true, &step->content);
}

static lk_status run_prepend(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    for (size_t i = 0; i < in->count; i++) {
        size_t begin = out->text.length;
        if (in->items[i].length > 0) {
            lk_text_append(&out->text, step->content.bytes, step->content.length);
        }
        lk_text_append(&out->text, in->text.data + in->items[i].begin, in->items[i].length);
        LK_TRY(lk_pieces_close(out, begin, in->items[i].at_start));
    }
    return LK_OK;
}

static lk_status load_strip(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    step->left = step->right = true;
    LK_TRY(lk_json_get_bool(tokenizer->context, source, json, "strip_left", false, &step->left));
    return lk_json_get_bool(tokenizer->context, source, json, "strip_right", false, &step->right);
}

static lk_status run_strip(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data;
        size_t begin = in->items[i].begin, end = begin + in->items[i].length;
        int32_t character;
        while (step->left && begin < end) {
            size_t size = lk_utf8_next(text + begin, &character);
            if (!lk_char_is_space(character)) {
                break;
            }
            begin += size;
        }
        while (step->right && begin < end) {
            size_t last = lk_utf8_previous(text, end);
            (void)lk_utf8_next(text + last, &character);
            if (!lk_char_is_space(character)) {
                break;
            }
            end = last;
        }
        LK_TRY(lk_pieces_add_text(out, text + begin, end - begin, in->items[i].at_start));
    }
    return LK_OK;
}

lk_status lk_step_load_replace(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    LK_TRY(lk_step_load_pattern(tokenizer, source, json, step));
    return lk_step_load_text(tokenizer, source, json, "content", true, &step->content);
}

lk_status lk_step_run_replace(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + in->items[i].begin;
        size_t begin = out->text.length, copied = 0, from, to;
        lk_matches matches = {.step = step, .text = text, .length = in->items[i].length};
        for (bool found = true; found;) {
            LK_TRY(lk_matches_next(&matches, &found, &from, &to));
            if (found) {
                lk_text_append(&out->text, text + copied, from - copied);
                lk_text_append(&out->text, step->content.bytes, step->content.length);
                copied = to;
            }
        }
        lk_text_append(&out->text, text + copied, in->items[i].length - copied);
        LK_TRY(lk_pieces_close(out, begin, in->items[i].at_start));
    }
    return LK_OK;
}

static lk_status run_byte_level(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    (void)step;
    for (size_t i = 0; i < in->count; i++) {
        size_t begin = out->text.length;
        lk_byte_map_append(&out->text, in->text.data + in->items[i].begin, in->items[i].length);
        LK_TRY(lk_pieces_close(out, begin, in->items[i].at_start));
    }
    return LK_OK;
}

static const lk_step_kind kinds[] = {
    {"NFC", false, lk_step_load_nothing, run_nfc},
    {"NFD", false, lk_step_load_nothing, run_nfd},
    {"NFKC", false, lk_step_load_nothing, run_nfkc},
    {"NFKD", false, lk_step_load_nothing, run_nfkd},
    {"Lowercase", false, lk_step_load_nothing, run_lowercase},
    {"Strip", false, load_strip, run_strip},
    {"StripAccents", false, lk_step_load_nothing, run_strip_accents},
    {"BertNormalizer", false, load_bert, run_bert},
    {"Prepend", false, load_prepend, run_prepend},
    {"Replace", false, lk_step_load_replace, lk_step_run_replace},
    {"ByteLevel", false, lk_step_load_nothing, run_byte_level},
};
const lk_step_table lk_normalizers = {"normalizer", "normalizers", kinds, LK_COUNT(kinds)};
