/* Loss over a dataset, and logits of one sequence: forward passes without a backward one. */
#include <math.h>
#include <string.h>

#include "core/graph/graph.h"
#include "core/train/data.h"
#include "core/train/metrics.h"
#include "core/train/step_inputs.h"

struct lk_evaluator {
    lk_context *context;
    lk_model *model;
    lk_adapter *adapter;
    lk_data *data;
    lk_variables *variables;
    lk_step_inputs inputs;
    lk_program *program;
    lk_tensor *loss, *logits; /* those that the program makes */
    int64_t *confusion;       /* when classifying: [num_labels][num_labels], class by prediction */
    float *scores;            /* and the logits of a micro-batch */
};

typedef struct forward_options {
    int64_t tokens, max_sequences;
    bool logits;
} forward_options;

static lk_status build(lk_evaluator *self, lk_graph *graph, const forward_options *options) {
    lk_forward forward = lk_step_inputs_forward(&self->inputs, self->model, self->adapter, graph, false);
    lk_tensor *hidden = self->model->family->forward(&forward);
    lk_tensor *targets = lk_graph_variable(graph, self->inputs.targets);
    lk_tensor *loss_scale = lk_graph_variable(graph, self->inputs.loss_scale);
    bool classify = self->model->task == LK_TASK_CLASSIFY;
    if (options->logits || classify) {
        self->logits = lk_forward_logits(&forward, hidden);
        lk_graph_mark_output(graph, self->logits);
    }
    if (!options->logits) {
        self->loss = classify ? lk_build_cross_entropy(graph, self->logits, targets, loss_scale)
                              : lk_forward_loss(&forward, hidden, targets, loss_scale);
        lk_graph_mark_output(graph, self->loss);
    }
    return lk_graph_status(graph);
}

static lk_status prepare(lk_evaluator *self, const forward_options *options) {
    LK_TRY(lk_variables_create(self->context, lk_session_main_device(self->model->session), &self->variables));
    LK_TRY(
        lk_step_inputs_add(self->variables, self->model->task, options->tokens, options->max_sequences, &self->inputs));
    lk_graph *graph;
    LK_TRY(lk_graph_create(self->context, &graph));
    lk_status status = build(self, graph, options);
    if (status != LK_OK) {
        lk_graph_destroy(graph);
        return status;
    }
    return lk_session_compile(self->model->session, graph, false, &self->program);
}

static lk_status prepare_counts(lk_evaluator *self) {
    size_t labels = (size_t)self->model->num_labels, sequences = (size_t)self->data->max_sequences;
    if (self->model->task != LK_TASK_CLASSIFY) {
        return LK_OK;
    }
    self->confusion = lk_calloc(self->context, labels * labels, sizeof *self->confusion);
    self->scores = lk_calloc(self->context, labels * sequences, sizeof *self->scores);
    return self->confusion && self->scores
               ? LK_OK
               : lk_out_of_memory(self->context, labels * labels * sizeof *self->confusion, "an evaluator");
}

lk_status lk_evaluator_create(lk_model *model, lk_adapter *adapter, lk_data *data, lk_evaluator **out) {
    *out = NULL;
    lk_evaluator *self = lk_calloc(model->context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(model->context, sizeof *self, "an evaluator");
    }
    *self = (lk_evaluator){.context = model->context, .model = model, .adapter = adapter, .data = data};
    lk_status status = prepare(self, &(forward_options){data->tokens, data->max_sequences, false});
    status = status == LK_OK ? prepare_counts(self) : status;
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
        lk_free(self->context, self->confusion);
        lk_free(self->context, self->scores);
        lk_free(self->context, self);
    }
}

/* Adds the predictions of a micro-batch to the confusion matrix. */
static lk_status count_predictions(lk_evaluator *self, const lk_batch *batch) {
    int64_t labels = self->model->num_labels;
    size_t bytes = (size_t)(batch->max_sequences * labels) * sizeof *self->scores;
    LK_TRY(lk_program_read(self->program, self->logits, self->scores, bytes));
    for (int64_t s = 0; s < batch->num_sequences; s++) {
        int64_t predicted = 0;
        for (int64_t c = 1; c < labels; c++) {
            predicted = self->scores[s * labels + c] > self->scores[s * labels + predicted] ? c : predicted;
        }
        self->confusion[batch->class_labels[s] * labels + predicted]++;
    }
    return LK_OK;
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
        LK_TRY(lk_program_read(self->program, self->loss, &loss, sizeof loss));
        if (!isfinite(loss)) {
            return lk_fail(self->context, LK_STATUS_NUMERIC, "the loss of micro-batch %lld is %g", (long long)done + 1,
                           (double)loss);
        }
        sum += (double)loss;
        if (self->confusion != NULL) {
            LK_TRY(count_predictions(self, batch));
        }
        report->targets += batch->num_targets;
        report->tokens += batch->num_tokens;
        report->sequences += batch->num_sequences;
        done++;
        if (progress != NULL) {
            progress(user, done, total);
        }
    } while (!batch->last_in_epoch);
    if (report->targets == 0) {
        return lk_fail(self->context, LK_STATUS_INVALID_ARGUMENT, "the data has nothing with a loss");
    }
    report->loss = sum / (double)report->targets;
    report->perplexity = exp(report->loss);
    if (self->confusion != NULL) {
        lk_classification_metrics(self->confusion, self->model->num_labels, report);
    }
    return LK_OK;
}

lk_status lk_evaluator_run(lk_evaluator *self, lk_progress_function progress, void *user, lk_eval_report *report) {
    *report = (lk_eval_report){0};
    for (int64_t i = 0; self->confusion != NULL && i < self->model->num_labels * self->model->num_labels; i++) {
        self->confusion[i] = 0;
    }
    double start = lk_seconds();
    lk_batch_iterator *iterator;
    LK_TRY(lk_data_iterate(self->data, true, &iterator));
    lk_status status = run_batches(self, iterator, progress, user, report);
    lk_batch_iterator_destroy(iterator);
    report->seconds = lk_seconds() - start;
    return status;
}

lk_status lk_evaluator_get_confusion(const lk_evaluator *self, int64_t *counts) {
    size_t labels = (size_t)self->model->num_labels;
    if (self->confusion == NULL) {
        return lk_fail(self->context, LK_STATUS_INVALID_ARGUMENT, "the model does not classify");
    }
    memcpy(counts, self->confusion, labels * labels * sizeof *counts);
    return LK_OK;
}

/* The inputs that only classifying has are zeros, as they should be for one sequence. */
static lk_status run_one(lk_evaluator *self, const int32_t *ids, int32_t count, float *logits) {
    size_t bytes = (size_t)count * sizeof(int32_t);
    int32_t *positions = lk_alloc(self->context, bytes);
    if (positions == NULL) {
        return lk_out_of_memory(self->context, bytes, "positions");
    }
    for (int32_t i = 0; i < count; i++) {
        positions[i] = (int32_t)self->model->first_position + i;
    }
    const int32_t cu_seqlens[] = {0, count};
    lk_status status = lk_variable_upload(self->inputs.input_ids, ids);
    status = status == LK_OK ? lk_variable_upload(self->inputs.positions, positions) : status;
    status = status == LK_OK ? lk_variable_upload(self->inputs.cu_seqlens, cu_seqlens) : status;
    status = status == LK_OK ? lk_program_run(self->program) : status;
    size_t size = (size_t)lk_tensor_elements(self->logits) * sizeof *logits;
    status = status == LK_OK ? lk_program_read(self->program, self->logits, logits, size) : status;
    lk_free(self->context, positions);
    return status;
}

lk_status lk_logits(lk_model *model, lk_adapter *adapter, const int32_t *ids, size_t count, float *logits) {
    if (count == 0 || count > (size_t)model->max_length) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "%zu ids, expected 1 to %lld", count,
                       (long long)model->max_length);
    }
    lk_evaluator self = {.context = model->context, .model = model, .adapter = adapter};
    lk_status status = prepare(&self, &(forward_options){(int64_t)count, 1, true});
    status = status == LK_OK ? run_one(&self, ids, (int32_t)count, logits) : status;
    lk_program_destroy(self.program);
    lk_variables_destroy(self.variables);
    return status;
}
