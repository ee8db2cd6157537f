/* Training against PyTorch + PEFT: every run under tests/data/golden, on the CPU and on the specification. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/formats/safetensors.h"
#include "core/train/trainer.h"
#include "tests/common/runner.h"

/* Two correct fp32 implementations differ by about 1e-6 in a loss and 1e-5 in a gradient (tests/data/golden/README.md);
 * leaving out any feature moves a loss by 1e-3. */
static const double loss_tolerance = 2e-5, gradient_tolerance = 1e-3, adapter_tolerance = 1e-3;

static const char *const runs[] = {
    "stories260k-lora-qv",
    "qwen2-all-linear",
    "qwen3-patterns",
    "llama-rope3-rslora-masked",
    "llama-linear-ragged",
    "mistral-window",
    "stories260k-accumulate-clip-cosine",
    "qwen2-dora",
    "llama-rope3-dora-rslora",
    "qwen2-lora-fa",
    "qwen2-bias-lora-only",
    "qwen2-bias-all",
    "qwen2-vera",
    "llama-linear-vera-projection",
    "qwen2-ia3",
    "llama-linear-loha",
    "llama-linear-lokr",
    "llama-linear-oft",
    "llama-linear-oft-coft",
    "qwen2-oft-shared",
    "llama-linear-adalora",
    "llama-linear-delta-lora",
    "llama-linear-pissa",
    "qwen2-olora-rslora",
    "llama-linear-embeddings",
    "gpt2-embeddings",
    "gpt2-conv1d",
    "bert-classify",
    "roberta-classify",
    "distilbert-classify",
};
static const char *const devices[] = {"cpu", "opencl", "vulkan", "cuda", "reference"};

/* LK_TEST_DEVICE and LK_TEST_RUN narrow the tests to one device and run. */
static bool is_wanted(const char *device, const char *run) {
    const char *only_device = getenv("LK_TEST_DEVICE"), *only_run = getenv("LK_TEST_RUN");
    return (only_device == NULL || strcmp(only_device, device) == 0) &&
           (only_run == NULL || strcmp(only_run, run) == 0);
}

typedef struct golden {
    lk_context *context;
    lk_session *session;
    lk_model *model;
    lk_data *data;
    lk_adapter *adapter;
    lk_trainer *trainer;
    json_t *losses;
    const json_t *settings;
    char folder[512];
} golden;

#define SUCCEEDS(self, expression) \
    ck_assert_msg((expression) == LK_OK, "%s: %s", (self)->folder, lk_error_message((self)->context))

static const char *in_folder(const golden *self, const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", self->folder, name);
    return path;
}

static double setting(const golden *self, const char *name, double otherwise) {
    const json_t *value = json_object_get(self->settings, name);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

/* False, with the reason printed, where the device is not there. */
static bool open_run(golden *self, const char *device, const char *run, lk_dtype dtype) {
    *self = (golden){0};
    if (!is_wanted(device, run)) {
        return false;
    }
    snprintf(self->folder, sizeof self->folder, "%s/golden/%s", LK_TEST_DATA, run);
    ck_assert_int_eq(lk_context_create(NULL, &self->context), LK_OK);
    lk_session_options session;
    lk_session_options_init(&session);
    session.device = device;
    session.threads = 2;
    if (lk_backend_find(device) == NULL) {
        printf("skipped: %s on %s: not in this build\n", run, device);
        lk_context_destroy(self->context);
        return false;
    }
    lk_status status = lk_session_create(self->context, &session, &self->session);
    if (status == LK_STATUS_UNAVAILABLE) {
        printf("skipped: %s on %s: %s\n", run, device, lk_error_message(self->context));
        lk_context_destroy(self->context);
        return false;
    }
    SUCCEEDS(self, status);
    SUCCEEDS(self, lk_json_load(self->context, in_folder(self, "losses.json"), &self->losses));
    self->settings = json_object_get(self->losses, "settings");
    char model[1024];
    snprintf(model, sizeof model, "%s/models/%s", LK_TEST_DATA,
             json_string_value(json_object_get(self->losses, "model")));
    lk_model_options options;
    lk_model_options_init(&options);
    const char *task = json_string_value(json_object_get(self->settings, "task"));
    options.task = task != NULL && strcmp(task, "classify") == 0 ? LK_TASK_CLASSIFY : LK_TASK_CAUSAL_LM;
    options.dtype = dtype;
    SUCCEEDS(self, lk_model_load(self->session, model, &options, &self->model));
    lk_data_options data;
    lk_data_options_init(&data);
    data.batch = (int64_t)setting(self, "batch", 0);
    data.seq = (int64_t)setting(self, "seq", 0);
    data.shuffle = false;
    SUCCEEDS(self, lk_data_load(self->model, in_folder(self, "batches.ids"), &data, &self->data));
    return true;
}

static lk_recompute recompute; /* of the trainers to come */

static void start(golden *self, const char *adapter) {
    SUCCEEDS(self, lk_adapter_load(self->model, in_folder(self, adapter), &self->adapter));
    lk_train_options train;
    lk_train_options_init(&train);
    train.learning_rate = setting(self, "lr", 0);
    train.weight_decay = setting(self, "weight_decay", 0);
    train.epsilon = setting(self, "eps", 1e-8);
    train.recompute = recompute;
    train.total_steps = (int64_t)setting(self, "steps", 0);
    train.warmup_steps = (int64_t)setting(self, "warmup_steps", 0);
    train.gradient_accumulation_steps = (int64_t)setting(self, "accumulation", 1);
    train.max_grad_norm = setting(self, "max_grad_norm", 0);
    const char *schedule = json_string_value(json_object_get(self->settings, "schedule"));
    ck_assert_ptr_nonnull(schedule);
    train.schedule = strcmp(schedule, "cosine") == 0   ? LK_SCHEDULE_COSINE
                     : strcmp(schedule, "linear") == 0 ? LK_SCHEDULE_LINEAR
                                                       : LK_SCHEDULE_CONSTANT;
    SUCCEEDS(self, lk_trainer_create(self->model, self->adapter, self->data, &train, &self->trainer));
}

static void stop(golden *self) {
    lk_trainer_destroy(self->trainer);
    lk_adapter_destroy(self->adapter);
    self->trainer = NULL;
    self->adapter = NULL;
}

static void close_run(golden *self) {
    stop(self);
    lk_data_destroy(self->data);
    lk_model_destroy(self->model);
    json_decref(self->losses);
    lk_session_destroy(self->session);
    lk_context_destroy(self->context);
}

/* The largest over the tensors of |found - expected| / |expected|, in the 2-norm; with `from`, relative to the update
 * |expected - from|. */
static double compare_tensors(golden *self, const char *expected, const char *from, bool gradients) {
    lk_safetensors *file, *before = NULL;
    SUCCEEDS(self, lk_safetensors_open(self->context, in_folder(self, expected), &file));
    if (from != NULL) {
        SUCCEEDS(self, lk_safetensors_open(self->context, in_folder(self, from), &before));
    }
    lk_adapter_info info;
    lk_adapter_get_info(self->adapter, &info);
    int64_t stored = gradients ? info.num_tensors : lk_adapter_num_tensors(self->adapter);
    size_t count_stored = 0;
    for (size_t i = 0; i < lk_safetensors_count(file); i++) {
        count_stored += lk_safetensors_at(file, i)->bytes > 0; /* AdaLoRA may leave a layer no rank */
    }
    ck_assert_uint_eq((size_t)stored, count_stored);
    double worst = 0.0;
    for (int64_t i = 0; i < info.num_tensors; i++) {
        const char *name;
        int64_t shape[2];
        SUCCEEDS(self, lk_adapter_get_tensor(self->adapter, i, &name, shape, NULL, NULL));
        size_t count = (size_t)(shape[0] * shape[1]);
        float *found = malloc(count * sizeof *found);
        SUCCEEDS(self, lk_adapter_get_tensor(self->adapter, i, &name, shape, gradients ? NULL : found,
                                             gradients ? found : NULL));
        const lk_stored_tensor *wanted, *origin = NULL;
        SUCCEEDS(self, lk_safetensors_find(file, name, &wanted));
        ck_assert_uint_eq(wanted->bytes, count * sizeof(float));
        if (before != NULL) {
            SUCCEEDS(self, lk_safetensors_find(before, name, &origin));
        }
        double difference = 0.0, size = 0.0;
        for (size_t j = 0; j < count; j++) {
            float e, o = 0.0f;
            memcpy(&e, (const char *)wanted->data + j * sizeof e, sizeof e);
            if (origin != NULL) {
                memcpy(&o, (const char *)origin->data + j * sizeof o, sizeof o);
            }
            difference += pow((double)found[j] - (double)e, 2.0);
            size += pow((double)e - (double)o, 2.0);
        }
        worst = fmax(worst, size > 0.0 ? sqrt(difference / size) : sqrt(difference));
        free(found);
    }
    lk_safetensors_destroy(file);
    lk_safetensors_destroy(before);
    return worst;
}

static void reload(golden *self) {
    char folder[] = "lk_golden_XXXXXX", command[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    SUCCEEDS(self, lk_adapter_save(self->adapter, folder));
    stop(self);
    SUCCEEDS(self, lk_adapter_load(self->model, folder, &self->adapter));
    snprintf(command, sizeof command, "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

/* Every command of a step runs on the device that was asked for. */
static void check_placements(const golden *self, const char *device) {
    const lk_program *const programs[] = {self->trainer->micro, self->trainer->update};
    for (size_t p = 0; p < LK_COUNT(programs); p++) {
        ck_assert_int_gt(lk_program_num_commands(programs[p]), 0);
        for (int32_t i = 0; i < lk_program_num_commands(programs[p]); i++) {
            lk_placement placement = lk_program_placement(programs[p], i);
            ck_assert_msg(strcmp(placement.device->caps.backend, device) == 0, "%s at %s runs on %s, not on %s",
                          lk_op_name(placement.node->op), placement.node->scope, placement.device->caps.backend,
                          device);
        }
    }
}

static double check_gradients(golden *self, const char *adapter, const char *expected) {
    start(self, adapter);
    lk_step_report report;
    SUCCEEDS(self, lk_trainer_accumulate(self->trainer, &report));
    double worst = compare_tensors(self, expected, NULL, true);
    stop(self);
    return worst;
}

START_TEST(test_training_agrees_with_pytorch) {
    const char *device = devices[(size_t)_i / LK_COUNT(runs)], *run = runs[(size_t)_i % LK_COUNT(runs)];
    golden self;
    if (!open_run(&self, device, run, LK_DTYPE_F32)) {
        return;
    }
    start(&self, "init_adapter");
    check_placements(&self, device);
    const json_t *losses = json_object_get(self.losses, "losses"), *norms = json_object_get(self.losses, "grad_norms");
    double worst_loss = 0.0, worst_norm = 0.0;
    for (size_t i = 0; i < json_array_size(losses); i++) {
        lk_step_report report;
        SUCCEEDS(&self, lk_trainer_step(self.trainer, &report));
        double norm = json_number_value(json_array_get(norms, i));
        worst_loss = fmax(worst_loss, fabs(report.loss - json_number_value(json_array_get(losses, i))));
        worst_norm = fmax(worst_norm, fabs(report.grad_norm - norm) / norm);
        ck_assert_int_eq(report.targets,
                         json_integer_value(json_array_get(json_object_get(self.losses, "targets"), i)));
    }
    bool prunes = strcmp(self.adapter->method->name, "adalora") == 0;
    if (prunes) { /* ranks are left out of the file: what was trained is compared as it is stored */
        reload(&self);
    }
    double adapter = compare_tensors(&self, "final_adapter/adapter_model.safetensors",
                                     prunes ? NULL : "init_adapter/adapter_model.safetensors", false);
    stop(&self);
    double last = check_gradients(&self, "final_adapter", "final_batch0_grads.safetensors"), first = 0.0;
    if (lk_path_is_file(in_folder(&self, "step0_grads.safetensors"))) {
        first = check_gradients(&self, "init_adapter", "step0_grads.safetensors");
    }
    printf("%-9s %-36s loss %.1e  norm %.1e  gradients %.1e %.1e  adapter %.1e\n", device, run, worst_loss, worst_norm,
           first, last, adapter);
    ck_assert_double_lt(worst_loss, loss_tolerance);
    ck_assert_double_lt(worst_norm, gradient_tolerance);
    ck_assert_double_lt(first, gradient_tolerance);
    ck_assert_double_lt(last, gradient_tolerance);
    ck_assert_double_lt(adapter, adapter_tolerance);
    close_run(&self);
}
END_TEST

typedef struct curve {
    double losses[64];
    size_t count, weights, matrices, activations; /* bytes */
} curve;

/* Of up to `most` steps. False where the device is not there. `kernels` must be among those that it takes. */
static bool train_curve_on(const char *device, const char *run, lk_dtype dtype, size_t most,
                           const char *const kernels[], curve *out) {
    golden self;
    *out = (curve){.count = 0};
    if (!open_run(&self, device, run, dtype)) {
        return false;
    }
    start(&self, "init_adapter");
    check_placements(&self, device);
    out->count = LK_MIN((size_t)setting(&self, "steps", 0), LK_MIN(most, LK_COUNT(out->losses)));
    for (size_t i = 0; i < out->count; i++) {
        lk_step_report report;
        SUCCEEDS(&self, lk_trainer_step(self.trainer, &report));
        out->losses[i] = report.loss;
    }
    lk_memory_report memory;
    lk_trainer_get_memory(self.trainer, &memory);
    out->weights = memory.weights;
    out->activations = memory.activations;
    for (int32_t i = 0; i < lk_variables_count(self.model->variables); i++) {
        const lk_variable *variable = lk_variables_at(self.model->variables, i);
        out->matrices += variable->rank >= 2 ? variable->bytes : 0;
    }
    char *plan;
    SUCCEEDS(&self, lk_trainer_profile(self.trainer, true, &plan));
    ck_assert_msg(strstr(plan, "\"device\": \"reference\"") == NULL, "%s: an operation runs on the reference", run);
    char main_device[32];
    snprintf(main_device, sizeof main_device, "\"device\": \"%s", device);
    ck_assert_msg(strstr(plan, main_device) != NULL, "%s: no operation runs on %s", run, device);
    for (size_t i = 0; kernels != NULL && kernels[i] != NULL; i++) {
        ck_assert_msg(strstr(plan, kernels[i]) != NULL, "%s: no %s", run, kernels[i]);
    }
    lk_release(self.context, plan);
    close_run(&self);
    return true;
}

static bool train_curve(const char *run, lk_dtype dtype, curve *out) {
    return train_curve_on(devices[0], run, dtype, LK_COUNT(out->losses), NULL, out);
}

/* Rounding weights and saved activations to bf16 moves the losses a little; it halves the memory of the matrices, and
 * nothing falls back. */
START_TEST(test_bf16_weights) {
    curve full, half, again;
    if (!train_curve(runs[_i], LK_DTYPE_F32, &full)) {
        return;
    }
    ck_assert(train_curve(runs[_i], LK_DTYPE_BF16, &half) && train_curve(runs[_i], LK_DTYPE_BF16, &again));
    double worst = 0.0;
    for (size_t i = 0; i < full.count; i++) {
        worst = fmax(worst, fabs(half.losses[i] - full.losses[i]));
        ck_assert_double_eq(half.losses[i], again.losses[i]);
    }
    printf("bf16      %-36s loss %.1e, weights %zu of %zu bytes\n", runs[_i], worst, half.weights, full.weights);
    ck_assert_uint_gt(full.count, 0);
    ck_assert_double_gt(worst, 0.0);
    ck_assert_double_lt(worst, 0.02);
    ck_assert_uint_gt(full.matrices, full.weights / 2);
    ck_assert_uint_eq(half.matrices, full.matrices / 2);
    if (strcmp(runs[_i], "llama-linear-embeddings") != 0) { /* where most are an adapted head's logits */
        ck_assert_uint_lt(half.activations, full.activations);
    }
    ck_assert_uint_eq(half.weights - half.matrices, full.weights - full.matrices); /* vectors stay fp32 */
}
END_TEST

/* With weights in bf16 CUDA takes the kernels for tensor cores: the losses stay as near as on the CPU, and two runs
 * agree bit for bit. */
START_TEST(test_bf16_on_tensor_cores) {
    static const char *const kernels[] = {"cuda_linear_cross_entropy_mma_bf16", "cuda_lora_linear_mma_bf16",
                                          "cuda_lora_linear_backward_mma_bf16", "cuda_flash_attention",
                                          "cuda_flash_attention_backward",      NULL};
    enum { STEPS = 3 };
    const char *run = runs[0];
    curve full, half, again;
    if (!train_curve_on("cuda", run, LK_DTYPE_F32, STEPS, NULL, &full)) {
        return;
    }
    ck_assert(train_curve_on("cuda", run, LK_DTYPE_BF16, STEPS, kernels, &half));
    ck_assert(train_curve_on("cuda", run, LK_DTYPE_BF16, STEPS, kernels, &again));
    double worst = 0.0;
    for (size_t i = 0; i < full.count; i++) {
        worst = fmax(worst, fabs(half.losses[i] - full.losses[i]));
        ck_assert_double_eq(half.losses[i], again.losses[i]);
    }
    printf("bf16 cuda %-36s loss %.1e\n", run, worst);
    ck_assert_double_gt(worst, 0.0);
    ck_assert_double_lt(worst, 0.02);
}
END_TEST

/* The same with weights of 16 bits on the devices of shaders/, whose activations stay fp32. */
START_TEST(test_short_weights_elsewhere) {
    static const lk_dtype dtypes[] = {LK_DTYPE_BF16, LK_DTYPE_F16};
    static const double most[] = {0.02, 0.01};
    const char *device = devices[1 + (size_t)_i / LK_COUNT(runs)], *run = runs[(size_t)_i % LK_COUNT(runs)];
    curve full, half;
    enum { STEPS = 4 };
    if (!train_curve_on(device, run, LK_DTYPE_F32, STEPS, NULL, &full)) {
        return;
    }
    for (size_t d = 0; d < LK_COUNT(dtypes); d++) {
        ck_assert(train_curve_on(device, run, dtypes[d], STEPS, NULL, &half));
        double worst = 0.0;
        for (size_t i = 0; i < full.count; i++) {
            worst = fmax(worst, fabs(half.losses[i] - full.losses[i]));
        }
        printf("%-9s %-36s %s loss %.1e\n", device, run, lk_dtype_name(dtypes[d]), worst);
        ck_assert_uint_gt(full.count, 0);
        ck_assert_double_lt(worst, most[d]);
        ck_assert_uint_eq(half.matrices, full.matrices / 2);
    }
}
END_TEST

/* Recomputing changes no bit of the losses, in fp32 and with activations in bf16. */
START_TEST(test_recomputation_changes_nothing) {
    static const lk_dtype dtypes[] = {LK_DTYPE_F32, LK_DTYPE_BF16};
    for (size_t d = 0; d < LK_COUNT(dtypes); d++) {
        curve kept, again;
        recompute = LK_RECOMPUTE_NONE;
        if (!train_curve(runs[_i], dtypes[d], &kept)) {
            return;
        }
        printf("recompute %-36s %s %zu", runs[_i], lk_dtype_name(dtypes[d]), kept.activations);
        for (int level = LK_RECOMPUTE_CHEAP; level <= LK_RECOMPUTE_LAYERS; level++) {
            recompute = (lk_recompute)level;
            ck_assert(train_curve(runs[_i], dtypes[d], &again));
            printf(" %zu", again.activations);
            ck_assert_uint_gt(again.count, 0);
            for (size_t i = 0; i < again.count; i++) {
                ck_assert_msg(again.losses[i] == kept.losses[i], "%s, %s, level %d: loss %zu is %.17g, not %.17g",
                              runs[_i], lk_dtype_name(dtypes[d]), level, i, again.losses[i], kept.losses[i]);
            }
        }
        printf(" bytes of activations\n");
        recompute = LK_RECOMPUTE_NONE;
    }
}
END_TEST

/* The logits of the first sequence of the first batch. */
START_TEST(test_logits_agree_with_pytorch) {
    golden self;
    if (!open_run(&self, devices[0], runs[_i], LK_DTYPE_F32)) {
        return;
    }
    if (!lk_path_is_file(in_folder(&self, "logits.safetensors"))) {
        printf("skipped: %s: PyTorch's logits are not kept with accumulation\n", runs[_i]);
        close_run(&self);
        return;
    }
    start(&self, "init_adapter");
    lk_safetensors *file;
    const lk_stored_tensor *stored;
    SUCCEEDS(&self, lk_safetensors_open(self.context, in_folder(&self, "logits.safetensors"), &file));
    SUCCEEDS(&self, lk_safetensors_find(file, "step0", &stored));
    lk_sample sample = lk_dataset_sample(self.data->dataset, 0);
    bool classify = self.model->task == LK_TASK_CLASSIFY; /* logits of classes: one row per sequence */
    size_t count = (size_t)(classify ? stored->shape[1] : sample.length * stored->shape[2]);
    float *logits = malloc(count * sizeof *logits);
    SUCCEEDS(&self, lk_logits(self.model, self.adapter, sample.ids, (size_t)sample.length, logits));
    double worst = 0.0, largest = 0.0;
    for (size_t i = 0; i < count; i++) {
        float expected;
        memcpy(&expected, (const char *)stored->data + i * sizeof expected, sizeof expected);
        worst = fmax(worst, fabs((double)logits[i] - (double)expected));
        largest = fmax(largest, fabs((double)expected));
    }
    printf("%-36s logits %.1e of %.1f\n", runs[_i], worst, largest);
    ck_assert_double_lt(worst, 1e-4 * fmax(1.0, largest));
    free(logits);
    lk_safetensors_destroy(file);
    close_run(&self);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("golden");
    TCase *tests = tcase_create("golden");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, test_training_agrees_with_pytorch, 0, (int)(LK_COUNT(runs) * LK_COUNT(devices)));
    tcase_add_loop_test(tests, test_bf16_weights, 0, (int)LK_COUNT(runs));
    tcase_add_test(tests, test_bf16_on_tensor_cores);
    tcase_add_loop_test(tests, test_short_weights_elsewhere, 0, (int)LK_COUNT(runs) * 2);
    tcase_add_loop_test(tests, test_logits_agree_with_pytorch, 0, (int)LK_COUNT(runs));
    suite_add_tcase(suite, tests);
    TCase *again = tcase_create("recompute"); /* apart, for tests/arm/run, where it takes minutes */
    tcase_set_timeout(again, 600);
    tcase_add_loop_test(again, test_recomputation_changes_nothing, 0, (int)LK_COUNT(runs));
    suite_add_tcase(suite, again);
    return run_suite(suite);
}
