/* Every op's gradient against finite differences in double precision, on the op's cases: with f = sum(dy y), the
 * gradient's element must be (f(x + h) - f(x - h)) / 2h.
 *
 * y(x + h) and y(x - h) are subtracted before the sum, so that what does not depend on x cancels exactly; what remains
 * is h^2 f''' / 6 = 2e-11 f''' and, per element of y, eps |y| / h = 2e-11 |y|: 1e-7 of the largest gradient is far
 * above both and far below any mistake. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/ops/cases.h"

static const double STEP = 1e-5, TOLERANCE = 1e-7;
enum { ALL_BELOW = 48, SAMPLES = 24, MAX_FLOAT_INPUTS = 5 };

/* Float inputs without a gradient, by definition of the op. */
static const struct {
    lk_op op;
    int input;
    const char *reason;
} not_differentiable[] = {
    {LK_OP_ROPE, 1, "cos is made from positions, which are integers"},
    {LK_OP_ROPE, 2, "sin is made from positions, which are integers"},
    {LK_OP_MUL_SCALAR, 1, "the factor is a gradient of a scalar or a setting"},
    {LK_OP_CROSS_ENTROPY, 2, "loss_scale is a setting"},
    {LK_OP_LINEAR_CROSS_ENTROPY, 3, "loss_scale is a setting"},
};

static bool is_differentiable(const op_case *self, int input) {
    for (size_t i = 0; i < LK_COUNT(not_differentiable); i++) {
        if (not_differentiable[i].op == self->op && not_differentiable[i].input == input) {
            return false;
        }
    }
    return self->inputs[input].present && self->inputs[input].dtype != LK_DTYPE_I32;
}

/* Attention over a cache is for generation: its gradient says that it is not supported. */
static bool has_gradient(const op_case *self) {
    return lk_op_info_of(self->op)->gradient != NULL && (self->op != LK_OP_ATTENTION || self->num_inputs == 4);
}

/* ---- one case as a graph ---- */

typedef struct instance {
    const op_case *self;
    fixture fixture;
    lk_graph *graph;
    lk_tensor *inputs[MAX_CASE_INPUTS];
    double *values[MAX_CASE_INPUTS];
    lk_node node; /* a copy: compiling drops outputs of the graph's own that nothing reads */
    lk_tensor *dy;
    double *dy_values;
} instance;

static void instance_open(instance *out, const op_case *self, lk_dtype dtype, uint64_t seed) {
    *out = (instance){.self = self};
    fixture_open(&out->fixture);
    for (int i = 0; i < self->num_inputs; i++) {
        out->values[i] = calloc((size_t)case_input_elements(&self->inputs[i]) + 1, sizeof(double));
    }
    op_case_fill(self, seed, out->values);
    ck_assert_int_eq(lk_graph_create(out->fixture.context, &out->graph), LK_OK);
    for (int i = 0; i < self->num_inputs; i++) {
        const case_input *input = &self->inputs[i];
        if (input->present) {
            lk_variable *variable =
                fixture_variable(&out->fixture, LK_ROLE_INPUT, input->dtype != LK_DTYPE_I32 ? dtype : input->dtype,
                                 input->rank, input->shape[0], input->shape[1], out->values[i]);
            out->inputs[i] = lk_graph_variable(out->graph, variable);
        }
    }
    lk_attributes attributes = self->attributes;
    if (self->op == LK_OP_CAST && dtype == LK_DTYPE_F64) {
        attributes.shape.dtype = dtype; /* rounding to a narrower type has no derivative */
    }
    lk_tensor *y = lk_graph_add(out->graph, self->op, self->num_inputs, out->inputs, &attributes, 15, 0, NULL);
    ck_assert_msg(y != NULL, "%s: %s", self->name, lk_error_message(out->fixture.context));
    out->node = *y->producer;
    uint64_t state = seed + 1;
    out->dy_values = random_values(&state, lk_tensor_elements(y), 1.0);
    if (y->dtype == LK_DTYPE_F64 || y->dtype == LK_DTYPE_F32) {
        out->dy = lk_graph_variable(out->graph, fixture_variable(&out->fixture, LK_ROLE_INPUT, y->dtype, y->rank,
                                                                 y->shape[0], y->shape[1], out->dy_values));
    } else {
        out->dy = lk_build_fill(out->graph, y->dtype, y->rank, y->shape, 1.0f);
    }
}

static void instance_close(instance *self) {
    lk_graph_destroy(self->graph);
    for (int i = 0; i < self->self->num_inputs; i++) {
        free(self->values[i]);
    }
    free(self->dy_values);
    fixture_close(&self->fixture);
}

/* Appends the gradient for the inputs in `mask`. */
static void call_gradient(instance *self, uint32_t mask, lk_tensor **d_inputs) {
    lk_tensor *d_outputs[LK_MAX_OUTPUTS] = {self->dy};
    bool needed[MAX_CASE_INPUTS];
    for (int i = 0; i < self->self->num_inputs; i++) {
        needed[i] = (mask >> i & 1u) != 0;
        d_inputs[i] = NULL;
    }
    lk_status status = lk_op_info_of(self->self->op)->gradient(self->graph, &self->node, d_outputs, needed, d_inputs);
    ck_assert_msg(status == LK_OK, "%s: %s", self->self->name, lk_error_message(self->fixture.context));
    for (int i = 0; i < self->self->num_inputs; i++) {
        ck_assert_msg((d_inputs[i] != NULL) == needed[i], "%s: d_inputs[%d] with mask %u", self->self->name, i, mask);
        if (d_inputs[i] != NULL) {
            ck_assert_msg(d_inputs[i]->rank == self->inputs[i]->rank &&
                              memcmp(d_inputs[i]->shape, self->inputs[i]->shape, sizeof d_inputs[i]->shape) == 0,
                          "%s: the shape of d_inputs[%d]", self->self->name, i);
            ck_assert_msg(d_inputs[i]->dtype == self->inputs[i]->dtype, "%s: the dtype of d_inputs[%d]",
                          self->self->name, i);
        }
    }
}

static uint32_t differentiable_mask(const op_case *self) {
    uint32_t mask = 0;
    for (int i = 0; i < self->num_inputs; i++) {
        mask |= is_differentiable(self, i) ? 1u << i : 0u;
    }
    return mask;
}

/* ---- finite differences ---- */

static void evaluate(const instance *self, double *const *values, double *y) {
    double *outputs[LK_MAX_OUTPUTS] = {y};
    lk_node node = self->node;
    for (int i = 1; i < LK_MAX_OUTPUTS; i++) {
        node.outputs[i] = NULL;
    }
    lk_reference_call call = {self->fixture.context, &node, values, outputs};
    ck_assert_int_eq(lk_op_info_of(node.op)->reference(&call), LK_OK);
}

static double difference_quotient(const instance *self, int input, int64_t at, double *plus, double *minus) {
    double *value = &self->values[input][at], kept = *value;
    *value = kept + STEP;
    double above = *value;
    evaluate(self, self->values, plus);
    *value = kept - STEP;
    double below = *value, sum = 0.0;
    evaluate(self, self->values, minus);
    *value = kept;
    for (int64_t i = 0; i < lk_tensor_elements(self->node.outputs[0]); i++) {
        sum += self->dy_values[i] * (plus[i] - minus[i]);
    }
    return sum / (above - below);
}

static void check_input(const instance *self, int input, const double *gradient, uint64_t *state) {
    int64_t count = lk_tensor_elements(self->inputs[input]);
    size_t bytes = (size_t)lk_tensor_elements(self->node.outputs[0]) * sizeof(double);
    double *plus = malloc(bytes), *minus = malloc(bytes), largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        require_msg(isfinite(gradient[i]), "%s: input %d element %lld", self->self->name, input, (long long)i);
        largest = fmax(largest, fabs(gradient[i]));
    }
    ck_assert_msg(largest > 0.0, "%s: the gradient of input %d is zero", self->self->name, input);
    int64_t samples = count <= ALL_BELOW ? count : SAMPLES;
    for (int64_t i = 0; i < samples; i++) {
        int64_t at = count <= ALL_BELOW ? i : random_below(state, count);
        double expected = difference_quotient(self, input, at, plus, minus);
        require_msg(fabs(gradient[at] - expected) <= TOLERANCE * largest,
                    "%s: d input %d element %lld is %.12g, expected %.12g (largest %.3g, seed %llu)", self->self->name,
                    input, (long long)at, gradient[at], expected, largest, (unsigned long long)test_seed());
    }
    free(plus);
    free(minus);
}

/* All float inputs at once against finite differences; then each subset must give the same as all at once. */
static void check_case(const op_case *self) {
    instance made;
    instance_open(&made, self, LK_DTYPE_F64, test_seed());
    uint32_t all = differentiable_mask(self), num_subsets = 0;
    lk_tensor *whole[MAX_CASE_INPUTS], *(*parts)[MAX_CASE_INPUTS] = calloc(1u << MAX_FLOAT_INPUTS, sizeof *parts);
    call_gradient(&made, all, whole);
    for (uint32_t subset = (all - 1) & all; subset != 0; subset = (subset - 1) & all) {
        ck_assert_uint_lt(num_subsets, 1u << MAX_FLOAT_INPUTS);
        call_gradient(&made, subset, parts[num_subsets++]);
    }
    for (int i = 0; i < self->num_inputs; i++) {
        lk_graph_mark_output(made.graph, whole[i]);
        for (uint32_t s = 0; s < num_subsets; s++) {
            lk_graph_mark_output(made.graph, parts[s][i]);
        }
    }
    lk_program *program = fixture_compile(&made.fixture, made.graph);
    made.graph = NULL; /* the program's now */
    fixture_run(program);
    uint64_t state = test_seed();
    for (int i = 0; i < self->num_inputs; i++) {
        if ((all >> i & 1u) == 0) {
            continue;
        }
        double *gradient = fixture_output(program, whole[i]);
        check_input(&made, i, gradient, &state);
        for (uint32_t s = 0; s < num_subsets; s++) {
            if (parts[s][i] != NULL) {
                double *other = fixture_output(program, parts[s][i]);
                double difference = relative_difference(other, gradient, lk_tensor_elements(whole[i]));
                ck_assert_msg(difference <= 1e-12, "%s: input %d depends on what else is needed (%g)", self->name, i,
                              difference);
                free(other);
            }
        }
        free(gradient);
    }
    free(parts);
    lk_program_destroy(program);
    instance_close(&made);
}

START_TEST(test_finite_differences) {
    int count, checked = 0;
    const op_case *cases = op_cases(&count);
    for (int i = 0; i < count; i++) {
        if (cases[i].op == (lk_op)_i && has_gradient(&cases[i])) {
            check_case(&cases[i]);
            checked++;
        }
    }
    ck_assert_msg(checked > 0 || lk_op_info_of((lk_op)_i)->gradient == NULL, "%s: no case", lk_op_name((lk_op)_i));
}
END_TEST

/* In the dtypes of training too, a gradient has the shape and dtype of its input. */
START_TEST(test_shapes_and_dtypes) {
    int count;
    const op_case *cases = op_cases(&count);
    for (int i = 0; i < count; i++) {
        if (has_gradient(&cases[i])) {
            instance made;
            lk_tensor *d_inputs[MAX_CASE_INPUTS];
            instance_open(&made, &cases[i], LK_DTYPE_F32, test_seed());
            call_gradient(&made, differentiable_mask(&cases[i]), d_inputs);
            instance_close(&made);
        }
    }
}
END_TEST

static lk_tensor *sum_of(lk_graph *graph, lk_tensor *y) {
    if (lk_tensor_elements(y) == 1) {
        return y;
    }
    const int64_t row[] = {1, y->shape[0]}, column[] = {y->shape[1], 1};
    lk_tensor *left = lk_build_fill(graph, y->dtype, 2, row, 1.0f);
    lk_tensor *right = lk_build_fill(graph, y->dtype, 2, column, 1.0f);
    return lk_build_matmul(graph, lk_build_matmul(graph, left, false, y, false, 1.0f, NULL), false, right, false, 1.0f,
                           NULL);
}

/* The list of exceptions is true: each names a float input of an op with cases, and asking for its gradient is refused.
 */
START_TEST(test_exceptions_are_not_stale) {
    int count;
    const op_case *cases = op_cases(&count);
    for (size_t e = 0; e < LK_COUNT(not_differentiable); e++) {
        int found = 0;
        for (int c = 0; c < count; c++) {
            int at = not_differentiable[e].input;
            if (cases[c].op != not_differentiable[e].op) {
                continue;
            }
            ck_assert(at < cases[c].num_inputs && cases[c].inputs[at].dtype != LK_DTYPE_I32);
            instance made;
            instance_open(&made, &cases[c], LK_DTYPE_F64, test_seed());
            lk_tensor *gradient, *loss = sum_of(made.graph, made.node.outputs[0]);
            ck_assert_ptr_nonnull(loss);
            lk_status status = lk_graph_backward(made.graph, loss, 1, &made.inputs[at], &gradient);
            ck_assert_msg(status == LK_STATUS_UNSUPPORTED, "%s: input %d (%s) has a gradient after all", cases[c].name,
                          at, not_differentiable[e].reason);
            instance_close(&made);
            found++;
        }
        ck_assert_msg(found > 0, "%s: no case", lk_op_name(not_differentiable[e].op));
    }
}
END_TEST

/* What needs a gradient that does not exist says so, and the message names the op. */
START_TEST(test_attention_over_a_cache_is_refused) {
    int count, found = 0;
    const op_case *cases = op_cases(&count);
    for (int i = 0; i < count; i++) {
        if (cases[i].op == LK_OP_ATTENTION && !has_gradient(&cases[i])) {
            instance made;
            instance_open(&made, &cases[i], LK_DTYPE_F64, test_seed());
            lk_tensor *d_outputs[LK_MAX_OUTPUTS] = {made.dy}, *d_inputs[MAX_CASE_INPUTS] = {NULL};
            bool needed[MAX_CASE_INPUTS] = {true};
            ck_assert_int_eq(lk_op_info_of(cases[i].op)->gradient(made.graph, &made.node, d_outputs, needed, d_inputs),
                             LK_STATUS_UNSUPPORTED);
            ck_assert_ptr_nonnull(strstr(lk_error_message(made.fixture.context), "attention"));
            instance_close(&made);
            found++;
        }
    }
    ck_assert_int_gt(found, 0);
}
END_TEST

int main(void) {
    test_seed();
    TCase *tests = tcase_create("gradients");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, test_finite_differences, 0, LK_OP_COUNT);
    tcase_add_test(tests, test_shapes_and_dtypes);
    tcase_add_test(tests, test_exceptions_are_not_stale);
    tcase_add_test(tests, test_attention_over_a_cache_is_refused);
    return run_case("gradients", tests);
}
