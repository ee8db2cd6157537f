/* UTF-8: repair, iteration, and the character classes that tokenizers ask for (Unicode data: utf8proc). */
#ifndef LK_CORE_TEXT_UTF8_H
#define LK_CORE_TEXT_UTF8_H

#include "core/base/base.h"

/* The length of the valid prefix of bytes; equal to length when all is valid. */
size_t lk_utf8_valid_prefix(const char *bytes, size_t length);
/* Appends bytes with every maximal invalid part replaced by U+FFFD (Unicode 3.9, "substitution of maximal subparts").
 */
void lk_utf8_append_repaired(lk_text *text, const char *bytes, size_t length);
/* Whether bytes end inside a character that more bytes could complete; *complete is the length before it. */
bool lk_utf8_ends_open(const char *bytes, size_t length, size_t *complete);

/* The character at the start of valid, non-empty text, and its length in bytes. */
size_t lk_utf8_next(const char *bytes, int32_t *character);
/* Where the character before bytes[end] begins; end > 0. */
size_t lk_utf8_previous(const char *bytes, size_t end);
/* 1 to 4 bytes. */
size_t lk_utf8_encode(int32_t character, char out[4]);

bool lk_char_is_space(int32_t character);       /* White_Space */
bool lk_char_is_numeric(int32_t character);     /* Nd, Nl, No */
bool lk_char_is_mark(int32_t character);        /* Mn, Mc, Me */
bool lk_char_is_nonspacing(int32_t character);  /* Mn */
bool lk_char_is_punctuation(int32_t character); /* P*, and the ASCII symbols */
bool lk_char_is_other(int32_t character);       /* Cc, Cf, Co */
bool lk_char_is_word(int32_t character);        /* \w: Alphabetic, M, Nd, Pc, joiners */
bool lk_char_is_cjk(int32_t character);         /* the CJK ideographs that BERT sets apart */

#endif
