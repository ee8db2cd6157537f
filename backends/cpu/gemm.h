/* Matrix products with fused terms: C[m,n] = addend + bias + sum over terms of A[m,k] (B[k,n] scale).
 *
 * The registers hold a tile of C while k runs over all terms, so a LoRA update costs no pass over C of its own. B is
 * packed, in panels as wide as a tile, unless there are too few rows to pay for it; A is read where it stands. */
#ifndef LK_CPU_GEMM_H
#define LK_CPU_GEMM_H

#include "backends/cpu/cpu.h"

typedef struct lk_cpu_term {
    const float *a;
    int64_t a_row, a_k; /* strides, in elements */
    const void *b;
    lk_dtype b_dtype; /* F32, BF16 or F16 */
    int64_t b_k, b_column;
    float scale;
    int64_t k;
} lk_cpu_term;

enum { LK_CPU_MAX_TERMS = 2 };

typedef struct lk_cpu_gemm {
    int64_t m, n;
    int num_terms;
    lk_cpu_term terms[LK_CPU_MAX_TERMS];
    const lk_cpu_term *update; /* added to the first term's B before use: its m is that B's k; NULL: none */
    const float *bias;         /* [n]; NULL: none */
    const float *addend;       /* [m, n] with the row stride of c; may be c itself; NULL: none */
    float *c;
    int64_t c_row;
} lk_cpu_gemm;

/* A term of plain row-major matrices, op(a) op(b) scale. */
static inline lk_cpu_term lk_cpu_term_of(const float *a, bool transpose_a, int64_t a_columns, const void *b,
                                         lk_dtype b_dtype, bool transpose_b, int64_t b_columns, float scale,
                                         int64_t k) {
    return (lk_cpu_term){a,       transpose_a ? 1 : a_columns, transpose_a ? a_columns : 1, b,
                         b_dtype, transpose_b ? 1 : b_columns, transpose_b ? b_columns : 1, scale,
                         k};
}

/* What a product takes of a worker's memory; the rest is the kernel's. */
enum { LK_CPU_GEMM_BYTES = 576 << 10 };

/* The part [rows) x [columns) of the product, on the calling thread. `memory` is a worker's own. */
typedef void (*lk_cpu_gemm_part)(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns, void *memory);

/* How a product is cut into tasks that are even in size and wide enough to be efficient. */
typedef struct lk_cpu_gemm_grid {
    int row_tasks, column_tasks;
    int64_t column_grain;
} lk_cpu_gemm_grid;

#define LK_CPU_DECLARE(isa, features, unused)                                                                 \
    void LK_CPU_NAME(gemm_part, isa)(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns, void *memory); \
    lk_cpu_gemm_grid LK_CPU_NAME(gemm_grid, isa)(const lk_cpu_gemm *gemm, int threads);                       \
    /* One task of the grid, numbered from 0 to row_tasks * column_tasks. */                                  \
    void LK_CPU_NAME(gemm_task, isa)(const lk_cpu_gemm *gemm, lk_cpu_gemm_grid grid, int task, void *memory); \
    /* The whole product, on all threads. */                                                                  \
    void LK_CPU_NAME(gemm, isa)(const lk_cpu_call *call, const lk_cpu_gemm *gemm);
LK_CPU_EACH_ISA(LK_CPU_DECLARE, )
#undef LK_CPU_DECLARE

#endif
