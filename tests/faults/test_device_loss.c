/* A device that is lost in the middle of a step, while the state is copied or saved, and while programs are compiled:
 * the status names the op, a checkpoint can be written, and another device goes on from it with the same losses. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/train/trainer.h"
#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/faults/fake_device.h"

enum { STEPS = 5 };

static char folder[] = "lk_device_loss_XXXXXX", data_path[64];

/* A run on a fake device, or on the reference that it computes with. */
typedef struct trial {
    lk_context *context;
    lk_session *session;
    lk_device *fake; /* NULL: none */
    lk_model *model;
    lk_data *data;
    lk_adapter *adapter;
    lk_trainer *trainer;
} trial;

#define SUCCEEDS(self, expression) ck_assert_msg((expression) == LK_OK, "%s", lk_error_message((self)->context))

static void open_trial(trial *self, bool on_fake) {
    lk_session_options session;
    lk_data_options data;
    *self = (trial){0};
    ck_assert_int_eq(lk_context_create(NULL, &self->context), LK_OK);
    lk_session_options_init(&session);
    session.device = "reference";
    SUCCEEDS(self, lk_session_create(self->context, &session, &self->session));
    if (on_fake) { /* before the reference */
        SUCCEEDS(self, fake_device_open(self->context, fake_all_ops(), &self->fake));
        self->session->devices[1] = self->session->devices[0];
        self->session->devices[0] = self->fake;
        self->session->num_devices = 2;
    }
    lk_data_options_init(&data);
    data.batch = 1;
    data.seq = 12;
    SUCCEEDS(self, lk_model_load(self->session, LK_TEST_DATA "/models/tiny-qwen2", NULL, &self->model));
    SUCCEEDS(self, lk_data_load(self->model, data_path, &data, &self->data));
    lk_adapter_options adapter;
    lk_adapter_options_init(&adapter);
    adapter.rank = 2;
    adapter.dropout = 0.1;
    adapter.target_modules = "q_proj";
    SUCCEEDS(self, lk_adapter_create(self->model, &adapter, &self->adapter));
}

static lk_status make_trainer(trial *self, bool keep_copy) {
    lk_train_options options;
    lk_train_options_init(&options);
    options.total_steps = STEPS;
    options.learning_rate = 1e-2;
    options.gradient_accumulation_steps = 2;
    options.keep_copy = keep_copy;
    return lk_trainer_create(self->model, self->adapter, self->data, &options, &self->trainer);
}

static void close_trial(trial *self) {
    lk_trainer_destroy(self->trainer);
    lk_adapter_destroy(self->adapter);
    lk_data_destroy(self->data);
    lk_model_destroy(self->model);
    if (self->fake != NULL) {
        ck_assert_int_eq(fake_device_counters(self->fake)->live_buffers, 0);
        ck_assert_int_eq(fake_device_counters(self->fake)->live_lists, 0);
    }
    lk_session_destroy(self->session);
    lk_context_destroy(self->context);
}

static double losses[STEPS];       /* of a run without a failure */
static int calls[FAKE_CALL_COUNT]; /* that its steps make */

static void train_whole(void) {
    trial self;
    open_trial(&self, true);
    SUCCEEDS(&self, make_trainer(&self, true));
    memset(fake_device_counters(self.fake)->calls, 0, sizeof calls);
    for (int i = 0; i < STEPS; i++) {
        lk_step_report report;
        SUCCEEDS(&self, lk_trainer_step(self.trainer, &report));
        losses[i] = report.loss;
    }
    memcpy(calls, fake_device_counters(self.fake)->calls, sizeof calls);
    close_trial(&self);
}

/* Another device goes on from the checkpoint; the first step that it does. */
static int64_t go_on(void) {
    trial next;
    open_trial(&next, false);
    SUCCEEDS(&next, make_trainer(&next, false));
    SUCCEEDS(&next, lk_trainer_load_checkpoint(next.trainer, folder));
    int64_t first = lk_trainer_steps(next.trainer) + 1;
    for (int64_t step = first; step <= STEPS; step++) {
        lk_step_report report;
        SUCCEEDS(&next, lk_trainer_step(next.trainer, &report));
        ck_assert_int_eq(report.step, step);
        ck_assert_double_eq(report.loss, losses[step - 1]);
    }
    close_trial(&next);
    return first;
}

static void clean(void) {
    char command[192];
    snprintf(command, sizeof command, "rm -f %s/checkpoint.json %s/state-*", folder, folder);
    ck_assert_int_eq(system(command), 0);
}

/* Lost at a call of this kind in a step: early, late, and in the middle. */
START_TEST(test_lost_in_a_step) {
    fake_call kind = (fake_call)_i;
    train_whole();
    for (int place = 1; place <= 3 && calls[kind] > 0; place++) {
        int nth = 1 + (calls[kind] - 1) * place / 3;
        trial self;
        open_trial(&self, true);
        SUCCEEDS(&self, make_trainer(&self, true));
        fake_device_lose(self.fake, kind, nth);
        lk_status status = LK_OK;
        lk_step_report report;
        while (status == LK_OK && lk_trainer_steps(self.trainer) < STEPS) {
            status = lk_trainer_step(self.trainer, &report);
        }
        if (status == LK_OK) { /* copies are made as time permits: not all calls happen in every run */
            close_trial(&self);
            continue;
        }
        ck_assert_int_eq(status, LK_STATUS_DEVICE);
        const char *message = lk_error_message(self.context);
        ck_assert_msg(strncmp(message, "step ", 5) == 0 && strstr(message, "injected failure") != NULL, "%s", message);
        ck_assert_int_eq(lk_trainer_step(self.trainer, &report), LK_STATUS_DEVICE); /* it does not go on by itself */
        SUCCEEDS(&self, lk_trainer_save_checkpoint(self.trainer, folder));
        close_trial(&self);
        int64_t first = go_on();
        printf("lost at call %d of kind %d: goes on at step %lld\n", nth, (int)kind, (long long)first);
        clean();
    }
}
END_TEST

/* While a checkpoint is written: the copy takes the device's place. Without a copy it is a failure, and an earlier
 * checkpoint stays whole. */
START_TEST(test_lost_while_saving) {
    train_whole();
    for (int keep = 1; keep >= 0; keep--) {
        trial self;
        lk_step_report report;
        open_trial(&self, true);
        SUCCEEDS(&self, make_trainer(&self, keep != 0));
        SUCCEEDS(&self, lk_trainer_step(self.trainer, &report));
        SUCCEEDS(&self, lk_trainer_step(self.trainer, &report));
        SUCCEEDS(&self, lk_trainer_save_checkpoint(self.trainer, folder));
        SUCCEEDS(&self, lk_trainer_step(self.trainer, &report));
        fake_device_lose(self.fake, FAKE_DOWNLOAD, 2);
        lk_status status = lk_trainer_save_checkpoint(self.trainer, folder);
        ck_assert_int_eq(status, keep ? LK_STATUS_OK : LK_STATUS_DEVICE);
        close_trial(&self);
        int64_t first = go_on();
        ck_assert_int_le(first, 4);
        ck_assert(keep != 0 || first == 3);
        clean();
    }
}
END_TEST

START_TEST(test_no_copy) {
    trial self;
    lk_step_report report;
    open_trial(&self, true);
    SUCCEEDS(&self, make_trainer(&self, false));
    SUCCEEDS(&self, lk_trainer_step(self.trainer, &report));
    fake_device_lose(self.fake, FAKE_RUN, 1);
    ck_assert_int_eq(lk_trainer_step(self.trainer, &report), LK_STATUS_DEVICE);
    ck_assert_int_eq(lk_trainer_save_checkpoint(self.trainer, folder), LK_STATUS_DEVICE);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "no copy of the state was kept"));
    close_trial(&self);
}
END_TEST

/* While it is compiled, or its memory is taken: nothing is left behind. */
START_TEST(test_lost_while_compiling) {
    static const fake_call kinds[] = {FAKE_COMPILE, FAKE_ALLOC, FAKE_UPLOAD};
    for (size_t k = 0; k < LK_COUNT(kinds); k++) {
        for (int nth = 1; nth <= 3; nth++) {
            trial self;
            open_trial(&self, true);
            fake_device_lose(self.fake, kinds[k], nth);
            lk_status status = make_trainer(&self, true);
            ck_assert(status == LK_STATUS_DEVICE || (status == LK_OK && self.trainer != NULL));
            ck_assert(status == LK_OK || self.trainer == NULL);
            close_trial(&self);
        }
    }
}
END_TEST

/* Memory that runs out is a failure of the same kind. */
START_TEST(test_out_of_memory) {
    train_whole();
    trial self;
    lk_step_report report;
    open_trial(&self, true);
    SUCCEEDS(&self, make_trainer(&self, true));
    SUCCEEDS(&self, lk_trainer_step(self.trainer, &report));
    fake_device_fail(self.fake, FAKE_RUN, 2, LK_STATUS_OUT_OF_MEMORY);
    ck_assert_int_eq(lk_trainer_step(self.trainer, &report), LK_STATUS_OUT_OF_MEMORY);
    SUCCEEDS(&self, lk_trainer_save_checkpoint(self.trainer, folder));
    close_trial(&self);
    go_on();
    clean();
}
END_TEST

int main(void) {
    FILE *data = NULL;
    if (mkdtemp(folder) != NULL) {
        snprintf(data_path, sizeof data_path, "%s/data.ids", folder);
        data = fopen(data_path, "w");
    }
    if (data == NULL) {
        return EXIT_FAILURE;
    }
    for (int line = 0; line < 7; line++) {
        for (int i = 0; i < 12; i++) {
            fprintf(data, "%d ", (17 * line + 5 * i * i) % 60);
        }
        fprintf(data, "\n");
    }
    fclose(data);
    TCase *tests = tcase_create("device_loss");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_lost_in_a_step, 0, FAKE_CALL_COUNT);
    tcase_add_test(tests, test_lost_while_saving);
    tcase_add_test(tests, test_no_copy);
    tcase_add_test(tests, test_lost_while_compiling);
    tcase_add_test(tests, test_out_of_memory);
    int failed = run_case("device_loss", tests);
    remove(data_path);
    rmdir(folder);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
