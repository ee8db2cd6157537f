/* Continuing a text, token by token, with the keys and values of earlier tokens kept on the device. The prompt goes
 * through in pieces of up to PIECE tokens, then each new token through a program of its own. */
#include <stdio.h>
#include <string.h>

#include "core/adapters/adapter.h"
#include "core/text/chat.h"
#include "core/train/sample.h"

enum { PIECE = 64 };

/* One compiled forward pass over `tokens` tokens of one sequence. */
typedef struct generate_pass {
    int64_t tokens;
    lk_variable *input_ids, *positions, *slots, *cu_seqlens, *row;
    lk_program *program;
    lk_tensor *logits;
} generate_pass;

struct lk_generator {
    lk_context *context;
    lk_model *model;
    lk_adapter *adapter;
    int64_t max_tokens;
    lk_variables *variables;
    lk_variable **key_caches, **value_caches;
    lk_variable *cu_seqlens_k, *seqlens_k;
    generate_pass prompt, next;
    int32_t *staging; /* positions, slots, ids of a piece */
    float *values;    /* logits of one token */
    lk_sample_item *items;
};

void lk_generate_options_init(lk_generate_options *options) {
    *options = (lk_generate_options){.struct_size = sizeof *options, .max_new_tokens = 128, .top_p = 1.0};
}

/* ---- building ---- */

static lk_status add_caches(lk_generator *self) {
    int64_t layers = self->model->config->num_hidden_layers;
    int64_t shape[] = {self->max_tokens, self->model->family->cache_width(self->model->config)};
    self->key_caches = lk_calloc(self->context, (size_t)layers, sizeof(lk_variable *));
    self->value_caches = lk_calloc(self->context, (size_t)layers, sizeof(lk_variable *));
    if (self->key_caches == NULL || self->value_caches == NULL) {
        return lk_out_of_memory(self->context, (size_t)layers * sizeof(lk_variable *), "the cache");
    }
    for (int64_t i = 0; i < layers; i++) {
        char name[48];
        snprintf(name, sizeof name, "cache.keys.%lld", (long long)i);
        LK_TRY(lk_variables_add(self->variables, name, LK_ROLE_STATE, "cache", LK_DTYPE_F32, 2, shape,
                                &self->key_caches[i]));
        snprintf(name, sizeof name, "cache.values.%lld", (long long)i);
        LK_TRY(lk_variables_add(self->variables, name, LK_ROLE_STATE, "cache", LK_DTYPE_F32, 2, shape,
                                &self->value_caches[i]));
    }
    const int64_t two = 2, one = 1;
    LK_TRY(lk_variables_add(self->variables, "input.cu_seqlens_k", LK_ROLE_INPUT, "inputs", LK_DTYPE_I32, 1, &two,
                            &self->cu_seqlens_k));
    LK_TRY(lk_variables_add(self->variables, "input.seqlens_k", LK_ROLE_INPUT, "inputs", LK_DTYPE_I32, 1, &one,
                            &self->seqlens_k));
    const int32_t whole[] = {0, (int32_t)self->max_tokens};
    return lk_variable_upload(self->cu_seqlens_k, whole);
}

static lk_status add_inputs(lk_generator *self, generate_pass *pass, const char *prefix) {
    const int64_t one = 1, two = 2;
    const struct {
        const char *name;
        const int64_t *extent;
        lk_variable **variable;
    } rows[] = {{"input_ids", &pass->tokens, &pass->input_ids},
                {"positions", &pass->tokens, &pass->positions},
                {"slots", &pass->tokens, &pass->slots},
                {"cu_seqlens", &two, &pass->cu_seqlens},
                {"row", &one, &pass->row}};
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        char name[64];
        snprintf(name, sizeof name, "input.%s.%s", prefix, rows[i].name);
        LK_TRY(lk_variables_add(self->variables, name, LK_ROLE_INPUT, "inputs", LK_DTYPE_I32, 1, rows[i].extent,
                                rows[i].variable));
    }
    return LK_OK;
}

static lk_status build(lk_generator *self, generate_pass *pass, lk_graph *graph) {
    lk_forward forward = {.model = self->model,
                          .adapter = self->adapter,
                          .graph = graph,
                          .input_ids = lk_graph_variable(graph, pass->input_ids),
                          .positions = lk_graph_variable(graph, pass->positions),
                          .cu_seqlens = lk_graph_variable(graph, pass->cu_seqlens),
                          .cu_seqlens_k = lk_graph_variable(graph, self->cu_seqlens_k),
                          .seqlens_k = lk_graph_variable(graph, self->seqlens_k),
                          .slots = lk_graph_variable(graph, pass->slots),
                          .key_caches = self->key_caches,
                          .value_caches = self->value_caches};
    lk_tensor *hidden = self->model->family->forward(&forward);
    /* the logits of one row only: a look-up, as in an embedding */
    lk_tensor *last = lk_build_embedding(graph, lk_graph_variable(graph, pass->row), hidden);
    pass->logits = lk_forward_logits(&forward, last);
    lk_graph_mark_output(graph, pass->logits);
    return lk_graph_status(graph);
}

static lk_status compile(lk_generator *self, generate_pass *pass, const char *prefix) {
    LK_TRY(add_inputs(self, pass, prefix));
    lk_graph *graph;
    LK_TRY(lk_graph_create(self->context, &graph));
    lk_status status = build(self, pass, graph);
    if (status != LK_OK) {
        lk_graph_destroy(graph);
        return status;
    }
    return lk_session_compile(self->model->session, graph, false, &pass->program);
}

static lk_status prepare(lk_generator *self) {
    size_t vocab_size = (size_t)self->model->config->vocab_size;
    self->staging = lk_calloc(self->context, 3 * (size_t)PIECE, sizeof *self->staging);
    self->values = lk_calloc(self->context, vocab_size, sizeof *self->values);
    self->items = lk_calloc(self->context, vocab_size, sizeof *self->items);
    if (!self->staging || !self->values || !self->items) {
        return lk_out_of_memory(self->context, vocab_size * sizeof *self->items, "the logits");
    }
    LK_TRY(lk_variables_create(self->context, lk_session_main_device(self->model->session), &self->variables));
    LK_TRY(add_caches(self));
    self->prompt.tokens = LK_MIN((int64_t)PIECE, self->max_tokens);
    self->next.tokens = 1;
    LK_TRY(compile(self, &self->prompt, "prompt"));
    return compile(self, &self->next, "next");
}

lk_status lk_generator_create(lk_model *model, lk_adapter *adapter, int64_t max_tokens, lk_generator **out) {
    *out = NULL;
    if (model->task != LK_TASK_CAUSAL_LM) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "a model that classifies does not continue texts");
    }
    if (max_tokens < 2 || max_tokens > model->max_length) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT,
                       "prompt and continuation may have 2 to %lld tokens (max_position_embeddings), not %lld",
                       (long long)model->max_length, (long long)max_tokens);
    }
    lk_generator *self = lk_calloc(model->context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(model->context, sizeof *self, "a generator");
    }
    *self = (lk_generator){.context = model->context, .model = model, .adapter = adapter, .max_tokens = max_tokens};
    lk_status status = prepare(self);
    if (status != LK_OK) {
        lk_generator_destroy(self);
        return status;
    }
    *out = self;
    return LK_OK;
}

void lk_generator_destroy(lk_generator *self) {
    if (self != NULL) {
        lk_program_destroy(self->prompt.program);
        lk_program_destroy(self->next.program);
        lk_variables_destroy(self->variables);
        lk_free(self->context, self->key_caches);
        lk_free(self->context, self->value_caches);
        lk_free(self->context, self->staging);
        lk_free(self->context, self->values);
        lk_free(self->context, self->items);
        lk_free(self->context, self);
    }
}

/* ---- running ---- */

/* Puts ids[0..count) at the places after the `past` tokens in the cache; leaves the last one's logits in self->values.
 */
static lk_status forward_piece(lk_generator *self, generate_pass *pass, const int32_t *ids, int32_t count,
                               int32_t past) {
    int32_t *padded = self->staging, *positions = padded + pass->tokens, *slots = positions + pass->tokens;
    for (int32_t i = 0; i < (int32_t)pass->tokens; i++) {
        bool real = i < count;
        padded[i] = real ? ids[i] : 0;
        positions[i] = real ? past + i : 0;
        slots[i] = real ? past + i : -1;
    }
    const int32_t cu_seqlens[] = {0, count}, keys = past + count, row = count - 1;
    LK_TRY(lk_variable_upload(pass->input_ids, padded));
    LK_TRY(lk_variable_upload(pass->positions, positions));
    LK_TRY(lk_variable_upload(pass->slots, slots));
    LK_TRY(lk_variable_upload(pass->cu_seqlens, cu_seqlens));
    LK_TRY(lk_variable_upload(pass->row, &row));
    LK_TRY(lk_variable_upload(self->seqlens_k, &keys));
    LK_TRY(lk_program_run(pass->program));
    return lk_program_read(pass->program, pass->logits, self->values,
                           (size_t)self->model->config->vocab_size * sizeof *self->values);
}

static lk_status encode_prompt(lk_generator *self, const char *prompt, const lk_generate_options *options,
                               lk_ids *ids) {
    lk_tokenizer *tokenizer = self->model->tokenizer;
    if (!options->chat) {
        return lk_tokenizer_encode(tokenizer, prompt, strlen(prompt), LK_ENCODE_DEFAULT, ids);
    }
    const lk_chat_template *chat_template;
    LK_TRY(lk_chat_template_find(self->context, lk_tokenizer_chat_template(tokenizer), &chat_template));
    const lk_chat_message messages[] = {{"system", options->system}, {"user", prompt}};
    bool system = options->system != NULL;
    const char *bos = lk_tokenizer_id_to_token(tokenizer, lk_tokenizer_bos_id(tokenizer));
    const char *eos = lk_tokenizer_id_to_token(tokenizer, lk_tokenizer_eos_id(tokenizer));
    lk_chat_text text = {0};
    lk_status status = lk_chat_render(self->context, chat_template, bos ? bos : "", eos ? eos : "",
                                      system ? messages : messages + 1, system ? 2 : 1, true, &text);
    if (status == LK_OK) {
        status = lk_tokenizer_encode(tokenizer, text.text.data, text.text.length, LK_ENCODE_PARSE_SPECIAL, ids);
    }
    lk_chat_text_free(self->context, &text);
    return status;
}

static bool is_end(const lk_generator *self, int32_t id) {
    const lk_model_config *config = self->model->config;
    for (int i = 0; i < config->eos_count; i++) {
        if (config->eos_token_id[i] == id) {
            return true;
        }
    }
    return id == lk_tokenizer_eos_id(self->model->tokenizer);
}

static lk_status emit(lk_text *piece, lk_text_function text, void *user, bool *go_on) {
    LK_TRY(lk_text_status(piece));
    *go_on = piece->length == 0 || text == NULL || text(user, piece->data, piece->length);
    piece->length = 0;
    return LK_OK;
}

static lk_status read_prompt(lk_generator *self, const lk_ids *ids) {
    for (size_t done = 0; done < ids->count;) {
        size_t count = LK_MIN((size_t)self->prompt.tokens, ids->count - done);
        LK_TRY(forward_piece(self, &self->prompt, ids->data + done, (int32_t)count, (int32_t)done));
        done += count;
    }
    return LK_OK;
}

static lk_status continue_text(lk_generator *self, const lk_ids *ids, const lk_generate_options *options,
                               lk_decode_stream *stream, lk_text *piece, lk_text_function text, void *user,
                               lk_generate_report *report) {
    const lk_sampler sampler = {options->temperature, options->top_k, options->top_p, options->seed};
    int64_t limit = LK_MIN(options->max_new_tokens, self->max_tokens - (int64_t)ids->count);
    bool go_on = true;
    while (go_on && report->new_tokens < limit) {
        int32_t id = lk_sample_token(&sampler, self->values, self->model->config->vocab_size,
                                     (uint64_t)report->new_tokens, self->items);
        report->stopped = is_end(self, id);
        if (report->stopped) {
            break;
        }
        if (id < lk_tokenizer_vocab_size(self->model->tokenizer)) { /* a padded vocabulary has ids without a text */
            LK_TRY(lk_decode_stream_push(stream, id, piece));
        }
        LK_TRY(emit(piece, text, user, &go_on));
        int32_t past = (int32_t)((int64_t)ids->count + report->new_tokens);
        if (++report->new_tokens < limit && go_on) {
            LK_TRY(forward_piece(self, &self->next, &id, 1, past));
        }
    }
    LK_TRY(lk_decode_stream_finish(stream, piece));
    return emit(piece, text, user, &go_on);
}

static lk_status check_options(lk_context *context, const lk_generate_options *options) {
    if (options->max_new_tokens < 1 || !(options->temperature >= 0.0) || options->top_k < 0 ||
        !(options->top_p > 0.0 && options->top_p <= 1.0)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "max_new_tokens is %lld, temperature %g, top_k %lld, top_p %g: expected at least 1, 0, 0, and "
                       "more than 0 to 1",
                       (long long)options->max_new_tokens, options->temperature, (long long)options->top_k,
                       options->top_p);
    }
    return LK_OK;
}

lk_status lk_generator_run(lk_generator *self, const char *prompt, const lk_generate_options *given,
                           lk_text_function text, void *user, lk_generate_report *report) {
    *report = (lk_generate_report){0};
    lk_generate_options options;
    lk_generate_options_init(&options);
    if (given != NULL) {
        memcpy(&options, given, LK_MIN(given->struct_size, sizeof options));
    }
    LK_TRY(check_options(self->context, &options));
    if (self->model->tokenizer == NULL) {
        return lk_fail(self->context, LK_STATUS_INVALID_ARGUMENT, "%s has no tokenizer",
                       lk_pretrained_path(self->model->pretrained));
    }
    lk_ids ids;
    lk_ids_init(&ids, self->context);
    lk_decode_stream stream;
    lk_decode_stream_init(&stream, self->model->tokenizer, true);
    lk_text piece;
    lk_text_init(&piece, self->context);
    lk_status status = encode_prompt(self, prompt, &options, &ids);
    if (status == LK_OK && (ids.count == 0 || (int64_t)ids.count >= self->max_tokens)) {
        status = lk_fail(self->context, LK_STATUS_INVALID_ARGUMENT, "the prompt has %zu tokens, expected 1 to %lld",
                         ids.count, (long long)self->max_tokens - 1);
    }
    double start = lk_seconds();
    if (status == LK_OK) {
        report->prompt_tokens = (int64_t)ids.count;
        status = read_prompt(self, &ids);
    }
    double middle = lk_seconds();
    report->prompt_seconds = middle - start;
    if (status == LK_OK) {
        status = continue_text(self, &ids, &options, &stream, &piece, text, user, report);
    }
    report->new_seconds = lk_seconds() - middle;
    lk_text_free(&piece);
    lk_decode_stream_free(&stream);
    lk_ids_free(&ids);
    return status;
}
