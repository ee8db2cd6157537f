/* The variants that the cases of tests/ops do not reach: attention of every head size that is compiled, and the sizes
 * that are refused; products large enough for every shape of tile. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/runner.h"
#include "tests/ops/harness.h"

static lk_context *context;
static lk_device *device;

static void setup(void) {
    lk_device_caps caps;
    int count;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    ck_assert_int_eq(lk_backend_cuda.probe(context, &caps, 1, &count), LK_OK);
    ck_assert_int_eq(lk_backend_cuda.open(context, &caps, NULL, &device), LK_OK);
}

static void teardown(void) {
    lk_backend_cuda.close(device);
    lk_context_destroy(context);
}

/* Runs all rows of the case's op; how many took it, and the last refusal. */
static int check_case(const op_case *self, lk_refusal *why) {
    op_instance instance;
    int num_rows, taken = 0;
    const lk_kernel *rows = lk_backend_cuda.kernels(&num_rows);
    ck_assert_msg(op_instance_make(context, self, 1, &instance) == LK_OK, "%s", lk_error_message(context));
    for (int i = 0; i < num_rows; i++) {
        if (rows[i].op == self->op && rows[i].supports(&device->caps, &instance.node, why)) {
            op_verdict verdict;
            lk_status status = op_instance_check(&instance, device, &rows[i], &verdict);
            ck_assert_msg(status == LK_OK, "%s: %s", self->name, lk_error_message(context));
            ck_assert_msg(verdict.problem[0] == '\0', "%s on %s: %s", rows[i].name, self->name, verdict.problem);
            taken++;
        }
    }
    op_instance_free(&instance);
    return taken;
}

static const op_case *case_of(lk_op op, int32_t head_dim) {
    int count;
    const op_case *cases = op_cases(&count);
    for (int i = 0; i < count; i++) {
        if (cases[i].op == op && cases[i].attributes.attention.head_dim == head_dim) {
            return &cases[i];
        }
    }
    return NULL;
}

/* A case with another head size. */
static op_case resized(const op_case *from, int32_t head_dim) {
    op_case self = *from;
    int32_t old = from->attributes.attention.head_dim, heads = from->attributes.attention.num_attention_heads;
    for (int i = 0; i < self.num_inputs; i++) {
        bool has_heads = self.inputs[i].present && self.inputs[i].rank == 2 && self.inputs[i].shape[1] != heads;
        if (has_heads) {
            self.inputs[i].shape[1] = self.inputs[i].shape[1] / old * head_dim;
        }
    }
    self.attributes.attention.head_dim = head_dim;
    snprintf(self.name, sizeof self.name, "%s with head_dim %d", lk_op_name(from->op), head_dim);
    return self;
}

START_TEST(test_head_sizes) {
    static const struct {
        int32_t head_dim;
        bool forward, backward;
    } sizes[] = {{24, true, true},  {48, true, true},   {72, true, true},   {80, true, true},
                 {96, true, true},  {112, true, true},  {128, true, true},  {160, true, true},
                 {192, true, true}, {256, true, false}, {320, true, false}, {512, false, false}};
    lk_refusal why;
    op_case forward = resized(case_of(LK_OP_ATTENTION, 16), sizes[_i].head_dim);
    op_case backward = resized(case_of(LK_OP_ATTENTION_BACKWARD, 16), sizes[_i].head_dim);
    ck_assert_int_eq(check_case(&forward, &why), sizes[_i].forward);
    ck_assert_int_eq(check_case(&backward, &why), sizes[_i].backward);
    if (!sizes[_i].backward) {
        ck_assert_str_eq(why.reason, "the tiles of this head_dim do not fit the shared memory");
    }
}
END_TEST

/* Those small enough for a processor that goes lane by lane. */
START_TEST(test_large_cases) {
    int count, taken = 0;
    const op_case *cases = op_cases_large(&count);
    for (int i = 0; i < count; i++) {
        int64_t elements = 0;
        for (int j = 0; j < cases[i].num_inputs; j++) {
            elements += cases[i].inputs[j].present ? case_input_elements(&cases[i].inputs[j]) : 0;
        }
        lk_refusal why;
        taken += elements < 30000 ? check_case(&cases[i], &why) : 0;
    }
    printf("%d kernel runs on large cases\n", taken);
    ck_assert_int_gt(taken, 10);
}
END_TEST

int main(void) {
    if (getenv("LK_MOCK") == NULL) {
        printf("SKIP: no mock driver in this build\n");
        return 77;
    }
    TCase *tests = tcase_create("cuda-variants");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_head_sizes, 0, 12);
    tcase_add_test(tests, test_large_cases);
    return run_case("cuda-variants", tests);
}
