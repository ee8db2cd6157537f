#include "core/text/tokenizer_internal.h"

/* Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, for U+0100 and on (GPT-2). */
static bool stands_for_itself(int byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

static int character_of(int byte) {
    if (stands_for_itself(byte)) {
        return byte;
    }
    return 0x100 + (byte <= 0x20 ? byte : byte <= 0xA0 ? byte - 0x7F + 33 : 67);
}

void lk_byte_map_append(lk_text *text, const char *bytes, size_t length) {
    char buffer[512];
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        int character = character_of((unsigned char)bytes[i]);
        if (character < 0x80) {
            buffer[used++] = (char)character;
        } else {
            buffer[used++] = (char)(0xC0 | character >> 6);
            buffer[used++] = (char)(0x80 | (character & 0x3F));
        }
        if (used > sizeof buffer - 2) {
            lk_text_append(text, buffer, used);
            used = 0;
        }
    }
    lk_text_append(text, buffer, used);
}

int lk_byte_map_byte(int32_t character) {
    if (character < 0x100) {
        return character >= 0 && stands_for_itself(character) ? character : -1;
    }
    int index = character - 0x100;
    return index <= 0x20 ? index : index <= 66 ? index - 33 + 0x7F : index == 67 ? 0xAD : -1;
}
