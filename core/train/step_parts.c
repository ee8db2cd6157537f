#include "core/train/step_parts.h"

#include <string.h>

#include "core/adapters/mixed.h"
#include "core/graph/graph.h"
#include "core/train/trainer.h"

static lk_status check_data(const lk_trainer *trainer, const lk_data *data, size_t index, size_t count) {
    if (trainer->plan_only || lk_dataset_get_info(data->dataset).targets > 0) {
        return LK_OK;
    }
    lk_text which;
    lk_text_init(&which, trainer->context);
    lk_text_printf(&which, count > 1 ? "the training data of adapter %zu" : "the training data", index);
    lk_status status = lk_fail(trainer->context, LK_STATUS_INVALID_ARGUMENT,
                               "%s has no token with a loss: its sequences have one token only, or all labels are -100",
                               which.data != NULL ? which.data : "");
    lk_text_free(&which);
    return status;
}

lk_status lk_step_parts_create(lk_trainer *trainer, lk_adapter *const *adapters, lk_data *const *data, size_t count) {
    lk_context *context = trainer->context;
    if (count > 1 && trainer->model->task == LK_TASK_CLASSIFY) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "adapters that classify cannot be trained side by side");
    }
    trainer->parts = lk_calloc(context, count, sizeof *trainer->parts);
    if (trainer->parts == NULL) {
        return lk_out_of_memory(context, count * sizeof *trainer->parts, "a trainer");
    }
    trainer->num_parts = (int32_t)count;
    for (size_t i = 0; i < count; i++) {
        lk_step_part *part = &trainer->parts[i];
        LK_TRY(check_data(trainer, data[i], i, count));
        if (lk_adapter_is_mixed(adapters[i])) {
            return lk_fail(context, LK_STATUS_UNSUPPORTED,
                           "a mixed adapter is a copy: its parts are trained by lk_trainer_create_mixed");
        }
        *part = (lk_step_part){.adapter = adapters[i],
                               .data = data[i],
                               .first_token = trainer->tokens,
                               .first_sequence = trainer->max_sequences};
        trainer->tokens += data[i]->tokens;
        trainer->max_sequences += data[i]->max_sequences;
        LK_TRY(trainer->plan_only ? LK_OK : lk_data_iterate(data[i], false, &part->iterator));
    }
    return count > 1 ? lk_adapter_mix_in_place(adapters, count, &trainer->mixed) : LK_OK;
}

void lk_step_parts_destroy(lk_trainer *trainer) {
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        lk_batch_iterator_destroy(part->iterator);
        lk_variables_destroy(part->variables);
        lk_free(trainer->context, part->first);
        lk_free(trainer->context, part->second);
    }
    lk_free(trainer->context, trainer->parts);
    lk_adapter_destroy(trainer->mixed);
}

/* ---- variables ---- */

static lk_status add_moment(lk_trainer *trainer, lk_step_part *part, const char *prefix, const lk_variable *value,
                            lk_variable **out) {
    lk_text name;
    lk_text_init(&name, trainer->context);
    lk_text_printf(&name, "%s.%s", prefix, value->name);
    lk_status status = lk_text_status(&name);
    if (status == LK_OK) {
        status = lk_variables_add(part->variables, name.data, LK_ROLE_STATE, "optimizer", LK_DTYPE_F32, value->rank,
                                  value->shape, out);
    }
    lk_text_free(&name);
    return status;
}

static lk_status add_moments(lk_trainer *trainer, lk_step_part *part) {
    size_t count = (size_t)lk_adapter_num_trained(part->adapter);
    part->first = lk_calloc(trainer->context, count + 1, sizeof(lk_variable *));
    part->second = lk_calloc(trainer->context, count + 1, sizeof(lk_variable *));
    if (part->first == NULL || part->second == NULL) {
        return lk_out_of_memory(trainer->context, count * sizeof(lk_variable *), "the optimizer's state");
    }
    for (size_t i = 0; i < count; i++) {
        const lk_variable *value = lk_adapter_trained_at(part->adapter, (int32_t)i)->value;
        LK_TRY(add_moment(trainer, part, "m", value, &part->first[i]));
        LK_TRY(add_moment(trainer, part, "v", value, &part->second[i]));
    }
    return LK_OK;
}

static lk_status add_input(lk_variables *variables, const char *name, lk_dtype dtype, int64_t size, lk_variable **out) {
    return lk_variables_add(variables, name, LK_ROLE_INPUT, "inputs", dtype, 1, &size, out);
}

/* What never changes: which rows belong to which part. */
static lk_status upload_rows(lk_trainer *trainer) {
    int64_t tokens = trainer->tokens;
    int32_t *rows = lk_calloc(trainer->context, 2 * (size_t)tokens, sizeof *rows), *owners = rows + tokens;
    if (rows == NULL) {
        return lk_out_of_memory(trainer->context, 2 * (size_t)tokens * sizeof *rows, "rows of adapters");
    }
    lk_status status = LK_OK;
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        const lk_step_part *part = &trainer->parts[i];
        for (int64_t t = part->first_token; t < part->first_token + part->data->tokens; t++) {
            rows[t] = (int32_t)t;
            owners[t] = i;
        }
        status = status == LK_OK ? lk_variable_upload(part->rows, rows + part->first_token) : status;
    }
    status = status == LK_OK ? lk_variable_upload(trainer->adapter_rows, owners) : status;
    lk_free(trainer->context, rows);
    return status;
}

static lk_status add_inputs(lk_step_part *part) {
    LK_TRY(add_input(part->variables, "input.rows", LK_DTYPE_I32, part->data->tokens, &part->rows));
    LK_TRY(add_input(part->variables, "input.targets", LK_DTYPE_I32, part->data->tokens, &part->targets));
    return add_input(part->variables, "input.loss_scale", LK_DTYPE_F32, 1, &part->loss_scale);
}

lk_status lk_step_parts_add_variables(lk_trainer *trainer) {
    lk_device *home = trainer->plan_only ? NULL : lk_session_main_device(trainer->model->session);
    bool several = trainer->num_parts > 1;
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        LK_TRY(lk_variables_create(trainer->context, home, &part->variables));
        LK_TRY(add_moments(trainer, part));
        LK_TRY(several ? add_inputs(part) : LK_OK);
    }
    if (!several) {
        trainer->parts[0].targets = trainer->inputs.targets;
        trainer->parts[0].loss_scale = trainer->inputs.loss_scale;
        return LK_OK;
    }
    LK_TRY(add_input(trainer->variables, "input.adapter_rows", LK_DTYPE_I32, trainer->tokens, &trainer->adapter_rows));
    return upload_rows(trainer);
}

/* ---- the graph ---- */

/* The micro-batches of a step add up to one penalty. */
static lk_tensor *add_penalty(const lk_trainer *trainer, const lk_step_part *part, lk_graph *graph, lk_tensor *loss) {
    const lk_adapter_method *method = part->adapter->method;
    lk_tensor *penalty = method->penalty != NULL ? method->penalty(graph, part->adapter) : NULL;
    float share = 1.0f / (float)trainer->options.gradient_accumulation_steps;
    return penalty != NULL ? lk_build_add(graph, loss, lk_build_scale(graph, penalty, share)) : loss;
}

lk_tensor *lk_step_parts_loss(lk_trainer *trainer, lk_forward *forward, lk_tensor *hidden) {
    lk_graph *graph = forward->graph;
    lk_tensor *sum = NULL;
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        lk_tensor *rows =
            part->rows != NULL ? lk_build_embedding(graph, lk_graph_variable(graph, part->rows), hidden) : hidden;
        lk_tensor *loss = lk_forward_loss(forward, rows, lk_graph_variable(graph, part->targets),
                                          lk_graph_variable(graph, part->loss_scale));
        part->loss = add_penalty(trainer, part, graph, loss);
        lk_graph_mark_output(graph, part->loss);
        sum = sum != NULL ? lk_build_add(graph, sum, part->loss) : part->loss;
    }
    lk_graph_mark_output(graph, sum);
    return sum;
}

typedef struct update_lists {
    int count;
    lk_tensor **values, **gradients, **first, **second, **projected;
    float *rates;
} update_lists;

static lk_status list_tensors(const lk_trainer *trainer, const lk_step_part *part, lk_graph *graph,
                              update_lists *lists) {
    size_t count = (size_t)lk_adapter_num_trained(part->adapter);
    lk_tensor **block = lk_arena_alloc(&graph->arena, (5 * count + 1) * sizeof(lk_tensor *));
    float *rates = lk_arena_alloc(&graph->arena, (count + 1) * sizeof *rates);
    if (block == NULL || rates == NULL) {
        return lk_graph_out_of_memory(graph);
    }
    *lists = (update_lists){(int)count,        block, block + count, block + 2 * count, block + 3 * count,
                            block + 4 * count, rates};
    for (size_t i = 0; i < count; i++) {
        const lk_adapter_tensor *tensor = lk_adapter_trained_at(part->adapter, (int32_t)i);
        lists->values[i] = lk_graph_variable(graph, tensor->value);
        lists->gradients[i] = lk_graph_variable(graph, tensor->gradient);
        lists->first[i] = lk_graph_variable(graph, part->first[i]);
        lists->second[i] = lk_graph_variable(graph, part->second[i]);
        bool faster = tensor->kind == LK_PEFT_KIND_LORA_B; /* LoRA+ */
        lists->rates[i] = faster ? (float)trainer->options.learning_rate_ratio : 1.0f;
    }
    return lk_graph_status(graph);
}

static void build_step(const lk_trainer *trainer, const lk_step_part *part, lk_graph *graph, const update_lists *lists,
                       lk_tensor *norm) {
    const lk_adapter_method *method = part->adapter->method;
    for (int i = 0; i < lists->count; i++) {
        lists->projected[i] = lk_adapter_project(part->adapter, i, graph, lists->gradients[i]);
    }
    lk_build_adamw(graph, lk_graph_variable(graph, trainer->hyper), norm, lists->count, lists->values, lists->projected,
                   lists->first, lists->second, lists->rates, NULL);
    if (method->observe != NULL) {
        method->observe(graph, part->adapter, norm);
    }
    lk_build_clear(graph, lists->count, lists->gradients);
}

/* 0, or not a number where that is so for one of the norms: added to each, it lets one part stop all. */
static lk_tensor *zero_of_norms(const lk_trainer *trainer, lk_graph *graph) {
    lk_tensor *sum = trainer->parts[0].norm;
    for (int32_t i = 1; i < trainer->num_parts; i++) {
        sum = lk_build_add(graph, sum, trainer->parts[i].norm);
    }
    return lk_build_scale(graph, sum, 0.0f);
}

lk_status lk_step_parts_update(lk_trainer *trainer, lk_graph *graph) {
    int32_t count = trainer->num_parts;
    update_lists *lists = lk_arena_alloc(&graph->arena, (size_t)count * sizeof *lists);
    if (lists == NULL) {
        return lk_graph_out_of_memory(graph);
    }
    lk_graph_set_scope(graph, "optimizer");
    for (int32_t i = 0; i < count; i++) {
        lk_step_part *part = &trainer->parts[i];
        LK_TRY(list_tensors(trainer, part, graph, &lists[i]));
        part->norm = lk_build_grad_norm(graph, lists[i].count, lists[i].gradients);
        lk_graph_mark_output(graph, part->norm);
    }
    lk_tensor *zero = count > 1 ? zero_of_norms(trainer, graph) : NULL;
    for (int32_t i = 0; i < count; i++) {
        lk_step_part *part = &trainer->parts[i];
        build_step(trainer, part, graph, &lists[i], zero != NULL ? lk_build_add(graph, part->norm, zero) : part->norm);
    }
    return lk_graph_status(graph);
}

/* ---- micro-batches ---- */

void lk_step_parts_next(lk_trainer *trainer, lk_batch *to) {
    *to = (lk_batch){.tokens = trainer->tokens,
                     .max_sequences = trainer->max_sequences,
                     .input_ids = to->input_ids,
                     .targets = to->targets,
                     .positions = to->positions,
                     .cu_seqlens = to->cu_seqlens,
                     .class_labels = to->class_labels};
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        const lk_batch *from;
        lk_batch_iterator_next(part->iterator, &from);
        size_t bytes = (size_t)from->tokens * sizeof(int32_t);
        memcpy(to->input_ids + part->first_token, from->input_ids, bytes);
        memcpy(to->targets + part->first_token, from->targets, bytes);
        memcpy(to->positions + part->first_token, from->positions, bytes);
        memcpy(to->class_labels + part->first_sequence, from->class_labels,
               (size_t)from->max_sequences * sizeof(int32_t));
        for (int64_t s = 0; s <= from->max_sequences; s++) {
            to->cu_seqlens[part->first_sequence + s] = (int32_t)part->first_token + from->cu_seqlens[s];
        }
        to->num_sequences += from->num_sequences;
        to->num_tokens += from->num_tokens;
        to->num_targets += from->num_targets;
        part->report.tokens += from->num_tokens;
        part->report.targets += from->num_targets;
    }
}

lk_status lk_step_parts_upload(lk_trainer *trainer, const lk_batch *batch) {
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        const lk_step_part *part = &trainer->parts[i];
        int64_t targets = part->report.targets;
        float scale = targets > 0 ? (float)(1.0 / (double)targets) : 0.0f;
        if (part->rows != NULL) { /* otherwise they are among the trainer's inputs */
            LK_TRY(lk_variable_upload(part->targets, batch->targets + part->first_token));
        }
        LK_TRY(lk_variable_upload(part->loss_scale, &scale));
    }
    return LK_OK;
}
