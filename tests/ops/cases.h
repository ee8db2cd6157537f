/* The cases of every op: one list that the conformance test (every kernel row against the reference), the gradient test
 * (finite differences in double precision) and the benchmark run over. An op's cases are in cases.c, by the op's name.
 */
#ifndef LK_TESTS_OPS_CASES_H
#define LK_TESTS_OPS_CASES_H

#include "core/graph/ops.h"
#include "dispatch/dispatch.h"

/* How an input's values are drawn. */
typedef enum case_values {
    VALUES_NORMAL,     /* standard normal */
    VALUES_SMALL,      /* normal times 0.1: weights */
    VALUES_POSITIVE,   /* uniform in [0.5, 1.5]: scales, rstd, second moments */
    VALUES_IDS,        /* integers in [0, bound) */
    VALUES_TARGETS,    /* the same with every fifth -100 */
    VALUES_POSITIONS,  /* 0, 1, 2, ... modulo bound */
    VALUES_CU_SEQLENS, /* rising from 0 to bound, with one empty sequence where there are four or more entries */
    VALUES_LENGTHS,    /* integers in [1, bound] */
    VALUES_SLOTS,      /* distinct integers in [0, bound), one -1 */
    VALUES_RNG,        /* four words of a random number generator's state */
    VALUES_HYPER,      /* the scalars of ADAMW */
    VALUES_INFINITE    /* infinity: a norm that overflowed */
} case_values;

enum { MAX_CASE_INPUTS = 16 };

typedef struct case_input {
    bool present;
    int rank;
    int64_t shape[LK_MAX_RANK];
    case_values values;
    int64_t bound;
    lk_role role;      /* WEIGHT unless the node mutates it (STATE) */
    lk_dtype dtype;    /* F32, BF16 or I32; the gradient test turns floats into F64 */
    bool short_values; /* are such that bf16 holds them exactly, whatever the dtype */
} case_input;

typedef struct op_case {
    lk_op op;
    char name[96];
    int num_inputs;
    case_input inputs[MAX_CASE_INPUTS];
    lk_attributes attributes;
    uint32_t wanted; /* outputs */
    /* Inputs that only make sense as the outputs of another op on the same data (lse, rstd, s, o): made by running it.
     */
    void (*prepare)(const struct op_case *self, double **values);
    double tolerance; /* of fp32 kernels: relative to the largest magnitude of the output; 0: derived from the op */
} op_case;

/* All cases, in the order of ops.def; at least one per op (checked by a test). */
const op_case *op_cases(int *count);
/* Larger ones, for kernels that work in blocks: of the ops for which that matters. */
const op_case *op_cases_large(int *count);

/* Fills values[i] (as doubles, rounded to what fp32 holds) for all present inputs, from a seed. */
void op_case_fill(const op_case *self, uint64_t seed, double **values);
int64_t case_input_elements(const case_input *input);

#endif
