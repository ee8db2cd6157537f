/* Runs one op case: by the specification, by a kernel of a backend, or as a graph. */
#ifndef LK_TESTS_OPS_HARNESS_H
#define LK_TESTS_OPS_HARNESS_H

#include "tests/ops/cases.h"

/* A case made into tensors and a node, with the specification's results. */
typedef struct op_instance {
    lk_context *context;
    lk_arena arena;
    const op_case *self;
    lk_tensor tensors[MAX_CASE_INPUTS + LK_MAX_OUTPUTS];
    lk_tensor *inputs[MAX_CASE_INPUTS];
    lk_node node;
    double *values[MAX_CASE_INPUTS];  /* of the inputs, before */
    double *mutated[MAX_CASE_INPUTS]; /* of inputs with role STATE, after */
    double *expected[LK_MAX_OUTPUTS]; /* of the outputs */
} op_instance;

lk_status op_instance_make(lk_context *context, const op_case *self, uint64_t seed, op_instance *out);
void op_instance_free(op_instance *instance);

/* What went wrong, or "" */
typedef struct op_verdict {
    char problem[256];
    double error;     /* largest, relative to the largest magnitude of the output */
    double tolerance; /* of fp32 outputs */
} op_verdict;

/* Runs `kernel` on the device with every buffer between sentinels and every output filled with NaN first, twice (the
 * bits must agree), and in place where the kernel says it may. */
lk_status op_instance_check(const op_instance *instance, lk_device *device, const lk_kernel *kernel,
                            op_verdict *verdict);
double op_case_tolerance(const op_case *self, const lk_node *node, const lk_kernel *kernel);

#endif
