/* cuBLASLt found at run time: descriptors, algorithms, calls.
 *
 * The library's matrices go by columns, ours by rows. A matrix by rows is its transpose by columns, so y = op(a) op(b)
 * is given as y' = op(b)' op(a)': the library's A is our b, its B our a, and M and N change places. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cublaslt.h"
#include "backends/cuda/cuda.h"
#include "backends/cuda/find_library.h"

typedef struct library {
#define LK_LT(name, result, parameters) result(*name) parameters;
#include "backends/cuda/cublaslt.def"
#undef LK_LT
} library;

static library lib;
static bool is_there, loaded;
static char missing[256];
static pthread_once_t found_once = PTHREAD_ONCE_INIT, loaded_once = PTHREAD_ONCE_INIT;

static bool find_symbol(void *from, const char *name, void *function, size_t size) {
    void *symbol = dlsym(from, name);
    if (symbol != NULL) {
        memcpy(function, &symbol, size);
    }
    return symbol != NULL;
}

/* The files that it may be, the last NULL. */
static void list_names(const char *names[4]) {
    const char *own = getenv("LORIKEET_CUBLASLT");
    bool has_own = own != NULL && own[0] != '\0';
    names[0] = !has_own ? "libcublasLt.so.13" : strcmp(own, "none") != 0 ? own : NULL;
    names[1] = !has_own ? "libcublasLt.so.12" : NULL;
    names[2] = !has_own ? "libcublasLt.so.11" : NULL;
    names[3] = NULL;
}

static void load(void) {
    const char *names[4];
    void *found = NULL;
    list_names(names);
    for (int i = 0; names[i] != NULL && found == NULL; i++) {
        found = dlopen(names[i], RTLD_NOW | RTLD_LOCAL); /* never closed: it keeps threads */
    }
    if (found == NULL) {
        snprintf(missing, sizeof missing, names[0] == NULL ? "LORIKEET_CUBLASLT is none" : "%.200s cannot be loaded",
                 names[0]);
        return;
    }
#define LK_LT(name, result, parameters)                                   \
    if (!find_symbol(found, #name, (void *)&lib.name, sizeof lib.name)) { \
        snprintf(missing, sizeof missing, "the library has no " #name);   \
        return;                                                           \
    }
#include "backends/cuda/cublaslt.def"
#undef LK_LT
    loaded = true;
}

/* Loading takes a third of a second and 94 MB, so that is left to devices that are opened. */
static void find(void) {
    const char *names[4];
    list_names(names);
    for (int i = 0; names[i] != NULL && !is_there; i++) {
        is_there = lk_library_is_found(names[i]);
    }
    if (!is_there) {
        pthread_once(&loaded_once, load);
        is_there = loaded;
    }
}

const char *lk_cuda_lt_absent(void) {
    pthread_once(&found_once, find);
    return is_there ? NULL : missing;
}

/* ---- one device ---- */

/* All that the choice of an algorithm depends on. */
typedef struct shape {
    uint32_t numbers[LT_IS_BF16 + 1];
    uint32_t alignment[4]; /* bytes, of the library's A, B, C, D */
} shape;

typedef struct choice {
    shape shape;
    lt_heuristic found;
} choice;

struct lk_cuda_lt {
    lt_handle handle;
    choice *choices; /* of all shapes so far */
    int32_t count, capacity;
};

typedef struct product_call {
    lt_operation operation;
    lt_layout a, b, y;
    lt_algorithm algorithm;
    size_t workspace_bytes;
    CUdeviceptr buffers[LT_WORKSPACE + 1];
    float alpha, beta;
} product_call;

static const char *name_of(int status) {
    static const struct {
        int status;
        const char *name;
    } names[] = {{CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED"},
                 {CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED"},
                 {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE"},
                 {CUBLAS_STATUS_ARCH_MISMATCH, "CUBLAS_STATUS_ARCH_MISMATCH"},
                 {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED"},
                 {CUBLAS_STATUS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR"},
                 {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED"}};
    for (size_t i = 0; i < LK_COUNT(names); i++) {
        if (names[i].status == status) {
            return names[i].name;
        }
    }
    return "an error of cuBLASLt";
}

static lk_status fail(lk_cuda_device *device, int status, const char *what) {
    return lk_fail(device->device.context,
                   status == CUBLAS_STATUS_ALLOC_FAILED ? LK_STATUS_OUT_OF_MEMORY : LK_STATUS_DEVICE,
                   "cuda:%d %s: %s: %s (%d); LORIKEET_CUBLASLT=none does without cuBLASLt", device->device.caps.index,
                   device->device.caps.name, what, name_of(status), status);
}

lk_cuda_lt *lk_cuda_lt_open(lk_cuda_device *device) {
    lk_context *context = device->device.context;
    pthread_once(&loaded_once, load);
    if (!loaded) {
        lk_log(context, LK_LOG_WARNING, "cuBLASLt: %s: products are made without it", missing);
        return NULL;
    }
    lk_cuda_lt *lt = lk_calloc(context, 1, sizeof *lt);
    int status = lt != NULL ? lib.cublasLtCreate(&lt->handle) : CUBLAS_STATUS_ALLOC_FAILED;
    if (status != CUBLAS_STATUS_SUCCESS) {
        lk_log(context, LK_LOG_WARNING, "cuBLASLt does not start (%s, %d): products are made without it",
               name_of(status), status);
        lk_free(context, lt);
        return NULL;
    }
    return lt;
}

void lk_cuda_lt_close(lk_cuda_device *device, lk_cuda_lt *lt) {
    if (lt != NULL) {
        lib.cublasLtDestroy(lt->handle);
        lk_free(device->device.context, lt->choices);
        lk_free(device->device.context, lt);
    }
}

/* ---- a product ---- */

static uint32_t alignment_of(CUdeviceptr pointer) {
    uint32_t bytes = 256;
    while ((pointer & (bytes - 1)) != 0) {
        bytes /= 2;
    }
    return bytes;
}

static shape shape_of(const lk_launch *launch, const product_call *call) {
    shape made;
    memcpy(made.numbers, launch->parameters, sizeof made.numbers);
    const CUdeviceptr y = call->buffers[LT_Y], c = launch->parameters[LT_HAS_C] ? call->buffers[LT_C] : y;
    const CUdeviceptr matrices[4] = {call->buffers[LT_B], call->buffers[LT_A], c, y};
    for (int i = 0; i < 4; i++) {
        made.alignment[i] = alignment_of(matrices[i]);
    }
    return made;
}

static int describe(const lk_launch *launch, product_call *call) {
    const uint32_t *p = launch->parameters;
    const int type = p[LT_IS_BF16] ? CUDA_R_16BF : CUDA_R_32F;
    /* by columns: b is [K, N] where ours is [N, K], else [N, K]; a is [K, M] where ours is [M, K], else [M, K] */
    const int op_a = p[LT_TRANSPOSE_B] ? CUBLAS_OP_T : CUBLAS_OP_N,
              op_b = p[LT_TRANSPOSE_A] ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int epilogue = p[LT_HAS_BIAS] ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    const struct {
        int attribute;
        const void *value;
        size_t bytes;
    } attributes[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a},
                      {CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b},
                      {CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue},
                      {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &call->buffers[LT_BIAS], sizeof(void *)}};
    int status = lib.cublasLtMatmulDescCreate(&call->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    for (size_t i = 0; i < (p[LT_HAS_BIAS] ? 4u : 3u) && status == CUBLAS_STATUS_SUCCESS; i++) {
        status = lib.cublasLtMatmulDescSetAttribute(call->operation, attributes[i].attribute, attributes[i].value,
                                                    attributes[i].bytes);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lib.cublasLtMatrixLayoutCreate(&call->a, type, p[p[LT_TRANSPOSE_B] ? LT_K : LT_N],
                                                p[p[LT_TRANSPOSE_B] ? LT_N : LT_K], p[LT_B_PITCH]);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lib.cublasLtMatrixLayoutCreate(&call->b, type, p[p[LT_TRANSPOSE_A] ? LT_M : LT_K],
                                                p[p[LT_TRANSPOSE_A] ? LT_K : LT_M], p[LT_A_PITCH]);
    }
    return status == CUBLAS_STATUS_SUCCESS
               ? lib.cublasLtMatrixLayoutCreate(&call->y, CUDA_R_32F, p[LT_N], p[LT_M], p[LT_N])
               : status;
}

static int ask(const lk_cuda_lt *lt, const product_call *call, const shape *of, lt_heuristic *found) {
    lt_preference preference = NULL;
    const uint64_t workspace = call->workspace_bytes;
    int count = 0, status = lib.cublasLtMatmulPreferenceCreate(&preference);
    if (status != CUBLAS_STATUS_SUCCESS) {
        return status;
    }
    status = lib.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                      sizeof workspace);
    for (int i = 0; i < 4 && status == CUBLAS_STATUS_SUCCESS; i++) {
        status = lib.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + i,
                                                          &of->alignment[i], sizeof of->alignment[i]);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        status = lib.cublasLtMatmulAlgoGetHeuristic(lt->handle, call->operation, call->a, call->b, call->y, call->y,
                                                    preference, 1, found, &count);
    }
    lib.cublasLtMatmulPreferenceDestroy(preference);
    bool none = status == CUBLAS_STATUS_SUCCESS && (count < 1 || found->state != CUBLAS_STATUS_SUCCESS);
    return none ? CUBLAS_STATUS_NOT_SUPPORTED : status;
}

static lk_status choose(lk_cuda_device *device, const lk_launch *launch, product_call *call) {
    lk_cuda_lt *lt = device->lt;
    const shape wanted = shape_of(launch, call);
    for (int32_t i = 0; i < lt->count; i++) {
        if (memcmp(&lt->choices[i].shape, &wanted, sizeof wanted) == 0) {
            call->algorithm = lt->choices[i].found.algorithm;
            return LK_OK;
        }
    }
    if (lt->count == lt->capacity) {
        int32_t capacity = 2 * lt->capacity + 16;
        choice *grown = lk_realloc(device->device.context, lt->choices, (size_t)capacity, sizeof *grown);
        if (grown == NULL) {
            return lk_out_of_memory(device->device.context, (size_t)capacity * sizeof *grown, "cuBLASLt's algorithms");
        }
        lt->choices = grown;
        lt->capacity = capacity;
    }
    choice *made = &lt->choices[lt->count];
    *made = (choice){.shape = wanted};
    int status = ask(lt, call, &wanted, &made->found);
    if (status != CUBLAS_STATUS_SUCCESS) {
        return fail(device, status, "cublasLtMatmulAlgoGetHeuristic");
    }
    lt->count++;
    call->algorithm = made->found.algorithm;
    return LK_OK;
}

static lk_status prepare(lk_cuda_device *device, const lk_launch *launch, void **out) {
    product_call *call = lk_calloc(device->device.context, 1, sizeof *call);
    *out = call;
    if (call == NULL) {
        return lk_out_of_memory(device->device.context, sizeof *call, "a product");
    }
    for (int i = 0; i <= LT_WORKSPACE; i++) {
        call->buffers[i] = launch->buffers[i].buffer->memory + launch->buffers[i].offset;
    }
    call->workspace_bytes = launch->buffers[LT_WORKSPACE].bytes;
    call->beta = launch->parameters[LT_HAS_C] ? 1.0f : 0.0f;
    memcpy(&call->alpha, &launch->parameters[LT_ALPHA], sizeof call->alpha);
    if (!launch->parameters[LT_HAS_C]) {
        call->buffers[LT_C] = call->buffers[LT_Y]; /* not read */
    }
    int status = describe(launch, call);
    return status == CUBLAS_STATUS_SUCCESS ? choose(device, launch, call)
                                           : fail(device, status, "a product for cuBLASLt");
}

static void *pointer(CUdeviceptr address) {
    return (void *)(uintptr_t)address;
}

static lk_status start(lk_cuda_device *device, void *prepared) {
    const product_call *call = prepared;
    int status =
        lib.cublasLtMatmul(device->lt->handle, call->operation, &call->alpha, pointer(call->buffers[LT_B]), call->a,
                           pointer(call->buffers[LT_A]), call->b, &call->beta, pointer(call->buffers[LT_C]), call->y,
                           pointer(call->buffers[LT_Y]), call->y, &call->algorithm,
                           pointer(call->buffers[LT_WORKSPACE]), call->workspace_bytes, device->stream);
    return status == CUBLAS_STATUS_SUCCESS ? LK_OK : fail(device, status, "cublasLtMatmul");
}

static void release(lk_cuda_device *device, void *prepared) {
    product_call *call = prepared;
    if (call == NULL) {
        return;
    }
    const lt_layout layouts[] = {call->a, call->b, call->y};
    for (size_t i = 0; i < LK_COUNT(layouts); i++) {
        if (layouts[i] != NULL) {
            lib.cublasLtMatrixLayoutDestroy(layouts[i]);
        }
    }
    if (call->operation != NULL) {
        lib.cublasLtMatmulDescDestroy(call->operation);
    }
    lk_free(device->device.context, call);
}

const lk_cuda_library lk_cuda_cublaslt = {LK_CUDA_LT_FILE, prepare, start, release};
