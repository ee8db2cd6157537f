/* A context, devices and variables for tests that build graphs and run them. Failures of the library end the test. */
#ifndef LK_TESTS_COMMON_FIXTURE_H
#define LK_TESTS_COMMON_FIXTURE_H

#include "core/graph/ops.h"
#include "dispatch/dispatch.h"

typedef struct fixture {
    lk_context *context;
    lk_device *devices[3]; /* the variables' home first; the reference last */
    int num_devices;
    lk_variables *variables;
} fixture;

/* Only the reference device. */
void fixture_open(fixture *self);
/* `main` first (may be NULL), then the reference; both are closed by fixture_close. */
void fixture_open_on(fixture *self, lk_context *context, lk_device *main);
void fixture_close(fixture *self);
lk_device *fixture_open_reference(lk_context *context);

/* A variable named after its number. values (as doubles) may be NULL: zeros. F64, F32 and I32. */
lk_variable *fixture_variable(fixture *self, lk_role role, lk_dtype dtype, int rank, int64_t extent0, int64_t extent1,
                              const double *values);
void fixture_write(const lk_variable *variable, const double *values);
void fixture_read(const lk_variable *variable, double *values);

/* Takes over the graph. */
lk_program *fixture_compile(fixture *self, lk_graph *graph);
/* The status of compiling; *program is NULL unless it is LK_OK. */
lk_status fixture_try_compile(fixture *self, lk_graph *graph, lk_program **program);
void fixture_run(lk_program *program);
/* An output of the last run as doubles; free() it. */
double *fixture_output(lk_program *program, const lk_tensor *tensor);

int count_nodes(const lk_graph *graph, lk_op op);

/* ck_assert_msg for inner loops: Check notes every assertion that holds in a file. */
#define require_msg(condition, ...)    \
    do {                               \
        if (!(condition)) {            \
            ck_abort_msg(__VA_ARGS__); \
        }                              \
    } while (0)

/* ---- random numbers ---- */

/* LK_TEST_SEED, or a fixed number; printed once per program. */
uint64_t test_seed(void);
uint64_t random_bits(uint64_t *state);
/* in [0, bound) */
int64_t random_below(uint64_t *state, int64_t bound);
double random_normal(uint64_t *state);
/* free() it */
double *random_values(uint64_t *state, int64_t count, double scale);

/* The largest difference, relative to the largest magnitude of `expected`; infinite where a value is not finite. */
double relative_difference(const double *found, const double *expected, int64_t count);

#endif
