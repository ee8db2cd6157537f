/* Fine-tunes a model from a program of one's own: open a session, load model and data, step, save.
 *     train MODEL DATA OUT [STEPS] */
#include <lorikeet.h>
#include <stdio.h>
#include <stdlib.h>

static void print_message(void *user, lk_log_level level, const char *message) {
    (void)user;
    (void)level;
    fprintf(stderr, "%s\n", message);
}

/* What the run holds; all of it starts as NULL, and destroying NULL is allowed. */
typedef struct fine_tuning {
    lk_context *context;
    lk_session *session;
    lk_model *model;
    lk_adapter *adapter;
    lk_data *data;
    lk_trainer *trainer;
} fine_tuning;

static lk_status prepare(fine_tuning *run, const char *model, const char *data, int64_t steps) {
    lk_context_options context_options;
    lk_context_options_init(&context_options);
    context_options.log = print_message;
    lk_status status = lk_context_create(&context_options, &run->context);
    if (status == LK_OK) {
        status = lk_session_create(run->context, NULL, &run->session); /* the best device that is here */
    }
    if (status == LK_OK) {
        status = lk_model_load(run->session, model, NULL, &run->model);
    }
    if (status == LK_OK) {
        lk_adapter_options options;
        lk_adapter_options_init(&options);
        options.rank = 8;
        options.alpha = 16;
        status = lk_adapter_create(run->model, &options, &run->adapter);
    }
    if (status == LK_OK) {
        lk_data_options options;
        lk_data_options_init(&options);
        options.batch = 2;
        options.seq = 64;
        status = lk_data_load(run->model, data, &options, &run->data);
    }
    if (status == LK_OK) {
        lk_train_options options;
        lk_train_options_init(&options);
        options.learning_rate = 1e-3;
        options.total_steps = steps;
        status = lk_trainer_create(run->model, run->adapter, run->data, &options, &run->trainer);
    }
    return status;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: train MODEL DATA OUT [STEPS]\n");
        return 2;
    }
    int64_t steps = argc > 4 ? strtol(argv[4], NULL, 10) : 20;
    fine_tuning run = {0};
    lk_status status = prepare(&run, argv[1], argv[2], steps);
    if (status == LK_OK) {
        printf("on %s\n", lk_session_device_name(run.session));
    }
    for (int64_t step = 0; status == LK_OK && step < steps; step++) {
        lk_step_report report;
        status = lk_trainer_step(run.trainer, &report);
        if (status == LK_OK) {
            printf("step %lld: loss %.4f\n", (long long)report.step, report.loss);
        }
    }
    if (status == LK_OK) {
        status = lk_adapter_save(run.adapter, argv[3]);
    }
    if (status != LK_OK) {
        fprintf(stderr, "%s: %s\n", lk_status_text(status), run.context != NULL ? lk_error_message(run.context) : "");
    }
    lk_trainer_destroy(run.trainer);
    lk_data_destroy(run.data);
    lk_adapter_destroy(run.adapter);
    lk_model_destroy(run.model);
    lk_session_destroy(run.session);
    lk_context_destroy(run.context);
    return status == LK_OK ? 0 : 1;
}
