/* CLBlast's rows: chosen on GPUs that have the library for products that are large enough, never by themselves on
 * processors, refused with the reason where it is absent; and right, where it is present. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/runner.h"
#include "tests/ops/harness.h"

#if !defined(__has_include)
#define __has_include(x) 0
#endif
#if __has_include(<CL/cl_icd.h>)
#include "backends/opencl/clblast.h"

static lk_context *context;

static void setup(void) {
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void teardown(void) {
    lk_context_destroy(context);
}

/* For a product of two squares of `side`. */
static lk_selection choose(bool is_cpu, uint64_t features, int64_t side, lk_candidate candidates[], int *count) {
    lk_device_caps caps = {.struct_size = sizeof caps, .backend = "opencl", .is_cpu = is_cpu, .features = features};
    caps.threads = is_cpu ? 8 : 40;
    caps.shared_bytes = 32768;
    caps.max_group_size = 256;
    caps.subgroup_size = 32;
    caps.max_buffer_bytes = SIZE_MAX;
    caps.flops_f32 = is_cpu ? 1e12 : 1e13;
    caps.bandwidth = is_cpu ? 5e10 : 5e11;
    caps.launch_seconds = 1e-5;
    lk_tensor a = {.dtype = LK_DTYPE_F32, .rank = 2, .shape = {side, side, 1, 1}}, b = a, y = a;
    lk_tensor *inputs[] = {&a, &b};
    lk_node node = {.op = LK_OP_MATMUL,
                    .num_inputs = 2,
                    .num_outputs = 1,
                    .inputs = inputs,
                    .outputs = {&y},
                    .attributes = {.matmul = {false, true, 1.0f}},
                    .scope = ""};
    int num_rows;
    const lk_kernel *rows = lk_backend_opencl.kernels(&num_rows);
    return lk_select(rows, num_rows, &caps, &node, NULL, candidates, count);
}

START_TEST(test_selection) {
    lk_candidate candidates[LK_MAX_CANDIDATES];
    int count;
    ck_assert_str_eq(choose(false, LK_CL_CLBLAST, 2048, candidates, &count).kernel->name, "opencl_clblast_matmul");
    ck_assert_str_ne(choose(false, LK_CL_CLBLAST, 4, candidates, &count).kernel->name, "opencl_clblast_matmul");
    ck_assert_str_eq(choose(true, LK_CL_CLBLAST, 2048, candidates, &count).kernel->name, "opencl_matmul_panel");
    ck_assert_str_ne(choose(false, 0, 2048, candidates, &count).kernel->name, "opencl_clblast_matmul");
    for (int i = 0; i < count; i++) {
        if (strcmp(candidates[i].kernel->name, "opencl_clblast_matmul") == 0) {
            ck_assert_ptr_nonnull(strstr(candidates[i].why.reason, "libclblast.so.1"));
            return;
        }
    }
    ck_abort_msg("CLBlast's row is no candidate");
}
END_TEST

/* What watchdogs would end is left to kernels that can be cut. */
START_TEST(test_long_calls_are_refused) {
    lk_candidate candidates[LK_MAX_CANDIDATES];
    int count;
    ck_assert_str_ne(choose(false, LK_CL_CLBLAST, 16384, candidates, &count).kernel->name, "opencl_clblast_matmul");
    setenv("LORIKEET_SUBMIT_MS", "100000", 1);
    ck_assert_str_eq(choose(false, LK_CL_CLBLAST, 16384, candidates, &count).kernel->name, "opencl_clblast_matmul");
    unsetenv("LORIKEET_SUBMIT_MS");
}
END_TEST

/* Every case of its ops that it takes. */
START_TEST(test_results) {
    lk_device_caps caps[LK_CL_MAX_DEVICES];
    lk_device *device;
    int found, count, num_rows, runs = 0;
    if (lk_backend_opencl.probe(context, caps, LK_CL_MAX_DEVICES, &found) != LK_OK || !lk_clblast_is_there()) {
        printf("skipped: no OpenCL device, or CLBlast is not installed (Debian: libclblast1)\n");
        return;
    }
    ck_assert_int_eq(lk_backend_opencl.open(context, &caps[0], NULL, &device), LK_OK);
    const op_case *cases = op_cases(&count);
    const lk_kernel *rows = lk_backend_opencl.kernels(&num_rows);
    for (int c = 0; c < count; c++) {
        for (int r = 0; r < num_rows; r++) {
            lk_refusal why;
            op_instance instance;
            if (rows[r].op != cases[c].op || strstr(rows[r].name, "clblast") == NULL) {
                continue;
            }
            ck_assert_int_eq(op_instance_make(context, &cases[c], 3, &instance), LK_OK);
            if (rows[r].supports(&device->caps, &instance.node, &why)) {
                op_verdict verdict;
                ck_assert_msg(op_instance_check(&instance, device, &rows[r], &verdict) == LK_OK, "%s",
                              lk_error_message(context));
                ck_assert_msg(verdict.problem[0] == '\0', "%s on %s: %s", rows[r].name, cases[c].name, verdict.problem);
                runs++;
            }
            op_instance_free(&instance);
        }
    }
    printf("%d products by CLBlast\n", runs);
    ck_assert_int_gt(runs, 20);
    lk_backend_opencl.close(device);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("clblast");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300); /* it compiles its kernels, for up to 20 s where the driver has not kept them */
    tcase_add_test(tests, test_selection);
    tcase_add_test(tests, test_long_calls_are_refused);
    tcase_add_test(tests, test_results);
    return run_case("clblast", tests);
}
#else
int main(void) {
    printf("SKIP: built without OpenCL's headers\n");
    return 77;
}
#endif
