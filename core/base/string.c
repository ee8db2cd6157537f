#include <stdio.h>
#include <string.h>

#include "core/base/base.h"

void lk_text_init(lk_text *text, lk_context *context) {
    *text = (lk_text){.context = context};
}

static bool reserve(lk_text *text, size_t more) {
    size_t needed;
    if (text->failed || !lk_add_size(text->length + 1, more, &needed) || needed > SIZE_MAX / 2) {
        text->failed = true;
        return false;
    }
    if (needed > text->capacity) {
        size_t capacity = LK_MAX(needed, LK_MAX((size_t)128, text->capacity * 2));
        char *data = lk_realloc(text->context, text->data, capacity, 1);
        if (data == NULL) {
            text->failed = true;
            return false;
        }
        text->data = data;
        text->capacity = capacity;
    }
    return true;
}

void lk_text_append(lk_text *text, const char *bytes, size_t length) {
    if (reserve(text, length)) {
        memcpy(text->data + text->length, bytes, length);
        text->length += length;
        text->data[text->length] = '\0';
    }
}

void lk_text_printf(lk_text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0) {
        text->failed = true;
    } else if (reserve(text, (size_t)length)) {
        vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
    }
    va_end(again);
}

lk_status lk_text_status(lk_text *text) {
    return text->failed ? lk_out_of_memory(text->context, text->length, "a text") : LK_OK;
}

void lk_text_free(lk_text *text) {
    lk_free(text->context, text->data);
    *text = (lk_text){.context = text->context};
}
