/* A small model ready to train, for the tests of this area. */
#ifndef LK_TESTS_TRAIN_FIXTURE_H
#define LK_TESTS_TRAIN_FIXTURE_H

#include <check.h>

#include "core/train/trainer.h"

typedef struct fixture {
    lk_context *context;
    lk_session *session;
    lk_model *model;
    lk_data *data;
    lk_adapter *adapter;
    lk_trainer *trainer;
    char folder[64]; /* temporary, removed by fixture_close */
} fixture;

#define SUCCEEDS(self, expression) ck_assert_msg((expression) == LK_OK, "%s", lk_error_message((self)->context))

/* stories260k and its own text, on the fastest device; allocator may be NULL. */
void fixture_open(fixture *self, const lk_allocator *allocator);
/* With dropout, accumulation over two micro-batches, shuffling, a schedule and clipping: everything that has state. */
void fixture_start(fixture *self);
void fixture_stop(fixture *self); /* trainer and adapter only */
void fixture_close(fixture *self);
const char *fixture_path(const fixture *self, const char *name);
/* A hash of all trainable tensors. */
uint64_t fixture_hash(fixture *self);

#endif
