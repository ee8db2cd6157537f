/* Memory that runs out at every place of a small training run: from opening the device to the saved adapter. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "lorikeet.h"
#include "tests/common/runner.h"
#include "tests/faults/meter.h"

static char folder[] = "lk_faults_XXXXXX";

static lk_status use(lk_model *model, lk_adapter *adapter, lk_data *data) {
    lk_train_options options;
    lk_train_options_init(&options);
    options.total_steps = 2;
    options.gradient_accumulation_steps = 2;
    lk_trainer *trainer = NULL;
    lk_evaluator *evaluator = NULL;
    lk_step_report step;
    lk_eval_report eval;
    lk_status status = lk_trainer_create(model, adapter, data, &options, &trainer);
    status = status == LK_OK ? lk_trainer_step(trainer, &step) : status;
    status = status == LK_OK ? lk_trainer_save_checkpoint(trainer, folder) : status;
    status = status == LK_OK ? lk_trainer_load_checkpoint(trainer, folder) : status;
    status = status == LK_OK ? lk_evaluator_create(model, adapter, data, &evaluator) : status;
    status = status == LK_OK ? lk_evaluator_run(evaluator, NULL, NULL, &eval) : status;
    status = status == LK_OK ? lk_adapter_save(adapter, folder) : status;
    lk_evaluator_destroy(evaluator);
    lk_trainer_destroy(trainer);
    return status;
}

static lk_status training_run(lk_context *context) {
    lk_session_options options;
    lk_session_options_init(&options);
    options.device = "cpu";
    options.threads = 2;
    lk_data_options data_options;
    lk_data_options_init(&data_options);
    data_options.batch = 4;
    data_options.seq = 64;
    lk_session *session = NULL;
    lk_model *model = NULL;
    lk_data *data = NULL;
    lk_adapter *adapter = NULL, *loaded = NULL;
    lk_status status = lk_session_create(context, &options, &session);
    status = status == LK_OK ? lk_model_load(session, LK_TEST_DATA "/models/tiny-qwen2", NULL, &model) : status;
    status = status == LK_OK
                 ? lk_data_load(model, LK_TEST_DATA "/golden/qwen2-all-linear/batches.ids", &data_options, &data)
                 : status;
    status = status == LK_OK ? lk_adapter_create(model, NULL, &adapter) : status;
    status = status == LK_OK ? use(model, adapter, data) : status;
    status = status == LK_OK ? lk_adapter_load(model, folder, &loaded) : status;
    status = status == LK_OK ? lk_merge(model, loaded, LK_DTYPE_F32, folder, NULL, NULL) : status;
    lk_adapter_destroy(loaded);
    lk_adapter_destroy(adapter);
    lk_data_destroy(data);
    lk_model_destroy(model);
    lk_session_destroy(session);
    return status;
}

START_TEST(test_every_allocation) {
    const char *stride = getenv("LK_TEST_STRIDE"); /* by default all of them, once, and a sample from then on */
    long calls = meter_fail_every_allocation(training_run, _i == 0, stride ? atol(stride) : _i == 0 ? 1 : 7);
    printf("a training run: %ld allocations\n", calls);
}
END_TEST

int main(void) {
    if (mkdtemp(folder) == NULL) {
        return EXIT_FAILURE;
    }
    TCase *tests = tcase_create("allocation_training");
    tcase_set_timeout(tests, 1800);
    tcase_add_loop_test(tests, test_every_allocation, 0, 2);
    int failed = run_case("allocation_training", tests);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) != 0 || failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
