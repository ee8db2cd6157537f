/* Tensors stored in bf16 and fp16: the kernels compute in fp32 whatever their storage, so each case of each op must
 * give the specification's results from the rounded inputs, up to the rounding of the outputs. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cpu/attention.h"
#include "tests/common/runner.h"
#include "tests/ops/harness.h"

static const uint64_t seed = 20260103;

/* The input that holds frozen weights, or -1. */
static int weight_of(lk_op op) {
    switch (op) {
    case LK_OP_MATMUL:
    case LK_OP_LINEAR:
    case LK_OP_LORA_LINEAR:
    case LK_OP_LINEAR_CROSS_ENTROPY:
    case LK_OP_EMBEDDING:
        return 1;
    case LK_OP_LORA_LINEAR_BACKWARD:
        return 2;
    default:
        return -1;
    }
}

/* The optimizer's tensors are fp32 always. */
static bool stays_fp32(lk_op op) {
    return op == LK_OP_ADAMW || op == LK_OP_GRAD_NORM;
}

static int check_case(lk_context *context, lk_device *device, const op_case *self, int *failed) {
    int num_rows, run = 0;
    const lk_kernel *rows = device->backend->kernels(&num_rows);
    op_instance instance;
    ck_assert_msg(op_instance_make(context, self, seed, &instance) == LK_OK, "%s: %s", self->name,
                  lk_error_message(context));
    for (int r = 0; r < num_rows; r++) {
        bool features = (rows[r].required_features & ~device->caps.features) == 0;
        if (rows[r].op != self->op || !features || !rows[r].supports(&device->caps, &instance.node, NULL)) {
            continue;
        }
        op_verdict verdict;
        lk_status status = op_instance_check(&instance, device, &rows[r], &verdict);
        run++;
        if (status != LK_OK || verdict.problem[0] != '\0') {
            printf("FAILED %s on %s in %s: %s\n", rows[r].name, self->name, lk_dtype_name(self->inputs[1].dtype),
                   status != LK_OK ? lk_error_message(context) : verdict.problem);
            fflush(stdout);
            (*failed)++;
        }
    }
    op_instance_free(&instance);
    return run;
}

static lk_device *open_device(lk_context **context) {
    lk_device_caps caps;
    lk_device *device;
    lk_device_options options = {sizeof options, 2};
    int count;
    ck_assert_int_eq(lk_context_create(NULL, context), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.probe(*context, &caps, 1, &count), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.open(*context, &caps, &options, &device), LK_OK);
    return device;
}

/* Heads that are too wide for blocks (attention_wide.c): of the large cases, with everything in 16 bits, and with
 * values alone, as a plan stores them. */
static bool is_wide_attention(const op_case *self) {
    bool attention = self->op == LK_OP_ATTENTION || self->op == LK_OP_ATTENTION_BACKWARD;
    return attention && lk_cpu_is_wide(&self->attributes.attention);
}

START_TEST(test_wide_attention) {
    lk_dtype dtype = _i % 2 ? LK_DTYPE_F16 : LK_DTYPE_BF16;
    bool values_only = _i >= 2;
    lk_context *context;
    lk_device *device = open_device(&context);
    int num_cases, run = 0, failed = 0;
    const op_case *cases = op_cases_large(&num_cases);
    for (int c = 0; c < num_cases; c++) {
        op_case self = cases[c];
        if (!is_wide_attention(&self) || self.attributes.attention.allow_bf16) {
            continue;
        }
        int values = self.op == LK_OP_ATTENTION ? 2 : 3; /* after them, of the backward: o and lse, which stays fp32 */
        for (int i = values_only ? values : 0; i <= (values_only ? values : LK_MIN(values + 1, 4)); i++) {
            bool is_float = self.inputs[i].present && self.inputs[i].dtype == LK_DTYPE_F32;
            self.inputs[i].dtype = is_float ? dtype : self.inputs[i].dtype;
            self.inputs[i].short_values = is_float; /* exact, so that o and lse are those of these values */
        }
        if (self.op == LK_OP_ATTENTION_BACKWARD && !values_only) {
            self.tolerance = 1.0 / 256.0; /* o is rounded in rowsum(do o), which the kernels make of P and do v' */
        }
        run += check_case(context, device, &self, &failed);
    }
    printf("wide attention, %s, %s: %d kernel runs, %d failed\n", lk_dtype_name(dtype),
           values_only ? "values only" : "everything", run, failed);
    ck_assert_int_gt(run, 0);
    ck_assert_int_eq(failed, 0);
    lk_backend_cpu.close(device);
    lk_context_destroy(context);
}
END_TEST

START_TEST(test_sixteen_bit_storage) {
    lk_dtype dtype = _i % 2 ? LK_DTYPE_F16 : LK_DTYPE_BF16;
    bool weights_only = _i >= 2;
    lk_context *context;
    lk_device *device = open_device(&context);
    int num_cases, run = 0, failed = 0;
    const op_case *cases = op_cases(&num_cases);
    for (int c = 0; c < num_cases; c++) {
        if (stays_fp32(cases[c].op) || (weights_only && weight_of(cases[c].op) < 0)) {
            continue;
        }
        op_case self = cases[c];
        for (int i = 0; i < self.num_inputs; i++) {
            bool chosen = !weights_only || i == weight_of(self.op);
            if (self.inputs[i].present && self.inputs[i].dtype == LK_DTYPE_F32 && chosen) {
                self.inputs[i].dtype = dtype;
            }
        }
        if (weights_only && dtype == LK_DTYPE_BF16 && self.inputs[0].dtype == LK_DTYPE_F32) {
            self.inputs[0].short_values = true; /* products of bf16 may round what meets the weight */
            if (self.op == LK_OP_LINEAR_CROSS_ENTROPY) {
                self.tolerance = 3e-3; /* and the gradients of the logits */
            }
        }
        run += check_case(context, device, &self, &failed);
    }
    printf("%s, %s: %d kernel runs, %d failed (seed %llu)\n", lk_dtype_name(dtype),
           weights_only ? "weights only" : "everything", run, failed, (unsigned long long)seed);
    ck_assert_int_gt(run, 0);
    ck_assert_int_eq(failed, 0);
    lk_backend_cpu.close(device);
    lk_context_destroy(context);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("sixteen_bit");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, test_sixteen_bit_storage, 0, 4);
    tcase_add_loop_test(tests, test_wide_attention, 0, 4);
    return run_case("sixteen_bit", tests);
}
