/* The same run on every device that is here: adapters begin with the same values, dropout drops the same elements, both
 * to the last bit, and the first losses with dropout agree. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/trainer.h"
#include "tests/common/runner.h"

static const char *const devices[] = {"cpu", "reference", "opencl", "vulkan", "cuda"};

typedef struct machine {
    lk_context *context;
    lk_session *session;
    lk_model *model;
} machine;

#define SUCCEEDS(self, expression) ck_assert_msg((expression) == LK_OK, "%s", lk_error_message((self)->context))

/* False, with the reason printed, where the device is not there. */
static bool open_machine(machine *self, const char *device) {
    lk_session_options options;
    *self = (machine){0};
    ck_assert_int_eq(lk_context_create(NULL, &self->context), LK_OK);
    lk_session_options_init(&options);
    options.device = device;
    options.threads = 2;
    lk_status status = lk_session_create(self->context, &options, &self->session);
    if (status == LK_STATUS_UNAVAILABLE) {
        printf("skipped: %s: %s\n", device, lk_error_message(self->context));
        lk_context_destroy(self->context);
        return false;
    }
    SUCCEEDS(self, status);
    SUCCEEDS(self, lk_model_load(self->session, LK_TEST_DATA "/models/stories260k", NULL, &self->model));
    return true;
}

static void close_machine(machine *self) {
    lk_model_destroy(self->model);
    lk_session_destroy(self->session);
    lk_context_destroy(self->context);
}

/* ---- initial values ---- */

static uint64_t hash_of(machine *self, lk_adapter *adapter) {
    lk_adapter_info info;
    uint64_t hash = 0;
    lk_adapter_get_info(adapter, &info);
    ck_assert_int_gt(info.num_tensors, 0);
    for (int64_t i = 0; i < info.num_tensors; i++) {
        const char *name;
        int64_t shape[2];
        SUCCEEDS(self, lk_adapter_get_tensor(adapter, i, &name, shape, NULL, NULL));
        size_t count = (size_t)(shape[0] * shape[1]);
        float *values = malloc(count * sizeof *values);
        SUCCEEDS(self, lk_adapter_get_tensor(adapter, i, &name, shape, values, NULL));
        hash = lk_hash64(values, count * sizeof *values, hash);
        free(values);
    }
    return hash;
}

START_TEST(test_initial_values) {
    static const char *const methods[] = {"lora", "dora", "vera"};
    uint64_t expected[LK_COUNT(methods)] = {0};
    for (size_t d = 0; d < LK_COUNT(devices); d++) {
        machine self;
        if (!open_machine(&self, devices[d])) {
            continue;
        }
        for (size_t m = 0; m < LK_COUNT(methods); m++) {
            lk_adapter_options options;
            lk_adapter_options_init(&options);
            options.method = methods[m];
            options.seed = 11;
            options.target_modules = m == 2 ? "q_proj" : "q_proj,v_proj"; /* vera: layers of one shape */
            lk_adapter *adapter;
            SUCCEEDS(&self, lk_adapter_create(self.model, &options, &adapter));
            uint64_t hash = hash_of(&self, adapter);
            expected[m] = d == 0 ? hash : expected[m];
            ck_assert_msg(hash == expected[m], "%s begins differently on %s", methods[m], devices[d]);
            lk_adapter_destroy(adapter);
        }
        close_machine(&self);
    }
}
END_TEST

/* ---- dropout ---- */

enum { COLUMNS = 257, ROWS = 33 };

/* What dropout makes of ones. */
static void drop(machine *self, float *out) {
    const int64_t shape[] = {ROWS, COLUMNS}, words = 4;
    const uint32_t rng[] = {7, 1, 3, 0};
    lk_device *home = lk_session_main_device(self->session);
    lk_variables *variables;
    lk_variable *x, *r;
    lk_graph *graph;
    lk_program *program;
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        out[i] = 1.0f;
    }
    SUCCEEDS(self, lk_variables_create(self->context, home, &variables));
    SUCCEEDS(self, lk_variables_add(variables, "x", LK_ROLE_INPUT, "inputs", LK_DTYPE_F32, 2, shape, &x));
    SUCCEEDS(self, lk_variables_add(variables, "rng", LK_ROLE_INPUT, "inputs", LK_DTYPE_I32, 1, &words, &r));
    SUCCEEDS(self, lk_variable_upload(x, out));
    SUCCEEDS(self, lk_variable_upload(r, rng));
    SUCCEEDS(self, lk_graph_create(self->context, &graph));
    lk_tensor *y = lk_build_dropout(graph, lk_graph_variable(graph, x), lk_graph_variable(graph, r), 0.3f, 5);
    lk_graph_mark_output(graph, y);
    SUCCEEDS(self, lk_session_compile(self->session, graph, false, &program));
    ck_assert_ptr_eq(lk_program_placement(program, 0).device, home); /* no other device does it in its place */
    SUCCEEDS(self, lk_program_run(program));
    SUCCEEDS(self, lk_program_read(program, y, out, ROWS * COLUMNS * sizeof *out));
    lk_program_destroy(program);
    lk_variables_destroy(variables);
}

START_TEST(test_dropout) {
    static float expected[ROWS * COLUMNS], found[ROWS * COLUMNS];
    for (size_t d = 0; d < LK_COUNT(devices); d++) {
        machine self;
        if (!open_machine(&self, devices[d])) {
            continue;
        }
        drop(&self, d == 0 ? expected : found);
        int dropped = 0;
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            dropped += expected[i] == 0.0f;
        }
        ck_assert_int_gt(dropped, ROWS * COLUMNS / 4);
        ck_assert_int_lt(dropped, ROWS * COLUMNS / 3);
        ck_assert_msg(d == 0 || memcmp(expected, found, sizeof found) == 0, "%s drops otherwise", devices[d]);
        close_machine(&self);
    }
}
END_TEST

/* ---- a run with both ---- */

static void train(machine *self, double losses[3]) {
    lk_data_options data_options;
    lk_adapter_options adapter_options;
    lk_train_options train_options;
    lk_data *data;
    lk_adapter *adapter;
    lk_trainer *trainer;
    lk_data_options_init(&data_options);
    lk_adapter_options_init(&adapter_options);
    lk_train_options_init(&train_options);
    data_options.batch = 1;
    data_options.seq = 16;
    data_options.seed = 3;
    adapter_options.dropout = 0.4;
    adapter_options.seed = 5;
    adapter_options.layers = "0,1";
    train_options.total_steps = 3;
    train_options.learning_rate = 1e-2;
    train_options.seed = 9;
    SUCCEEDS(self, lk_data_load(self->model, LK_TEST_DATA "/../../data/tinyshakespeare.txt", &data_options, &data));
    SUCCEEDS(self, lk_adapter_create(self->model, &adapter_options, &adapter));
    SUCCEEDS(self, lk_trainer_create(self->model, adapter, data, &train_options, &trainer));
    for (int i = 0; i < 3; i++) {
        lk_step_report report;
        SUCCEEDS(self, lk_trainer_step(trainer, &report));
        losses[i] = report.loss;
    }
    lk_trainer_destroy(trainer);
    lk_adapter_destroy(adapter);
    lk_data_destroy(data);
}

START_TEST(test_losses_with_dropout) {
    double expected[3] = {0.0}, found[3];
    for (size_t d = 0; d < LK_COUNT(devices); d++) {
        machine self;
        if (!open_machine(&self, devices[d])) {
            continue;
        }
        train(&self, d == 0 ? expected : found);
        for (int i = 0; i < 3 && d > 0; i++) {
            ck_assert_msg(fabs(found[i] - expected[i]) < 1e-4, "%s: loss %d is %.7f, on the CPU %.7f", devices[d], i,
                          found[i], expected[i]);
        }
        close_machine(&self);
    }
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("devices");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_initial_values);
    tcase_add_test(tests, test_dropout);
    tcase_add_test(tests, test_losses_with_dropout);
    return run_case("devices", tests);
}
