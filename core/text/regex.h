/* Regular expressions of tokenizer.json (written for Oniguruma), run by PCRE2 with Unicode classes, compiled to machine
 * code where it can. What the two read differently is translated, or refused as UNSUPPORTED. */
#ifndef LK_CORE_TEXT_REGEX_H
#define LK_CORE_TEXT_REGEX_H

#include "core/base/base.h"

typedef struct lk_regex lk_regex;

lk_status lk_regex_compile(lk_context *context, const char *source, const char *pattern, size_t length, lk_regex **out);
void lk_regex_free(lk_regex *regex);
/* The first match that begins at or after `from`; *found false: there is none. text must be valid UTF-8. */
lk_status lk_regex_find(lk_regex *regex, const char *text, size_t length, size_t from, bool *found, size_t *begin,
                        size_t *end);

#endif
