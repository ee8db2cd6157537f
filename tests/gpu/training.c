/* Tokens per second of training models of known sizes with random weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "tests/gpu/report.h"

enum { STEPS = 8, FEWEST = 2 };

static bool write_ids(const char *path, int64_t sequences, int64_t length, int64_t vocab) {
    FILE *file = fopen(path, "w");
    uint32_t state = 1;
    for (int64_t i = 0; file != NULL && i < sequences * length; i++) {
        state = state * 1664525u + 1013904223u;
        fprintf(file, "%lld%c", (long long)((state >> 8) % (uint32_t)vocab), (i + 1) % length == 0 ? '\n' : ' ');
    }
    return file != NULL && fclose(file) == 0;
}

typedef struct setting {
    const char *model;
    int64_t batch, seq;
    double seconds; /* at most about this long */
} setting;

static lk_status take_steps(lk_trainer *trainer, const setting *with, json_t *row) {
    double seconds[STEPS], spent = 0.0;
    int count = 0;
    lk_step_report step = {0};
    LK_TRY(lk_trainer_step(trainer, &step)); /* not counted */
    double first = step.loss;
    while (count < STEPS && (count < FEWEST || spent < with->seconds)) {
        LK_TRY(lk_trainer_step(trainer, &step));
        seconds[count] = step.step_seconds + step.data_seconds;
        spent += seconds[count++];
    }
    double median = lk_bench_median(seconds, count);
    lk_memory_report memory;
    lk_trainer_get_memory(trainer, &memory);
    json_object_set_new(row, "steps", json_integer(count));
    json_object_set_new(row, "step_seconds", json_real(median));
    json_object_set_new(row, "tokens_per_second", json_real((double)step.tokens / median));
    json_object_set_new(row, "first_loss", json_real(first));
    json_object_set_new(row, "last_loss", json_real(step.loss));
    json_object_set_new(row, "memory_bytes", json_integer((json_int_t)memory.total));
    return LK_OK;
}

static lk_status train(report *self, lk_model *model, const setting *with, json_t *row) {
    char path[1024];
    lk_adapter_options adapter_options;
    lk_data_options data_options;
    lk_train_options train_options;
    lk_adapter *adapter = NULL;
    lk_data *data = NULL;
    lk_trainer *trainer = NULL;
    lk_adapter_options_init(&adapter_options);
    adapter_options.rank = 16;
    lk_data_options_init(&data_options);
    data_options.batch = with->batch;
    data_options.seq = with->seq;
    lk_train_options_init(&train_options);
    train_options.total_steps = STEPS + 1;
    snprintf(path, sizeof path, "%s/random.ids", self->folder);
    if (!write_ids(path, with->batch * 2, with->seq, lk_bench_model_find(with->model)->vocab_size)) {
        return lk_fail(self->context, LK_STATUS_IO, "%s cannot be written", path);
    }
    lk_status status = lk_adapter_create(model, &adapter_options, &adapter);
    if (status == LK_OK) {
        status = lk_data_load(model, path, &data_options, &data);
    }
    if (status == LK_OK) {
        status = lk_trainer_create(model, adapter, data, &train_options, &trainer);
    }
    if (status == LK_OK) {
        status = take_steps(trainer, with, row);
    }
    lk_trainer_destroy(trainer);
    lk_data_destroy(data);
    lk_adapter_destroy(adapter);
    return status;
}

/* Where the memory does not suffice, with half the sequence. */
static lk_status train_as_long_as_fits(report *self, lk_model *model, setting with, json_t *rows) {
    for (;;) {
        json_t *row = json_pack("{s:s, s:I, s:I}", "model", with.model, "batch", (json_int_t)with.batch, "seq",
                                (json_int_t)with.seq);
        lk_status status = train(self, model, &with, row);
        if (status != LK_OK) {
            json_object_set_new(row, "failure", json_string(lk_error_message(self->context)));
        }
        json_array_append_new(rows, row);
        if (status != LK_STATUS_OUT_OF_MEMORY || with.seq <= 256) {
            return status == LK_STATUS_DEVICE ? status : LK_OK;
        }
        with.seq /= 2;
    }
}

static lk_status train_model(report *self, const setting *settings, int count, json_t *rows) {
    char folder[1024], weights[1100];
    snprintf(folder, sizeof folder, "%s/%s", self->folder, settings[0].model);
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    LK_TRY(lk_bench_model_write(self->context, lk_bench_model_find(settings[0].model), false, folder));
    lk_model_options options;
    lk_model_options_init(&options);
    options.dtype = LK_DTYPE_BF16;
    lk_model *model;
    lk_status status = lk_model_load(self->session, folder, &options, &model);
    for (int i = 0; i < count && status == LK_OK; i++) {
        status = train_as_long_as_fits(self, model, settings[i], rows);
    }
    if (status != LK_OK) {
        json_array_append_new(
            rows, json_pack("{s:s, s:s}", "model", settings[0].model, "failure", lk_error_message(self->context)));
    } else {
        lk_model_destroy(model);
    }
    remove(weights); /* gigabytes */
    return status == LK_STATUS_DEVICE ? status : LK_OK;
}

lk_status report_training(report *self) {
    static const setting toy[] = {{"toy", 2, 32, 1.0}};
    static const setting small[] = {{"smollm2-135m", 1, 512, 10.0}, {"smollm2-135m", 16, 512, 20.0}};
    static const setting large[] = {{"llama-3-8b", 1, 4096, 30.0}};
    json_t *rows = json_array();
    json_object_set_new(self->root, "training", rows);
    if (self->small) {
        return train_model(self, toy, (int)LK_COUNT(toy), rows);
    }
    LK_TRY(train_model(self, small, (int)LK_COUNT(small), rows));
    return train_model(self, large, (int)LK_COUNT(large), rows);
}
