/* Matrix products with fused terms: C[m,n] = addend + bias + sum over terms of A[m,k] (B[k,n] scale).
 *
 * The registers hold a tile of C while k runs over all terms, so a LoRA update costs no pass over C of its own. B is
 * packed, in panels as wide as a tile, unless there are too few rows to pay for it; A is read where it stands.
 *
 * B may be in 16 bits and is widened while it is packed. Where the processor multiplies bf16 itself and B is bf16, A is
 * rounded to bf16 first (lk_cpu_gemm_narrow_*) and B packed in pairs: twice the multiplications per instruction, sums
 * still in fp32. */
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
    const uint16_t *narrow; /* A in bf16, rows narrow_row apart; NULL: A is used as it is */
    int64_t narrow_row;
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
    return (lk_cpu_term){.a = a,
                         .a_row = transpose_a ? 1 : a_columns,
                         .a_k = transpose_a ? a_columns : 1,
                         .b = b,
                         .b_dtype = b_dtype,
                         .b_k = transpose_b ? 1 : b_columns,
                         .b_column = transpose_b ? b_columns : 1,
                         .scale = scale,
                         .k = k};
}

/* What a product takes of a worker's memory; the rest is the kernel's. */
enum { LK_CPU_GEMM_BYTES = 576 << 10 };

/* The part [rows) x [columns) of the product, on the calling thread. `memory` is a worker's own. */
typedef void (*lk_cpu_gemm_part)(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns, void *memory);

/* Memory for A of [rows, k] in bf16; 0 where B's dtype or the processor make no use of it. */
static inline size_t lk_cpu_narrow_bytes(uint64_t features, lk_dtype b_dtype, int64_t rows, int64_t k) {
    bool pairs = (features & (LK_CPU_BIT(AVX512_BF16) | LK_CPU_BIT(NEON_BF16))) != 0;
    return pairs && b_dtype == LK_DTYPE_BF16 ? (size_t)(rows * ((k + 31) / 32 * 32)) * sizeof(uint16_t) : 0;
}

/* How a product is cut into tasks that are even in size and wide enough to be efficient. */
typedef struct lk_cpu_gemm_grid {
    int row_tasks, column_tasks;
    int64_t column_grain;
} lk_cpu_gemm_grid;

#define LK_CPU_DECLARE(isa, features, unused)                                                                    \
    void LK_CPU_NAME(gemm_part, isa)(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns, void *memory);    \
    lk_cpu_gemm_grid LK_CPU_NAME(gemm_grid, isa)(const lk_cpu_gemm *gemm, int threads);                          \
    /* One task of the grid, numbered from 0 to row_tasks * column_tasks. */                                     \
    void LK_CPU_NAME(gemm_task, isa)(const lk_cpu_gemm *gemm, lk_cpu_gemm_grid grid, int task, void *memory);    \
    /* Rounds A of the first term to bf16 in `memory` (lk_cpu_narrow_bytes) if the product can then use bf16. */ \
    void LK_CPU_NAME(gemm_narrow, isa)(const lk_cpu_call *call, lk_cpu_gemm *gemm, void *memory);                \
    /* The whole product, on all threads. */                                                                     \
    void LK_CPU_NAME(gemm, isa)(const lk_cpu_call *call, const lk_cpu_gemm *gemm);
LK_CPU_EACH_ISA(LK_CPU_DECLARE, )
#undef LK_CPU_DECLARE

#endif
