#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/context.h"

#define LK_STRING_(x) #x
#define LK_STRING(x) LK_STRING_(x)

const char *lk_version(void) {
    return LK_STRING(LK_VERSION_MAJOR) "." LK_STRING(LK_VERSION_MINOR) "." LK_STRING(LK_VERSION_PATCH);
}

static void *libc_allocate(void *user, size_t size) {
    (void)user;
    return malloc(size);
}

static void *libc_reallocate(void *user, void *pointer, size_t size) {
    (void)user;
    return realloc(pointer, size);
}

static void libc_release(void *user, void *pointer) {
    (void)user;
    free(pointer);
}

void lk_context_options_init(lk_context_options *options) {
    *options = (lk_context_options){.struct_size = sizeof *options, .log_level = LK_LOG_INFO};
}

lk_status lk_context_create(const lk_context_options *options, lk_context **out) {
    *out = NULL;
    lk_context_options chosen;
    lk_context_options_init(&chosen);
    if (options != NULL) {
        memcpy(&chosen, options, LK_MIN(options->struct_size, sizeof chosen));
    }
    lk_allocator allocator = {libc_allocate, libc_reallocate, libc_release, NULL};
    if (chosen.allocator != NULL) {
        allocator = *chosen.allocator;
        if (!allocator.allocate || !allocator.reallocate || !allocator.release) {
            return LK_STATUS_INVALID_ARGUMENT;
        }
    }
    lk_context *context = allocator.allocate(allocator.user, sizeof *context);
    if (context == NULL) {
        return LK_STATUS_OUT_OF_MEMORY;
    }
    *context = (lk_context){
        .allocator = allocator, .log = chosen.log, .log_user = chosen.log_user, .log_level = chosen.log_level};
    *out = context;
    return LK_OK;
}

void lk_context_destroy(lk_context *context) {
    if (context != NULL) {
        lk_allocator allocator = context->allocator;
        allocator.release(allocator.user, context);
    }
}
