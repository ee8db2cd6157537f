#include "core/train/stop_text.h"

#include <string.h>

void lk_stop_text_init(lk_stop_text *self, lk_context *context, const char *const *stops) {
    *self = (lk_stop_text){.stops = stops};
    lk_text_init(&self->held, context);
}

void lk_stop_text_free(lk_stop_text *self) {
    lk_text_free(&self->held);
}

/* The place in `held` from which it must not be given out (yet): a whole stop string's, or else the longest ending that
 * begins one. */
static size_t safe_length(lk_stop_text *self) {
    const char *text = self->held.data;
    size_t length = self->held.length;
    for (size_t at = 0; at < length; at++) {
        for (const char *const *stop = self->stops; *stop != NULL; stop++) {
            size_t whole = strlen(*stop), here = LK_MIN(whole, length - at);
            if (whole > 0 && memcmp(text + at, *stop, here) == 0) {
                self->stopped = here == whole;
                if (self->stopped) {
                    return at;
                }
            }
        }
    }
    for (size_t at = 0; at < length; at++) {
        for (const char *const *stop = self->stops; *stop != NULL; stop++) {
            if (strlen(*stop) > length - at && memcmp(text + at, *stop, length - at) == 0) {
                return at;
            }
        }
    }
    return length;
}

lk_status lk_stop_text_pass(lk_stop_text *self, lk_text *piece, bool last) {
    LK_TRY(lk_text_status(piece));
    if (self->stops == NULL) {
        return LK_OK;
    }
    if (self->stopped) {
        piece->length = 0;
        return LK_OK;
    }
    if (piece->length > 0) {
        lk_text_append(&self->held, piece->data, piece->length);
        piece->length = 0;
        LK_TRY(lk_text_status(&self->held));
    }
    size_t safe = safe_length(self);
    safe = last && !self->stopped ? self->held.length : safe;
    if (safe == 0) {
        return LK_OK;
    }
    lk_text_append(piece, self->held.data, safe);
    memmove(self->held.data, self->held.data + safe, self->held.length - safe + 1);
    self->held.length -= safe;
    return lk_text_status(piece);
}
