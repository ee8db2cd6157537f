/* A device for tests of placement: memory of its own that the host cannot see, any subset of the ops, counters, and
 * failures on demand. It computes by the specification, works in place where it may, spoils its scratch memory
 * while a command runs, and refuses commands whose results lie over what they read. */
#ifndef LK_TESTS_FAULTS_FAKE_DEVICE_H
#define LK_TESTS_FAULTS_FAKE_DEVICE_H

#include "dispatch/dispatch.h"

typedef enum fake_call {
    FAKE_ALLOC,
    FAKE_UPLOAD,
    FAKE_DOWNLOAD,
    FAKE_COMPILE,
    FAKE_RUN,
    FAKE_WAIT,
    FAKE_CALL_COUNT
} fake_call;

typedef struct fake_counters {
    int calls[FAKE_CALL_COUNT];
    int live_buffers, live_lists; /* made and not yet released */
    int commands;                 /* run */
} fake_counters;

/* A second, faster kernel of MUL, "fake_mul_fast": a bit beside those of the ops. */
#define FAKE_FAST_MUL (UINT64_C(1) << 63)
/* `ops` has a bit, fake_op(op), for each op with a kernel. */
lk_status fake_device_open(lk_context *context, uint64_t ops, lk_device **out);
/* From now on its memory is the host's, as a second processor's would be. */
void fake_device_share_memory(lk_device *device);
uint64_t fake_op(lk_op op);
uint64_t fake_all_ops(void);
/* Shared with the device: a test may reset it. */
fake_counters *fake_device_counters(lk_device *device);
/* From now on the kernel's results are zeros; NULL: none's. */
void fake_device_be_wrong(lk_device *device, const char *kernel);
/* What timed runs say that these kernels take; kept by reference. */
void fake_device_set_clock(lk_device *device, const char *const *kernels, const double *seconds, int count);
/* The nth call from now (1: the next) of this kind fails with this status; 0: none does. */
void fake_device_fail(lk_device *device, fake_call call, int nth, lk_status status);
/* The same with DEVICE, and from then on every call of any kind fails. */
void fake_device_lose(lk_device *device, fake_call call, int nth);

#endif
