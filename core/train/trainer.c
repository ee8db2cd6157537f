#include "core/train/trainer.h"

#include <math.h>
#include <string.h>

#include "core/train/schedule.h"

void lk_train_options_init(lk_train_options *options) {
    *options = (lk_train_options){.struct_size = sizeof *options,
                                  .learning_rate = 2e-4,
                                  .learning_rate_ratio = 1.0,
                                  .beta1 = 0.9,
                                  .beta2 = 0.999,
                                  .epsilon = 1e-8,
                                  .total_steps = 0,
                                  .gradient_accumulation_steps = 1};
}

static lk_status check_options(lk_context *context, const lk_train_options *options) {
    const struct {
        const char *name;
        double value, minimum, maximum;
    } rows[] = {
        {"learning_rate", options->learning_rate, 0.0, 1e6},
        {"learning_rate_ratio", options->learning_rate_ratio, 0.0, 1e6},
        {"beta1", options->beta1, 0.0, 1.0 - 1e-12},
        {"beta2", options->beta2, 0.0, 1.0 - 1e-12},
        {"epsilon", options->epsilon, 0.0, 1.0},
        {"weight_decay", options->weight_decay, 0.0, 1e6},
        {"warmup_steps", (double)options->warmup_steps, 0.0, 1e15},
        {"total_steps", (double)options->total_steps, 1.0, 1e15},
        {"gradient_accumulation_steps", (double)options->gradient_accumulation_steps, 1.0, 1e6},
        {"max_grad_norm", options->max_grad_norm, 0.0, 1e30},
        {"recompute", (double)options->recompute, LK_RECOMPUTE_NONE, LK_RECOMPUTE_LAYERS},
        {"memory_budget", (double)options->memory_budget, 0.0, 1e18},
    };
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        if (!(rows[i].value >= rows[i].minimum && rows[i].value <= rows[i].maximum)) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s is %g, expected %g to %g", rows[i].name,
                           rows[i].value, rows[i].minimum, rows[i].maximum);
        }
    }
    return LK_OK;
}

/* ---- building ---- */

static lk_status add_moment(lk_trainer *trainer, const char *prefix, const lk_variable *value, lk_variable **out) {
    lk_text name;
    lk_text_init(&name, trainer->context);
    lk_text_printf(&name, "%s.%s", prefix, value->name);
    lk_status status = lk_text_status(&name);
    if (status == LK_OK) {
        status = lk_variables_add(trainer->variables, name.data, LK_ROLE_STATE, "optimizer", LK_DTYPE_F32, value->rank,
                                  value->shape, out);
    }
    lk_text_free(&name);
    return status;
}

static lk_status add_state(lk_trainer *trainer) {
    const int64_t hyper = LK_ADAMW_HYPER_COUNT;
    int32_t count = lk_adapter_num_trained(trainer->adapter);
    LK_TRY(lk_step_inputs_add(trainer->variables, trainer->model->task, trainer->data->tokens,
                              trainer->data->max_sequences, &trainer->inputs));
    LK_TRY(trainer->num_parts > 0 ? lk_step_parts_add_variables(trainer) : LK_OK);
    LK_TRY(lk_variables_add(trainer->variables, "input.hyper", LK_ROLE_INPUT, "inputs", LK_DTYPE_F32, 1, &hyper,
                            &trainer->hyper));
    trainer->first = lk_calloc(trainer->context, (size_t)count + 1, sizeof(lk_variable *));
    trainer->second = lk_calloc(trainer->context, (size_t)count + 1, sizeof(lk_variable *));
    if (trainer->first == NULL || trainer->second == NULL) {
        return lk_out_of_memory(trainer->context, (size_t)count * sizeof(lk_variable *), "the optimizer's state");
    }
    for (int32_t i = 0; i < count; i++) {
        const lk_variable *value = lk_adapter_trained_at(trainer->adapter, i)->value;
        LK_TRY(add_moment(trainer, "m", value, &trainer->first[i]));
        LK_TRY(add_moment(trainer, "v", value, &trainer->second[i]));
    }
    return LK_OK;
}

/* The micro-batches of a step add up to one penalty. */
static void add_penalty(lk_trainer *trainer, lk_graph *graph) {
    const lk_adapter_method *method = trainer->adapter->method;
    lk_tensor *penalty = method->penalty != NULL ? method->penalty(graph, trainer->adapter) : NULL;
    if (penalty != NULL) {
        float share = 1.0f / (float)trainer->options.gradient_accumulation_steps;
        trainer->loss = lk_build_add(graph, trainer->loss, lk_build_scale(graph, penalty, share));
    }
}

static lk_status build_micro(lk_trainer *trainer, lk_graph *graph) {
    lk_adapter *adapter = trainer->adapter;
    int32_t count = lk_adapter_num_trained(adapter);
    lk_forward forward = lk_step_inputs_forward(&trainer->inputs, trainer->model, adapter, graph, true);
    forward.adapter_rows = trainer->num_parts > 0 ? lk_graph_variable(graph, trainer->adapter_rows) : NULL;
    lk_tensor *hidden = trainer->model->family->forward(&forward);
    trainer->loss = trainer->num_parts > 0
                        ? lk_step_parts_loss(trainer, &forward, hidden)
                        : lk_forward_loss(&forward, hidden, lk_graph_variable(graph, trainer->inputs.targets),
                                          lk_graph_variable(graph, trainer->inputs.loss_scale));
    add_penalty(trainer, graph);
    lk_graph_mark_output(graph, trainer->loss);
    LK_TRY(lk_graph_status(graph));
    lk_tensor **targets = lk_calloc(trainer->context, 2 * (size_t)count + 1, sizeof(lk_tensor *));
    if (targets == NULL) {
        return lk_out_of_memory(trainer->context, (size_t)count * sizeof(void *), "the gradients");
    }
    lk_tensor **gradients = targets + count;
    for (int32_t i = 0; i < count; i++) {
        targets[i] = lk_graph_variable(graph, lk_adapter_trained_at(adapter, i)->value);
    }
    lk_status status = lk_graph_backward(graph, trainer->loss, count, targets, gradients);
    lk_graph_set_scope(graph, "gradients");
    for (int32_t i = 0; i < count && status == LK_OK; i++) {
        if (gradients[i] != NULL) {
            lk_build_accumulate(graph, lk_graph_variable(graph, lk_adapter_trained_at(adapter, i)->gradient),
                                gradients[i]);
        }
    }
    lk_free(trainer->context, targets);
    status = status == LK_OK ? lk_graph_status(graph) : status;
    /* the CPU's kernels alone read 16 bits everywhere; elsewhere activations stay fp32 */
    bool narrow = trainer->model->dtype == LK_DTYPE_BF16 &&
                  strcmp(lk_session_main_device(trainer->model->session)->caps.backend, "cpu") == 0;
    if (status == LK_OK && narrow) {
        status = lk_pass_narrow_saved(graph, trainer->loss);
    }
    return status == LK_OK && trainer->recompute != LK_RECOMPUTE_NONE
               ? lk_pass_recompute(graph, trainer->loss, trainer->recompute, &trainer->recompute_cost)
               : status;
}

static lk_status build_update(lk_trainer *trainer, lk_graph *graph) {
    lk_adapter *adapter = trainer->adapter;
    size_t count = (size_t)lk_adapter_num_trained(adapter);
    lk_tensor **lists = lk_calloc(trainer->context, 5 * count + 1, sizeof(lk_tensor *));
    float *scales = lk_calloc(trainer->context, count + 1, sizeof *scales);
    lk_status status =
        lists && scales ? LK_OK : lk_out_of_memory(trainer->context, count * sizeof(void *), "an update");
    if (status == LK_OK) {
        lk_tensor **values = lists, **gradients = lists + count, **first = lists + 2 * count,
                  **second = lists + 3 * count;
        lk_tensor **projected = lists + 4 * count;
        for (size_t i = 0; i < count; i++) {
            const lk_adapter_tensor *tensor = lk_adapter_trained_at(adapter, (int32_t)i);
            values[i] = lk_graph_variable(graph, tensor->value);
            gradients[i] = lk_graph_variable(graph, tensor->gradient);
            first[i] = lk_graph_variable(graph, trainer->first[i]);
            second[i] = lk_graph_variable(graph, trainer->second[i]);
            bool faster = tensor->kind == LK_PEFT_KIND_LORA_B; /* LoRA+ */
            scales[i] = faster ? (float)trainer->options.learning_rate_ratio : 1.0f;
        }
        lk_graph_set_scope(graph, "optimizer");
        trainer->norm = lk_build_grad_norm(graph, (int)count, gradients);
        lk_graph_mark_output(graph, trainer->norm);
        for (size_t i = 0; i < count; i++) {
            projected[i] = lk_adapter_project(adapter, (int32_t)i, graph, gradients[i]);
        }
        lk_build_adamw(graph, lk_graph_variable(graph, trainer->hyper), trainer->norm, (int)count, values, projected,
                       first, second, scales, NULL);
        if (adapter->method->observe != NULL) {
            adapter->method->observe(graph, adapter, trainer->norm);
        }
        lk_build_clear(graph, (int)count, gradients);
        status = lk_graph_status(graph);
    }
    lk_free(trainer->context, lists);
    lk_free(trainer->context, scales);
    return status;
}

static lk_status compile(lk_trainer *trainer, lk_status (*build)(lk_trainer *, lk_graph *), bool plan_only,
                         lk_program **out) {
    lk_graph *graph;
    LK_TRY(lk_graph_create(trainer->context, &graph));
    lk_status status = build(trainer, graph);
    if (status != LK_OK) {
        lk_graph_destroy(graph);
        return status;
    }
    return lk_session_compile(trainer->model->session, graph, plan_only, out);
}

/* The arrays of the micro-batches of one step, in one block. */
static lk_status hold_batches(lk_trainer *trainer) {
    size_t count = (size_t)trainer->options.gradient_accumulation_steps;
    size_t tokens = (size_t)trainer->data->tokens, entries = (size_t)trainer->data->max_sequences + 1;
    size_t size = 3 * tokens + 2 * entries;
    trainer->held = lk_calloc(trainer->context, count, sizeof *trainer->held);
    trainer->held_ids = lk_calloc(trainer->context, count, size * sizeof(int32_t));
    if (trainer->held == NULL || trainer->held_ids == NULL) {
        return lk_out_of_memory(trainer->context, count * size * sizeof(int32_t), "micro-batches");
    }
    for (size_t i = 0; i < count; i++) {
        int32_t *arrays = trainer->held_ids + i * size;
        trainer->held[i] = (lk_batch){.input_ids = arrays,
                                      .targets = arrays + tokens,
                                      .positions = arrays + 2 * tokens,
                                      .cu_seqlens = arrays + 3 * tokens,
                                      .class_labels = arrays + 3 * tokens + entries};
    }
    return LK_OK;
}

/* The micro-batch's program with the least recomputation, from what was asked for on, that fits into the budget. */
static lk_status compile_micro(lk_trainer *trainer) {
    size_t budget = (size_t)trainer->options.memory_budget;
    trainer->recompute = trainer->options.recompute;
    for (;;) {
        LK_TRY(compile(trainer, build_micro, trainer->plan_only || budget > 0, &trainer->micro));
        lk_memory_report memory;
        lk_trainer_get_memory(trainer, &memory);
        bool fits = budget == 0 || memory.total <= budget;
        if (!fits && trainer->recompute == LK_RECOMPUTE_LAYERS) {
            return lk_fail(
                trainer->context, LK_STATUS_INVALID_ARGUMENT,
                "memory_budget is %.1f MiB, but a step takes %.1f MiB even with all recomputation; a smaller "
                "batch or seq takes less",
                (double)budget / 1048576.0, (double)memory.total / 1048576.0);
        }
        if (fits && (trainer->plan_only || budget == 0)) {
            return LK_OK;
        }
        lk_program_destroy(trainer->micro);
        trainer->micro = NULL;
        if (fits) {
            return compile(trainer, build_micro, false, &trainer->micro);
        }
        trainer->recompute = (lk_recompute)((int)trainer->recompute + 1);
    }
}

static lk_status create(lk_trainer *trainer) {
    bool plan_only = trainer->plan_only;
    LK_TRY(check_options(trainer->context, &trainer->options));
    const lk_adapter_run run = {trainer->options.total_steps, trainer->options.max_grad_norm};
    LK_TRY(lk_adapter_prepare(trainer->adapter, &run));
    lk_device *home = plan_only ? NULL : lk_session_main_device(trainer->model->session);
    LK_TRY(lk_variables_create(trainer->context, home, &trainer->variables));
    LK_TRY(add_state(trainer));
    LK_TRY(compile(trainer, build_update, plan_only, &trainer->update));
    LK_TRY(compile_micro(trainer));
    if (!plan_only) {
        LK_TRY(trainer->num_parts > 0 ? LK_OK : lk_data_iterate(trainer->data, false, &trainer->iterator));
        LK_TRY(hold_batches(trainer));
    }
    return LK_OK;
}

/* A trainer that has nothing yet. */
static lk_status start(lk_model *model, lk_adapter *adapter, const lk_train_options *options, lk_trainer **out) {
    lk_trainer *trainer = lk_calloc(model->context, 1, sizeof *trainer);
    if (trainer == NULL) {
        return lk_out_of_memory(model->context, sizeof *trainer, "a trainer");
    }
    trainer->context = model->context;
    trainer->model = model;
    trainer->adapter = adapter;
    lk_train_options_init(&trainer->options);
    if (options != NULL) {
        memcpy(&trainer->options, options, LK_MIN(options->struct_size, sizeof trainer->options));
    }
    *out = trainer;
    return LK_OK;
}

lk_status lk_trainer_create(lk_model *model, lk_adapter *adapter, lk_data *data, const lk_train_options *options,
                            lk_trainer **out) {
    *out = NULL;
    if (model->plan_only) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "a model loaded with plan_only cannot be trained");
    }
    if (lk_dataset_get_info(data->dataset).targets == 0) {
        return lk_fail(
            model->context, LK_STATUS_INVALID_ARGUMENT,
            "the training data has no token with a loss: its sequences have one token only, or all labels are -100");
    }
    return lk_trainer_create_for(model, adapter, data, options, false, out);
}

lk_status lk_trainer_create_mixed(lk_model *model, lk_adapter *adapter, lk_data *const *data, size_t count,
                                  const lk_train_options *options, lk_trainer **out) {
    *out = NULL;
    if (count == 0) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "no data sets");
    }
    lk_trainer *trainer;
    LK_TRY(start(model, adapter, options, &trainer));
    lk_status status = lk_step_parts_create(trainer, data, count);
    status = status == LK_OK ? create(trainer) : status;
    if (status != LK_OK) {
        lk_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return LK_OK;
}

lk_status lk_trainer_create_for(lk_model *model, lk_adapter *adapter, lk_data *data, const lk_train_options *options,
                                bool plan_only, lk_trainer **out) {
    *out = NULL;
    lk_trainer *trainer;
    LK_TRY(start(model, adapter, options, &trainer));
    trainer->data = data;
    trainer->plan_only = plan_only;
    lk_status status = create(trainer);
    if (status != LK_OK) {
        lk_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return LK_OK;
}

void lk_trainer_destroy(lk_trainer *trainer) {
    if (trainer != NULL) {
        lk_program_destroy(trainer->micro);
        lk_program_destroy(trainer->update);
        lk_variables_destroy(trainer->variables);
        lk_batch_iterator_destroy(trainer->iterator);
        lk_step_parts_destroy(trainer);
        lk_free(trainer->context, trainer->first);
        lk_free(trainer->context, trainer->second);
        lk_free(trainer->context, trainer->held);
        lk_free(trainer->context, trainer->held_ids);
        lk_train_state_free(trainer->context, &trainer->copy);
        lk_train_state_free(trainer->context, &trainer->spare);
        lk_free(trainer->context, trainer);
    }
}

/* ---- stepping ---- */

static void hold(lk_batch *held, const lk_batch *batch) {
    size_t tokens = (size_t)batch->tokens * sizeof(int32_t);
    size_t entries = (size_t)(batch->max_sequences + 1) * sizeof(int32_t);
    lk_batch copy = *batch;
    copy.input_ids = memcpy(held->input_ids, batch->input_ids, tokens);
    copy.targets = memcpy(held->targets, batch->targets, tokens);
    copy.positions = memcpy(held->positions, batch->positions, tokens);
    copy.cu_seqlens = memcpy(held->cu_seqlens, batch->cu_seqlens, entries);
    copy.class_labels = memcpy(held->class_labels, batch->class_labels, entries - sizeof(int32_t));
    *held = copy;
}

static lk_status upload_rng(lk_trainer *trainer) {
    uint64_t seed = trainer->options.seed, counter = (uint64_t)trainer->micro_batches;
    const uint32_t words[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)counter, (uint32_t)(counter >> 32)};
    return lk_variable_upload(trainer->inputs.rng, words);
}

static lk_status upload_hyper(lk_trainer *trainer, double learning_rate) {
    const lk_train_options *options = &trainer->options;
    double t = (double)(trainer->step + 1);
    /* the corrections belong to the betas that the kernels see: 1 - (float)0.999 is 1e-5 off 0.001 */
    double beta1 = (double)(float)options->beta1, beta2 = (double)(float)options->beta2;
    const float hyper[LK_ADAMW_HYPER_COUNT] = {
        [LK_ADAMW_LEARNING_RATE] = (float)learning_rate,
        [LK_ADAMW_BETA1] = (float)options->beta1,
        [LK_ADAMW_BETA2] = (float)options->beta2,
        [LK_ADAMW_EPSILON] = (float)options->epsilon,
        [LK_ADAMW_WEIGHT_DECAY] = (float)options->weight_decay,
        [LK_ADAMW_BIAS_CORRECTION1] = (float)(1.0 - pow(beta1, t)),
        [LK_ADAMW_BIAS_CORRECTION2] = (float)(1.0 - pow(beta2, t)),
        [LK_ADAMW_MAX_NORM] = (float)options->max_grad_norm,
    };
    return lk_variable_upload(trainer->hyper, hyper);
}

lk_status lk_trainer_clear_gradients(lk_trainer *trainer) {
    for (int32_t i = 0; i < lk_adapter_num_trained(trainer->adapter); i++) {
        lk_variable *gradient = lk_adapter_trained_at(trainer->adapter, i)->gradient;
        void *zeros = lk_calloc(trainer->context, 1, gradient->bytes);
        if (zeros == NULL) {
            return lk_out_of_memory(trainer->context, gradient->bytes, "a gradient");
        }
        lk_status status = lk_variable_upload(gradient, zeros);
        lk_free(trainer->context, zeros);
        LK_TRY(status);
    }
    return LK_OK;
}

/* The step is given up: the gradient sums are cleared so that the adapter and what follows are as before it. */
static lk_status not_finite(lk_trainer *trainer, const char *what, double value) {
    const lk_node *node = NULL;
    lk_context *context = trainer->context;
    LK_TRY(lk_program_find_not_finite(trainer->micro, &node));
    LK_TRY(lk_trainer_clear_gradients(trainer));
    if (node == NULL) {
        return lk_fail(context, LK_STATUS_NUMERIC, "step %lld: the %s is %g; a lower learning rate may help",
                       (long long)trainer->step + 1, what, value);
    }
    return lk_fail(context, LK_STATUS_NUMERIC,
                   "step %lld: the %s is %g; the first value that is not finite comes from %s at %s",
                   (long long)trainer->step + 1, what, value, lk_op_name(node->op), node->scope);
}

/* The next micro-batch, kept. */
static void fetch(lk_trainer *trainer, lk_batch *held) {
    const lk_batch *batch;
    if (trainer->num_parts > 0) {
        lk_step_parts_next(trainer, held);
    } else {
        lk_batch_iterator_next(trainer->iterator, &batch);
        hold(held, batch);
    }
}

static lk_status fetch_batches(lk_trainer *trainer, lk_step_report *report) {
    double start = lk_seconds();
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        trainer->parts[i].num_targets = 0;
        trainer->parts[i].step_loss = 0.0;
    }
    for (int64_t i = 0; i < trainer->options.gradient_accumulation_steps; i++) {
        fetch(trainer, &trainer->held[i]);
        report->tokens += trainer->held[i].num_tokens;
        report->targets += trainer->held[i].num_targets;
    }
    const lk_data *data = trainer->num_parts > 0 ? trainer->parts[0].data : trainer->data;
    lk_batch_state state =
        lk_batch_iterator_state(trainer->num_parts > 0 ? trainer->parts[0].iterator : trainer->iterator);
    report->epoch = (double)state.epoch + (double)state.position / (double)lk_dataset_size(data->dataset);
    report->data_seconds = lk_seconds() - start;
    return LK_OK;
}

static lk_status run_micro_batches(lk_trainer *trainer, lk_step_report *report) {
    float scale = report->targets > 0 ? (float)(1.0 / (double)report->targets) : 0.0f;
    for (int64_t i = 0; i < trainer->options.gradient_accumulation_steps; i++) {
        float loss;
        LK_TRY(lk_step_inputs_upload(&trainer->inputs, &trainer->held[i], scale));
        LK_TRY(trainer->num_parts > 0 ? lk_step_parts_upload(trainer, &trainer->held[i]) : LK_OK);
        LK_TRY(upload_rng(trainer));
        LK_TRY(lk_program_run(trainer->micro));
        LK_TRY(lk_program_read(trainer->micro, trainer->loss, &loss, sizeof loss));
        if (!isfinite(loss)) {
            return not_finite(trainer, "loss", (double)loss);
        }
        report->loss += (double)loss / (double)LK_MAX(trainer->num_parts, 1);
        LK_TRY(lk_step_parts_read(trainer));
        trainer->micro_batches++;
    }
    return LK_OK;
}

lk_status lk_trainer_accumulate(lk_trainer *trainer, lk_step_report *report) {
    const lk_train_options *options = &trainer->options;
    *report = (lk_step_report){.step = trainer->step + 1};
    report->learning_rate = lk_schedule_rate(options->schedule, options->learning_rate, options->warmup_steps,
                                             options->total_steps, trainer->step);
    LK_TRY(fetch_batches(trainer, report));
    return run_micro_batches(trainer, report);
}

static lk_status update(lk_trainer *trainer, lk_step_report *report) {
    lk_adapter *adapter = trainer->adapter;
    const lk_adapter_method *method = adapter->method;
    LK_TRY(upload_hyper(trainer, report->learning_rate));
    LK_TRY(method->before_update != NULL ? method->before_update(adapter, trainer->step) : LK_OK);
    float norm;
    LK_TRY(lk_program_run(trainer->update));
    LK_TRY(lk_program_read(trainer->update, trainer->norm, &norm, sizeof norm));
    report->grad_norm = (double)norm;
    if (!isfinite(norm)) {
        return not_finite(trainer, "gradient norm", (double)norm);
    }
    trainer->step++;
    return method->after_update != NULL ? method->after_update(adapter, trainer->step - 1) : LK_OK;
}

static lk_status step(lk_trainer *trainer, lk_step_report *report) {
    double start = lk_seconds();
    if (trainer->copy.block == NULL) {
        LK_TRY(lk_trainer_renew_copy(trainer));
    }
    LK_TRY(lk_trainer_accumulate(trainer, report));
    LK_TRY(update(trainer, report));
    LK_TRY(lk_trainer_renew_copy(trainer));
    report->step_seconds = lk_seconds() - start - report->data_seconds;
    return LK_OK;
}

lk_status lk_trainer_get_losses(const lk_trainer *trainer, double *losses, size_t count) {
    if ((size_t)trainer->num_parts != count) {
        return lk_fail(trainer->context, LK_STATUS_INVALID_ARGUMENT, "%zu losses asked for, there are %d", count,
                       trainer->num_parts);
    }
    for (size_t i = 0; i < count; i++) {
        losses[i] = trainer->parts[i].step_loss;
    }
    return LK_OK;
}

lk_status lk_trainer_step(lk_trainer *trainer, lk_step_report *report) {
    if (trainer->failed != LK_OK) {
        return lk_fail(trainer->context, trainer->failed, "the device has failed in an earlier step");
    }
    int64_t number = trainer->step + 1;
    lk_status status = step(trainer, report);
    if (status == LK_STATUS_DEVICE || status == LK_STATUS_OUT_OF_MEMORY) {
        trainer->failed = status;
        return lk_fail_within(trainer->context, status, "step %lld", (long long)number);
    }
    return status;
}

int64_t lk_trainer_steps(const lk_trainer *trainer) {
    return trainer->step;
}

static void add_variables(const lk_variables *variables, lk_memory_report *report) {
    for (int32_t i = 0; i < lk_variables_count(variables); i++) {
        const lk_variable *variable = lk_variables_at(variables, i);
        size_t *sums[] = {&report->weights, &report->adapter, &report->optimizer, &report->inputs, &report->cache};
        static const char *const purposes[] = {"weights", "adapter", "optimizer", "inputs", "cache"};
        for (size_t j = 0; j < LK_COUNT(sums); j++) {
            if (strcmp(variable->purpose, purposes[j]) == 0) {
                *sums[j] += variable->bytes;
            }
        }
    }
}

void lk_trainer_get_memory(const lk_trainer *trainer, lk_memory_report *report) {
    *report = (lk_memory_report){0};
    add_variables(trainer->model->variables, report);
    add_variables(trainer->adapter->variables, report);
    add_variables(trainer->variables, report);
    lk_program_memory micro = lk_program_memory_of(trainer->micro), update = lk_program_memory_of(trainer->update);
    report->activations = micro.arena_bytes + update.arena_bytes;
    report->activations_lower_bound = micro.lower_bound_bytes + update.lower_bound_bytes;
    report->total =
        report->weights + report->adapter + report->optimizer + report->inputs + report->cache + report->activations;
}
