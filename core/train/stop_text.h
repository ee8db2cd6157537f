/* Ends a text before the first of some strings, while it is made piece by piece. */
#ifndef LK_CORE_TRAIN_STOP_TEXT_H
#define LK_CORE_TRAIN_STOP_TEXT_H

#include "core/base/base.h"

typedef struct lk_stop_text {
    const char *const *stops; /* NULL-terminated, borrowed; NULL: none */
    lk_text held;             /* what may be the beginning of one */
    bool stopped;
} lk_stop_text;

void lk_stop_text_init(lk_stop_text *self, lk_context *context, const char *const *stops);
void lk_stop_text_free(lk_stop_text *self);
/* Takes `piece`; leaves in it what can be given out now. At the end (`last`), that is all but a stop string and what
 * follows it. */
lk_status lk_stop_text_pass(lk_stop_text *self, lk_text *piece, bool last);

#endif
