/* What a training step leaves out of an update at random. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/adapters/drop.h"
#include "tests/adapters/setup.h"
#include "tests/common/fixture.h"
#include "tests/common/runner.h"

enum { ROWS = 300, COLUMNS = 200 };

typedef enum what { DROP_ROWS, DROP_COLUMNS, DROP_WHOLE } what;

/* Ones after something was left out. */
static double *drop(what kind, double p, bool rescale, int32_t counter) {
    fixture self;
    lk_graph *graph;
    fixture_open(&self);
    double *ones = calloc(ROWS * COLUMNS, sizeof *ones), words[4] = {11.0, 0.0, (double)counter, 0.0};
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        ones[i] = 1.0;
    }
    ck_assert_int_eq(lk_graph_create(self.context, &graph), LK_OK);
    lk_tensor *x =
        lk_graph_variable(graph, fixture_variable(&self, LK_ROLE_INPUT, LK_DTYPE_F32, 2, ROWS, COLUMNS, ones));
    lk_forward forward = {.graph = graph};
    forward.rng = lk_graph_variable(graph, fixture_variable(&self, LK_ROLE_INPUT, LK_DTYPE_I32, 1, 4, 0, words));
    lk_tensor *y = kind == DROP_ROWS      ? lk_adapter_drop_rows(&forward, x, p, rescale)
                   : kind == DROP_COLUMNS ? lk_adapter_drop_columns(&forward, x, p, rescale)
                                          : lk_adapter_drop_whole(&forward, x, p);
    lk_graph_mark_output(graph, y);
    lk_program *program = fixture_compile(&self, graph);
    fixture_run(program);
    double *found = fixture_output(program, y);
    lk_program_destroy(program);
    fixture_close(&self);
    free(ones);
    return found;
}

/* Whole rows, or columns, are zero; the others all have the same value. The share is within five deviations of p. */
START_TEST(test_lines) {
    static const double p = 0.3;
    bool rows = _i / 2 == 0, rescale = _i % 2 != 0;
    int lines = rows ? ROWS : COLUMNS, length = rows ? COLUMNS : ROWS, dropped = 0;
    double *found = drop(rows ? DROP_ROWS : DROP_COLUMNS, p, rescale, 1), value = rescale ? 1.0 / (1.0 - p) : 1.0;
    for (int i = 0; i < lines; i++) {
        double first = found[rows ? i * COLUMNS : i];
        require_msg(first == 0.0 || fabs(first - value) < 1e-6, "a line has %g", first);
        dropped += first == 0.0;
        for (int j = 0; j < length; j++) {
            require_msg(found[rows ? i * COLUMNS + j : j * COLUMNS + i] == first, "line %d is not all the same", i);
        }
    }
    ck_assert_double_lt(fabs(dropped - p * lines), 5.0 * sqrt(p * (1.0 - p) * lines));
    free(found);
}
END_TEST

/* All or nothing, from one micro-batch to the next. */
START_TEST(test_whole) {
    enum { TIMES = 60 };
    int dropped = 0;
    for (int t = 0; t < TIMES; t++) {
        double *found = drop(DROP_WHOLE, 0.5, false, t);
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            require_msg(found[i] == found[0] && (found[i] == 0.0 || fabs(found[i] - 1.0) < 1e-6), "%g", found[i]);
        }
        dropped += found[0] == 0.0;
        free(found);
    }
    ck_assert(dropped > TIMES / 5 && dropped < TIMES - TIMES / 5);
}
END_TEST

/* ---- in training ---- */

enum { STEPS = 4 };

static const struct {
    const char *method;
    double rank, module;
} rows[] = {{"loha", 0.4, 0.0}, {"loha", 0.0, 0.4}, {"lokr", 0.4, 0.0}, {"lokr", 0.0, 0.4}, {"oft", 0.0, 0.4}};

static void train(const char *device, const char *method, double rank, double module, lk_recompute recompute,
                  double losses[STEPS]) {
    setup self;
    lk_adapter_options options;
    lk_data_options choice;
    lk_train_options train;
    lk_data *data;
    lk_trainer *trainer;
    lk_adapter_options_init(&options);
    options.method = method;
    options.rank = 4;
    options.rank_dropout = rank;
    options.module_dropout = module;
    lk_data_options_init(&choice);
    choice.batch = 2;
    choice.seq = 48;
    choice.shuffle = false;
    lk_train_options_init(&train);
    train.learning_rate = 3e-3;
    train.total_steps = STEPS;
    train.recompute = recompute;
    setup_open(&self, device);
    SUCCEEDS(&self, lk_adapter_create(self.model, &options, &self.adapter));
    SUCCEEDS(&self, lk_data_load(self.model, LK_TEST_DATA "/golden/qwen2-all-linear/batches.ids", &choice, &data));
    setup_disturb(&self);
    size_t count;
    float *before = setup_logits(&self, self.model, self.adapter, &count);
    SUCCEEDS(&self, lk_trainer_create(self.model, self.adapter, data, &train, &trainer));
    ck_assert_double_eq(setup_distance(&self, self.model, self.adapter, before), 0.0); /* not in an evaluation */
    free(before);
    for (int step = 0; step < STEPS; step++) {
        lk_step_report report;
        SUCCEEDS(&self, lk_trainer_step(trainer, &report));
        losses[step] = report.loss;
    }
    lk_trainer_destroy(trainer);
    lk_data_destroy(data);
    setup_close(&self);
}

/* It changes the losses, in the same way on every device and when the forward pass is computed again. */
START_TEST(test_training) {
    double plain[STEPS], losses[STEPS], again[STEPS], reference[STEPS];
    train("cpu", rows[_i].method, 0.0, 0.0, LK_RECOMPUTE_NONE, plain);
    train("cpu", rows[_i].method, rows[_i].rank, rows[_i].module, LK_RECOMPUTE_NONE, losses);
    train("cpu", rows[_i].method, rows[_i].rank, rows[_i].module, LK_RECOMPUTE_LAYERS, again);
    train("reference", rows[_i].method, rows[_i].rank, rows[_i].module, LK_RECOMPUTE_NONE, reference);
    ck_assert_mem_eq(again, losses, sizeof losses);
    for (int step = 0; step < STEPS; step++) {
        ck_assert_double_gt(fabs(losses[step] - plain[step]), 1e-4);
        ck_assert_double_eq_tol(losses[step], reference[step], 1e-4);
    }
}
END_TEST

START_TEST(test_what_a_method_lacks_is_refused) {
    static const struct {
        const char *method, *init;
        double rank, module;
        lk_status status;
        const char *message;
    } cases[] = {{"lora", NULL, 0.1, 0.0, LK_STATUS_UNSUPPORTED, "rank_dropout: lora"},
                 {"oft", NULL, 0.1, 0.0, LK_STATUS_UNSUPPORTED, "rank_dropout: oft"},
                 {"ia3", NULL, 0.0, 0.1, LK_STATUS_UNSUPPORTED, "module_dropout: ia3"},
                 {"loha", NULL, 0.0, 1.0, LK_STATUS_INVALID_ARGUMENT, "module_dropout is 1"},
                 {"lokr", NULL, -0.5, 0.0, LK_STATUS_INVALID_ARGUMENT, "rank_dropout is -0.5"},
                 {"lora", "lycoris", 0.0, 0.0, LK_STATUS_UNSUPPORTED, "only lokr"}};
    setup self;
    setup_open(&self, "cpu");
    for (size_t i = 0; i < LK_COUNT(cases); i++) {
        lk_adapter_options options;
        lk_adapter_options_init(&options);
        options.method = cases[i].method;
        options.init = cases[i].init;
        options.rank_dropout = cases[i].rank;
        options.module_dropout = cases[i].module;
        ck_assert_int_eq(lk_adapter_create(self.model, &options, &self.adapter), cases[i].status);
        ck_assert_msg(strstr(lk_error_message(self.context), cases[i].message) != NULL, "%s",
                      lk_error_message(self.context));
    }
    setup_close(&self);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("drop");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_lines, 0, 4);
    tcase_add_test(tests, test_whole);
    tcase_add_loop_test(tests, test_training, 0, (int)LK_COUNT(rows));
    tcase_add_test(tests, test_what_a_method_lacks_is_refused);
    return run_case("drop", tests);
}
