/* The CPU's kernels on sizes that span several of their blocks, with several numbers of threads. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/common/runner.h"
#include "tests/ops/harness.h"

static const uint64_t seed = 20260102;

START_TEST(test_large_cases) {
    static const int thread_counts[] = {1, 2, 5};
    lk_context *context;
    lk_device_caps caps;
    int count, num_cases, num_rows, run = 0, failed = 0;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.probe(context, &caps, 1, &count), LK_OK);
    lk_device *device;
    lk_device_options options = {sizeof options, thread_counts[_i]};
    ck_assert_int_eq(lk_backend_cpu.open(context, &caps, &options, &device), LK_OK);
    const lk_kernel *rows = lk_backend_cpu.kernels(&num_rows);
    const op_case *cases = op_cases_large(&num_cases);
    for (int c = 0; c < num_cases; c++) {
        op_instance instance;
        ck_assert_msg(op_instance_make(context, &cases[c], seed, &instance) == LK_OK, "%s: %s", cases[c].name,
                      lk_error_message(context));
        for (int r = 0; r < num_rows; r++) {
            bool features = (rows[r].required_features & ~device->caps.features) == 0;
            if (rows[r].op != cases[c].op || !features || !rows[r].supports(&device->caps, &instance.node, NULL)) {
                continue;
            }
            op_verdict verdict;
            lk_status status = op_instance_check(&instance, device, &rows[r], &verdict);
            run++;
            if (status != LK_OK || verdict.problem[0] != '\0') {
                printf("FAILED %s on %s: %s\n", rows[r].name, cases[c].name,
                       status != LK_OK ? lk_error_message(context) : verdict.problem);
                fflush(stdout);
                failed++;
            }
        }
        op_instance_free(&instance);
    }
    printf("%d threads: %d kernel runs, %d failed (seed %llu)\n", thread_counts[_i], run, failed,
           (unsigned long long)seed);
    ck_assert_int_ge(run, num_cases);
    ck_assert_int_eq(failed, 0);
    lk_backend_cpu.close(device);
    lk_context_destroy(context);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("blocks");
    tcase_set_timeout(tests, 1200);
    tcase_add_loop_test(tests, test_large_cases, 0, 3);
    return run_case("blocks", tests);
}
