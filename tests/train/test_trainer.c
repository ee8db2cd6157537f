/* What a trainer promises beyond its numbers: the same bits again, going on after a stop, no allocation in a step, and
 * failures that lose nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <signal.h>

#include "core/base/json.h"
#include "tests/common/runner.h"
#include "tests/train/fixture.h"

static double train(fixture *self, int steps) {
    lk_step_report report = {0};
    for (int i = 0; i < steps; i++) {
        SUCCEEDS(self, lk_trainer_step(self->trainer, &report));
    }
    return report.loss;
}

START_TEST(test_two_runs_are_bit_identical) {
    uint64_t hashes[2];
    double losses[2];
    for (int i = 0; i < 2; i++) {
        fixture self;
        fixture_open(&self, NULL);
        fixture_start(&self);
        losses[i] = train(&self, 4);
        hashes[i] = fixture_hash(&self);
        fixture_close(&self);
    }
    ck_assert_uint_eq(hashes[0], hashes[1]);
    ck_assert(losses[0] == losses[1]);
}
END_TEST

START_TEST(test_a_resumed_run_equals_an_uninterrupted_one) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    train(&self, 3);
    SUCCEEDS(&self, lk_trainer_save_checkpoint(self.trainer, fixture_path(&self, "checkpoint")));
    double loss = train(&self, 5);
    uint64_t hash = fixture_hash(&self);
    fixture_stop(&self);
    fixture_start(&self);
    train(&self, 1); /* whatever it did before does not matter */
    SUCCEEDS(&self, lk_trainer_load_checkpoint(self.trainer, fixture_path(&self, "checkpoint")));
    ck_assert_int_eq(lk_trainer_steps(self.trainer), 3);
    ck_assert(train(&self, 5) == loss);
    ck_assert_uint_eq(fixture_hash(&self), hash);
    fixture_close(&self);
}
END_TEST

START_TEST(test_the_loss_falls) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    double first = train(&self, 1);
    double last = train(&self, 7);
    ck_assert_double_lt(last, first);
    fixture_close(&self);
}
END_TEST

/* ---- a step allocates nothing ---- */

static int64_t allocations;

static void *counting_allocate(void *user, size_t size) {
    (void)user;
    allocations++;
    return malloc(size);
}

static void *counting_reallocate(void *user, void *pointer, size_t size) {
    (void)user;
    allocations++;
    return realloc(pointer, size);
}

static void counting_release(void *user, void *pointer) {
    (void)user;
    free(pointer);
}

START_TEST(test_a_step_allocates_nothing) {
    const lk_allocator counting = {counting_allocate, counting_reallocate, counting_release, NULL};
    fixture self;
    fixture_open(&self, &counting);
    if (strncmp(lk_session_device_name(self.session), "reference", 9) == 0) {
        printf("skipped: the reference backend, the only one here, allocates in every command\n");
        fixture_close(&self);
        return;
    }
    fixture_start(&self);
    train(&self, 1);
    int64_t before = allocations;
    train(&self, 3);
    ck_assert_int_eq(allocations, before);
    lk_memory_report memory;
    lk_trainer_get_memory(self.trainer, &memory);
    ck_assert_uint_ge(memory.activations, memory.activations_lower_bound);
    ck_assert_uint_gt(memory.activations_lower_bound, 0);
    ck_assert_uint_eq(memory.total, memory.weights + memory.adapter + memory.optimizer + memory.inputs + memory.cache +
                                        memory.activations);
    fixture_close(&self);
}
END_TEST

/* ---- failures ---- */

START_TEST(test_a_value_that_is_not_finite_stops_the_run_and_changes_nothing) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    train(&self, 2);
    lk_variable *value = lk_adapter_tensor_at(self.adapter, 9)->value; /* a lora_B */
    float *values = malloc(value->bytes);
    SUCCEEDS(&self, lk_variable_download(value, values));
    values[0] = INFINITY;
    SUCCEEDS(&self, lk_variable_upload(value, values));
    uint64_t before = fixture_hash(&self);
    lk_step_report report;
    ck_assert_int_eq(lk_trainer_step(self.trainer, &report), LK_STATUS_NUMERIC);
    const char *message = lk_error_message(self.context);
    ck_assert_msg(strstr(message, "step 3") != NULL && strstr(message, "model.layers.0.") != NULL, "%s", message);
    ck_assert_uint_eq(fixture_hash(&self), before);
    ck_assert_int_eq(lk_trainer_steps(self.trainer), 2);
    free(values);
    fixture_close(&self);
}
END_TEST

START_TEST(test_a_checkpoint_of_other_settings_is_refused) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    train(&self, 1);
    SUCCEEDS(&self, lk_trainer_save_checkpoint(self.trainer, fixture_path(&self, "checkpoint")));
    lk_train_options options = self.trainer->options;
    options.learning_rate = 1e-4;
    lk_trainer *other;
    SUCCEEDS(&self, lk_trainer_create(self.model, self.adapter, self.data, &options, &other));
    ck_assert_int_eq(lk_trainer_load_checkpoint(other, fixture_path(&self, "checkpoint")), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "\"learning_rate\""));
    ck_assert_int_eq(lk_trainer_load_checkpoint(other, fixture_path(&self, "absent")), LK_STATUS_NOT_FOUND);
    lk_trainer_destroy(other);
    fixture_close(&self);
}
END_TEST

START_TEST(test_a_damaged_checkpoint_is_refused) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    train(&self, 1);
    SUCCEEDS(&self, lk_trainer_save_checkpoint(self.trainer, fixture_path(&self, "checkpoint")));
    FILE *file = fopen(fixture_path(&self, "checkpoint/state-1.safetensors"), "r+b");
    ck_assert_ptr_nonnull(file);
    fseek(file, -7, SEEK_END);
    int byte = fgetc(file);
    fseek(file, -7, SEEK_END);
    fputc(byte ^ 0x10, file);
    fclose(file);
    train(&self, 1);
    uint64_t before = fixture_hash(&self);
    ck_assert_int_eq(lk_trainer_load_checkpoint(self.trainer, fixture_path(&self, "checkpoint")), LK_STATUS_FORMAT);
    ck_assert_uint_eq(fixture_hash(&self), before);
    ck_assert_int_eq(lk_trainer_steps(self.trainer), 2);
    fixture_close(&self);
}
END_TEST

/* A disk that is full is played by a limit on the size of files. */
START_TEST(test_a_full_disk_leaves_the_earlier_files_whole) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    train(&self, 2);
    SUCCEEDS(&self, lk_trainer_save_checkpoint(self.trainer, fixture_path(&self, "checkpoint")));
    SUCCEEDS(&self, lk_adapter_save(self.adapter, fixture_path(&self, "adapter")));
    uint64_t saved = fixture_hash(&self);
    train(&self, 1);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, small;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){4096, before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    lk_status checkpoint = lk_trainer_save_checkpoint(self.trainer, fixture_path(&self, "checkpoint"));
    lk_status adapter = lk_adapter_save(self.adapter, fixture_path(&self, "adapter"));
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    ck_assert_int_eq(checkpoint, LK_STATUS_IO);
    ck_assert_int_eq(adapter, LK_STATUS_IO);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "adapter"));
    SUCCEEDS(&self, lk_trainer_load_checkpoint(self.trainer, fixture_path(&self, "checkpoint")));
    ck_assert_uint_eq(fixture_hash(&self), saved);
    lk_trainer_destroy(self.trainer);
    self.trainer = NULL;
    lk_adapter_destroy(self.adapter);
    SUCCEEDS(&self, lk_adapter_load(self.model, fixture_path(&self, "adapter"), &self.adapter));
    ck_assert_uint_eq(fixture_hash(&self), saved);
    fixture_close(&self);
}
END_TEST

START_TEST(test_options_are_checked) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    lk_train_options options = self.trainer->options;
    options.learning_rate = -1.0;
    lk_trainer *other;
    ck_assert_int_eq(lk_trainer_create(self.model, self.adapter, self.data, &options, &other),
                     LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_null(other);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "learning_rate is -1"));
    lk_adapter_options adapter;
    lk_adapter_options_init(&adapter);
    adapter.target_modules = "q_proj,k_prj";
    lk_adapter *made;
    ck_assert_int_eq(lk_adapter_create(self.model, &adapter, &made), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "k_prj"));
    lk_data_options data;
    lk_data_options_init(&data);
    data.seq = 513;
    lk_data *loaded;
    ck_assert_int_eq(lk_data_load(self.model, LK_TEST_DATA "/golden/stories260k-lora-qv/batches.ids", &data, &loaded),
                     LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "512"));
    fixture_close(&self);
}
END_TEST

START_TEST(test_a_memory_budget_is_kept) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    lk_memory_report full, less;
    lk_trainer_get_memory(self.trainer, &full);
    lk_train_options options = self.trainer->options;
    options.memory_budget = (int64_t)full.total;
    lk_trainer *other;
    SUCCEEDS(&self, lk_trainer_create(self.model, self.adapter, self.data, &options, &other));
    ck_assert_int_eq(other->recompute, LK_RECOMPUTE_CHEAP);
    lk_trainer_destroy(other);
    options.memory_budget = (int64_t)full.total - 1;
    SUCCEEDS(&self, lk_trainer_create(self.model, self.adapter, self.data, &options, &other));
    ck_assert_int_gt(other->recompute, LK_RECOMPUTE_CHEAP);
    lk_trainer_get_memory(other, &less);
    ck_assert_uint_lt(less.total, full.total);
    ck_assert_int_gt(other->recompute_cost.nodes, 0);
    ck_assert_double_gt(other->recompute_cost.step_flops, other->recompute_cost.flops);
    lk_trainer_destroy(other);
    options.memory_budget = 1;
    ck_assert_int_eq(lk_trainer_create(self.model, self.adapter, self.data, &options, &other),
                     LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_null(other);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "memory_budget"));
    fixture_close(&self);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("trainer");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_two_runs_are_bit_identical);
    tcase_add_test(tests, test_a_resumed_run_equals_an_uninterrupted_one);
    tcase_add_test(tests, test_the_loss_falls);
    tcase_add_test(tests, test_a_step_allocates_nothing);
    tcase_add_test(tests, test_a_value_that_is_not_finite_stops_the_run_and_changes_nothing);
    tcase_add_test(tests, test_a_checkpoint_of_other_settings_is_refused);
    tcase_add_test(tests, test_a_damaged_checkpoint_is_refused);
    tcase_add_test(tests, test_a_full_disk_leaves_the_earlier_files_whole);
    tcase_add_test(tests, test_options_are_checked);
    tcase_add_test(tests, test_a_memory_budget_is_kept);
    return run_case("trainer", tests);
}
