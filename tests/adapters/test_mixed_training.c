/* Adapters trained side by side become what they become one by one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/adapters/setup.h"

enum { PARTS = 3, STEPS = 6 };

static const struct {
    const char *data, *method, *targets;
    int64_t batch, seq;
    int32_t rank;
} rows[PARTS] = {{"qwen2-all-linear", "lora", "all-linear", 2, 48, 4},
                 {"llama-linear-ragged", "rslora", "q_proj,v_proj,down_proj", 3, 48, 6},
                 {"mistral-window", "lora", "up_proj,v_proj", 1, 96, 2}};

static void make_part(setup *self, int part, lk_adapter **adapter, lk_data **data) {
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.method = rows[part].method;
    options.target_modules = rows[part].targets;
    options.rank = rows[part].rank;
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

START_TEST(test_side_by_side_is_one_by_one) {
    static const char *const devices[] = {"cpu", "reference"};
    setup self;
    lk_adapter *alone[PARTS], *parts[PARTS], *mixed;
    lk_data *data[PARTS], *again[PARTS];
    double expected[PARTS][STEPS];
    const lk_train_options train = training();
    lk_trainer *trainer;
    lk_step_report report;
    setup_open(&self, devices[_i]);
    for (int p = 0; p < PARTS; p++) {
        make_part(&self, p, &alone[p], &data[p]);
        make_part(&self, p, &parts[p], &again[p]);
        SUCCEEDS(&self, lk_trainer_create(self.model, alone[p], data[p], &train, &trainer));
        for (int step = 0; step < STEPS; step++) {
            SUCCEEDS(&self, lk_trainer_step(trainer, &report));
            expected[p][step] = report.loss;
        }
        lk_trainer_destroy(trainer);
        ck_assert_double_gt(worst_difference(&self, alone[p], parts[p]), 1e-3);
    }
    SUCCEEDS(&self, lk_adapter_mix_for_training(parts, PARTS, &mixed));
    SUCCEEDS(&self, lk_trainer_create_mixed(self.model, mixed, again, PARTS, &train, &trainer));
    for (int step = 0; step < STEPS; step++) {
        double losses[PARTS], sum = 0.0;
        SUCCEEDS(&self, lk_trainer_step(trainer, &report));
        SUCCEEDS(&self, lk_trainer_get_losses(trainer, losses, PARTS));
        for (int p = 0; p < PARTS; p++) {
            ck_assert_double_eq_tol(losses[p], expected[p][step], 2e-5);
            sum += losses[p];
        }
        ck_assert_double_eq_tol(report.loss, sum / PARTS, 1e-5);
    }
    for (int p = 0; p < PARTS; p++) {
        SUCCEEDS(&self, lk_adapter_unmix(mixed, (size_t)p, parts[p]));
        double worst = worst_difference(&self, alone[p], parts[p]);
        printf("%-9s part %d: tensors differ by %.1e\n", devices[_i], p, worst);
        ck_assert_double_lt(worst, 1e-4);
    }
    lk_trainer_destroy(trainer);
    lk_adapter_destroy(mixed);
    for (int p = 0; p < PARTS; p++) {
        lk_data_destroy(data[p]);
        lk_data_destroy(again[p]);
        lk_adapter_destroy(alone[p]);
        lk_adapter_destroy(parts[p]);
    }
    setup_close(&self);
}
END_TEST

START_TEST(test_what_cannot_be_is_refused) {
    setup self;
    lk_adapter *parts[2], *mixed;
    lk_data *data[2];
    lk_trainer *trainer;
    lk_train_options train = training();
    setup_open(&self, "cpu");
    for (int p = 0; p < 2; p++) {
        make_part(&self, p, &parts[p], &data[p]);
    }
    SUCCEEDS(&self, lk_adapter_mix_for_training(parts, 2, &mixed));
    ck_assert_int_eq(lk_trainer_create_mixed(self.model, mixed, data, 1, &train, &trainer), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_int_eq(lk_trainer_create_mixed(self.model, parts[0], data, 2, &train, &trainer),
                     LK_STATUS_INVALID_ARGUMENT);
    ck_assert_int_eq(lk_adapter_unmix(mixed, 2, parts[0]), LK_STATUS_INVALID_ARGUMENT);
    train.max_grad_norm = 1.0;
    ck_assert_int_eq(lk_trainer_create_mixed(self.model, mixed, data, 2, &train, &trainer), LK_STATUS_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "max_grad_norm"));
    parts[1]->dropout = 0.1f;
    lk_adapter *other;
    ck_assert_int_eq(lk_adapter_mix_for_training(parts, 2, &other), LK_STATUS_UNSUPPORTED);
    ck_assert_ptr_null(other);
    lk_adapter_destroy(mixed);
    for (int p = 0; p < 2; p++) {
        lk_adapter_destroy(parts[p]);
        lk_data_destroy(data[p]);
    }
    setup_close(&self);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("mixed_training");
    TCase *tests = tcase_create("mixed_training");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_side_by_side_is_one_by_one, 0, 2);
    tcase_add_test(tests, test_what_cannot_be_is_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
