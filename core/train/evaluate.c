/* Loss over a dataset, and logits of one sequence: forward passes without a backward one. */
#include <math.h>
#include <string.h>

#include "core/train/data.h"
#include "core/train/step_inputs.h"

struct lk_evaluator {
    lk_context *context;
    lk_model *model;
    lk_adapter *adapter;
    lk_data *data;
    lk_variables *variables;
    lk_step_inputs inputs;
    lk_program *program;
    lk_tensor *result; /* the loss, or the logits */
};

typedef struct forward_options {
    int64_t tokens, max_sequences;
    bool logits;
} forward_options;

static lk_status build(lk_evaluator *self, lk_graph *graph, const forward_options *options) {
    lk_forward forward = lk_step_inputs_forward(&self->inputs, self->model, self->adapter, graph, false);
    lk_tensor *hidden = self->model->family->forward(&forward);
    self->result = options->logits
                       ? lk_forward_logits(&forward, hidden)
                       : lk_forward_loss(&forward, hidden, lk_graph_variable(graph, self->inputs.targets),
                                         lk_graph_variable(graph, self->inputs.loss_scale));
    lk_graph_mark_output(graph, self->result);
    return lk_graph_status(graph);
}

static lk_status prepare(lk_evaluator *self, const forward_options *options) {
    LK_TRY(lk_variables_create(self->context, lk_session_main_device(self->model->session), &self->variables));
    LK_TRY(lk_step_inputs_add(self->variables, options->tokens, options->max_sequences, &self->inputs));
    lk_graph *graph;
    LK_TRY(lk_graph_create(self->context, &graph));
    lk_status status = build(self, graph, options);
    if (status != LK_OK) {
        lk_graph_destroy(graph);
        return status;
    }
    return lk_session_compile(self->model->session, graph, false, &self->program);
}

lk_status lk_evaluator_create(lk_model *model, lk_adapter *adapter, lk_data *data, lk_evaluator **out) {
    *out = NULL;
    lk_evaluator *self = lk_calloc(model->context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(model->context, sizeof *self, "an evaluator");
    }
    *self = (lk_evaluator){.context = model->context, .model = model, .adapter = adapter, .data = data};
    lk_status status = prepare(self, &(forward_options){data->tokens, data->max_sequences, false});
    if (status != LK_OK) {
        lk_evaluator_destroy(self);
        return status;
    }
    *out = self;
    return LK_OK;
}

void lk_evaluator_destroy(lk_evaluator *self) {
    if (self != NULL) {
        lk_program_destroy(self->program);
        lk_variables_destroy(self->variables);
        lk_free(self->context, self);
    }
}

static lk_status run_batches(lk_evaluator *self, lk_batch_iterator *iterator, lk_progress_function progress, void *user,
                             lk_eval_report *report) {
    int64_t total = 0, done = 0;
    double sum = 0.0;
    const lk_batch *batch;
    LK_TRY(lk_batch_iterator_count(iterator, 0, &total));
    do {
        float loss;
        lk_batch_iterator_next(iterator, &batch);
        LK_TRY(lk_step_inputs_upload(&self->inputs, batch, 1.0f));
        LK_TRY(lk_program_run(self->program));
        LK_TRY(lk_program_read(self->program, self->result, &loss, sizeof loss));
        if (!isfinite(loss)) {
            return lk_fail(self->context, LK_STATUS_NUMERIC, "the loss of micro-batch %lld is %g",
                           (long long)done + 1, (double)loss);
        }
        sum += (double)loss;
        report->targets += batch->num_targets;
        report->tokens += batch->num_tokens;
        report->sequences += batch->num_sequences;
        done++;
        if (progress != NULL) {
            progress(user, done, total);
        }
    } while (!batch->last_in_epoch);
    if (report->targets == 0) {
        return lk_fail(self->context, LK_STATUS_INVALID_ARGUMENT, "the data has no token with a loss");
    }
    report->loss = sum / (double)report->targets;
    report->perplexity = exp(report->loss);
    return LK_OK;
}

lk_status lk_evaluator_run(lk_evaluator *self, lk_progress_function progress, void *user, lk_eval_report *report) {
    *report = (lk_eval_report){0};
    double start = lk_seconds();
    lk_batch_iterator *iterator;
    LK_TRY(lk_data_iterate(self->data, true, &iterator));
    lk_status status = run_batches(self, iterator, progress, user, report);
    lk_batch_iterator_destroy(iterator);
    report->seconds = lk_seconds() - start;
    return status;
}

static lk_status run_one(lk_evaluator *self, const int32_t *ids, int32_t count, float *logits) {
    size_t bytes = (size_t)count * sizeof(int32_t);
    int32_t *positions = lk_alloc(self->context, bytes);
    if (positions == NULL) {
        return lk_out_of_memory(self->context, bytes, "positions");
    }
    for (int32_t i = 0; i < count; i++) {
        positions[i] = i;
    }
    const int32_t cu_seqlens[] = {0, count};
    lk_status status = lk_variable_upload(self->inputs.input_ids, ids);
    status = status == LK_OK ? lk_variable_upload(self->inputs.positions, positions) : status;
    status = status == LK_OK ? lk_variable_upload(self->inputs.cu_seqlens, cu_seqlens) : status;
    status = status == LK_OK ? lk_program_run(self->program) : status;
    size_t size = (size_t)count * (size_t)self->model->config->vocab_size * sizeof *logits;
    status = status == LK_OK ? lk_program_read(self->program, self->result, logits, size) : status;
    lk_free(self->context, positions);
    return status;
}

lk_status lk_logits(lk_model *model, lk_adapter *adapter, const int32_t *ids, size_t count, float *logits) {
    if (count == 0 || count > (size_t)model->config->max_position_embeddings) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "%zu ids, expected 1 to %lld", count,
                       (long long)model->config->max_position_embeddings);
    }
    lk_evaluator self = {.context = model->context, .model = model, .adapter = adapter};
    lk_status status = prepare(&self, &(forward_options){(int64_t)count, 1, true});
    status = status == LK_OK ? run_one(&self, ids, (int32_t)count, logits) : status;
    lk_program_destroy(self.program);
    lk_variables_destroy(self.variables);
    return status;
}
