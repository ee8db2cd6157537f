/* The inside of lk_context, for core/base only. */
#ifndef LK_CORE_BASE_CONTEXT_H
#define LK_CORE_BASE_CONTEXT_H

#include "core/base/base.h"

struct lk_context {
    lk_allocator allocator;
    lk_log_function log;
    void *log_user;
    lk_log_level log_level;
    char message[1024]; /* fixed, so that reporting "out of memory" needs no memory */
};

#endif
