/* The backend's host side on the mock driver: copies, graphs, times, and what it does when any call of the driver
 * fails.
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cuda.h"
#include "tests/common/runner.h"
#include "tests/cuda/rows.h"

enum { COUNT = 1000 };

static lk_context *context;
static const lk_backend *const cuda = &lk_backend_cuda;

#define SUCCEEDS(expression) ck_assert_msg((expression) == LK_OK, "%s", lk_error_message(context))

static void setup(void) {
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void teardown(void) {
    lk_context_destroy(context);
}

static lk_device *open_first(void) {
    lk_device_caps caps;
    lk_device *device;
    int count;
    SUCCEEDS(cuda->probe(context, &caps, 1, &count));
    SUCCEEDS(cuda->open(context, &caps, NULL, &device));
    return device;
}

/* y = a + b, twice: two commands. */
typedef struct addition {
    lk_tensor tensor;
    lk_tensor *inputs[2];
    lk_node node;
    lk_binding operands[2], result;
    lk_command commands[2];
} addition;

static void make_addition(addition *self, lk_buffer *buffer) {
    size_t bytes = COUNT * sizeof(float), step = 4096;
    *self = (addition){.tensor = {.dtype = LK_DTYPE_F32, .rank = 1, .shape = {COUNT, 1, 1, 1}}};
    self->inputs[0] = self->inputs[1] = &self->tensor;
    self->node = (lk_node){.op = LK_OP_ADD,
                           .num_inputs = 2,
                           .num_outputs = 1,
                           .inputs = self->inputs,
                           .outputs = {&self->tensor},
                           .scope = "here"};
    self->operands[0] = (lk_binding){buffer, 0, bytes};
    self->operands[1] = (lk_binding){buffer, step, bytes};
    self->result = (lk_binding){buffer, 2 * step, bytes};
    for (int i = 0; i < 2; i++) {
        self->commands[i] =
            (lk_command){&self->node, cuda_row_called("cuda_add"), self->operands, &self->result, {NULL, 0, 0}};
    }
}

/* All that a program does with a device. The first failure ends it; everything is given back. */
static lk_status use_device(void) {
    static char host[9 << 20]; /* more than both parts of the staging memory */
    lk_device_caps caps;
    lk_device *device;
    lk_buffer *buffer = NULL;
    lk_commands *list = NULL;
    addition sum;
    double seconds[2];
    int count;
    LK_TRY(cuda->probe(context, &caps, 1, &count));
    LK_TRY(cuda->open(context, &caps, NULL, &device));
    lk_status status = cuda->alloc(device, sizeof host, &buffer);
    for (size_t i = 0; i < 2 * 4096 / sizeof(float); i++) {
        ((float *)(void *)host)[i] = 1.5f;
    }
    if (status == LK_OK) {
        status = cuda->upload(device, buffer, 0, host, sizeof host);
    }
    if (status == LK_OK) {
        make_addition(&sum, buffer);
        status = cuda->compile(device, sum.commands, 2, &list);
    }
    for (int timed = 0; timed < 2 && status == LK_OK; timed++) {
        status = cuda->run(device, list, timed ? seconds : NULL);
        if (status == LK_OK) {
            status = cuda->wait(device);
        }
    }
    if (status == LK_OK) {
        status = cuda->download(device, buffer, 0, host, sizeof host);
    }
    if (status == LK_OK) {
        for (int i = 0; i < COUNT; i++) {
            float y;
            memcpy(&y, host + 2 * 4096 + (size_t)i * sizeof y, sizeof y);
            if (y != 3.0f) {
                ck_abort_msg("y[%d] is %g", i, (double)y);
            }
        }
        if (!(seconds[0] > 0.0 && seconds[1] > 0.0)) {
            ck_abort_msg("no times");
        }
    }
    cuda->release(device, list);
    cuda->free(device, buffer);
    cuda->close(device);
    return status;
}

/* Errors of these are nobody's: a card's name and clocks, and whatever releases. */
static bool may_be_ignored(const char *function, int nth) {
    bool is_clock = strcmp(function, "cuDeviceGetAttribute") == 0 && nth >= 8 && nth <= 10;
    return is_clock || strcmp(function, "cuDeviceGetName") == 0 || strcmp(function, "cuCtxSetCurrent") == 0;
}

/* Each call of each function fails once. The status says so, the message has the driver's name of the error, nothing is
 * left behind, and the next use of the device succeeds. */
START_TEST(test_every_call_fails_once) {
    static const struct {
        const char *function;
        int code;
        const char *name;
    } plans[] = {
#define LK_CU(name, symbol, parameters) {#symbol, CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
#include "backends/cuda/symbols.def"
#undef LK_CU
        {"cuMemAlloc_v2", CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {"cuGraphInstantiateWithFlags", CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {"cuModuleLoadData", CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
        {"cuStreamSynchronize", CUDA_ERROR_ECC_UNCORRECTABLE, "CUDA_ERROR_ECC_UNCORRECTABLE"},
        {"cuGraphLaunch", CUDA_ERROR_ECC_UNCORRECTABLE, "CUDA_ERROR_ECC_UNCORRECTABLE"},
        {"cuLaunchKernel", CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
        {"kernel", CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {"kernel", CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
    };
    SUCCEEDS(use_device()); /* loads the driver: cuInit is called no more */
    int runs = 0;
    for (size_t p = 0; p < LK_COUNT(plans); p++) {
        for (int nth = 1;; nth++) {
            char plan[96];
            snprintf(plan, sizeof plan, "%s:%d:%d", plans[p].function, nth, plans[p].code);
            unsigned long failures = cuda_mock_counted().failures;
            setenv("LK_MOCK_CUDA_FAIL", plan, 1);
            lk_status status = use_device();
            unsetenv("LK_MOCK_CUDA_FAIL");
            ck_assert_msg(cuda_mock_counted().live == 0, "%s leaves %lu objects", plan, cuda_mock_counted().live);
            if (cuda_mock_counted().failures == failures) {
                ck_assert_msg(status == LK_OK, "%s: %s", plan, lk_error_message(context));
                break;
            }
            runs++;
            lk_status wanted = plans[p].code == CUDA_ERROR_OUT_OF_MEMORY ? LK_STATUS_OUT_OF_MEMORY : LK_STATUS_DEVICE;
            if (status == LK_OK) {
                ck_assert_msg(may_be_ignored(plans[p].function, nth), "%s is not noticed", plan);
            } else {
                ck_assert_msg(status == wanted || status == LK_STATUS_UNAVAILABLE, "%s: %s", plan,
                              lk_error_message(context));
                ck_assert_msg(strstr(lk_error_message(context), plans[p].name) != NULL, "%s: %s", plan,
                              lk_error_message(context));
            }
        }
    }
    printf("%d failing calls\n", runs);
    ck_assert_int_gt(runs, 80);
}
END_TEST

START_TEST(test_no_card) {
    static const char *const plans[][2] = {{"cuInit:1:100", "finds no GPU (CUDA_ERROR_NO_DEVICE, 100)"},
                                           {"cuInit:1:34", "does not start (CUDA_ERROR_STUB_LIBRARY, 34)"}};
    lk_device_caps caps;
    int count;
    setenv("LK_MOCK_CUDA_FAIL", plans[_i][0], 1);
    ck_assert_int_eq(cuda->probe(context, &caps, 1, &count), LK_STATUS_UNAVAILABLE);
    ck_assert_msg(strstr(lk_error_message(context), plans[_i][1]) != NULL, "%s", lk_error_message(context));
}
END_TEST

START_TEST(test_no_room) {
    lk_device *device = open_first();
    lk_buffer *buffer;
    ck_assert_int_eq(cuda->alloc(device, (size_t)81 << 30, &buffer), LK_STATUS_OUT_OF_MEMORY);
    ck_assert_ptr_null(buffer);
    ck_assert_ptr_nonnull(strstr(lk_error_message(context), "86973087744 bytes"));
    ck_assert_int_eq(cuda->wrap(device, &device, sizeof device, &buffer), LK_STATUS_UNSUPPORTED);
    cuda->close(device);
}
END_TEST

/* The list is captured once, and a run is one launch of the graph; a timed run launches what is in it. */
START_TEST(test_graphs) {
    lk_device *device = open_first();
    lk_buffer *buffer;
    lk_commands *list;
    addition sum;
    double seconds[2];
    SUCCEEDS(cuda->alloc(device, 3 * 4096, &buffer));
    make_addition(&sum, buffer);
    mock_counts_of before = cuda_mock_counted();
    SUCCEEDS(cuda->compile(device, sum.commands, 2, &list));
    for (int i = 0; i < 3; i++) {
        SUCCEEDS(cuda->run(device, list, NULL));
        SUCCEEDS(cuda->wait(device));
    }
    mock_counts_of after = cuda_mock_counted();
    ck_assert_uint_eq(after.captures - before.captures, 1);
    ck_assert_uint_eq(after.graph_launches - before.graph_launches, 3);
    ck_assert_uint_eq(after.kernels - before.kernels, 6);
    ck_assert_uint_eq(after.launches, before.launches);
    SUCCEEDS(cuda->run(device, list, seconds));
    SUCCEEDS(cuda->wait(device));
    ck_assert_uint_eq(cuda_mock_counted().graph_launches, after.graph_launches);
    ck_assert_uint_eq(cuda_mock_counted().launches - after.launches, 2);
    cuda->release(device, list);
    SUCCEEDS(cuda->compile(device, NULL, 0, &list)); /* nothing to do */
    SUCCEEDS(cuda->run(device, list, NULL));
    SUCCEEDS(cuda->wait(device));
    cuda->release(device, list);
    cuda->free(device, buffer);
    cuda->close(device);
}
END_TEST

/* A kernel that fails in a graph has no name; one by one it has. */
START_TEST(test_failing_kernel) {
    setenv("LORIKEET_CUDA_GRAPHS", _i == 0 ? "1" : "0", 1);
    lk_device *device = open_first();
    lk_buffer *buffer;
    lk_commands *list;
    addition sum;
    SUCCEEDS(cuda->alloc(device, 3 * 4096, &buffer));
    make_addition(&sum, buffer);
    SUCCEEDS(cuda->compile(device, sum.commands, 2, &list));
    setenv("LK_MOCK_CUDA_FAIL", "kernel:2:719", 1);
    lk_status status = cuda->run(device, list, NULL);
    if (status == LK_OK) {
        status = cuda->wait(device);
    }
    ck_assert_int_eq(status, LK_STATUS_DEVICE);
    const char *message = lk_error_message(context);
    ck_assert_msg(strstr(message, "CUDA_ERROR_LAUNCH_FAILED (719)") != NULL, "%s", message);
    ck_assert_msg(strstr(message, _i == 0 ? "LORIKEET_CUDA_GRAPHS=0" : "add at here") != NULL, "%s", message);
    char byte; /* what comes after fails with the same error */
    ck_assert_int_eq(cuda->download(device, buffer, 0, &byte, 1), LK_STATUS_DEVICE);
    ck_assert_ptr_nonnull(strstr(lk_error_message(context), "CUDA_ERROR_LAUNCH_FAILED"));
    cuda->release(device, list);
    cuda->free(device, buffer);
    cuda->close(device);
    ck_assert_uint_eq(cuda_mock_counted().live, 0);
}
END_TEST

START_TEST(test_copies) {
    static const size_t part = LK_CUDA_STAGING_BYTES;
    static const size_t sizes[] = {0, 1, 7, 4096, part - 1, part, part + 1, 2 * part, 2 * part + 5, 3 * part + 9};
    size_t room = 4 * part;
    lk_device *device = open_first();
    lk_buffer *buffer;
    unsigned char *out = malloc(room), *in = malloc(room);
    SUCCEEDS(cuda->alloc(device, room, &buffer));
    ck_assert_ptr_null(cuda->map(buffer));
    for (size_t i = 0; i < room; i++) {
        out[i] = (unsigned char)(i * 2654435761u >> 13);
    }
    for (size_t s = 0; s < LK_COUNT(sizes); s++) {
        size_t offset = 256 * s;
        memset(in, 0, room);
        SUCCEEDS(cuda->upload(device, buffer, offset, out, sizes[s]));
        SUCCEEDS(cuda->download(device, buffer, offset, in, sizes[s]));
        ck_assert_msg(memcmp(in, out, sizes[s]) == 0, "%zu bytes", sizes[s]);
    }
    ck_assert_int_eq(cuda->upload(device, buffer, room, out, 1), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_int_eq(cuda->download(device, buffer, 1, in, SIZE_MAX), LK_STATUS_INVALID_ARGUMENT);
    cuda->free(device, buffer);
    cuda->close(device);
    free(out);
    free(in);
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) /* which takes the signal itself */
/* That the mock can find it at all: the host looks into device memory. */
START_TEST(test_host_cannot_look) {
    lk_device *device = open_first();
    lk_buffer *buffer;
    SUCCEEDS(cuda->alloc(device, 4096, &buffer));
    raise(*(volatile char *)(uintptr_t)buffer->memory == 0 ? SIGUSR1 : SIGUSR2);
}
END_TEST
#endif

/* Each op's launches have a variant that was compiled is what conformance shows; names are what variants.txt says. */
START_TEST(test_variant_names) {
    char name[LK_CUDA_NAME];
    lk_launch launch = {.file = "matmul", .entry = "matmul"};
    lk_launch_constant(&launch, "GROUP", 256);
    lk_launch_constant(&launch, "BK", 16);
    lk_launch_type(&launch, "W_TYPE", LK_DTYPE_BF16);
    lk_cuda_variant_name(&launch, name);
    ck_assert_str_eq(name, "matmul_256_16_bf16");
    lk_device *device = open_first();
    CUfunction function;
    ck_assert_int_eq(lk_cuda_function((lk_cuda_device *)device, &launch, &function), LK_STATUS_DEVICE);
    ck_assert_ptr_nonnull(strstr(lk_error_message(context), "matmul_256_16_bf16: CUDA_ERROR_NOT_FOUND"));
    launch.file = "nothing";
    ck_assert_int_eq(lk_cuda_function((lk_cuda_device *)device, &launch, &function), LK_STATUS_INTERNAL);
    cuda->close(device);
}
END_TEST

int main(void) {
    if (getenv("LK_MOCK") == NULL) {
        printf("SKIP: no mock driver in this build\n");
        return 77;
    }
    TCase *tests = tcase_create("cuda-driver");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_every_call_fails_once);
    tcase_add_loop_test(tests, test_no_card, 0, 2);
    tcase_add_test(tests, test_no_room);
    tcase_add_test(tests, test_graphs);
    tcase_add_loop_test(tests, test_failing_kernel, 0, 2);
    tcase_add_test(tests, test_copies);
    tcase_add_test(tests, test_variant_names);
#if !defined(__SANITIZE_ADDRESS__)
    tcase_add_test_raise_signal(tests, test_host_cannot_look, SIGSEGV);
#endif
    return run_case("cuda-driver", tests);
}
