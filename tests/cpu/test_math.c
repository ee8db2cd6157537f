/* The vector functions (exp, sigmoid, tanh, erf) by way of the ops that are made of them, on values from all over the
 * range of fp32, the special ones included, against the C library in double precision. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/dispatch.h"
#include "tests/common/runner.h"

enum { COUNT = 1 << 16 };

static lk_context *context;
static lk_device *device;
static lk_buffer *buffers[3];

static void setup(void) {
    lk_device_caps caps;
    int count;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.probe(context, &caps, 1, &count), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.open(context, &caps, NULL, &device), LK_OK);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(lk_backend_cpu.alloc(device, COUNT * sizeof(float), &buffers[i]), LK_OK);
    }
}

static void teardown(void) {
    for (int i = 0; i < 3; i++) {
        lk_backend_cpu.free(device, buffers[i]);
    }
    lk_backend_cpu.close(device);
    lk_context_destroy(context);
}

/* Every 2^16th float: all exponents, both signs, infinities and NaNs among them. */
static float sample(int i) {
    return lk_f32_from_bits((uint32_t)i << 16 | ((uint32_t)i * 40503u & 0xffffu));
}

static const float *run(const lk_kernel *kernel, lk_op op, int num_inputs) {
    lk_tensor tensor = {.dtype = LK_DTYPE_F32, .rank = 1, .shape = {COUNT, 1, 1, 1}};
    lk_tensor *inputs[] = {&tensor, &tensor};
    lk_node node = {.op = op, .num_inputs = num_inputs, .num_outputs = 1, .inputs = inputs, .outputs = {&tensor}};
    node.scope = "";
    lk_binding bindings[3];
    for (int i = 0; i < 3; i++) {
        bindings[i] = (lk_binding){buffers[i], 0, COUNT * sizeof(float)};
    }
    lk_command command = {.node = &node, .kernel = kernel, .inputs = bindings, .outputs = bindings + 2};
    lk_commands *commands;
    ck_assert_int_eq(lk_backend_cpu.compile(device, &command, 1, &commands), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.run(device, commands, NULL), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.wait(device), LK_OK);
    lk_backend_cpu.release(device, commands);
    return lk_backend_cpu.map(buffers[2]);
}

/* |found - expected| in units in the last place of `expected`, where that is a normal number. */
static double ulps(float found, double expected) {
    if (isnan(expected)) {
        return isnan(found) ? 0.0 : 1e9;
    }
    if (fabs(expected) > (double)FLT_MAX * (1.0 + 1e-7)) {
        return isinf(found) && (found > 0) == (expected > 0) ? 0.0 : 1e9;
    }
    double unit = fmax(ldexp(1.0, ilogb(fmax(fabs(expected), (double)FLT_MIN)) - 23), ldexp(1.0, -149));
    return fabs((double)found - expected) / unit;
}

static double exact_swiglu(double x) {
    return x / (1.0 + exp(-x));
}

static double exact_tanh(double x) {
    return tanh(x);
}

static double exact_gelu(double x) {
    return 0.5 * x * erfc(-x * 0.70710678118654752440);
}

typedef struct function {
    lk_op op;
    int num_inputs;
    double (*exact)(double x);
    double low, high; /* the range on which `limit` holds; outside, values must agree in being NaN or infinite only */
    double limit;     /* ulps; of gelu the absolute error counts, since the tail of 1 + erf cancels */
    bool absolute;
} function;

static const function functions[] = {
    {LK_OP_SWIGLU, 2, exact_swiglu, -80.0, INFINITY, 4.0, false},
    {LK_OP_TANH, 1, exact_tanh, -INFINITY, INFINITY, 4.0, false},
    {LK_OP_GELU, 1, exact_gelu, -INFINITY, INFINITY, 3e-7, true},
};

START_TEST(test_functions_are_accurate) {
    const function *self = &functions[_i];
    float *x = lk_backend_cpu.map(buffers[0]), *one = lk_backend_cpu.map(buffers[1]);
    int num_rows, tried = 0;
    const lk_kernel *rows = lk_backend_cpu.kernels(&num_rows);
    for (int i = 0; i < COUNT; i++) {
        x[i] = sample(i);
        one[i] = 1.0f;
    }
    for (int r = 0; r < num_rows; r++) {
        if (rows[r].op != self->op || (rows[r].required_features & ~device->caps.features) != 0) {
            continue;
        }
        const float *y = run(&rows[r], self->op, self->num_inputs);
        double worst = 0.0;
        float at = 0.0f;
        for (int i = 0; i < COUNT; i++) {
            double expected = self->exact((double)x[i]), error;
            if (isinf(x[i]) && isnan(expected)) {
                continue; /* -inf * 0 */
            }
            if (isnan(x[i])) {
                ck_assert_msg(isnan(y[i]), "%s(NaN) is %g", rows[r].name, (double)y[i]);
                continue;
            }
            if (isinf(x[i]) || (double)x[i] < self->low || (double)x[i] > self->high) {
                continue;
            }
            error = self->absolute ? fabs((double)y[i] - expected) / fmax(1.0, fabs(expected)) : ulps(y[i], expected);
            if (!(error <= worst)) {
                worst = error;
                at = x[i];
            }
        }
        printf("%s: at most %.3g %s, at %.9g\n", rows[r].name, worst, self->absolute ? "" : "ulp", (double)at);
        ck_assert_msg(worst <= self->limit, "%s: %.3g > %.3g at %.9g", rows[r].name, worst, self->limit, (double)at);
        tried++;
    }
    ck_assert_int_gt(tried, 0);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("math");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, test_functions_are_accurate, 0, (int)LK_COUNT(functions));
    return run_case("math", tests);
}
