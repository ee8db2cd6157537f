#include "core/train/trainer.h"

#include <math.h>
#include <string.h>

#include "core/graph/graph.h"
#include "core/train/schedule.h"

void lk_train_options_init(lk_train_options *options) {
    *options = (lk_train_options){.struct_size = sizeof *options,
                                  .learning_rate = 2e-4,
                                  .learning_rate_ratio = 1.0,
                                  .beta1 = 0.9,
                                  .beta2 = 0.999,
                                  .epsilon = 1e-8,
                                  .total_steps = 0,
                                  .gradient_accumulation_steps = 1,
                                  .recompute = LK_RECOMPUTE_CHEAP};
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

static lk_status add_state(lk_trainer *trainer) {
    const int64_t hyper = LK_ADAMW_HYPER_COUNT;
    LK_TRY(lk_step_inputs_add(trainer->variables, trainer->model->task, trainer->tokens, trainer->max_sequences,
                              &trainer->inputs));
    LK_TRY(lk_variables_add(trainer->variables, "input.hyper", LK_ROLE_INPUT, "inputs", LK_DTYPE_F32, 1, &hyper,
                            &trainer->hyper));
    return lk_step_parts_add_variables(trainer);
}

/* Gradients of the loss for all trained tensors, added to their sums. */
static lk_status build_backward(lk_trainer *trainer, lk_graph *graph) {
    size_t count = 0;
    for (int32_t p = 0; p < trainer->num_parts; p++) {
        count += (size_t)lk_adapter_num_trained(trainer->parts[p].adapter);
    }
    lk_tensor **targets = lk_arena_alloc(&graph->arena, (2 * count + 1) * sizeof(lk_tensor *));
    lk_tensor **gradients = targets + count, **next = targets;
    if (targets == NULL) {
        return lk_graph_out_of_memory(graph);
    }
    for (int32_t p = 0; p < trainer->num_parts; p++) {
        const lk_adapter *adapter = trainer->parts[p].adapter;
        for (int32_t i = 0; i < lk_adapter_num_trained(adapter); i++) {
            *next++ = lk_graph_variable(graph, lk_adapter_trained_at(adapter, i)->value);
        }
    }
    LK_TRY(lk_graph_backward(graph, trainer->loss, (int)count, targets, gradients));
    lk_graph_set_scope(graph, "gradients");
    for (int32_t p = 0; p < trainer->num_parts; p++) {
        const lk_adapter *adapter = trainer->parts[p].adapter;
        for (int32_t i = 0; i < lk_adapter_num_trained(adapter); i++, gradients++) {
            if (*gradients != NULL) {
                lk_build_accumulate(graph, lk_graph_variable(graph, lk_adapter_trained_at(adapter, i)->gradient),
                                    *gradients);
            }
        }
    }
    return lk_graph_status(graph);
}

static lk_status build_micro(lk_trainer *trainer, lk_graph *graph) {
    lk_adapter *adapter = trainer->mixed != NULL ? trainer->mixed : trainer->parts[0].adapter;
    lk_forward forward = lk_step_inputs_forward(&trainer->inputs, trainer->model, adapter, graph, true);
    forward.adapter_rows = lk_graph_variable(graph, trainer->adapter_rows);
    trainer->loss = lk_step_parts_loss(trainer, &forward, trainer->model->family->forward(&forward));
    LK_TRY(lk_graph_status(graph));
    LK_TRY(build_backward(trainer, graph));
    /* the CPU's kernels alone read 16 bits everywhere; elsewhere activations stay fp32 */
    if (trainer->model->dtype == LK_DTYPE_BF16 &&
        strcmp(lk_session_main_device(trainer->model->session)->caps.backend, "cpu") == 0) {
        LK_TRY(lk_pass_narrow(graph, trainer->loss));
    }
    return trainer->recompute != LK_RECOMPUTE_NONE
               ? lk_pass_recompute(graph, trainer->loss, trainer->recompute, &trainer->recompute_cost)
               : LK_OK;
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
    size_t tokens = (size_t)trainer->tokens, entries = (size_t)trainer->max_sequences + 1;
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

static lk_status create(lk_trainer *trainer, lk_adapter *const *adapters, lk_data *const *data, size_t count) {
    bool plan_only = trainer->plan_only;
    LK_TRY(check_options(trainer->context, &trainer->options));
    LK_TRY(lk_step_parts_create(trainer, adapters, data, count));
    const lk_adapter_run run = {trainer->options.total_steps, trainer->options.max_grad_norm};
    for (size_t i = 0; i < count; i++) {
        LK_TRY(lk_adapter_prepare(adapters[i], &run));
    }
    lk_device *home = plan_only ? NULL : lk_session_main_device(trainer->model->session);
    LK_TRY(lk_variables_create(trainer->context, home, &trainer->variables));
    LK_TRY(add_state(trainer));
    LK_TRY(compile(trainer, lk_step_parts_update, plan_only, &trainer->update));
    LK_TRY(compile_micro(trainer));
    return plan_only ? LK_OK : hold_batches(trainer);
}

static lk_status create_for(lk_model *model, lk_adapter *const *adapters, lk_data *const *data, size_t count,
                            const lk_train_options *options, bool plan_only, lk_trainer **out) {
    *out = NULL;
    lk_trainer *trainer = lk_calloc(model->context, 1, sizeof *trainer);
    if (trainer == NULL) {
        return lk_out_of_memory(model->context, sizeof *trainer, "a trainer");
    }
    trainer->context = model->context;
    trainer->model = model;
    trainer->plan_only = plan_only;
    lk_train_options_init(&trainer->options);
    if (options != NULL) {
        memcpy(&trainer->options, options, LK_MIN(options->struct_size, sizeof trainer->options));
    }
    lk_status status = create(trainer, adapters, data, count);
    if (status != LK_OK) {
        lk_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return LK_OK;
}

lk_status lk_trainer_create_mixed(lk_model *model, lk_adapter *const *adapters, lk_data *const *data, size_t count,
                                  const lk_train_options *options, lk_trainer **out) {
    *out = NULL;
    if (model->plan_only) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "a model loaded with plan_only cannot be trained");
    }
    if (count == 0) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "there are no adapters to train");
    }
    return create_for(model, adapters, data, count, options, false, out);
}

lk_status lk_trainer_create(lk_model *model, lk_adapter *adapter, lk_data *data, const lk_train_options *options,
                            lk_trainer **out) {
    return lk_trainer_create_mixed(model, &adapter, &data, 1, options, out);
}

lk_status lk_trainer_create_plan_only(lk_model *model, lk_adapter *adapter, lk_data *shape,
                                      const lk_train_options *options, lk_trainer **out) {
    return create_for(model, &adapter, &shape, 1, options, true, out);
}

void lk_trainer_destroy(lk_trainer *trainer) {
    if (trainer != NULL) {
        lk_program_destroy(trainer->micro);
        lk_program_destroy(trainer->update);
        lk_variables_destroy(trainer->variables);
        lk_step_parts_destroy(trainer);
        lk_free(trainer->context, trainer->held);
        lk_free(trainer->context, trainer->held_ids);
        lk_train_state_free(trainer->context, &trainer->copy);
        lk_train_state_free(trainer->context, &trainer->spare);
        lk_free(trainer->context, trainer);
    }
}

/* ---- stepping ---- */

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

static lk_status clear_gradients(lk_context *context, const lk_adapter *adapter) {
    for (int32_t i = 0; i < lk_adapter_num_trained(adapter); i++) {
        lk_variable *gradient = lk_adapter_trained_at(adapter, i)->gradient;
        void *zeros = lk_calloc(context, 1, gradient->bytes);
        if (zeros == NULL) {
            return lk_out_of_memory(context, gradient->bytes, "a gradient");
        }
        lk_status status = lk_variable_upload(gradient, zeros);
        lk_free(context, zeros);
        LK_TRY(status);
    }
    return LK_OK;
}

lk_status lk_trainer_clear_gradients(lk_trainer *trainer) {
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        LK_TRY(clear_gradients(trainer->context, trainer->parts[i].adapter));
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

static void fetch_batches(lk_trainer *trainer, lk_step_report *report) {
    double start = lk_seconds();
    for (int64_t i = 0; i < trainer->options.gradient_accumulation_steps; i++) {
        lk_step_parts_next(trainer, &trainer->held[i]);
        report->tokens += trainer->held[i].num_tokens;
        report->targets += trainer->held[i].num_targets;
    }
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        lk_batch_state state = lk_batch_iterator_state(part->iterator);
        part->report.epoch =
            (double)state.epoch + (double)state.position / (double)lk_dataset_size(part->data->dataset);
        report->epoch = LK_MAX(report->epoch, part->report.epoch);
    }
    report->data_seconds = lk_seconds() - start;
}

static lk_status run_micro_batches(lk_trainer *trainer, lk_step_report *report) {
    for (int64_t i = 0; i < trainer->options.gradient_accumulation_steps; i++) {
        LK_TRY(lk_step_inputs_upload(&trainer->inputs, &trainer->held[i], 0.0f));
        LK_TRY(lk_step_parts_upload(trainer, &trainer->held[i]));
        LK_TRY(upload_rng(trainer));
        LK_TRY(lk_program_run(trainer->micro));
        for (int32_t p = 0; p < trainer->num_parts; p++) {
            lk_step_part *part = &trainer->parts[p];
            float loss;
            LK_TRY(lk_program_read(trainer->micro, part->loss, &loss, sizeof loss));
            if (!isfinite(loss)) {
                return not_finite(trainer, "loss", (double)loss);
            }
            part->report.loss += (double)loss;
            report->loss += (double)loss / (double)trainer->num_parts;
        }
        trainer->micro_batches++;
    }
    return LK_OK;
}

lk_status lk_trainer_accumulate(lk_trainer *trainer, lk_step_report *report) {
    const lk_train_options *options = &trainer->options;
    *report = (lk_step_report){.step = trainer->step + 1};
    report->learning_rate = lk_schedule_rate(options->schedule, options->learning_rate, options->warmup_steps,
                                             options->total_steps, trainer->step);
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        trainer->parts[i].report = *report;
    }
    fetch_batches(trainer, report);
    return run_micro_batches(trainer, report);
}

/* The step's number is that before it. */
static lk_status each_method(const lk_trainer *trainer, bool before, int64_t step) {
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_adapter *adapter = trainer->parts[i].adapter;
        lk_status (*call)(lk_adapter *, int64_t) =
            before ? adapter->method->before_update : adapter->method->after_update;
        LK_TRY(call != NULL ? call(adapter, step) : LK_OK);
    }
    return LK_OK;
}

static lk_status update(lk_trainer *trainer, lk_step_report *report) {
    LK_TRY(upload_hyper(trainer, report->learning_rate));
    LK_TRY(each_method(trainer, true, trainer->step));
    LK_TRY(lk_program_run(trainer->update));
    double squares = 0.0;
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        float norm;
        LK_TRY(lk_program_read(trainer->update, part->norm, &norm, sizeof norm));
        part->report.grad_norm = (double)norm;
        squares += (double)norm * (double)norm;
    }
    report->grad_norm = trainer->num_parts > 1 ? sqrt(squares) : trainer->parts[0].report.grad_norm;
    if (!isfinite(report->grad_norm)) {
        return not_finite(trainer, "gradient norm", report->grad_norm);
    }
    trainer->step++;
    return each_method(trainer, false, trainer->step - 1);
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
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        trainer->parts[i].report.step_seconds = report->step_seconds;
        trainer->parts[i].report.data_seconds = report->data_seconds;
    }
    return LK_OK;
}

lk_status lk_trainer_get_part(const lk_trainer *trainer, size_t index, lk_step_report *report) {
    if (index >= (size_t)trainer->num_parts) {
        return lk_fail(trainer->context, LK_STATUS_INVALID_ARGUMENT, "adapter %zu: the trainer has %d", index,
                       trainer->num_parts);
    }
    *report = trainer->parts[index].report;
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
    add_variables(trainer->variables, report);
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        add_variables(trainer->parts[i].adapter->variables, report);
        add_variables(trainer->parts[i].variables, report);
    }
    if (trainer->mixed != NULL) {
        add_variables(trainer->mixed->variables, report);
    }
    lk_program_memory micro = lk_program_memory_of(trainer->micro), update = lk_program_memory_of(trainer->update);
    report->activations = micro.arena_bytes + update.arena_bytes;
    report->activations_lower_bound = micro.lower_bound_bytes + update.lower_bound_bytes;
    report->total =
        report->weights + report->adapter + report->optimizer + report->inputs + report->cache + report->activations;
}
