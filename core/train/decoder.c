/* The prompt goes through in pieces of up to PIECE tokens, one sequence at a time; then each new token of all sequences
 * through a program of its own. A sequence has max_tokens places in the caches, at sequence * max_tokens. */
#include "core/train/decoder.h"

#include <stdio.h>
#include <string.h>

enum { PIECE = 64 };

/* ---- building ---- */

static lk_status add_caches(lk_decoder *self) {
    int64_t layers = self->model->config->num_hidden_layers;
    int64_t shape[] = {self->sequences * self->max_tokens, self->model->family->cache_width(self->model->config)};
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
    return LK_OK;
}

static lk_status add_input(lk_decoder *self, const char *name, int64_t extent, lk_variable **out) {
    return lk_variables_add(self->variables, name, LK_ROLE_INPUT, "inputs", LK_DTYPE_I32, 1, &extent, out);
}

static lk_status add_inputs(lk_decoder *self, lk_decoder_pass *pass, const char *prefix, bool one_row) {
    const struct {
        const char *name;
        int64_t extent;
        lk_variable **variable;
    } rows[] = {{"input_ids", pass->tokens, &pass->input_ids},
                {"positions", pass->tokens, &pass->positions},
                {"slots", pass->tokens, &pass->slots},
                {"cu_seqlens", pass->sequences + 1, &pass->cu_seqlens},
                {"cu_seqlens_k", pass->sequences + 1, &pass->cu_seqlens_k},
                {"seqlens_k", pass->sequences, &pass->seqlens_k},
                {"row", one_row, &pass->row},
                {"adapter_rows", lk_adapter_is_mixed(self->adapter) ? pass->tokens : 0, &pass->adapter_rows}};
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        char name[64];
        snprintf(name, sizeof name, "input.%s.%s", prefix, rows[i].name);
        if (rows[i].extent > 0) {
            LK_TRY(add_input(self, name, rows[i].extent, rows[i].variable));
        }
    }
    return LK_OK;
}

static lk_status build(lk_decoder *self, lk_decoder_pass *pass, lk_graph *graph) {
    lk_forward forward = {.model = self->model,
                          .adapter = self->adapter,
                          .graph = graph,
                          .input_ids = lk_graph_variable(graph, pass->input_ids),
                          .positions = lk_graph_variable(graph, pass->positions),
                          .cu_seqlens = lk_graph_variable(graph, pass->cu_seqlens),
                          .cu_seqlens_k = lk_graph_variable(graph, pass->cu_seqlens_k),
                          .seqlens_k = lk_graph_variable(graph, pass->seqlens_k),
                          .slots = lk_graph_variable(graph, pass->slots),
                          .key_caches = self->key_caches,
                          .value_caches = self->value_caches,
                          .adapter_rows = lk_graph_variable(graph, pass->adapter_rows)};
    lk_tensor *hidden = self->model->family->forward(&forward);
    if (pass->row != NULL) { /* the logits of one row only: a look-up, as in an embedding */
        hidden = lk_build_embedding(graph, lk_graph_variable(graph, pass->row), hidden);
    }
    pass->logits = lk_forward_logits(&forward, hidden);
    lk_graph_mark_output(graph, pass->logits);
    return lk_graph_status(graph);
}

static lk_status compile(lk_decoder *self, lk_decoder_pass *pass, const char *prefix, bool one_row) {
    LK_TRY(add_inputs(self, pass, prefix, one_row));
    lk_graph *graph;
    LK_TRY(lk_graph_create(self->context, &graph));
    lk_status status = build(self, pass, graph);
    if (status != LK_OK) {
        lk_graph_destroy(graph);
        return status;
    }
    return lk_session_compile(self->model->session, graph, false, &pass->program);
}

static lk_status prepare(lk_decoder *self) {
    size_t vocab_size = (size_t)self->model->config->vocab_size, places, logits;
    size_t sequences = (size_t)self->sequences;
    bool fits = lk_mul_size(sequences, (size_t)self->max_tokens, &places) && places <= INT32_MAX &&
                lk_mul_size(sequences, vocab_size, &logits);
    if (!fits) {
        return lk_fail(self->context, LK_STATUS_INVALID_ARGUMENT, "%lld sequences of %lld tokens are too many",
                       (long long)self->sequences, (long long)self->max_tokens);
    }
    size_t staging = LK_MAX(3 * LK_MAX((size_t)PIECE, sequences) + 2 * (sequences + 1), places);
    self->staging = lk_calloc(self->context, staging, sizeof *self->staging);
    self->logits = lk_calloc(self->context, logits, sizeof *self->logits);
    self->parts = lk_calloc(self->context, sequences, sizeof *self->parts);
    if (!self->staging || !self->logits || !self->parts) {
        return lk_out_of_memory(self->context, logits * sizeof *self->logits, "the logits");
    }
    LK_TRY(lk_variables_create(self->context, lk_session_main_device(self->model->session), &self->variables));
    LK_TRY(add_caches(self));
    self->prompt.tokens = LK_MIN((int64_t)PIECE, self->max_tokens);
    self->prompt.sequences = 1;
    self->next.tokens = self->next.sequences = self->sequences;
    LK_TRY(compile(self, &self->prompt, "prompt", true));
    LK_TRY(compile(self, &self->next, "next", false));
    /* each new token is a sequence of its own, whose keys begin where they always do */
    for (int32_t i = 0; i <= (int32_t)self->sequences; i++) {
        self->staging[i] = i;
    }
    LK_TRY(lk_variable_upload(self->next.cu_seqlens, self->staging));
    for (int32_t i = 0; i <= (int32_t)self->sequences; i++) {
        self->staging[i] = i * (int32_t)self->max_tokens;
    }
    return lk_variable_upload(self->next.cu_seqlens_k, self->staging);
}

lk_status lk_decoder_open(lk_decoder *self, lk_model *model, lk_adapter *adapter, int64_t max_tokens,
                          int64_t sequences) {
    *self = (lk_decoder){.context = model->context,
                         .model = model,
                         .adapter = adapter,
                         .max_tokens = max_tokens,
                         .sequences = sequences};
    if (model->task != LK_TASK_CAUSAL_LM) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "a model that classifies does not continue texts");
    }
    if (max_tokens < 2 || max_tokens > model->max_length) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT,
                       "prompt and continuation may have 2 to %lld tokens (max_position_embeddings), not %lld",
                       (long long)model->max_length, (long long)max_tokens);
    }
    if (sequences < 1 || sequences > 1 << 16) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "max_sequences is %lld, expected 1 to %d",
                       (long long)sequences, 1 << 16);
    }
    return prepare(self);
}

void lk_decoder_close(lk_decoder *self) {
    lk_program_destroy(self->prompt.program);
    lk_program_destroy(self->next.program);
    lk_program_destroy(self->move);
    lk_variables_destroy(self->variables);
    lk_free(self->context, self->key_caches);
    lk_free(self->context, self->value_caches);
    lk_free(self->context, self->staging);
    lk_free(self->context, self->parts);
    lk_free(self->context, self->logits);
    *self = (lk_decoder){0};
}

/* ---- running ---- */

/* The number of a sequence's part, or that which stands for the base. */
static int32_t part_of(const lk_decoder *self, int64_t sequence) {
    return self->parts[sequence] >= 0 ? self->parts[sequence] : lk_adapter_num_parts(self->adapter);
}

static size_t row_bytes(const lk_decoder *self) {
    return (size_t)self->model->config->vocab_size * sizeof *self->logits;
}

/* Puts ids[0..count) behind the `past` tokens of a sequence; leaves the last one's logits in its row. */
static lk_status read_piece(lk_decoder *self, int64_t sequence, const int32_t *ids, int32_t count, int32_t past) {
    lk_decoder_pass *pass = &self->prompt;
    int32_t *padded = self->staging, *positions = padded + pass->tokens, *slots = positions + pass->tokens;
    int32_t place = (int32_t)(sequence * self->max_tokens);
    for (int32_t i = 0; i < (int32_t)pass->tokens; i++) {
        bool real = i < count;
        padded[i] = real ? ids[i] : 0;
        positions[i] = real ? past + i : 0;
        slots[i] = real ? place + past + i : -1;
    }
    const int32_t cu_seqlens[] = {0, count}, keys = past + count, row = count - 1;
    const int32_t cu_seqlens_k[] = {place, place + (int32_t)self->max_tokens};
    LK_TRY(lk_variable_upload(pass->input_ids, padded));
    LK_TRY(lk_variable_upload(pass->positions, positions));
    LK_TRY(lk_variable_upload(pass->slots, slots));
    LK_TRY(lk_variable_upload(pass->cu_seqlens, cu_seqlens));
    LK_TRY(lk_variable_upload(pass->cu_seqlens_k, cu_seqlens_k));
    LK_TRY(lk_variable_upload(pass->seqlens_k, &keys));
    LK_TRY(lk_variable_upload(pass->row, &row));
    for (int32_t i = 0; pass->adapter_rows != NULL && i < (int32_t)pass->tokens; i++) {
        self->staging[i] = part_of(self, sequence);
    }
    if (pass->adapter_rows != NULL) {
        LK_TRY(lk_variable_upload(pass->adapter_rows, self->staging));
    }
    LK_TRY(lk_program_run(pass->program));
    float *logits = self->logits + sequence * self->model->config->vocab_size;
    return lk_program_read(pass->program, pass->logits, logits, row_bytes(self));
}

lk_status lk_decoder_read(lk_decoder *self, int64_t sequence, const int32_t *ids, int64_t count) {
    for (int64_t done = 0; done < count;) {
        int64_t piece = LK_MIN(self->prompt.tokens, count - done);
        LK_TRY(read_piece(self, sequence, ids + done, (int32_t)piece, (int32_t)done));
        done += piece;
    }
    return LK_OK;
}

lk_status lk_decoder_step(lk_decoder *self, const int32_t *ids, const int32_t *past) {
    lk_decoder_pass *pass = &self->next;
    int32_t sequences = (int32_t)self->sequences;
    int32_t *given = self->staging, *positions = given + sequences, *slots = positions + sequences;
    int32_t *keys = slots + sequences;
    for (int32_t i = 0; i < sequences; i++) {
        bool real = ids[i] >= 0;
        given[i] = real ? ids[i] : 0;
        positions[i] = real ? past[i] : 0;
        slots[i] = real ? i * (int32_t)self->max_tokens + past[i] : -1;
        keys[i] = real ? past[i] + 1 : 0; /* it sees nothing, and nobody reads its logits */
    }
    LK_TRY(lk_variable_upload(pass->input_ids, given));
    LK_TRY(lk_variable_upload(pass->positions, positions));
    LK_TRY(lk_variable_upload(pass->slots, slots));
    LK_TRY(lk_variable_upload(pass->seqlens_k, keys));
    for (int32_t i = 0; pass->adapter_rows != NULL && i < sequences; i++) {
        self->staging[i] = part_of(self, i);
    }
    if (pass->adapter_rows != NULL) {
        LK_TRY(lk_variable_upload(pass->adapter_rows, self->staging));
    }
    LK_TRY(lk_program_run(pass->program));
    return lk_program_read(pass->program, pass->logits, self->logits, (size_t)sequences * row_bytes(self));
}

/* ---- beams ---- */

/* Rows are read as by an embedding before they are written: all of a cache's rows move at once. */
static lk_status compile_move(lk_decoder *self) {
    int64_t places = self->sequences * self->max_tokens;
    lk_graph *graph;
    LK_TRY(add_input(self, "input.moved_from", places, &self->moved_from));
    LK_TRY(add_input(self, "input.moved_to", places, &self->moved_to));
    LK_TRY(lk_graph_create(self->context, &graph));
    for (int64_t i = 0; i < self->model->config->num_hidden_layers; i++) {
        lk_variable *const caches[] = {self->key_caches[i], self->value_caches[i]};
        for (size_t c = 0; c < LK_COUNT(caches); c++) {
            lk_tensor *cache = lk_graph_variable(graph, caches[c]);
            lk_tensor *rows = lk_build_embedding(graph, lk_graph_variable(graph, self->moved_from), cache);
            lk_build_kv_cache_write(graph, cache, rows, lk_graph_variable(graph, self->moved_to));
        }
    }
    lk_status status = lk_graph_status(graph);
    if (status != LK_OK) {
        lk_graph_destroy(graph);
        return status;
    }
    return lk_session_compile(self->model->session, graph, false, &self->move);
}

lk_status lk_decoder_reorder(lk_decoder *self, const int32_t *parents, int64_t first, int64_t end) {
    int32_t *from = self->staging;
    bool any = false;
    for (int32_t i = 0; i < (int32_t)self->sequences; i++) {
        any = any || (parents[i] != i && first < end);
    }
    if (!any) {
        return LK_OK;
    }
    if (self->move == NULL) {
        LK_TRY(compile_move(self));
    }
    for (int64_t pass = 0; pass < 2; pass++) { /* where from, then where to */
        for (int64_t i = 0; i < self->sequences; i++) {
            for (int64_t t = 0; t < self->max_tokens; t++) {
                bool moves = parents[i] != i && t >= first && t < end;
                int64_t source = (moves ? parents[i] : i) * self->max_tokens + t;
                int64_t target = moves ? i * self->max_tokens + t : -1;
                from[i * self->max_tokens + t] = (int32_t)(pass == 0 ? source : target);
            }
        }
        LK_TRY(lk_variable_upload(pass == 0 ? self->moved_from : self->moved_to, from));
    }
    return lk_program_run(self->move);
}
