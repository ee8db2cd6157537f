/* Programs over two devices: a fake one that can do a few ops and has memory of its own, and the reference behind it.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/common/toy_model.h"
#include "tests/faults/fake_device.h"

typedef struct machine {
    fixture fixture;
    lk_device *fake;
    fake_counters *counters;
} machine;

static machine open_machine(uint64_t ops) {
    machine self;
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    ck_assert_int_eq(fake_device_open(context, ops, &self.fake), LK_OK);
    fixture_open_on(&self.fixture, context, self.fake);
    self.counters = fake_device_counters(self.fake);
    return self;
}

static void close_machine(machine *self) {
    lk_variables_destroy(self->fixture.variables);
    self->fixture.variables = NULL;
    ck_assert_int_eq(self->counters->live_buffers, 0);
    ck_assert_int_eq(self->counters->live_lists, 0);
    fixture_close(&self->fixture);
}

static lk_graph *new_graph(machine *self) {
    lk_graph *graph;
    ck_assert_int_eq(lk_graph_create(self->fixture.context, &graph), LK_OK);
    return graph;
}

/* A square of side 4 with values 1, 2, 3, ... times `factor`. */
static lk_variable *square(machine *self, lk_role role, double factor) {
    double values[16];
    for (int i = 0; i < 16; i++) {
        values[i] = factor * (i + 1);
    }
    return fixture_variable(&self->fixture, role, LK_DTYPE_F64, 2, 4, 4, values);
}

static void reset_calls(machine *self) {
    memset(self->counters->calls, 0, sizeof self->counters->calls);
    self->counters->commands = 0;
}

static uint64_t usual_ops(void) {
    return fake_op(LK_OP_MATMUL) | fake_op(LK_OP_ADD) | fake_op(LK_OP_MUL);
}

static const char *device_name(const lk_program *program, int32_t command) {
    return lk_program_placement(program, command).device->caps.backend;
}

/* ---- the number of copies ---- */

START_TEST(test_all_on_the_main_device) {
    machine self = open_machine(usual_ops());
    lk_graph *graph = new_graph(&self);
    lk_tensor *a = lk_graph_variable(graph, square(&self, LK_ROLE_INPUT, 1.0));
    lk_tensor *b = lk_graph_variable(graph, square(&self, LK_ROLE_WEIGHT, 0.5));
    lk_tensor *y = lk_build_mul(graph, lk_build_matmul(graph, a, false, b, true, 1.0f, NULL), a);
    lk_graph_mark_output(graph, y);
    lk_program *program = fixture_compile(&self.fixture, graph);
    ck_assert_int_eq(lk_program_num_commands(program), 2);
    reset_calls(&self);
    fixture_run(program);
    ck_assert_int_eq(self.counters->calls[FAKE_UPLOAD], 0);
    ck_assert_int_eq(self.counters->calls[FAKE_DOWNLOAD], 0);
    ck_assert_int_eq(self.counters->calls[FAKE_ALLOC], 0);
    ck_assert_int_eq(self.counters->calls[FAKE_COMPILE], 0);
    ck_assert_int_eq(self.counters->calls[FAKE_RUN], 1); /* one replay */
    ck_assert_int_eq(self.counters->commands, 2);
    double *found = fixture_output(program, y);
    ck_assert_double_eq(found[0], 0.5 * (1 + 4 + 9 + 16) * 1.0);
    free(found);
    lk_program_destroy(program);
    close_machine(&self);
}
END_TEST

/* The linear is decomposed into matmul and add_bias before anything falls back; only add_bias does. */
START_TEST(test_decomposed_before_fallback) {
    machine self = open_machine(usual_ops());
    lk_graph *graph = new_graph(&self);
    double bias_values[] = {1.0, 2.0, 3.0, 4.0};
    lk_tensor *x = lk_graph_variable(graph, square(&self, LK_ROLE_INPUT, 1.0));
    lk_tensor *weight = lk_graph_variable(graph, square(&self, LK_ROLE_WEIGHT, 1.0));
    lk_tensor *bias =
        lk_graph_variable(graph, fixture_variable(&self.fixture, LK_ROLE_WEIGHT, LK_DTYPE_F64, 1, 4, 0, bias_values));
    lk_tensor *y = lk_build_linear(graph, x, weight, bias);
    lk_tensor *z = lk_build_add(graph, y, x);
    lk_graph_mark_output(graph, z);
    reset_calls(&self);
    lk_program *program = fixture_compile(&self.fixture, graph);
    ck_assert_int_eq(lk_program_num_commands(program), 3);
    static const lk_op ops[] = {LK_OP_MATMUL, LK_OP_ADD_BIAS, LK_OP_ADD};
    static const char *const devices[] = {"fake", "reference", "fake"};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(lk_program_placement(program, i).node->op, ops[i]);
        ck_assert_str_eq(device_name(program, i), devices[i]);
    }
    ck_assert_int_eq(self.counters->calls[FAKE_DOWNLOAD], 1); /* bias, a weight: once, now */
    ck_assert_int_eq(self.counters->calls[FAKE_COMPILE], 2);
    for (int run = 0; run < 3; run++) {
        reset_calls(&self);
        fixture_run(program);
        ck_assert_int_eq(self.counters->calls[FAKE_DOWNLOAD], 1); /* the product */
        ck_assert_int_eq(self.counters->calls[FAKE_UPLOAD], 1);   /* the sum with the bias */
        ck_assert_int_eq(self.counters->calls[FAKE_RUN], 2);
        ck_assert_int_eq(self.counters->calls[FAKE_WAIT], 2);
    }
    double *found = fixture_output(program, z);
    for (int t = 0; t < 4; t++) {
        for (int n = 0; n < 4; n++) {
            double expected = bias_values[n] + (t * 4 + n + 1);
            for (int k = 0; k < 4; k++) {
                expected += (t * 4 + k + 1) * (n * 4 + k + 1);
            }
            ck_assert_double_eq(found[t * 4 + n], expected);
        }
    }
    free(found);
    lk_program_destroy(program);
    close_machine(&self);
}
END_TEST

/* An op is kept whole where the device can do it whole. */
START_TEST(test_whole_where_it_can) {
    machine self = open_machine(usual_ops() | fake_op(LK_OP_LINEAR));
    lk_graph *graph = new_graph(&self);
    lk_tensor *x = lk_graph_variable(graph, square(&self, LK_ROLE_INPUT, 1.0));
    lk_graph_mark_output(graph, lk_build_linear(graph, x, x, NULL));
    lk_program *program = fixture_compile(&self.fixture, graph);
    ck_assert_int_eq(lk_program_num_commands(program), 1);
    ck_assert_str_eq(lk_program_placement(program, 0).kernel->name, "fake_linear");
    lk_program_destroy(program);
    close_machine(&self);
}
END_TEST

/* A weight that the fallback reads is copied when the program is compiled; an input before each run, once. */
START_TEST(test_weights_once_inputs_each_run) {
    machine self = open_machine(usual_ops());
    lk_graph *graph = new_graph(&self);
    lk_variable *input = square(&self, LK_ROLE_INPUT, 1.0);
    lk_tensor *x = lk_graph_variable(graph, input);
    lk_tensor *gate = lk_graph_variable(graph, square(&self, LK_ROLE_WEIGHT, 0.1));
    lk_tensor *y = lk_build_swiglu(graph, gate, x);    /* reference */
    lk_tensor *z = lk_build_add(graph, y, x);          /* fake */
    lk_tensor *last = lk_build_swiglu(graph, x, gate); /* reference again: both copies are up to date */
    lk_tensor *both = lk_build_swiglu(graph, last, z); /* reads z too */
    lk_graph_mark_output(graph, both);
    reset_calls(&self);
    lk_program *program = fixture_compile(&self.fixture, graph);
    ck_assert_int_eq(self.counters->calls[FAKE_DOWNLOAD], 1); /* gate */
    double first[16], *found;
    for (int run = 0; run < 3; run++) {
        if (run == 2) {
            double values[16] = {0.0};
            fixture_write(input, values);
        }
        reset_calls(&self);
        fixture_run(program);
        ck_assert_int_eq(self.counters->calls[FAKE_DOWNLOAD], 2); /* x, z */
        ck_assert_int_eq(self.counters->calls[FAKE_UPLOAD], 1);   /* y */
        found = fixture_output(program, both);
        if (run == 0) {
            memcpy(first, found, sizeof first);
            ck_assert_double_ne(first[5], 0.0);
        } else if (run == 1) {
            ck_assert_mem_eq(found, first, sizeof first);
        } else {
            for (int i = 0; i < 16; i++) {
                ck_assert_double_eq(found[i], 0.0); /* the new input arrived */
            }
        }
        free(found);
    }
    lk_program_destroy(program);
    close_machine(&self);
}
END_TEST

/* Variables that a fallback op writes come home, once per replay, and are seen there by what runs after. */
START_TEST(test_mutated_variables_come_home) {
    machine self = open_machine(usual_ops());
    lk_graph *graph = new_graph(&self);
    lk_variable *sum = square(&self, LK_ROLE_STATE, 0.0), *input = square(&self, LK_ROLE_INPUT, 1.0);
    lk_tensor *s = lk_graph_variable(graph, sum), *x = lk_graph_variable(graph, input);
    lk_build_accumulate(graph, s, x); /* reference, twice in one replay */
    lk_build_accumulate(graph, s, x);
    lk_tensor *y = lk_build_add(graph, s, x); /* fake: must see the new sum */
    lk_graph_mark_output(graph, y);
    lk_program *program = fixture_compile(&self.fixture, graph);
    for (int run = 1; run <= 3; run++) {
        reset_calls(&self);
        fixture_run(program);
        ck_assert_int_eq(self.counters->calls[FAKE_DOWNLOAD], 2); /* sum and x there */
        ck_assert_int_eq(self.counters->calls[FAKE_UPLOAD], 1);   /* sum back */
        double home[16], *found = fixture_output(program, y);
        fixture_read(sum, home);
        for (int i = 0; i < 16; i++) {
            ck_assert_double_eq(home[i], 2.0 * run * (i + 1));
            ck_assert_double_eq(found[i], (2.0 * run + 1.0) * (i + 1));
        }
        free(found);
    }
    lk_program_destroy(program);
    close_machine(&self);
}
END_TEST

/* The other way round: written at home, then read by the fallback, within one run. */
START_TEST(test_stale_copies_are_renewed) {
    machine self = open_machine(fake_op(LK_OP_ACCUMULATE));
    lk_graph *graph = new_graph(&self);
    lk_variable *sum = square(&self, LK_ROLE_STATE, 1.0), *input = square(&self, LK_ROLE_INPUT, 1.0);
    lk_tensor *s = lk_graph_variable(graph, sum), *x = lk_graph_variable(graph, input);
    lk_tensor *before = lk_build_scale(graph, s, 1.0f); /* reference */
    lk_build_accumulate(graph, s, x);                   /* fake */
    lk_tensor *after = lk_build_scale(graph, s, 1.0f);  /* reference */
    lk_graph_mark_output(graph, before);
    lk_graph_mark_output(graph, after);
    lk_program *program = fixture_compile(&self.fixture, graph);
    for (int run = 1; run <= 2; run++) {
        fixture_run(program);
        double *first = fixture_output(program, before), *second = fixture_output(program, after);
        for (int i = 0; i < 16; i++) {
            ck_assert_double_eq(first[i], run * (i + 1.0));
            ck_assert_double_eq(second[i], (run + 1.0) * (i + 1.0));
        }
        free(first);
        free(second);
    }
    lk_program_destroy(program);
    close_machine(&self);
}
END_TEST

/* Two devices on the host's memory copy nothing at all, and free nothing of each other's. */
START_TEST(test_shared_memory) {
    machine self = open_machine(usual_ops());
    fake_device_share_memory(self.fake);
    lk_graph *graph = new_graph(&self);
    lk_variable *sum = square(&self, LK_ROLE_STATE, 0.0);
    lk_tensor *s = lk_graph_variable(graph, sum), *x = lk_graph_variable(graph, square(&self, LK_ROLE_INPUT, 1.0));
    lk_tensor *y = lk_build_mul(graph, x, x);      /* fake */
    lk_build_accumulate(graph, s, y);              /* reference: the variable's own bytes */
    lk_tensor *z = lk_build_scale(graph, y, 2.0f); /* reference */
    lk_tensor *total = lk_build_add(graph, s, z);  /* fake */
    lk_graph_mark_output(graph, total);
    reset_calls(&self);
    lk_program *program = fixture_compile(&self.fixture, graph);
    for (int run = 1; run <= 2; run++) {
        double home[16], *found;
        fixture_run(program);
        ck_assert_int_eq(self.counters->calls[FAKE_UPLOAD] + self.counters->calls[FAKE_DOWNLOAD], 0);
        found = fixture_output(program, total);
        fixture_read(sum, home);
        reset_calls(&self);
        for (int i = 0; i < 16; i++) {
            ck_assert_double_eq(home[i], run * (i + 1.0) * (i + 1.0));
            ck_assert_double_eq(found[i], (run + 2.0) * (i + 1.0) * (i + 1.0));
        }
        free(found);
    }
    lk_program_destroy(program);
    close_machine(&self);
}
END_TEST

START_TEST(test_no_device_can) {
    lk_context *context;
    lk_device *fake;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    ck_assert_int_eq(fake_device_open(context, usual_ops(), &fake), LK_OK);
    lk_variables *variables;
    ck_assert_int_eq(lk_variables_create(context, fake, &variables), LK_OK);
    const int64_t shape[] = {2, 2};
    lk_variable *x;
    ck_assert_int_eq(lk_variables_add(variables, "x", LK_ROLE_INPUT, "test", LK_DTYPE_F32, 2, shape, &x), LK_OK);
    lk_program *program;
    lk_program_options options = {.devices = &fake, .num_devices = 1};
    for (int devices = 1; devices >= 0; devices--) {
        lk_graph *graph;
        ck_assert_int_eq(lk_graph_create(context, &graph), LK_OK);
        lk_graph_set_scope(graph, "somewhere");
        lk_tensor *t = lk_graph_variable(graph, x);
        lk_graph_mark_output(graph, lk_build_swiglu(graph, t, t));
        options.num_devices = devices;
        ck_assert_int_eq(lk_program_compile(context, graph, &options, &program),
                         devices ? LK_STATUS_UNSUPPORTED : LK_STATUS_INVALID_ARGUMENT);
        ck_assert_ptr_null(program);
        ck_assert(devices == 0 || strstr(lk_error_message(context), "swiglu at somewhere") != NULL);
    }
    lk_variables_destroy(variables);
    fake->backend->close(fake);
    lk_context_destroy(context);
}
END_TEST

/* ---- the whole model, for many divisions of the ops ---- */

static double *gradients_of(fixture *self, uint64_t seed, int64_t *count) {
    toy_model model;
    toy_options options = {.dtype = LK_DTYPE_F64, .adapted = {127, 0, 127}, .dropout = 0.2f, .seed = seed};
    ck_assert_int_eq(toy_build(self->context, self->variables, &options, &model), LK_OK);
    ck_assert_int_eq(toy_backward(&model), LK_OK);
    double *all = NULL;
    *count = 0;
    lk_program *program = fixture_compile(self, model.graph);
    fixture_run(program);
    fixture_run(program);
    for (int i = -1; i < model.num_trained; i++) {
        const lk_tensor *tensor = i < 0 ? model.loss : model.gradients[i];
        double *part = fixture_output(program, tensor);
        all = realloc(all, (size_t)(*count + lk_tensor_elements(tensor)) * sizeof *all);
        memcpy(all + *count, part, (size_t)lk_tensor_elements(tensor) * sizeof *all);
        *count += lk_tensor_elements(tensor);
        free(part);
    }
    lk_program_destroy(program);
    return all;
}

START_TEST(test_model_over_two_devices) {
    uint64_t state = test_seed();
    fixture alone;
    fixture_open(&alone);
    int64_t count, other;
    double *expected = gradients_of(&alone, test_seed(), &count);
    fixture_close(&alone);
    for (int round = 0; round < 12; round++) {
        uint64_t ops = round == 0   ? usual_ops()
                       : round == 1 ? fake_all_ops()
                       : round == 2 ? 0
                                    : random_bits(&state) & fake_all_ops();
        machine self = open_machine(ops);
        if (round % 2 == 1) {
            fake_device_share_memory(self.fake);
        }
        double *found = gradients_of(&self.fixture, test_seed(), &other);
        ck_assert_int_eq(count, other);
        double difference = relative_difference(found, expected, count);
        ck_assert_msg(difference < 1e-12, "ops %llx: %g (seed %llu)", (unsigned long long)ops, difference,
                      (unsigned long long)test_seed());
        free(found);
        close_machine(&self);
    }
    free(expected);
}
END_TEST

/* ---- failures of the device ---- */

/* Compiles and runs a graph that uses both devices and every kind of call; the first status that is not LK_OK. */
static lk_status attempt(machine *self) {
    lk_graph *graph;
    lk_program *program;
    LK_TRY(lk_graph_create(self->fixture.context, &graph));
    lk_variables *variables = self->fixture.variables;
    lk_tensor *x = lk_graph_variable(graph, lk_variables_at(variables, 0));
    lk_tensor *w = lk_graph_variable(graph, lk_variables_at(variables, 1));
    lk_tensor *s = lk_graph_variable(graph, lk_variables_at(variables, 2));
    lk_tensor *y = lk_build_matmul(graph, x, false, w, false, 1.0f, NULL);
    y = lk_build_swiglu(graph, w, y);
    lk_build_accumulate(graph, s, y);
    y = lk_build_add(graph, y, s);
    lk_graph_mark_output(graph, y);
    LK_TRY(fixture_try_compile(&self->fixture, graph, &program));
    lk_status status = lk_program_run(program);
    double values[16];
    if (status == LK_OK) {
        status = lk_program_read(program, y, values, sizeof values);
    }
    lk_program_destroy(program);
    return status;
}

START_TEST(test_device_failures) {
    fake_call call = (fake_call)_i;
    machine self = open_machine(usual_ops());
    square(&self, LK_ROLE_INPUT, 1.0);
    square(&self, LK_ROLE_WEIGHT, 0.1);
    square(&self, LK_ROLE_STATE, 0.0);
    int buffers = self.counters->live_buffers, failures = 0;
    for (int nth = 1;; nth++) {
        ck_assert_int_lt(nth, 50);
        fake_device_fail(self.fake, call, nth, call == FAKE_ALLOC ? LK_STATUS_OUT_OF_MEMORY : LK_STATUS_DEVICE);
        lk_status status = attempt(&self);
        ck_assert_int_eq(self.counters->live_buffers, buffers);
        ck_assert_int_eq(self.counters->live_lists, 0);
        if (status == LK_OK) {
            break;
        }
        ck_assert_int_eq(status, call == FAKE_ALLOC ? LK_STATUS_OUT_OF_MEMORY : LK_STATUS_DEVICE);
        ck_assert_ptr_nonnull(strstr(lk_error_message(self.fixture.context), "injected failure"));
        failures++;
    }
    ck_assert_int_gt(failures, 0);
    fake_device_fail(self.fake, call, 0, LK_OK);
    ck_assert_int_eq(attempt(&self), LK_OK);
    close_machine(&self);
}
END_TEST

/* A variable whose upload fails leaves nothing behind. */
START_TEST(test_failures_of_variables) {
    machine self = open_machine(usual_ops());
    const int64_t shape[] = {4};
    double host[4] = {1.0, 2.0, 3.0, 4.0}, back[4];
    lk_variable *variable;
    static const fake_call calls[] = {FAKE_ALLOC, FAKE_UPLOAD};
    for (size_t i = 0; i < LK_COUNT(calls); i++) {
        lk_status expected = calls[i] == FAKE_ALLOC ? LK_STATUS_OUT_OF_MEMORY : LK_STATUS_DEVICE;
        fake_device_fail(self.fake, calls[i], 1, expected);
        ck_assert_int_eq(lk_variables_wrap(self.fixture.variables, "wrapped", LK_ROLE_WEIGHT, "test", LK_DTYPE_F64, 1,
                                           shape, host, &variable),
                         expected);
        ck_assert_ptr_null(variable);
        ck_assert_ptr_nonnull(strstr(lk_error_message(self.fixture.context), "wrapped"));
        ck_assert_int_eq(self.counters->live_buffers, 0);
        ck_assert_int_eq(lk_variables_count(self.fixture.variables), 0);
    }
    ck_assert_int_eq(lk_variables_wrap(self.fixture.variables, "wrapped", LK_ROLE_WEIGHT, "test", LK_DTYPE_F64, 1,
                                       shape, host, &variable),
                     LK_OK);
    ck_assert_ptr_null(lk_variable_map(variable));
    fake_device_fail(self.fake, FAKE_DOWNLOAD, 1, LK_STATUS_DEVICE);
    ck_assert_int_eq(lk_variable_download(variable, back), LK_STATUS_DEVICE);
    ck_assert_int_eq(lk_variable_download(variable, back), LK_OK);
    ck_assert_mem_eq(back, host, sizeof host);
    ck_assert_int_eq(
        lk_variables_add(self.fixture.variables, "wrapped", LK_ROLE_WEIGHT, "test", LK_DTYPE_F64, 1, shape, &variable),
        LK_STATUS_INVALID_ARGUMENT); /* the name is taken */
    close_machine(&self);
}
END_TEST

int main(void) {
    test_seed();
    TCase *tests = tcase_create("placement");
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, test_all_on_the_main_device);
    tcase_add_test(tests, test_decomposed_before_fallback);
    tcase_add_test(tests, test_whole_where_it_can);
    tcase_add_test(tests, test_weights_once_inputs_each_run);
    tcase_add_test(tests, test_mutated_variables_come_home);
    tcase_add_test(tests, test_stale_copies_are_renewed);
    tcase_add_test(tests, test_shared_memory);
    tcase_add_test(tests, test_no_device_can);
    tcase_add_test(tests, test_model_over_two_devices);
    tcase_add_loop_test(tests, test_device_failures, 0, FAKE_CALL_COUNT);
    tcase_add_test(tests, test_failures_of_variables);
    return run_case("placement", tests);
}
