/* Adapters trained side by side become what they become one by one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/adapters/setup.h"
#include "tests/common/runner.h"

enum { PARTS = 4, STEPS = 6 };

static const struct {
    const char *data, *method, *init, *targets;
    int64_t batch, seq;
    int32_t rank;
} rows[PARTS] = {{"qwen2-all-linear", "lora", "default", "all-linear", 2, 48, 4},
                 {"llama-linear-ragged", "rslora", "default", "q_proj,v_proj,down_proj", 3, 48, 6},
                 {"mistral-window", "lora", "pissa", "up_proj,v_proj", 1, 96, 2},
                 {"qwen2-all-linear", "lora-fa", "default", "k_proj,down_proj", 1, 48, 3}};

static void make_part(setup *self, int part, lk_adapter **adapter, lk_data **data) {
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.method = rows[part].method;
    options.target_modules = rows[part].targets;
    options.rank = rows[part].rank;
    options.init = rows[part].init;
    options.seed = (uint64_t)part + 1;
    SUCCEEDS(self, lk_adapter_create(self->model, &options, adapter));
    lk_data_options choice;
    lk_data_options_init(&choice);
    choice.batch = rows[part].batch;
    choice.seq = rows[part].seq;
    choice.seed = 3;
    char path[512];
    snprintf(path, sizeof path, "%s/golden/%s/batches.ids", LK_TEST_DATA, rows[part].data);
    SUCCEEDS(self, lk_data_load(self->model, path, &choice, data));
}

static lk_train_options training(void) {
    lk_train_options train;
    lk_train_options_init(&train);
    train.learning_rate = 3e-3;
    train.learning_rate_ratio = 4.0;
    train.weight_decay = 0.01;
    train.total_steps = STEPS;
    train.gradient_accumulation_steps = 2;
    train.max_grad_norm = 4.5; /* below some of the norms, and above others */
    return train;
}

static double worst_difference(setup *self, lk_adapter *a, lk_adapter *b) {
    double worst = 0.0;
    ck_assert_int_eq(a->num_trained, b->num_trained);
    for (int32_t i = 0; i < a->num_trained; i++) {
        size_t bytes = a->trained[i]->value->bytes;
        float *x = malloc(bytes), *y = malloc(bytes);
        SUCCEEDS(self, lk_variable_download(a->trained[i]->value, x));
        SUCCEEDS(self, lk_variable_download(b->trained[i]->value, y));
        for (size_t j = 0; j < bytes / sizeof(float); j++) {
            worst = fmax(worst, fabs((double)x[j] - (double)y[j]));
        }
        free(x);
        free(y);
    }
    return worst;
}

static void close_parts(lk_adapter **adapters, lk_data **data, int count) {
    for (int p = 0; p < count; p++) {
        lk_data_destroy(data[p]);
        lk_adapter_destroy(adapters[p]);
    }
}

START_TEST(test_side_by_side_is_one_by_one) {
    static const char *const devices[] = {"cpu", "reference"};
    setup self;
    lk_adapter *alone[PARTS], *parts[PARTS];
    lk_data *data[PARTS], *again[PARTS];
    lk_step_report expected[PARTS][STEPS], report;
    const lk_train_options train = training();
    lk_trainer *trainer;
    int clipped = 0;
    setup_open(&self, devices[_i]);
    for (int p = 0; p < PARTS; p++) {
        make_part(&self, p, &alone[p], &data[p]);
        make_part(&self, p, &parts[p], &again[p]);
        SUCCEEDS(&self, lk_trainer_create(self.model, alone[p], data[p], &train, &trainer));
        for (int step = 0; step < STEPS; step++) {
            SUCCEEDS(&self, lk_trainer_step(trainer, &expected[p][step]));
            clipped += expected[p][step].grad_norm > train.max_grad_norm;
        }
        lk_trainer_destroy(trainer);
        ck_assert_double_gt(worst_difference(&self, alone[p], parts[p]), 1e-3);
    }
    ck_assert(clipped > 0 && clipped < PARTS * STEPS);
    SUCCEEDS(&self, lk_trainer_create_mixed(self.model, parts, again, PARTS, &train, &trainer));
    for (int step = 0; step < STEPS; step++) {
        double sum = 0.0, squares = 0.0;
        SUCCEEDS(&self, lk_trainer_step(trainer, &report));
        for (size_t p = 0; p < PARTS; p++) {
            lk_step_report part;
            const lk_step_report *own = &expected[p][step];
            SUCCEEDS(&self, lk_trainer_get_part(trainer, p, &part));
            ck_assert_double_eq_tol(part.loss, own->loss, 2e-5);
            ck_assert_double_eq_tol(part.grad_norm, own->grad_norm, 1e-4 * own->grad_norm);
            ck_assert_int_eq(part.tokens, own->tokens);
            ck_assert_int_eq(part.targets, own->targets);
            ck_assert_double_eq(part.epoch, own->epoch);
            sum += part.loss;
            squares += part.grad_norm * part.grad_norm;
        }
        ck_assert_double_eq_tol(report.loss, sum / PARTS, 1e-5);
        ck_assert_double_eq_tol(report.grad_norm, sqrt(squares), 1e-9);
    }
    for (int p = 0; p < PARTS; p++) {
        double worst = worst_difference(&self, alone[p], parts[p]);
        printf("%-9s part %d: tensors differ by %.1e\n", devices[_i], p, worst);
        ck_assert_double_lt(worst, 1e-4);
    }
    lk_trainer_destroy(trainer);
    close_parts(alone, data, PARTS);
    close_parts(parts, again, PARTS);
    setup_close(&self);
}
END_TEST

/* Two runs of the same adapters, the second of which goes on from the checkpoint of the first, end in the same bits. */
START_TEST(test_resuming) {
    setup self;
    lk_adapter *straight[PARTS], *resumed[PARTS];
    lk_data *data[PARTS], *again[PARTS];
    const lk_train_options train = training();
    lk_trainer *trainer;
    lk_step_report report;
    setup_open(&self, "cpu");
    for (int p = 0; p < PARTS; p++) {
        make_part(&self, p, &straight[p], &data[p]);
        make_part(&self, p, &resumed[p], &again[p]);
    }
    SUCCEEDS(&self, lk_trainer_create_mixed(self.model, straight, data, PARTS, &train, &trainer));
    for (int step = 0; step < STEPS; step++) {
        SUCCEEDS(&self, lk_trainer_step(trainer, &report));
        if (step == 2) {
            SUCCEEDS(&self, lk_trainer_save_checkpoint(trainer, setup_path(&self, "checkpoint")));
        }
    }
    lk_trainer_destroy(trainer);
    SUCCEEDS(&self, lk_trainer_create_mixed(self.model, resumed, again, PARTS, &train, &trainer));
    SUCCEEDS(&self, lk_trainer_load_checkpoint(trainer, setup_path(&self, "checkpoint")));
    ck_assert_int_eq(lk_trainer_steps(trainer), 3);
    while (lk_trainer_steps(trainer) < STEPS) {
        SUCCEEDS(&self, lk_trainer_step(trainer, &report));
    }
    for (int p = 0; p < PARTS; p++) {
        ck_assert_double_eq(worst_difference(&self, straight[p], resumed[p]), 0.0);
    }
    lk_trainer_destroy(trainer);
    /* not into a run of fewer adapters */
    SUCCEEDS(&self, lk_trainer_create_mixed(self.model, resumed, again, 2, &train, &trainer));
    ck_assert_int_ne(lk_trainer_load_checkpoint(trainer, setup_path(&self, "checkpoint")), LK_OK);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "\"adapters\""));
    lk_trainer_destroy(trainer);
    close_parts(straight, data, PARTS);
    close_parts(resumed, again, PARTS);
    setup_close(&self);
}
END_TEST

/* A gradient that is not finite stops the step of all: one part alone would run ahead of the others. */
START_TEST(test_one_that_fails_stops_all) {
    setup self;
    lk_adapter *parts[2], *before[2];
    lk_data *data[2], *unused[2];
    lk_step_report report;
    lk_trainer *trainer;
    const lk_train_options train = training();
    setup_open(&self, "cpu");
    for (int p = 0; p < 2; p++) {
        make_part(&self, p, &parts[p], &data[p]);
        make_part(&self, p, &before[p], &unused[p]);
    }
    SUCCEEDS(&self, lk_trainer_create_mixed(self.model, parts, data, 2, &train, &trainer));
    lk_variable *gradient = parts[1]->trained[0]->gradient;
    float *values = calloc(1, gradient->bytes);
    values[0] = INFINITY;
    SUCCEEDS(&self, lk_variable_upload(gradient, values));
    free(values);
    ck_assert_int_eq(lk_trainer_step(trainer, &report), LK_STATUS_NUMERIC);
    ck_assert_int_eq(lk_trainer_steps(trainer), 0);
    for (int p = 0; p < 2; p++) {
        ck_assert_double_eq(worst_difference(&self, parts[p], before[p]), 0.0);
    }
    SUCCEEDS(&self, lk_trainer_step(trainer, &report));
    lk_trainer_destroy(trainer);
    close_parts(parts, data, 2);
    close_parts(before, unused, 2);
    setup_close(&self);
}
END_TEST

START_TEST(test_what_cannot_be_is_refused) {
    setup self;
    lk_adapter *parts[2], *mixed;
    lk_data *data[2];
    lk_trainer *trainer;
    lk_step_report report;
    const lk_train_options train = training();
    setup_open(&self, "cpu");
    for (int p = 0; p < 2; p++) {
        make_part(&self, p, &parts[p], &data[p]);
    }
    ck_assert_int_eq(lk_trainer_create_mixed(self.model, parts, data, 0, &train, &trainer), LK_STATUS_INVALID_ARGUMENT);
    SUCCEEDS(&self, lk_trainer_create_mixed(self.model, parts, data, 2, &train, &trainer));
    ck_assert_int_eq(lk_trainer_get_part(trainer, 2, &report), LK_STATUS_INVALID_ARGUMENT);
    lk_trainer_destroy(trainer);
    SUCCEEDS(&self, lk_adapter_mix(parts, 2, &mixed)); /* copies: for generation */
    ck_assert_int_eq(lk_trainer_create(self.model, mixed, data[0], &train, &trainer), LK_STATUS_UNSUPPORTED);
    ck_assert_ptr_null(trainer);
    lk_adapter_destroy(mixed);
    parts[1]->dropout = 0.1f;
    ck_assert_int_eq(lk_trainer_create_mixed(self.model, parts, data, 2, &train, &trainer), LK_STATUS_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "dropout"));
    ck_assert_ptr_null(trainer);
    lk_adapter_destroy(parts[1]);
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.method = "dora";
    SUCCEEDS(&self, lk_adapter_create(self.model, &options, &parts[1]));
    ck_assert_int_eq(lk_trainer_create_mixed(self.model, parts, data, 2, &train, &trainer), LK_STATUS_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "dora"));
    close_parts(parts, data, 2);
    setup_close(&self);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("mixed_training");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_side_by_side_is_one_by_one, 0, 2);
    tcase_add_test(tests, test_resuming);
    tcase_add_test(tests, test_one_that_fails_stops_all);
    tcase_add_test(tests, test_what_cannot_be_is_refused);
    return run_case("mixed_training", tests);
}
