/* The classes of texts. As many texts as fit into a micro-batch's tokens go through together, one after the other. */
#include <math.h>
#include <string.h>

#include "core/graph/graph.h"
#include "core/train/data.h"
#include "core/train/step_inputs.h"

enum { TEXTS_PER_SEQUENCE = 8 }; /* short texts share the tokens of one long one */

struct lk_classifier {
    lk_context *context;
    lk_model *model;
    lk_adapter *adapter;
    int64_t seq, tokens;
    int64_t max_texts;     /* in a micro-batch; behind them, padding makes sequences of its own */
    int64_t max_sequences; /* with those */
    lk_variables *variables;
    lk_step_inputs inputs;
    lk_program *program;
    lk_tensor *logits;
    lk_ids ids; /* of one text */
    int32_t *input_ids, *positions, *cu_seqlens, *class_labels;
    float *scores;
};

static lk_status compile(lk_classifier *self) {
    lk_graph *graph;
    LK_TRY(lk_graph_create(self->context, &graph));
    lk_forward forward = lk_step_inputs_forward(&self->inputs, self->model, self->adapter, graph, false);
    lk_tensor *hidden = self->model->family->forward(&forward);
    self->logits = lk_forward_logits(&forward, hidden);
    lk_graph_mark_output(graph, self->logits);
    lk_status status = lk_graph_status(graph);
    if (status != LK_OK) {
        lk_graph_destroy(graph);
        return status;
    }
    return lk_session_compile(self->model->session, graph, false, &self->program);
}

static lk_status prepare(lk_classifier *self) {
    size_t tokens = (size_t)self->tokens, sequences = (size_t)self->max_sequences;
    self->input_ids = lk_calloc(self->context, tokens, sizeof *self->input_ids);
    self->positions = lk_calloc(self->context, tokens, sizeof *self->positions);
    self->cu_seqlens = lk_calloc(self->context, sequences + 1, sizeof *self->cu_seqlens);
    self->class_labels = lk_calloc(self->context, sequences, sizeof *self->class_labels);
    self->scores = lk_calloc(self->context, sequences * (size_t)self->model->num_labels, sizeof *self->scores);
    if (!self->input_ids || !self->positions || !self->cu_seqlens || !self->class_labels || !self->scores) {
        return lk_out_of_memory(self->context, tokens * sizeof *self->input_ids, "a classifier");
    }
    LK_TRY(lk_variables_create(self->context, lk_session_main_device(self->model->session), &self->variables));
    LK_TRY(lk_step_inputs_add(self->variables, LK_TASK_CLASSIFY, self->tokens, self->max_sequences, &self->inputs));
    return compile(self);
}

static lk_status check(const lk_model *model, const lk_data_options *options) {
    if (model->task != LK_TASK_CLASSIFY) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "%s: the model was not loaded to classify",
                       lk_pretrained_path(model->pretrained));
    }
    if (model->tokenizer == NULL) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "%s has no tokenizer",
                       lk_pretrained_path(model->pretrained));
    }
    if (options->batch < 1 || options->batch > 1 << 16 || options->seq < 2) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT,
                       "batch is %lld and seq %lld, expected 1 to %d and at least 2", (long long)options->batch,
                       (long long)options->seq, 1 << 16);
    }
    return LK_OK;
}

lk_status lk_classifier_create(lk_model *model, lk_adapter *adapter, const lk_data_options *given,
                               lk_classifier **out) {
    *out = NULL;
    lk_data_options options = lk_data_options_for(model, given);
    LK_TRY(check(model, &options));
    lk_classifier *self = lk_calloc(model->context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(model->context, sizeof *self, "a classifier");
    }
    *self = (lk_classifier){.context = model->context, .model = model, .adapter = adapter};
    lk_ids_init(&self->ids, self->context);
    self->seq = LK_MIN(options.seq, model->max_length);
    self->tokens = options.batch * self->seq;
    self->max_texts = LK_MIN(TEXTS_PER_SEQUENCE * options.batch, self->tokens);
    self->max_sequences = self->max_texts + options.batch;
    lk_status status = prepare(self);
    if (status != LK_OK) {
        lk_classifier_destroy(self);
        return status;
    }
    *out = self;
    return LK_OK;
}

void lk_classifier_destroy(lk_classifier *self) {
    if (self != NULL) {
        lk_program_destroy(self->program);
        lk_variables_destroy(self->variables);
        lk_ids_free(&self->ids);
        lk_free(self->context, self->input_ids);
        lk_free(self->context, self->positions);
        lk_free(self->context, self->cu_seqlens);
        lk_free(self->context, self->class_labels);
        lk_free(self->context, self->scores);
        lk_free(self->context, self);
    }
}

/* Leaves the text's ids, at most seq, in self->ids. */
static lk_status encode(lk_classifier *self, const char *text) {
    lk_tokenizer *tokenizer = self->model->tokenizer;
    size_t before, after, limit = (size_t)self->seq;
    self->ids.count = 0;
    LK_TRY(lk_tokenizer_encode(tokenizer, text, strlen(text), LK_ENCODE_DEFAULT, &self->ids));
    lk_tokenizer_special_counts(tokenizer, &before, &after);
    if (self->ids.count > limit) {
        size_t tail = LK_MIN(after, limit);
        memmove(self->ids.data + limit - tail, self->ids.data + self->ids.count - tail, tail * sizeof(int32_t));
        self->ids.count = limit;
    }
    for (size_t i = 0; i < self->ids.count; i++) {
        if (self->ids.data[i] >= self->model->config->vocab_size) {
            return lk_fail(self->context, LK_STATUS_FORMAT,
                           "%s: the tokenizer gives the id %d, but the model has %lld tokens",
                           lk_pretrained_path(self->model->pretrained), self->ids.data[i],
                           (long long)self->model->config->vocab_size);
        }
    }
    return self->ids.count > 0
               ? LK_OK
               : lk_fail(self->context, LK_STATUS_INVALID_ARGUMENT, "a text without any token cannot be classified");
}

/* The sequence from `first` up to `end`: its positions, and its end as the next one's beginning. */
static void end_sequence(lk_classifier *self, int64_t *sequences, int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++) {
        self->positions[i] = (int32_t)(self->model->first_position + i - first);
    }
    self->cu_seqlens[++*sequences] = (int32_t)end;
}

/* Takes as many texts as fit; those behind the first are tokenised again next time if they do not. */
static lk_status fill(lk_classifier *self, const char *const *texts, size_t count, int64_t *taken) {
    int64_t used = 0, sequences = 0;
    while (sequences < LK_MIN(self->max_texts, (int64_t)count)) {
        LK_TRY(encode(self, texts[sequences]));
        int64_t length = (int64_t)self->ids.count;
        if (length > self->tokens - used) {
            break;
        }
        memcpy(self->input_ids + used, self->ids.data, self->ids.count * sizeof(int32_t));
        end_sequence(self, &sequences, used, used + length);
        used += length;
    }
    *taken = sequences;
    memset(self->input_ids + used, 0, (size_t)(self->tokens - used) * sizeof(int32_t));
    while (used < self->tokens) {
        int64_t end = LK_MIN(used + self->seq, self->tokens);
        end_sequence(self, &sequences, used, end);
        used = end;
    }
    while (sequences < self->max_sequences) {
        self->cu_seqlens[++sequences] = (int32_t)self->tokens;
    }
    return LK_OK;
}

static lk_status softmax(const lk_classifier *self, const float *scores, float *probabilities) {
    int64_t labels = self->model->num_labels;
    double largest = -INFINITY, total = 0.0;
    for (int64_t i = 0; i < labels; i++) {
        if (!isfinite(scores[i])) {
            return lk_fail(self->context, LK_STATUS_NUMERIC, "the score of class %lld is %g", (long long)i,
                           (double)scores[i]);
        }
        largest = LK_MAX(largest, (double)scores[i]);
    }
    for (int64_t i = 0; i < labels; i++) {
        total += exp((double)scores[i] - largest);
    }
    for (int64_t i = 0; i < labels; i++) {
        probabilities[i] = (float)(exp((double)scores[i] - largest) / total);
    }
    return LK_OK;
}

lk_status lk_classifier_run(lk_classifier *self, const char *const *texts, size_t count, float *probabilities) {
    int64_t labels = self->model->num_labels;
    for (size_t done = 0; done < count;) {
        int64_t taken;
        LK_TRY(fill(self, texts + done, count - done, &taken));
        const lk_batch batch = {.input_ids = self->input_ids,
                                .positions = self->positions,
                                .cu_seqlens = self->cu_seqlens,
                                .class_labels = self->class_labels};
        LK_TRY(lk_step_inputs_upload(&self->inputs, &batch, 1.0f));
        LK_TRY(lk_program_run(self->program));
        size_t bytes = (size_t)(self->max_sequences * labels) * sizeof *self->scores;
        LK_TRY(lk_program_read(self->program, self->logits, self->scores, bytes));
        for (int64_t i = 0; i < taken; i++) {
            LK_TRY(softmax(self, self->scores + i * labels, probabilities + ((int64_t)done + i) * labels));
        }
        done += (size_t)taken;
    }
    return LK_OK;
}
