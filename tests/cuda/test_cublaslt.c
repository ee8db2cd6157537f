/* Products by cuBLASLt on its mock: what is asked of the library, and what happens when it fails, is absent or does not
 * start. The numbers are checked by cuda/cublaslt_conformance. Where the real library is installed, the descriptors are
 * made by it as well, which needs no device. */
#include <check.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cublaslt.h"
#include "backends/cuda/cuda.h"
#include "backends/cuda/find_library.h"
#include "tests/common/runner.h"
#include "tests/cuda/rows.h"

enum { TOKENS = 24, IN = 32, OUT = 16, ELEMENTS = 1024 };

static lk_context *context;
static const lk_backend *const cuda = &lk_backend_cuda;

#define SUCCEEDS(expression) ck_assert_msg((expression) == LK_OK, "%s", lk_error_message(context))

static void setup(void) {
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void teardown(void) {
    lk_context_destroy(context);
}

/* The same linear twice, with a weight in bf16 and a bias. */
typedef struct linear {
    lk_tensor x, weight, bias, y;
    lk_tensor *inputs[3];
    lk_node node;
    lk_binding operands[3], result;
    lk_command commands[2];
} linear;

static lk_binding part(lk_buffer *buffer, int index) {
    return (lk_binding){buffer, (size_t)index * ELEMENTS * sizeof(float), ELEMENTS * sizeof(float)};
}

static void make_linear(linear *self, lk_buffer *buffer, lk_buffer *scratch) {
    *self = (linear){.x = {.dtype = LK_DTYPE_F32, .rank = 2, .shape = {TOKENS, IN, 1, 1}},
                     .weight = {.dtype = LK_DTYPE_BF16, .rank = 2, .shape = {OUT, IN, 1, 1}},
                     .bias = {.dtype = LK_DTYPE_F32, .rank = 1, .shape = {OUT, 1, 1, 1}},
                     .y = {.dtype = LK_DTYPE_F32, .rank = 2, .shape = {TOKENS, OUT, 1, 1}}};
    self->inputs[0] = &self->x;
    self->inputs[1] = &self->weight;
    self->inputs[2] = &self->bias;
    self->node = (lk_node){.op = LK_OP_LINEAR,
                           .num_inputs = 3,
                           .num_outputs = 1,
                           .inputs = self->inputs,
                           .outputs = {&self->y},
                           .scope = "here"};
    for (int i = 0; i < 3; i++) {
        self->operands[i] = part(buffer, i);
    }
    self->result = part(buffer, 3);
    for (int i = 0; i < 2; i++) {
        self->commands[i] = (lk_command){&self->node,
                                         cuda_row_called("cuda_linear_lt_bf16"),
                                         self->operands,
                                         &self->result,
                                         {scratch, 0, scratch != NULL ? (size_t)40 << 20 : 0}};
    }
}

/* Ones times ones, plus one half. The first failure ends it; everything is given back. */
static lk_status use_library(void) {
    static float host[4 * ELEMENTS];
    lk_device_caps caps;
    lk_device *device;
    lk_buffer *buffer = NULL, *scratch = NULL;
    lk_commands *list = NULL;
    linear product;
    int count;
    LK_TRY(cuda->probe(context, &caps, 1, &count));
    LK_TRY(cuda->open(context, &caps, NULL, &device));
    lk_status status = cuda->alloc(device, sizeof host, &buffer);
    bool with_library = (device->caps.features & LK_CUDA_FEATURE_CUBLASLT) != 0;
    for (int i = 0; i < ELEMENTS; i++) {
        const uint32_t two_ones = 0x3f803f80u;
        host[i] = 1.0f;
        memcpy(&host[ELEMENTS + i], &two_ones, sizeof two_ones);
        host[2 * ELEMENTS + i] = 0.5f;
    }
    if (status == LK_OK && with_library) {
        status = cuda->alloc(device, (size_t)40 << 20, &scratch);
    }
    if (status == LK_OK) {
        status = cuda->upload(device, buffer, 0, host, sizeof host);
    }
    if (status == LK_OK && with_library) {
        make_linear(&product, buffer, scratch);
        status = cuda->compile(device, product.commands, 2, &list);
    }
    double seconds[2];
    for (int timed = 0; timed < 2 && status == LK_OK && with_library; timed++) {
        status = cuda->run(device, list, timed ? seconds : NULL);
        if (status == LK_OK) {
            status = cuda->wait(device);
        }
    }
    if (status == LK_OK && with_library) {
        status = cuda->download(device, buffer, 0, host, sizeof host);
        for (int i = 0; status == LK_OK && i < TOKENS * OUT; i++) {
            ck_assert_float_eq(host[3 * ELEMENTS + i], (float)IN + 0.5f);
        }
    }
    cuda->release(device, list);
    cuda->free(device, scratch);
    cuda->free(device, buffer);
    cuda->close(device);
    return status;
}

START_TEST(test_asked_once_per_shape) {
    SUCCEEDS(use_library());
    ck_assert_uint_eq(cuda_mock_counted().heuristics, 1); /* two commands, a graph and a timed run */
    ck_assert_uint_eq(cuda_mock_counted().live, 0);
}
END_TEST

START_TEST(test_every_call_fails_once) {
    static const char *const functions[] = {
#define LK_LT(name, result, parameters) #name,
#include "backends/cuda/cublaslt.def"
#undef LK_LT
    };
    int runs = 0;
    SUCCEEDS(use_library());
    for (size_t f = 0; f < LK_COUNT(functions); f++) {
        for (int nth = 1;; nth++) {
            char plan[96];
            snprintf(plan, sizeof plan, "%s:%d:14", functions[f], nth);
            unsigned long failures = cuda_mock_counted().failures;
            setenv("LK_MOCK_CUDA_FAIL", plan, 1);
            lk_status status = use_library();
            unsetenv("LK_MOCK_CUDA_FAIL");
            ck_assert_msg(cuda_mock_counted().live == 0, "%s leaves %lu objects", plan, cuda_mock_counted().live);
            if (cuda_mock_counted().failures == failures) {
                SUCCEEDS(status);
                break;
            }
            runs++;
            if (strcmp(functions[f], "cublasLtCreate") == 0) { /* then it goes on without */
                SUCCEEDS(status);
                continue;
            }
            ck_assert_msg(status == LK_STATUS_DEVICE, "%s", plan);
            ck_assert_msg(strstr(lk_error_message(context), "CUBLAS_STATUS_INTERNAL_ERROR") != NULL &&
                              strstr(lk_error_message(context), "linear at here") != NULL &&
                              strstr(lk_error_message(context), "LORIKEET_CUBLASLT=none") != NULL,
                          "%s: %s", plan, lk_error_message(context));
        }
    }
    printf("%d failing calls\n", runs);
    ck_assert_int_gt(runs, 20);
}
END_TEST

/* A probe does not load what is so large, an open device has it. */
START_TEST(test_loaded_when_used) {
    const char *path = getenv("LORIKEET_CUBLASLT");
    lk_device_caps caps;
    lk_device *device;
    int count;
    SUCCEEDS(cuda->probe(context, &caps, 1, &count));
    ck_assert_uint_ne(caps.features & LK_CUDA_FEATURE_CUBLASLT, 0);
    ck_assert_ptr_null(dlopen(path, RTLD_NOW | RTLD_NOLOAD));
    SUCCEEDS(cuda->open(context, &caps, NULL, &device));
    ck_assert_ptr_nonnull(dlopen(path, RTLD_NOW | RTLD_NOLOAD));
    cuda->close(device);
}
END_TEST

/* A file that is there and cannot be loaded: the device says so and goes on without. */
START_TEST(test_cannot_be_loaded) {
    lk_device_caps caps;
    lk_device *device;
    int count;
    setenv("LORIKEET_CUBLASLT", "/dev/null", 1);
    SUCCEEDS(cuda->probe(context, &caps, 1, &count));
    ck_assert_uint_ne(caps.features & LK_CUDA_FEATURE_CUBLASLT, 0);
    SUCCEEDS(cuda->open(context, &caps, NULL, &device));
    ck_assert_uint_eq(device->caps.features & LK_CUDA_FEATURE_CUBLASLT, 0);
    cuda->close(device);
}
END_TEST

START_TEST(test_where_libraries_are_found) {
    char file[256];
    snprintf(file, sizeof file, "%s", getenv("LORIKEET_CUBLASLT"));
    char *name = strrchr(file, '/') + 1;
    ck_assert(lk_library_is_found(file));
    ck_assert(!lk_library_is_found("/nowhere/libcublasLt.so"));
    ck_assert(!lk_library_is_found(name));
    name[-1] = '\0';
    setenv("LD_LIBRARY_PATH", file, 1);
    ck_assert(lk_library_is_found(name));
    ck_assert(!lk_library_is_found("libnowhere.so.1"));
    unsetenv("LD_LIBRARY_PATH");
    if (fopen("/etc/ld.so.cache", "rb") != NULL) {
        ck_assert(lk_library_is_found("libc.so.6"));
    }
}
END_TEST

/* In a process of its own: the library is looked for once. */
START_TEST(test_absent) {
    lk_device_caps caps;
    int count;
    setenv("LORIKEET_CUBLASLT", _i == 0 ? "none" : "/nowhere/libcublasLt.so", 1);
    SUCCEEDS(cuda->probe(context, &caps, 1, &count));
    ck_assert_uint_eq(caps.features & LK_CUDA_FEATURE_CUBLASLT, 0);
    linear product;
    make_linear(&product, NULL, NULL);
    lk_refusal why;
    ck_assert(!cuda_row_called("cuda_linear_lt_bf16")->supports(&caps, &product.node, &why));
    ck_assert_str_eq(why.reason, "cuBLASLt is not there");
    caps.features |= LK_CUDA_FEATURE_CUBLASLT;
    ck_assert(cuda_row_called("cuda_linear_lt_bf16")->supports(&caps, &product.node, &why));
    caps.flops_16 = 1e3; /* what watchdogs would end is left to kernels that can be cut */
    ck_assert(!cuda_row_called("cuda_linear_lt_bf16")->supports(&caps, &product.node, &why));
    ck_assert_ptr_nonnull(strstr(why.reason, "cannot be cut"));
    product.weight.dtype = LK_DTYPE_F16;
    ck_assert(!cuda_row_called("cuda_linear_lt_bf16")->supports(&caps, &product.node, &why));
}
END_TEST

/* The real library takes the descriptors that describe() makes; without a driver it does not start, and nothing breaks.
 */
START_TEST(test_real_library) {
    void *real = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    real = real != NULL ? real : dlopen("libcublasLt.so.12", RTLD_NOW | RTLD_LOCAL);
    if (real == NULL) {
        printf("SKIP: 1 check: cuBLASLt is not installed\n");
        return;
    }
    struct {
#define LK_LT(name, result, parameters) result(*name) parameters;
#include "backends/cuda/cublaslt.def"
#undef LK_LT
    } lt;
#define LK_LT(name, result, parameters)                          \
    do {                                                         \
        void *symbol = dlsym(real, #name);                       \
        ck_assert_msg(symbol != NULL, "cuBLASLt has no " #name); \
        memcpy((void *)&lt.name, &symbol, sizeof symbol);        \
    } while (0);
#include "backends/cuda/cublaslt.def"
#undef LK_LT
    lt_operation operation;
    lt_layout layout;
    lt_preference preference;
    const int transpose = CUBLAS_OP_T, epilogue = CUBLASLT_EPILOGUE_BIAS;
    void *const bias = &operation;
    const uint64_t workspace = 32 << 20;
    const uint32_t alignment = 16;
    ck_assert_int_eq(lt.cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), 0);
    ck_assert_int_eq(lt.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, 4), 0);
    ck_assert_int_eq(lt.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSB, &transpose, 4), 0);
    ck_assert_int_eq(lt.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, 4), 0);
    ck_assert_int_eq(lt.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, 8), 0);
    ck_assert_int_ne(lt.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, 4), 0);
    ck_assert_int_eq(lt.cublasLtMatrixLayoutCreate(&layout, CUDA_R_16BF, 64, 32, 72), 0);
    ck_assert_int_eq(lt.cublasLtMatmulPreferenceCreate(&preference), 0);
    ck_assert_int_eq(lt.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                             &workspace, sizeof workspace),
                     0);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(lt.cublasLtMatmulPreferenceSetAttribute(
                             preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + i, &alignment, sizeof alignment),
                         0);
    }
    ck_assert_int_eq(lt.cublasLtMatmulPreferenceDestroy(preference), 0);
    ck_assert_int_eq(lt.cublasLtMatrixLayoutDestroy(layout), 0);
    ck_assert_int_eq(lt.cublasLtMatmulDescDestroy(operation), 0);
    ck_assert_uint_ge(lt.cublasLtGetVersion(), 110000);
}
END_TEST

int main(void) {
    if (getenv("LK_MOCK") == NULL) {
        printf("SKIP: no mock driver in this build\n");
        return 77;
    }
    TCase *tests = tcase_create("cuda-cublaslt");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_asked_once_per_shape);
    tcase_add_test(tests, test_every_call_fails_once);
    tcase_add_test(tests, test_loaded_when_used);
    tcase_add_test(tests, test_cannot_be_loaded);
    tcase_add_test(tests, test_where_libraries_are_found);
    tcase_add_loop_test(tests, test_absent, 0, 2);
    tcase_add_test(tests, test_real_library);
    return run_case("cuda-cublaslt", tests);
}
