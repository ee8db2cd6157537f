/* A stand-in for libcublasLt.so: the functions of backends/cuda/cublaslt.def. Products are work of the mock driver's
 * stream, done when that is waited for or its graph is replayed, in doubles, in the mock's device memory.
 *
 * It checks what the library documents: sizes that fit together, pitches, types, an algorithm that was proposed for the
 * same problem, alignments and workspace as promised, all of each matrix in device memory. Failures are planned by
 * LK_MOCK_CUDA_FAIL, as the driver's are. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cublaslt.h"
#include "tests/cuda/mock/hooks.h"

#define EXPORT __attribute__((visibility("default")))

static mock_hooks hooks;

struct lt_handle_st {
    int alive;
};
struct lt_operation_st {
    int compute, scale, transpose_a, transpose_b, epilogue;
    const float *bias;
};
struct lt_layout_st {
    int type;
    uint64_t rows, columns;
    int64_t pitch;
};
struct lt_preference_st {
    uint64_t workspace;
    uint32_t alignment[4];
};

#define ENTER(name)                              \
    do {                                         \
        if (hooks.planned(name) != 0) {          \
            return CUBLAS_STATUS_INTERNAL_ERROR; \
        }                                        \
    } while (0)

static int refuse(const char *why) {
    fprintf(stderr, "mock cuBLASLt: %s\n", why);
    return CUBLAS_STATUS_INVALID_VALUE;
}

EXPORT int cublasLtCreate(lt_handle *handle) {
    void *driver = dlopen(getenv("LORIKEET_CUDA_DRIVER"), RTLD_NOW), *symbol;
    symbol = driver != NULL ? dlsym(driver, "lk_mock_cuda_hooks") : NULL;
    if (symbol == NULL) {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    memcpy(&hooks, symbol, sizeof hooks);
    ENTER("cublasLtCreate");
    *handle = calloc(1, sizeof **handle);
    hooks.live(1);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT int cublasLtDestroy(lt_handle handle) {
    free(handle);
    hooks.live(-1);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT size_t cublasLtGetVersion(void) {
    return 130100;
}

EXPORT int cublasLtMatmulDescCreate(lt_operation *operation, int compute, int scale) {
    ENTER("cublasLtMatmulDescCreate");
    *operation = calloc(1, sizeof **operation);
    **operation = (struct lt_operation_st){.compute = compute, .scale = scale, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    hooks.live(1);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT int cublasLtMatmulDescDestroy(lt_operation operation) {
    free(operation);
    hooks.live(-1);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT int cublasLtMatmulDescSetAttribute(lt_operation operation, int attribute, const void *value, size_t bytes) {
    ENTER("cublasLtMatmulDescSetAttribute");
    void *to = attribute == CUBLASLT_MATMUL_DESC_TRANSA         ? (void *)&operation->transpose_a
               : attribute == CUBLASLT_MATMUL_DESC_TRANSB       ? (void *)&operation->transpose_b
               : attribute == CUBLASLT_MATMUL_DESC_EPILOGUE     ? (void *)&operation->epilogue
               : attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? (void *)&operation->bias
                                                                : NULL;
    size_t wanted = attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? sizeof(void *) : sizeof(int);
    if (to == NULL || bytes != wanted) {
        return refuse("an attribute of an operation");
    }
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT int cublasLtMatrixLayoutCreate(lt_layout *layout, int type, uint64_t rows, uint64_t columns, int64_t pitch) {
    ENTER("cublasLtMatrixLayoutCreate");
    *layout = calloc(1, sizeof **layout);
    **layout = (struct lt_layout_st){type, rows, columns, pitch};
    hooks.live(1);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT int cublasLtMatrixLayoutDestroy(lt_layout layout) {
    free(layout);
    hooks.live(-1);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT int cublasLtMatmulPreferenceCreate(lt_preference *preference) {
    ENTER("cublasLtMatmulPreferenceCreate");
    *preference = calloc(1, sizeof **preference);
    **preference = (struct lt_preference_st){0, {256, 256, 256, 256}};
    hooks.live(1);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT int cublasLtMatmulPreferenceDestroy(lt_preference preference) {
    free(preference);
    hooks.live(-1);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT int cublasLtMatmulPreferenceSetAttribute(lt_preference preference, int attribute, const void *value,
                                                size_t bytes) {
    ENTER("cublasLtMatmulPreferenceSetAttribute");
    int matrix = attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == sizeof preference->workspace) {
        memcpy(&preference->workspace, value, bytes);
    } else if (matrix >= 0 && matrix < 4 && bytes == sizeof(uint32_t)) {
        memcpy(&preference->alignment[matrix], value, bytes);
    } else {
        return refuse("an attribute of a preference");
    }
    return CUBLAS_STATUS_SUCCESS;
}

/* What an algorithm was proposed for, as it is kept in it. */
typedef struct proposal {
    uint64_t problem; /* a hash */
    uint64_t workspace;
    uint32_t alignment[4];
} proposal;

static uint64_t hash(uint64_t of, uint64_t value) {
    return (of ^ value) * 0x9e3779b97f4a7c15u + (of >> 29);
}

static uint64_t problem_of(lt_operation o, lt_layout a, lt_layout b, lt_layout c, lt_layout d) {
    const lt_layout layouts[] = {a, b, c, d};
    uint64_t result = hash((uint64_t)o->transpose_a * 2 + (uint64_t)o->transpose_b, (uint64_t)o->epilogue);
    for (int i = 0; i < 4; i++) {
        result = hash(hash(hash(result, layouts[i]->rows), layouts[i]->columns),
                      (uint64_t)layouts[i]->pitch * 32 + (uint64_t)layouts[i]->type);
    }
    return result;
}

static const char *wrong_with(lt_operation o, lt_layout a, lt_layout b, lt_layout c, lt_layout d) {
    uint64_t m = o->transpose_a ? a->columns : a->rows, k = o->transpose_a ? a->rows : a->columns;
    uint64_t n = o->transpose_b ? b->rows : b->columns;
    if (o->compute != CUBLAS_COMPUTE_32F || o->scale != CUDA_R_32F) {
        return "another arithmetic than fp32";
    }
    if (a->type != b->type || (a->type != CUDA_R_32F && a->type != CUDA_R_16BF) || c->type != CUDA_R_32F ||
        d->type != CUDA_R_32F) {
        return "types that do not go together";
    }
    if ((o->transpose_b ? b->columns : b->rows) != k || c->rows != m || c->columns != n || d->rows != m ||
        d->columns != n || m == 0 || n == 0 || k == 0) {
        return "sizes that do not fit together";
    }
    if (a->pitch < (int64_t)a->rows || b->pitch < (int64_t)b->rows || c->pitch < (int64_t)c->rows ||
        d->pitch < (int64_t)d->rows) {
        return "columns that overlap";
    }
    return o->epilogue == CUBLASLT_EPILOGUE_BIAS && o->bias == NULL ? "no bias" : NULL;
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(lt_handle handle, lt_operation operation, lt_layout a, lt_layout b,
                                          lt_layout c, lt_layout d, lt_preference preference, int wanted,
                                          lt_heuristic *found, int *count) {
    ENTER("cublasLtMatmulAlgoGetHeuristic");
    const char *wrong = wrong_with(operation, a, b, c, d);
    if (wrong != NULL || wanted < 1 || handle == NULL) {
        return refuse(wrong != NULL ? wrong : "nothing is asked for");
    }
    proposal made = {.problem = problem_of(operation, a, b, c, d), .workspace = preference->workspace / 2};
    memcpy(made.alignment, preference->alignment, sizeof made.alignment);
    *found = (lt_heuristic){.workspace_bytes = made.workspace};
    memcpy(&found->algorithm, &made, sizeof made);
    *count = 1;
    hooks.count_heuristic();
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ---- */

typedef struct work {
    struct lt_operation_st operation;
    struct lt_layout_st a, b, c, d;
    const void *a_data, *b_data;
    const float *c_data;
    float *d_data;
    float alpha, beta;
} work;

static double element(const void *data, const struct lt_layout_st *layout, uint64_t row, uint64_t column) {
    const uint64_t at = row + column * (uint64_t)layout->pitch;
    uint32_t bits = layout->type == CUDA_R_16BF ? (uint32_t)((const uint16_t *)data)[at] << 16 : 0;
    float value;
    if (layout->type == CUDA_R_32F) {
        return (double)((const float *)data)[at];
    }
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static void compute(const void *given) {
    const work *w = given;
    const uint64_t k = w->operation.transpose_a ? w->a.rows : w->a.columns;
    for (uint64_t j = 0; j < w->d.columns; j++) {
        for (uint64_t i = 0; i < w->d.rows; i++) {
            double sum = 0.0;
            for (uint64_t l = 0; l < k; l++) {
                double x = w->operation.transpose_a ? element(w->a_data, &w->a, l, i) : element(w->a_data, &w->a, i, l);
                double y = w->operation.transpose_b ? element(w->b_data, &w->b, j, l) : element(w->b_data, &w->b, l, j);
                sum += x * y;
            }
            sum *= (double)w->alpha;
            if (w->beta != 0.0f) {
                sum += (double)w->beta * element(w->c_data, &w->c, i, j);
            }
            if (w->operation.epilogue == CUBLASLT_EPILOGUE_BIAS) {
                sum += (double)w->operation.bias[i];
            }
            w->d_data[i + j * (uint64_t)w->d.pitch] = (float)sum;
        }
    }
}

static bool is_there(const void *data, const struct lt_layout_st *layout) {
    size_t size = layout->type == CUDA_R_16BF ? 2 : 4;
    size_t count = (size_t)(layout->columns - 1) * (size_t)layout->pitch + (size_t)layout->rows;
    return hooks.is_device((CUdeviceptr)(uintptr_t)data, size * count);
}

EXPORT int cublasLtMatmul(lt_handle handle, lt_operation operation, const void *alpha, const void *a,
                          lt_layout a_layout, const void *b, lt_layout b_layout, const void *beta, const void *c,
                          lt_layout c_layout, void *d, lt_layout d_layout, const lt_algorithm *algorithm,
                          void *workspace, size_t workspace_bytes, CUstream stream) {
    ENTER("cublasLtMatmul");
    const char *wrong = wrong_with(operation, a_layout, b_layout, c_layout, d_layout);
    proposal agreed;
    memcpy(&agreed, algorithm, sizeof agreed);
    if (wrong != NULL || handle == NULL) {
        return refuse(wrong != NULL ? wrong : "no handle");
    }
    if (agreed.problem != problem_of(operation, a_layout, b_layout, c_layout, d_layout)) {
        return refuse("an algorithm for another problem");
    }
    const void *matrices[] = {a, b, c, d};
    for (int i = 0; i < 4; i++) {
        if ((uintptr_t)matrices[i] % agreed.alignment[i] != 0) {
            return refuse("a matrix is less aligned than was promised");
        }
    }
    if (workspace_bytes < agreed.workspace || (uintptr_t)workspace % 256 != 0 ||
        !hooks.is_device((CUdeviceptr)(uintptr_t)workspace, workspace_bytes)) {
        return refuse("the workspace");
    }
    work all = {.operation = *operation,
                .a = *a_layout,
                .b = *b_layout,
                .c = *c_layout,
                .d = *d_layout,
                .a_data = a,
                .b_data = b,
                .c_data = c,
                .d_data = d};
    memcpy(&all.alpha, alpha, sizeof all.alpha);
    memcpy(&all.beta, beta, sizeof all.beta);
    if (!is_there(a, a_layout) || !is_there(b, b_layout) || !is_there(c, c_layout) || !is_there(d, d_layout) ||
        (operation->epilogue == CUBLASLT_EPILOGUE_BIAS &&
         !hooks.is_device((CUdeviceptr)(uintptr_t)operation->bias, d_layout->rows * sizeof(float)))) {
        return refuse("a matrix reaches out of device memory");
    }
    hooks.enqueue(stream, compute, &all, sizeof all);
    return CUBLAS_STATUS_SUCCESS;
}
