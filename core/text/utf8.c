#include "core/text/utf8.h"

#include <utf8proc.h>

/* The length of the character at bytes[0], or, when it is not valid, minus the length of its maximal invalid part;
 * *open tells that the part only lacks further bytes. Ranges of the second byte: Unicode table 3-7. */
static int sequence(const unsigned char *bytes, size_t length, bool *open) {
    *open = false;
    unsigned char lead = bytes[0];
    if (lead < 0x80) {
        return 1;
    }
    int needed = lead >= 0xC2 && lead <= 0xDF   ? 2
                 : lead >= 0xE0 && lead <= 0xEF ? 3
                 : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                : 0;
    if (needed == 0) {
        return -1;
    }
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    for (int i = 1; i < needed; i++) {
        if ((size_t)i >= length) {
            *open = true;
            return -i;
        }
        if (bytes[i] < low || bytes[i] > high) {
            return -i;
        }
        low = 0x80;
        high = 0xBF;
    }
    return needed;
}

size_t lk_utf8_valid_prefix(const char *bytes, size_t length) {
    size_t at = 0;
    while (at < length) {
        bool open;
        int step = sequence((const unsigned char *)bytes + at, length - at, &open);
        if (step < 0) {
            break;
        }
        at += (size_t)step;
    }
    return at;
}

void lk_utf8_append_repaired(lk_text *text, const char *bytes, size_t length) {
    for (;;) {
        size_t valid = lk_utf8_valid_prefix(bytes, length);
        lk_text_append(text, bytes, valid);
        if (valid == length) {
            return;
        }
        bool open;
        size_t invalid = (size_t)-sequence((const unsigned char *)bytes + valid, length - valid, &open);
        lk_text_append(text, "\xEF\xBF\xBD", 3);
        bytes += valid + invalid;
        length -= valid + invalid;
    }
}

bool lk_utf8_ends_open(const char *bytes, size_t length, size_t *complete) {
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        unsigned char byte = (unsigned char)bytes[length - back];
        if (byte >= 0x80 && byte < 0xC0) {
            continue;
        }
        bool open;
        (void)sequence((const unsigned char *)bytes + length - back, back, &open);
        *complete = open ? length - back : length;
        return open;
    }
    *complete = length;
    return false;
}

size_t lk_utf8_next(const char *bytes, int32_t *character) {
    const unsigned char *b = (const unsigned char *)bytes;
    if (b[0] < 0x80) {
        *character = b[0];
        return 1;
    }
    if (b[0] < 0xE0) {
        *character = (b[0] & 0x1F) << 6 | (b[1] & 0x3F);
        return 2;
    }
    if (b[0] < 0xF0) {
        *character = (b[0] & 0x0F) << 12 | (b[1] & 0x3F) << 6 | (b[2] & 0x3F);
        return 3;
    }
    *character = (b[0] & 0x07) << 18 | (b[1] & 0x3F) << 12 | (b[2] & 0x3F) << 6 | (b[3] & 0x3F);
    return 4;
}

size_t lk_utf8_previous(const char *bytes, size_t end) {
    do {
        end--;
    } while (end > 0 && ((unsigned char)bytes[end] & 0xC0) == 0x80);
    return end;
}

size_t lk_utf8_encode(int32_t character, char out[4]) {
    return (size_t)utf8proc_encode_char(character, (utf8proc_uint8_t *)out);
}

bool lk_char_is_space(int32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool lk_char_is_numeric(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

bool lk_char_is_mark(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME;
}

bool lk_char_is_nonspacing(int32_t c) {
    return utf8proc_category(c) == UTF8PROC_CATEGORY_MN;
}

bool lk_char_is_punctuation(int32_t c) {
    if (c < 0x80) {
        return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
    }
    utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool lk_char_is_other(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO;
}

bool lk_char_is_word(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) || category == UTF8PROC_CATEGORY_PC ||
           c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9);
}

bool lk_char_is_cjk(int32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}
