/* Products by cuBLASLt, which is loaded at run time and may be absent: then gemm.cu and the dialect's kernels make
 * them.
 *
 * LORIKEET_CUBLASLT: the library's file, instead of libcublasLt.so.13, .12 or .11; `none` does without. */
#ifndef LK_BACKENDS_CUDA_CUBLASLT_H
#define LK_BACKENDS_CUDA_CUBLASLT_H

#include <stdint.h>

#include "backends/cuda/driver.h"
#include "backends/shaders/rows.h"

/* ---- the library's interface: names and numbers are those of its reference ---- */

typedef struct lt_handle_st *lt_handle;
typedef struct lt_operation_st *lt_operation;
typedef struct lt_layout_st *lt_layout;
typedef struct lt_preference_st *lt_preference;
typedef struct lt_algorithm {
    uint64_t data[8];
} lt_algorithm;
typedef struct lt_heuristic {
    lt_algorithm algorithm;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
} lt_heuristic;

enum {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_ALLOC_FAILED = 3,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_ARCH_MISMATCH = 8,
    CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_INTERNAL_ERROR = 14,
    CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
enum { CUBLAS_COMPUTE_32F = 68 }; /* fp32 as it is, without TF32 */
enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum { CUBLASLT_EPILOGUE_DEFAULT = 1, CUBLASLT_EPILOGUE_BIAS = 4 };
enum {
    CUBLASLT_MATMUL_DESC_TRANSA = 3,
    CUBLASLT_MATMUL_DESC_TRANSB = 4,
    CUBLASLT_MATMUL_DESC_EPILOGUE = 7,
    CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8
};
enum {
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5 /* then B, C, D */
};

/* ---- the backend's side (cublaslt.c) ---- */

struct lk_cuda_device;
typedef struct lk_cuda_lt lk_cuda_lt; /* the library and its handle on one device */

/* NULL where the library's file is there, which is not loaded for that if it need not be; else why it is not. */
const char *lk_cuda_lt_absent(void);
/* NULL, with a line in the log, where the library cannot be loaded or does not start. The device's context is current.
 */
lk_cuda_lt *lk_cuda_lt_open(struct lk_cuda_device *device);
void lk_cuda_lt_close(struct lk_cuda_device *device, lk_cuda_lt *lt);

/* Launches of the file `cublaslt` (lk_cuda_products_lt records them): made ready are descriptors, and the algorithm
 * that the library proposes for the shape, which is asked for once per shape and device. */
extern const struct lk_cuda_library lk_cuda_cublaslt;

/* ---- rows (cublaslt_products.c) ---- */

#define LK_CUDA_LT_FILE "cublaslt"
enum lk_cuda_lt_buffer { LT_A, LT_B, LT_C, LT_BIAS, LT_Y, LT_WORKSPACE };
enum lk_cuda_lt_parameter {
    LT_M,
    LT_N,
    LT_K,
    LT_TRANSPOSE_A, /* a is stored [K, M] */
    LT_A_PITCH,     /* elements from row to row */
    LT_TRANSPOSE_B, /* b is stored [N, K] */
    LT_B_PITCH,
    LT_HAS_C,
    LT_HAS_BIAS,
    LT_IS_BF16, /* a and b */
    LT_ALPHA
};

/* For weights in fp32, and for those in bf16: there activations are rounded to bf16 first, unless they are ready. */
extern const lk_products lk_cuda_products_lt, lk_cuda_products_lt_bf16;
bool lk_cuda_supports_lt(const lk_device_caps *caps, const lk_node *node, int weight, lk_refusal *why);
bool lk_cuda_supports_lt_bf16(const lk_device_caps *caps, const lk_node *node, int weight, lk_refusal *why);

#endif
