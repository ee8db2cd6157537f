#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/dispatch.h"

static const lk_denial denials[] = {
#define LK_DENY(backend, device, what, reason, source) {backend, device, what, reason " (" source ")"},
#include "dispatch/deny.def"
#undef LK_DENY
};

/* `*` in the pattern stands for any text. */
static bool matches(const char *pattern, const char *text) {
    for (; *pattern != '*'; pattern++, text++) {
        if (tolower((unsigned char)*pattern) != tolower((unsigned char)*text)) {
            return false;
        }
        if (*pattern == '\0') {
            return true;
        }
    }
    do {
        if (matches(pattern + 1, text)) {
            return true;
        }
    } while (*text++ != '\0');
    return false;
}

static bool is_ignored(void) {
    const char *setting = getenv("LORIKEET_DENY_LIST");
    return setting != NULL && strcmp(setting, "0") == 0;
}

const char *lk_denied_by(const lk_denial *rows, int count, const lk_device_caps *caps, const char *what) {
    char device[sizeof caps->name + sizeof caps->driver + 2];
    snprintf(device, sizeof device, "%s; %s", caps->name, caps->driver);
    for (int i = 0; i < count; i++) {
        if (strcmp(rows[i].backend, caps->backend) == 0 && matches(rows[i].what, what) &&
            matches(rows[i].device, device)) {
            return rows[i].reason;
        }
    }
    return NULL;
}

const lk_denial *lk_denials(int *count) {
    *count = (int)LK_COUNT(denials);
    return denials;
}

const char *lk_denied(const lk_device_caps *caps, const char *what) {
    return is_ignored() ? NULL : lk_denied_by(denials, (int)LK_COUNT(denials), caps, what);
}
