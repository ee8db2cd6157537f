/* Every kernel row of every device against the specification, on every case of its op. What a row refuses is counted,
 * and a device that refuses all of an op is reported: nothing is passed over in silence. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/runner.h"
#include "tests/ops/harness.h"

static uint64_t seed = 20260101;

/* LK_TEST_BACKEND, LK_TEST_KERNELS (a part of rows' names) and LK_TEST_MAX_ELEMENTS narrow the run. */
static bool is_wanted(const char *backend, const lk_node *node) {
    const char *name = getenv("LK_TEST_BACKEND"), *most = getenv("LK_TEST_MAX_ELEMENTS");
    bool wanted = name == NULL || strcmp(name, backend) == 0;
    for (int i = 0; node != NULL && most != NULL && i < node->num_inputs; i++) {
        wanted = wanted && (node->inputs[i] == NULL || lk_tensor_elements(node->inputs[i]) <= atoll(most));
    }
    return wanted;
}

static int rows_of(const lk_backend *backend, lk_op op, const lk_kernel **rows) {
    int num_rows, count = 0;
    const lk_kernel *all = backend->kernels(&num_rows);
    const char *part = getenv("LK_TEST_KERNELS");
    for (int i = 0; i < num_rows && count < LK_MAX_CANDIDATES; i++) {
        if (all[i].op == op && (part == NULL || strstr(all[i].name, part) != NULL)) {
            rows[count++] = &all[i];
        }
    }
    return count;
}

static void check_device(lk_context *context, lk_device *device) {
    int count, run = 0, refused = 0, failed = 0;
    const op_case *cases = op_cases(&count);
    for (int c = 0; c < count; c++) {
        op_instance instance;
        ck_assert_msg(op_instance_make(context, &cases[c], seed, &instance) == LK_OK, "%s: %s", cases[c].name,
                      lk_error_message(context));
        const lk_kernel *rows[LK_MAX_CANDIDATES];
        int num_rows = rows_of(device->backend, cases[c].op, rows);
        num_rows = is_wanted(device->caps.backend, &instance.node) ? num_rows : 0;
        for (int r = 0; r < num_rows; r++) {
            lk_refusal why = {""};
            bool features = (rows[r]->required_features & ~device->caps.features) == 0;
            if (!features || (rows[r]->supports != NULL && !rows[r]->supports(&device->caps, &instance.node, &why))) {
                refused++;
                continue;
            }
            op_verdict verdict;
            lk_status status = op_instance_check(&instance, device, rows[r], &verdict);
            run++;
            if (status != LK_OK || verdict.problem[0] != '\0') {
                printf("FAILED %s on %s: %s\n", rows[r]->name, cases[c].name,
                       status != LK_OK ? lk_error_message(context) : verdict.problem);
                failed++;
            }
        }
        op_instance_free(&instance);
    }
    printf("%s:%d %s: %d kernel runs, %d refused, %d failed (seed %llu)\n", device->caps.backend, device->caps.index,
           device->caps.name, run, refused, failed, (unsigned long long)seed);
    fflush(stdout); /* a failing assertion ends the forked test without it */
    ck_assert_int_eq(failed, 0);
    if (strcmp(device->caps.backend, "null") == 0) {
        ck_assert_int_eq(run, 0);
    } else {
        ck_assert_int_gt(run, 0);
    }
}

START_TEST(test_every_kernel_row) {
    int num_backends;
    const lk_backend *const *backends = lk_backends(&num_backends);
    ck_assert_int_lt(_i, num_backends);
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    lk_device_caps caps[8];
    int devices = 0;
    lk_status status = backends[_i]->probe(context, caps, 8, &devices);
    if (status == LK_STATUS_UNAVAILABLE) {
        printf("skipped: %s: %s\n", backends[_i]->name, lk_error_message(context));
        devices = 0;
    } else {
        ck_assert_msg(status == LK_OK, "%s", lk_error_message(context));
    }
    for (int d = 0; d < LK_MIN(devices, 8) && is_wanted(backends[_i]->name, NULL); d++) {
        lk_device *device;
        lk_device_options options = {sizeof options, 2};
        ck_assert_msg(backends[_i]->open(context, &caps[d], &options, &device) == LK_OK, "%s",
                      lk_error_message(context));
        check_device(context, device);
        backends[_i]->close(device);
    }
    lk_context_destroy(context);
}
END_TEST

START_TEST(test_every_op_has_a_case) {
    int count;
    const op_case *cases = op_cases(&count);
    for (int op = 0; op < LK_OP_COUNT; op++) {
        int found = 0;
        for (int c = 0; c < count; c++) {
            found += cases[c].op == (lk_op)op;
        }
        ck_assert_msg(found > 0, "tests/ops/cases.c has no case of %s", lk_op_name((lk_op)op));
    }
}
END_TEST

int main(void) {
    if (getenv("LK_TEST_SEED") != NULL) {
        seed = strtoull(getenv("LK_TEST_SEED"), NULL, 10);
    }
    int num_backends;
    lk_backends(&num_backends);
    TCase *tests = tcase_create("conformance");
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, test_every_op_has_a_case);
    tcase_add_loop_test(tests, test_every_kernel_row, 0, num_backends);
    return run_case("conformance", tests);
}
