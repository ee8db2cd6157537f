#include <string.h>

#include "dispatch/dispatch.h"

static const lk_backend *const backends[] = {
#define LK_BACKEND(name) &lk_backend_##name,
#include "dispatch/backends.def"
#undef LK_BACKEND
};

const lk_backend *const *lk_backends(int *count) {
    *count = (int)LK_COUNT(backends);
    return backends;
}

const lk_backend *lk_backend_find(const char *name) {
    for (size_t i = 0; i < LK_COUNT(backends); i++) {
        if (strcmp(backends[i]->name, name) == 0) {
            return backends[i];
        }
    }
    return NULL;
}
