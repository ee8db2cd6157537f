/* The parts of the GPU report: each adds an object to the JSON document and leaves the table to report.c. */
#ifndef LK_TESTS_GPU_REPORT_H
#define LK_TESTS_GPU_REPORT_H

#include "core/base/json.h"
#include "dispatch/session.h"
#include "lorikeet.h"

typedef struct report {
    lk_context *context;
    lk_session *session;
    const char *folder; /* for models and data */
    bool small;         /* rehearsal: sizes that a processor emulating a GPU can do */
    json_t *root;
} report;

/* Every kernel row that takes an operation of two models: median seconds, TFLOP/s, deviation (kernels.c). */
lk_status report_kernels(report *self);
/* Tokens per second of training models with random weights (training.c). */
lk_status report_training(report *self);

#endif
