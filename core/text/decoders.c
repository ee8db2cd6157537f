/* The decoders of tokenizer.json: pieces are the tokens; at the end they are joined. */
#include <string.h>

#include "core/text/tokenizer_internal.h"
#include "core/text/utf8.h"

static bool starts_with(const char *text, size_t length, lk_slice prefix) {
    return length >= prefix.length && memcmp(text, prefix.bytes, prefix.length) == 0;
}

/* ---- ByteLevel ---- */

static lk_status run_byte_level(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)step;
    lk_text bytes;
    lk_text_init(&bytes, tokenizer->context);
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + in->items[i].begin;
        size_t before = bytes.length;
        for (size_t at = 0; at < in->items[i].length;) {
            int32_t character;
            at += lk_utf8_next(text + at, &character);
            int byte = lk_byte_map_byte(character);
            if (byte < 0) { /* not a byte-level token: it stands for itself */
                bytes.length = before;
                lk_text_append(&bytes, text, in->items[i].length);
                break;
            }
            char value = (char)byte;
            lk_text_append(&bytes, &value, 1);
        }
    }
    lk_status status = lk_text_status(&bytes);
    if (status == LK_OK) {
        if (tokenizer->raw_bytes) {
            lk_text_append(&out->text, bytes.data != NULL ? bytes.data : "", bytes.length);
        } else {
            lk_utf8_append_repaired(&out->text, bytes.data != NULL ? bytes.data : "", bytes.length);
        }
        status = lk_pieces_close(out, 0, true);
    }
    lk_text_free(&bytes);
    return status;
}

/* ---- ByteFallback: <0x0A> ---- */

static int hexadecimal(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static int fallback_byte(const char *text, size_t length) {
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') {
        return -1;
    }
    int high = hexadecimal(text[3]), low = hexadecimal(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* A run of bytes is text when all of it is valid, and one U+FFFD a byte otherwise. */
static lk_status put_byte_run(const lk_tokenizer *tokenizer, lk_pieces *out, const lk_text *run) {
    if (run->length == 0) {
        return LK_OK;
    }
    if (tokenizer->raw_bytes || lk_utf8_valid_prefix(run->data, run->length) == run->length) {
        return lk_pieces_add_text(out, run->data, run->length, false);
    }
    for (size_t i = 0; i < run->length; i++) {
        LK_TRY(lk_pieces_add_text(out, "\xEF\xBF\xBD", 3, false));
    }
    return LK_OK;
}

static lk_status run_byte_fallback(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)step;
    lk_text run;
    lk_text_init(&run, tokenizer->context);
    lk_status status = LK_OK;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + in->items[i].begin;
        int byte = fallback_byte(text, in->items[i].length);
        if (byte >= 0) {
            char value = (char)byte;
            lk_text_append(&run, &value, 1);
            continue;
        }
        LK_TRY_GOTO(put_byte_run(tokenizer, out, &run), done);
        run.length = 0;
        LK_TRY_GOTO(lk_pieces_add_text(out, text, in->items[i].length, false), done);
    }
    LK_TRY_GOTO(lk_text_status(&run), done);
    status = put_byte_run(tokenizer, out, &run);
done:
    lk_text_free(&run);
    return status;
}

/* ---- Fuse, Strip ---- */

static lk_status run_fuse(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    (void)step;
    for (size_t i = 0; i < in->count; i++) {
        lk_text_append(&out->text, in->text.data + in->items[i].begin, in->items[i].length);
    }
    return lk_pieces_close(out, 0, true);
}

static lk_status load_strip(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    int64_t start = 0, stop = 0;
    LK_TRY(lk_step_load_text(tokenizer, source, json, "content", true, &step->content));
    LK_TRY(lk_json_get_int(tokenizer->context, source, json, "start", true, 0, INT32_MAX, &start));
    LK_TRY(lk_json_get_int(tokenizer->context, source, json, "stop", true, 0, INT32_MAX, &stop));
    step->start = (size_t)start;
    step->stop = (size_t)stop;
    if (step->content.length == 0) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s: \"content\" is empty", source);
    }
    return LK_OK;
}

static lk_status run_strip(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + in->items[i].begin;
        size_t length = in->items[i].length, size = step->content.length;
        for (size_t cut = 0; cut < step->start && starts_with(text, length, step->content); cut++) {
            text += size;
            length -= size;
        }
        for (size_t cut = 0;
             cut < step->stop && length >= size && starts_with(text + length - size, size, step->content); cut++) {
            length -= size;
        }
        LK_TRY(lk_pieces_add_text(out, text, length, false));
    }
    return LK_OK;
}

/* ---- Metaspace ---- */

static lk_status load_metaspace(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    /* the same settings as the pre-tokenizer of this name */
    for (size_t i = 0; i < lk_pre_tokenizers.count; i++) {
        if (strcmp(lk_pre_tokenizers.kinds[i].type, "Metaspace") == 0) {
            return lk_pre_tokenizers.kinds[i].load(tokenizer, source, json, step);
        }
    }
    return LK_STATUS_INTERNAL;
}

static lk_status run_metaspace(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + in->items[i].begin, *end = text + in->items[i].length;
        size_t begin = out->text.length;
        while (text < end) {
            if (starts_with(text, (size_t)(end - text), step->content)) {
                lk_text_append(&out->text, " ", i > 0 || !(step->always || step->first));
                text += step->content.length;
            } else {
                lk_text_append(&out->text, text++, 1);
            }
        }
        LK_TRY(lk_pieces_close(out, begin, false));
    }
    return LK_OK;
}

/* ---- WordPiece, BPEDecoder ---- */

static lk_status load_word_piece(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    step->pattern = (lk_slice){"##", 2};
    step->clean_text = true;
    LK_TRY(lk_step_load_text(tokenizer, source, json, "prefix", false, &step->pattern));
    return lk_json_get_bool(tokenizer->context, source, json, "cleanup", false, &step->clean_text);
}

/* Takes the space away that tokenisation put before punctuation and contractions; one rule after the other. */
static void clean_up(char *text, size_t *length) {
    static const struct {
        lk_slice from, to;
    } rules[] = {
#define RULE(from, to)              \
    {                               \
        {from, sizeof(from) - 1}, { \
            to, sizeof(to) - 1      \
        }                           \
    }
        RULE(" .", "."),   RULE(" ?", "?"),     RULE(" !", "!"),     RULE(" ,", ","),
        RULE(" ' ", "'"),  RULE(" n't", "n't"), RULE(" 'm", "'m"),   RULE(" do not", " don't"),
        RULE(" 's", "'s"), RULE(" 've", "'ve"), RULE(" 're", "'re"),
#undef RULE
    };
    for (size_t rule = 0; rule < LK_COUNT(rules); rule++) { /* no rule makes the text longer: done in place */
        size_t written = 0;
        for (size_t at = 0; at < *length;) {
            if (starts_with(text + at, *length - at, rules[rule].from)) {
                memcpy(text + written, rules[rule].to.bytes, rules[rule].to.length);
                written += rules[rule].to.length;
                at += rules[rule].from.length;
            } else {
                text[written++] = text[at++];
            }
        }
        *length = written;
    }
}

static lk_status run_word_piece(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + in->items[i].begin;
        size_t length = in->items[i].length, begin = out->text.length;
        if (i > 0 && starts_with(text, length, step->pattern)) {
            text += step->pattern.length;
            length -= step->pattern.length;
        } else if (i > 0) {
            lk_text_append(&out->text, " ", 1);
        }
        lk_text_append(&out->text, text, length);
        LK_TRY(lk_text_status(&out->text));
        if (step->clean_text) {
            size_t cleaned = out->text.length - begin;
            clean_up(out->text.data + begin, &cleaned);
            out->text.length = begin + cleaned;
        }
        LK_TRY(lk_pieces_close(out, begin, false));
    }
    return LK_OK;
}

static lk_status load_bpe(lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step) {
    step->pattern = (lk_slice){"</w>", 4};
    return lk_step_load_text(tokenizer, source, json, "suffix", false, &step->pattern);
}

static lk_status run_bpe(lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out) {
    (void)tokenizer;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + in->items[i].begin;
        size_t begin = out->text.length, copied = 0, from, to;
        lk_matches matches = {.step = step, .text = text, .length = in->items[i].length};
        for (bool found = true; found;) {
            LK_TRY(lk_matches_next(&matches, &found, &from, &to));
            if (found) {
                lk_text_append(&out->text, text + copied, from - copied);
                lk_text_append(&out->text, " ", i + 1 < in->count);
                copied = to;
            }
        }
        lk_text_append(&out->text, text + copied, in->items[i].length - copied);
        LK_TRY(lk_pieces_close(out, begin, false));
    }
    return LK_OK;
}

static const lk_step_kind kinds[] = {
    {"ByteLevel", true, lk_step_load_nothing, run_byte_level},
    {"Replace", false, lk_step_load_replace, lk_step_run_replace},
    {"ByteFallback", true, lk_step_load_nothing, run_byte_fallback},
    {"Fuse", false, lk_step_load_nothing, run_fuse},
    {"Strip", false, load_strip, run_strip},
    {"Metaspace", false, load_metaspace, run_metaspace},
    {"WordPiece", false, load_word_piece, run_word_piece},
    {"BPEDecoder", false, load_bpe, run_bpe},
};
const lk_step_table lk_decoders = {"decoder", "decoders", kinds, LK_COUNT(kinds)};
