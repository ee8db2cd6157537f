/* The model that train and scaling measure: files, or known sizes with random weights. */
#define _DEFAULT_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

void bench_model_init(bench_model *model, cli_workspace *workspace) {
    *model = (bench_model){.workspace = workspace, .size = "smollm2-135m", .steps = 3};
    lk_data_options_init(&model->data);
    model->data.batch = 1;
    model->data.seq = 256;
    model->data.shuffle = false;
}

void bench_model_options(bench_model *model, cli_options *options) {
    static const char *sizes[32];
    for (int i = 0; i < 31 && lk_bench_models()[i].name != NULL; i++) {
        sizes[i] = lk_bench_models()[i].name;
    }
    cli_group(options, "Model and micro-batch:");
    cli_text(options, "model", 'm', &model->path, "PATH",
             "a Hugging Face folder or a .gguf file; the token ids are random (default: --size)");
    cli_choice_text(options, "size", 0, &model->size, sizes, "a Llama model of known sizes with random weights");
    cli_int64(options, "layers", 0, &model->layers, 0, "of --size, for a quick look; 0: all");
    cli_choice(options, "dtype", 0, &model->dtype, cli_dtype_names, "type of the frozen weights in memory");
    cli_int64(options, "batch", 'b', &model->data.batch, 1, "sequences per micro-batch");
    cli_int64(options, "seq", 0, &model->data.seq, 2, "tokens per sequence");
    cli_int64(options, "steps", 0, &model->steps, 1, "to time in each run, after one that is not counted");
    model->recompute = LK_RECOMPUTE_CHEAP;
    cli_choice(options, "gradient-checkpointing", 0, &model->recompute, cli_recompute_names, "as of 'lorikeet train'");
}

static int write_model(bench_model *model) {
    lk_bench_model sizes = *lk_bench_model_find(model->size);
    sizes.num_hidden_layers = model->layers > 0 ? model->layers : sizes.num_hidden_layers;
    char folder[sizeof model->folder + 16];
    snprintf(folder, sizeof folder, "%s/model", model->folder);
    if (access(folder, F_OK) == 0) {
        return CLI_DONE;
    }
    lk_status status = lk_bench_model_write(model->workspace->context, &sizes, false, folder);
    return status == LK_OK ? CLI_DONE : cli_library_failed(model->workspace->context, status);
}

int bench_model_open(bench_model *model, int32_t threads) {
    cli_workspace *workspace = model->workspace;
    if (model->folder[0] == '\0' &&
        (!cli_temporary_path("bench", model->folder, sizeof model->folder) || mkdtemp(model->folder) == NULL)) {
        int result = cli_failed("%s: cannot make a temporary folder", model->folder);
        model->folder[0] = '\0';
        return result;
    }
    int32_t option = workspace->session_options.threads;
    workspace->session_options.threads = threads > 0 ? threads : option;
    int result = cli_open_session(workspace);
    workspace->session_options.threads = option;
    if (result == CLI_DONE && model->path == NULL) {
        result = write_model(model);
    }
    if (result != CLI_DONE) {
        return result;
    }
    char folder[sizeof model->folder + 16];
    snprintf(folder, sizeof folder, "%s/model", model->folder);
    model->name = model->path != NULL ? model->path : model->size;
    workspace->model_options.dtype = cli_dtype(model->dtype);
    lk_status status = lk_model_load(workspace->session, model->path != NULL ? model->path : folder,
                                     &workspace->model_options, &workspace->model);
    return status == LK_OK ? CLI_DONE : cli_library_failed(workspace->context, status);
}

void bench_model_close(bench_model *model) {
    cli_workspace *workspace = model->workspace;
    lk_model_destroy(workspace->model);
    lk_session_destroy(workspace->session);
    lk_context_destroy(workspace->context);
    workspace->model = NULL;
    workspace->session = NULL;
    workspace->context = NULL;
}

void bench_model_remove(bench_model *model) {
    static const char *const files[] = {"model/config.json", "model/model.safetensors", "model", "random.ids", "."};
    for (size_t i = 0; i < sizeof files / sizeof *files && model->folder[0] != '\0'; i++) {
        char path[sizeof model->folder + 32];
        snprintf(path, sizeof path, "%s/%s", model->folder, files[i]);
        path[strlen(path) - (files[i][0] == '.' ? 2 : 0)] = '\0';
        remove(path);
    }
}

json_t *bench_model_settings(const bench_model *model) {
    const char *name = strrchr(model->name, '/');
    return json_pack("{s:s, s:b, s:I, s:s, s:I, s:I, s:I}", "model", name != NULL ? name + 1 : model->name,
                     "random_weights", model->path == NULL, "layers", (json_int_t)model->layers, "dtype",
                     cli_dtype_names[model->dtype], "batch", (json_int_t)model->data.batch, "seq",
                     (json_int_t)model->data.seq, "steps", (json_int_t)model->steps);
}

/* ---- one run ---- */

static bool write_ids(const char *path, const bench_run *run, int64_t vocab) {
    FILE *file = fopen(path, "w");
    uint32_t state = 1;
    for (int64_t i = 0; file != NULL && i < 2 * run->batch * run->seq; i++) {
        state = state * 1664525u + 1013904223u;
        fprintf(file, "%lld%c", (long long)((state >> 8) % (uint32_t)vocab), (i + 1) % run->seq == 0 ? '\n' : ' ');
    }
    return file != NULL && fclose(file) == 0;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static lk_status take_steps(lk_trainer *trainer, int64_t steps, json_t *row) {
    enum { MOST = 1000 };
    double seconds[MOST];
    lk_step_report step = {0};
    lk_status status = lk_trainer_step(trainer, &step); /* not counted */
    double first = step.loss;
    int count = 0;
    for (; count < steps && count < MOST && status == LK_OK && cli_stop_signal() == 0; count++) {
        status = lk_trainer_step(trainer, &step);
        seconds[count] = step.step_seconds + step.data_seconds;
    }
    if (status != LK_OK || count == 0) {
        return status;
    }
    qsort(seconds, (size_t)count, sizeof *seconds, by_value);
    double median = count % 2 != 0 ? seconds[count / 2] : 0.5 * (seconds[count / 2 - 1] + seconds[count / 2]);
    lk_memory_report memory;
    lk_trainer_get_memory(trainer, &memory);
    json_t *found = json_pack("{s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I}", "steps", count,
                              "tokens", (json_int_t)step.tokens, "seconds", median, "fastest_seconds", seconds[0],
                              "tokens_per_second", (double)step.tokens / median, "first_loss", first, "last_loss",
                              step.loss, "weights_bytes", (json_int_t)memory.weights, "adapter_bytes",
                              (json_int_t)memory.adapter, "optimizer_bytes", (json_int_t)memory.optimizer,
                              "activations_bytes", (json_int_t)memory.activations, "activations_lower_bound_bytes",
                              (json_int_t)memory.activations_lower_bound, "total_bytes", (json_int_t)memory.total);
    json_object_update(row, found);
    json_decref(found);
    return LK_OK;
}

static lk_status train(bench_model *model, const bench_run *run, const char *ids, json_t *row, json_t **profile) {
    lk_adapter_options adapter_options;
    lk_train_options train_options;
    lk_data_options data_options = model->data;
    lk_adapter *adapter = NULL;
    lk_data *data = NULL;
    lk_trainer *trainer = NULL;
    char *text = NULL;
    lk_adapter_options_init(&adapter_options);
    adapter_options.method = run->method;
    adapter_options.rank = run->rank;
    lk_train_options_init(&train_options);
    train_options.total_steps = model->steps + 1;
    train_options.recompute = (lk_recompute)model->recompute;
    data_options.batch = run->batch;
    data_options.seq = run->seq;
    lk_model *base = model->workspace->model;
    lk_status status = lk_adapter_create(base, &adapter_options, &adapter);
    if (status == LK_OK) {
        lk_adapter_info info;
        lk_adapter_get_info(adapter, &info);
        json_object_set_new(row, "parameters", json_integer((json_int_t)info.num_parameters));
        status = lk_data_load(base, ids, &data_options, &data);
    }
    if (status == LK_OK) {
        status = lk_trainer_create(base, adapter, data, &train_options, &trainer);
    }
    if (status == LK_OK) {
        status = take_steps(trainer, model->steps, row);
    }
    if (status == LK_OK && profile != NULL) {
        status = lk_trainer_profile(trainer, true, &text);
        *profile = status == LK_OK ? json_loads(text, 0, NULL) : NULL;
    }
    lk_release(model->workspace->context, text);
    lk_trainer_destroy(trainer);
    lk_data_destroy(data);
    lk_adapter_destroy(adapter);
    return status;
}

json_t *bench_model_train(bench_model *model, const bench_run *run, json_t **profile) {
    char ids[sizeof model->folder + 16];
    lk_model_info info;
    snprintf(ids, sizeof ids, "%s/random.ids", model->folder);
    lk_model_get_info(model->workspace->model, &info);
    json_t *row = json_pack("{s:s, s:i, s:I, s:I}", "method", run->method, "rank", (int)run->rank, "batch",
                            (json_int_t)run->batch, "seq", (json_int_t)run->seq);
    if (row == NULL) {
        return NULL;
    }
    if (!write_ids(ids, run, info.vocab_size)) {
        json_object_set_new(row, "failure", json_string("the token ids cannot be written"));
    } else if (train(model, run, ids, row, profile) != LK_OK) {
        json_object_set_new(row, "failure", json_string(lk_error_message(model->workspace->context)));
    }
    return row;
}
