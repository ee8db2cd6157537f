/* A small random model with biases, and an adapter of each method whose trained tensors are not what they start as. */
#ifndef LK_TESTS_ADAPTERS_SETUP_H
#define LK_TESTS_ADAPTERS_SETUP_H

#include <check.h>

#include "core/adapters/adapter.h"
#include "core/train/trainer.h"

typedef struct setup {
    lk_context *context;
    lk_session *session;
    lk_model *model;
    lk_adapter *adapter;
    uint64_t seed;   /* of the adapters; setup_open sets one */
    char folder[64]; /* temporary, removed by setup_close */
} setup;

#define SUCCEEDS(self, expression) ck_assert_msg((expression) == LK_OK, "%s", lk_error_message((self)->context))

/* device NULL: the fastest */
void setup_open(setup *self, const char *device);
void setup_adapt(setup *self, const char *method, double dropout);
/* Adds noise to every trained tensor. */
void setup_disturb(setup *self);
void setup_close(setup *self);
int setup_num_methods(void);
/* folder/name; a new string at every call for a few calls */
const char *setup_path(const setup *self, const char *name);
/* The largest difference of the logits from these. */
double setup_distance(setup *self, lk_model *model, lk_adapter *adapter, const float *expected);
float *setup_logits(setup *self, lk_model *model, lk_adapter *adapter, size_t *count); /* free() them */

#endif
