#include "tests/faults/meter.h"

#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct meter {
    long calls, live; /* so far; not given back */
    long fail_at;     /* 1: the first call; 0: none */
    bool only_once;
} meter;

static meter *current; /* jansson's functions have no argument of their own */

static bool fails(meter *self) {
    self->calls++;
    return self->fail_at > 0 && (self->only_once ? self->calls == self->fail_at : self->calls >= self->fail_at);
}

static void *allocate(void *user, size_t size) {
    meter *self = user;
    void *pointer = fails(self) ? NULL : malloc(size);
    self->live += pointer != NULL;
    return pointer;
}

static void *reallocate(void *user, void *pointer, size_t size) {
    meter *self = user;
    if (fails(self)) {
        return NULL;
    }
    self->live += pointer == NULL;
    return realloc(pointer, size);
}

static void release(void *user, void *pointer) {
    meter *self = user;
    self->live -= pointer != NULL;
    free(pointer);
}

/* Counted, so that leaks show, but never failing: jansson's parser answers a failed allocation with an assertion. */
static void *json_allocate(size_t size) {
    void *pointer = malloc(size);
    current->live += pointer != NULL;
    return pointer;
}

static void json_release(void *pointer) {
    release(current, pointer);
}

static lk_status work_with(meter *self, lk_status (*work)(lk_context *)) {
    lk_allocator allocator = {allocate, reallocate, release, self};
    lk_context_options options;
    lk_context_options_init(&options);
    options.allocator = &allocator;
    current = self;
    lk_context *context;
    lk_status status = lk_context_create(&options, &context);
    if (status != LK_OK) {
        ck_assert_ptr_null(context);
        return status;
    }
    status = work(context);
    if (status != LK_OK && strstr(lk_error_message(context), "out of memory") == NULL) {
        ck_abort_msg("allocation %ld: %s", self->fail_at, lk_error_message(context));
    }
    lk_context_destroy(context);
    return status;
}

long meter_fail_every_allocation(lk_status (*work)(lk_context *), bool only_once, long stride) {
    json_set_alloc_funcs(json_allocate, json_release);
    meter all = {0};
    ck_assert_int_eq(work_with(&all, work), LK_OK);
    ck_assert_int_eq(all.live, 0);
    for (long n = 1; n <= all.calls; n += stride) {
        meter one = {.fail_at = n, .only_once = only_once};
        lk_status status = work_with(&one, work);
        if (status != LK_STATUS_OUT_OF_MEMORY || one.live != 0) {
            ck_abort_msg("allocation %ld of %ld: %s, %ld are left", n, all.calls, lk_status_name(status), one.live);
        }
    }
    meter again = {0};
    ck_assert_int_eq(work_with(&again, work), LK_OK);
    ck_assert_int_eq(again.live, 0);
    return all.calls;
}
