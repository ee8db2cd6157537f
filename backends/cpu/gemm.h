/* Matrix products with fused terms: C[m,n] = addend + bias + sum over terms of A[m,k] (B[k,n] scale).
 *
 * The registers hold a tile of C while k runs over all terms, so a LoRA update costs no pass over C of its own. B is
 * packed, in panels as wide as a tile, unless there are too few rows to pay for it; A is read where it stands.
 *
 * B may be in 16 bits and is widened while it is packed, and C may be. Where the processor multiplies bf16 itself and
 * the weight is bf16, A is used in bf16 (lk_cpu_gemm_operand_*) and B packed in pairs: twice the multiplications per
 * instruction, sums still in fp32. */
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
    /* A in bf16: elements (i, 2 p) and (i, 2 p + 1) stand side by side at narrow + i narrow_row + p narrow_pair, zero
     * in the place of a last one that is missing; B is then rounded to bf16, too. NULL: A is used as it is. */
    const uint16_t *narrow;
    int64_t narrow_row, narrow_pair;
} lk_cpu_term;

enum { LK_CPU_MAX_TERMS = 2 };

typedef struct lk_cpu_gemm {
    int64_t m, n;
    int num_terms;
    lk_cpu_term terms[LK_CPU_MAX_TERMS];
    const lk_cpu_term *update; /* added to the first term's B before use: its m is that B's k; NULL: none */
    const float *bias;         /* [n]; NULL: none */
    const float *addend;       /* [m, n] with the row stride of c; may be c itself; NULL: none */
    void *c;
    lk_dtype c_dtype; /* F32, BF16 or F16 */
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
enum { LK_CPU_GEMM_BYTES = 640 << 10 };

/* The part [rows) x [columns) of the product, on the calling thread. `memory` is a worker's own. */
typedef void (*lk_cpu_gemm_part)(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns, void *memory);

/* Whether products with that weight are made in bf16. With few rows they are bound by reading the weight. */
enum { LK_CPU_DOT_ROWS = 4 };
static inline bool lk_cpu_multiplies_bf16(bool pairs, lk_dtype weight, int64_t rows) {
    return pairs && weight == LK_DTYPE_BF16 && rows > LK_CPU_DOT_ROWS;
}

/* A matrix in bf16, rows filled up with a zero to whole pairs. */
static inline int64_t lk_cpu_narrow_row(int64_t k) {
    return (k + 1) / 2 * 2;
}
static inline size_t lk_cpu_narrow_bytes(int64_t rows, int64_t k) {
    return ((size_t)(rows * lk_cpu_narrow_row(k)) * sizeof(uint16_t) + 63) / 64 * 64;
}

/* Memory to convert A of [rows, k] for a product with that weight (lk_cpu_gemm_operand_*). */
static inline size_t lk_cpu_operand_bytes(bool pairs, lk_dtype a, lk_dtype weight, int64_t rows, int64_t k) {
    if (lk_cpu_multiplies_bf16(pairs, weight, rows)) {
        return a == LK_DTYPE_BF16 && k % 2 == 0 ? 0 : lk_cpu_narrow_bytes(rows, k);
    }
    return a == LK_DTYPE_F32 ? 0 : ((size_t)(rows * k) * sizeof(float) + 63) / 64 * 64;
}

/* How a product is cut into tasks that are even in size and wide enough to be efficient. */
typedef struct lk_cpu_gemm_grid {
    int row_tasks, column_tasks;
    int64_t column_grain;
} lk_cpu_gemm_grid;

#define LK_CPU_DECLARE(isa, features, unused)                                                                        \
    void LK_CPU_NAME(gemm_part, isa)(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns, void *memory);        \
    lk_cpu_gemm_grid LK_CPU_NAME(gemm_grid, isa)(const lk_cpu_gemm *gemm, int threads);                              \
    /* One task of the grid, numbered from 0 to row_tasks * column_tasks. */                                         \
    void LK_CPU_NAME(gemm_task, isa)(const lk_cpu_gemm *gemm, lk_cpu_gemm_grid grid, int task, void *memory);        \
    /* Sets A of the first term, whose B is the weight, to the matrix at `a`, of rows a_row apart: in place, or */   \
    /* converted into `memory` (lk_cpu_operand_bytes) to what the product takes. */                                  \
    void LK_CPU_NAME(gemm_operand, isa)(const lk_cpu_call *call, lk_cpu_gemm *gemm, const void *a, lk_dtype a_dtype, \
                                        void *memory);                                                               \
    /* bf16 from [rows, k] floats: as a matrix (lk_cpu_narrow_row), and transposed, as the A of a product over */    \
    /* rows: pairs of rows, [(rows + 1) / 2][k][2]. */                                                               \
    void LK_CPU_NAME(narrow_rows, isa)(uint16_t * to, const float *from, int64_t rows, int64_t k);                   \
    void LK_CPU_NAME(pair_rows, isa)(uint16_t * to, const float *from, int64_t rows, int64_t k);                     \
    /* The whole product, on all threads. */                                                                         \
    void LK_CPU_NAME(gemm, isa)(const lk_cpu_call *call, const lk_cpu_gemm *gemm);
LK_CPU_EACH_PRODUCT_ISA(LK_CPU_DECLARE, )
#undef LK_CPU_DECLARE

#endif
