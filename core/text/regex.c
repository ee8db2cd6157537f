#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string.h>

#include "core/text/regex.h"

struct lk_regex {
    lk_context *context;
    pcre2_general_context *memory;
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
};

static void *allocate(PCRE2_SIZE size, void *context) {
    return lk_alloc(context, size);
}

static void release(void *pointer, void *context) {
    if (pointer != NULL) {
        lk_free(context, pointer);
    }
}

static lk_status unsupported(lk_context *context, const char *source, const char *pattern, const char *what) {
    return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: regular expression %s: %s", source, pattern, what);
}

/* PCRE2 takes \s and \w for other sets than Oniguruma, \h for something else, and has no sets within sets. */
static lk_status translate(lk_context *context, const char *source, const char *pattern, size_t length, lk_text *out) {
    static const char word[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}";
    bool in_set = false;
    size_t set_begin = 0;
    for (size_t i = 0; i < length; i++) {
        char c = pattern[i];
        if (c == '\\' && i + 1 < length) {
            char next = pattern[++i];
            if (next == 's' || next == 'S') {
                lk_text_printf(out, "\\%c{White_Space}", next == 's' ? 'p' : 'P');
            } else if (next == 'w' || next == 'W') {
                if (in_set && next == 'W') {
                    return unsupported(context, source, pattern, "\\W within brackets");
                }
                lk_text_printf(out, "%s%s%s", in_set ? "" : next == 'w' ? "[" : "[^", word, in_set ? "" : "]");
            } else if (next == 'h' || next == 'H') {
                return unsupported(context, source, pattern, "\\h");
            } else {
                lk_text_append(out, pattern + i - 1, 2);
            }
            continue;
        }
        if (in_set) {
            if (c == '[' && i + 1 < length && pattern[i + 1] != ':') {
                return unsupported(context, source, pattern, "brackets within brackets");
            }
            if (c == '&' && i + 1 < length && pattern[i + 1] == '&') {
                return unsupported(context, source, pattern, "&& within brackets");
            }
            if (c == '[') { /* [:name:] */
                const char *close = memchr(pattern + i, ']', length - i);
                size_t size = close == NULL ? length - i : (size_t)(close - pattern) + 1 - i;
                lk_text_append(out, pattern + i, size);
                i += size - 1;
                continue;
            }
            in_set = c != ']' || i == set_begin;
        } else if (c == '[') {
            in_set = true;
            set_begin = i + 1 + (i + 1 < length && pattern[i + 1] == '^');
        }
        lk_text_append(out, &c, 1);
    }
    return lk_text_status(out);
}

lk_status lk_regex_compile(lk_context *context, const char *source, const char *pattern, size_t length,
                           lk_regex **out) {
    *out = NULL;
    lk_text translated;
    lk_text_init(&translated, context);
    lk_text_append(&translated, "", 0);
    lk_regex *regex = NULL;
    pcre2_compile_context *compile = NULL;
    lk_status status;
    LK_TRY_GOTO(translate(context, source, pattern, length, &translated), done);
    regex = lk_calloc(context, 1, sizeof *regex);
    if (regex == NULL) {
        goto memory;
    }
    regex->context = context;
    regex->memory = pcre2_general_context_create(allocate, release, context);
    compile = regex->memory == NULL ? NULL : pcre2_compile_context_create(regex->memory);
    if (compile == NULL) {
        goto memory;
    }
    pcre2_set_newline(compile, PCRE2_NEWLINE_LF);
    int error;
    PCRE2_SIZE offset;
    regex->code = pcre2_compile((PCRE2_SPTR)translated.data, translated.length,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK | PCRE2_MULTILINE, &error, &offset, compile);
    if (regex->code == NULL && error == PCRE2_ERROR_HEAP_FAILED) {
        goto memory;
    }
    if (regex->code == NULL) {
        PCRE2_UCHAR text[128] = "";
        pcre2_get_error_message(error, text, sizeof text);
        status = lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: regular expression %s: %s at offset %zu of %s", source,
                         pattern, (const char *)text, (size_t)offset, translated.data);
        goto done;
    }
    regex->match = pcre2_match_data_create_from_pattern(regex->code, regex->memory);
    regex->limits = pcre2_match_context_create(regex->memory);
    if (regex->match == NULL || regex->limits == NULL) {
        goto memory;
    }
    if (pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0) { /* otherwise it is interpreted: slower, the same */
        regex->stack = pcre2_jit_stack_create(32 * 1024, 1024 * 1024, regex->memory);
        if (regex->stack != NULL) {
            pcre2_jit_stack_assign(regex->limits, NULL, regex->stack);
        }
    }
    *out = regex;
    regex = NULL;
    status = LK_OK;
    goto done;
memory:
    status = lk_out_of_memory(context, length, "a regular expression");
done:
    if (compile != NULL) {
        pcre2_compile_context_free(compile);
    }
    lk_text_free(&translated);
    lk_regex_free(regex);
    return status;
}

void lk_regex_free(lk_regex *regex) {
    if (regex == NULL) {
        return;
    }
    pcre2_jit_stack_free(regex->stack);
    pcre2_match_context_free(regex->limits);
    pcre2_match_data_free(regex->match);
    pcre2_code_free(regex->code);
    pcre2_general_context_free(regex->memory);
    lk_free(regex->context, regex);
}

lk_status lk_regex_find(lk_regex *regex, const char *text, size_t length, size_t from, bool *found, size_t *begin,
                        size_t *end) {
    PCRE2_SPTR subject = (PCRE2_SPTR)(text != NULL ? text : "");
    int rc = pcre2_match(regex->code, subject, length, from, PCRE2_NO_UTF_CHECK, regex->match, regex->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) { /* the interpreter keeps its stack on the heap */
        rc = pcre2_match(regex->code, subject, length, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, regex->match,
                         regex->limits);
    }
    *found = rc >= 0;
    if (rc >= 0) {
        const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(regex->match);
        *begin = offsets[0];
        *end = offsets[1];
        return LK_OK;
    }
    if (rc == PCRE2_ERROR_NOMATCH) {
        return LK_OK;
    }
    if (rc == PCRE2_ERROR_NOMEMORY) {
        return lk_out_of_memory(regex->context, length, "matching a regular expression");
    }
    PCRE2_UCHAR message[128] = "";
    pcre2_get_error_message(rc, message, sizeof message);
    return lk_fail(regex->context, LK_STATUS_UNSUPPORTED,
                   "a regular expression of the tokenizer failed on the text: %s", (const char *)message);
}
