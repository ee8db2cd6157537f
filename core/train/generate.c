/* Continuing texts, as many at a time as the decoder has sequences. */
#include <string.h>

#include "core/text/chat.h"
#include "core/train/generator.h"
#include "core/train/stop_text.h"

void lk_generate_options_init(lk_generate_options *options) {
    *options = (lk_generate_options){.struct_size = sizeof *options,
                                     .max_new_tokens = 128,
                                     .top_p = 1.0,
                                     .repetition_penalty = 1.0,
                                     .num_beams = 1,
                                     .length_penalty = 1.0};
}

lk_status lk_generator_create_batch(lk_model *model, lk_adapter *adapter, int64_t max_tokens, int64_t max_sequences,
                                    lk_generator **out) {
    *out = NULL;
    lk_generator *self = lk_calloc(model->context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(model->context, sizeof *self, "a generator");
    }
    size_t vocab_size = (size_t)model->config->vocab_size;
    lk_status status = lk_decoder_open(&self->decoder, model, adapter, max_tokens, max_sequences);
    if (status == LK_OK) {
        self->scores = lk_calloc(model->context, vocab_size, sizeof *self->scores);
        self->seen = lk_calloc(model->context, vocab_size, sizeof *self->seen);
        self->items = lk_calloc(model->context, vocab_size, sizeof *self->items);
        status = self->scores && self->seen && self->items
                     ? LK_OK
                     : lk_out_of_memory(model->context, vocab_size * sizeof *self->items, "the logits");
    }
    if (status != LK_OK) {
        lk_generator_destroy(self);
        return status;
    }
    *out = self;
    return LK_OK;
}

lk_status lk_generator_create(lk_model *model, lk_adapter *adapter, int64_t max_tokens, lk_generator **out) {
    return lk_generator_create_batch(model, adapter, max_tokens, 1, out);
}

void lk_generator_destroy(lk_generator *self) {
    if (self != NULL) {
        lk_context *context = self->decoder.context;
        lk_free(context, self->scores);
        lk_free(context, self->seen);
        lk_free(context, self->items);
        lk_decoder_close(&self->decoder);
        lk_free(context, self);
    }
}

/* ---- prompts and tokens ---- */

static lk_status encode_prompt(lk_generator *self, const char *prompt, const lk_generate_options *options,
                               lk_ids *ids) {
    lk_context *context = self->decoder.context;
    lk_tokenizer *tokenizer = self->decoder.model->tokenizer;
    if (!options->chat) {
        return lk_tokenizer_encode(tokenizer, prompt, strlen(prompt), LK_ENCODE_DEFAULT, ids);
    }
    const lk_chat_template *chat_template;
    LK_TRY(lk_chat_template_find(context, lk_tokenizer_chat_template(tokenizer), &chat_template));
    const lk_chat_message messages[] = {{"system", options->system}, {"user", prompt}};
    bool system = options->system != NULL;
    const char *bos = lk_tokenizer_id_to_token(tokenizer, lk_tokenizer_bos_id(tokenizer));
    const char *eos = lk_tokenizer_id_to_token(tokenizer, lk_tokenizer_eos_id(tokenizer));
    lk_chat_text text = {0};
    lk_status status = lk_chat_render(context, chat_template, bos ? bos : "", eos ? eos : "",
                                      system ? messages : messages + 1, system ? 2 : 1, true, &text);
    if (status == LK_OK) {
        status = lk_tokenizer_encode(tokenizer, text.text.data, text.text.length, LK_ENCODE_PARSE_SPECIAL, ids);
    }
    lk_chat_text_free(context, &text);
    return status;
}

bool lk_generator_is_end(const lk_generator *self, int32_t id) {
    const lk_model_config *config = self->decoder.model->config;
    for (int i = 0; i < config->eos_count; i++) {
        if (config->eos_token_id[i] == id) {
            return true;
        }
    }
    return id == lk_tokenizer_eos_id(self->decoder.model->tokenizer);
}

/* ---- one text ---- */

typedef struct text_receiver {
    lk_batch_text_function text;
    void *user;
} text_receiver;

typedef struct generation {
    bool active;
    size_t index; /* of the prompt */
    lk_ids ids;   /* prompt and continuation */
    int64_t limit;
    lk_decode_stream stream;
    lk_stop_text stop;
    lk_text piece;
    double started; /* when the first new token was chosen */
    lk_generate_report *report;
} generation;

static void generation_init(generation *one, lk_generator *self, const lk_generate_options *options) {
    *one = (generation){0};
    lk_ids_init(&one->ids, self->decoder.context);
    lk_decode_stream_init(&one->stream, self->decoder.model->tokenizer, true);
    lk_stop_text_init(&one->stop, self->decoder.context, options->stop);
    lk_text_init(&one->piece, self->decoder.context);
}

static void generation_free(generation *one) {
    lk_text_free(&one->piece);
    lk_stop_text_free(&one->stop);
    lk_decode_stream_free(&one->stream);
    lk_ids_free(&one->ids);
}

/* Hands on what may be given out of one->piece. */
static lk_status emit(generation *one, const text_receiver *receiver, bool last, bool *go_on) {
    LK_TRY(lk_stop_text_pass(&one->stop, &one->piece, last));
    lk_text *piece = &one->piece;
    bool wanted = piece->length == 0 || receiver->text == NULL ||
                  receiver->text(receiver->user, one->index, piece->data, piece->length);
    *go_on = wanted && !one->stop.stopped;
    one->report->stopped = one->report->stopped || one->stop.stopped;
    piece->length = 0;
    return LK_OK;
}

static lk_status finish(generation *one, const text_receiver *receiver) {
    bool ignored;
    one->active = false;
    one->report->new_seconds = lk_seconds() - one->started;
    LK_TRY(lk_decode_stream_finish(&one->stream, &one->piece));
    return emit(one, receiver, true, &ignored);
}

/* Takes a new token, unless it is an end; ends the text where it ends. */
static lk_status accept(lk_generator *self, generation *one, const text_receiver *receiver, int32_t id) {
    bool go_on = true;
    one->report->stopped = lk_generator_is_end(self, id);
    if (one->report->stopped) {
        return finish(one, receiver);
    }
    LK_TRY(lk_ids_push(&one->ids, id));
    one->report->new_tokens++;
    if (id < lk_tokenizer_vocab_size(self->decoder.model->tokenizer)) { /* a padded vocabulary has ids without a text */
        LK_TRY(lk_decode_stream_push(&one->stream, id, &one->piece));
    }
    LK_TRY(emit(one, receiver, false, &go_on));
    return go_on && one->report->new_tokens < one->limit ? LK_OK : finish(one, receiver);
}

/* The next token by a row of logits. */
static lk_status choose(lk_generator *self, const generation *one, const lk_generate_options *options,
                        const float *logits, int32_t *id) {
    int64_t vocab_size = self->decoder.model->config->vocab_size;
    const lk_logits_rules rules = {options->repetition_penalty, options->no_repeat_ngram_size};
    const lk_sampler sampler = {options->temperature, options->top_k, options->top_p, options->seed + one->index};
    memcpy(self->scores, logits, (size_t)vocab_size * sizeof *self->scores);
    lk_logits_apply(&rules, one->ids.data, one->ids.count, self->scores, vocab_size, self->seen);
    LK_TRY(lk_logits_check(self->decoder.context, self->scores, vocab_size));
    *id = lk_sample_token(&sampler, self->scores, vocab_size, (uint64_t)one->report->new_tokens, self->items);
    return LK_OK;
}

static lk_status begin(lk_generator *self, generation *one, const char *prompt, const lk_generate_options *options) {
    LK_TRY(encode_prompt(self, prompt, options, &one->ids));
    int64_t max_tokens = self->decoder.max_tokens, count = (int64_t)one->ids.count;
    if (count == 0 || count >= max_tokens) {
        return lk_fail(self->decoder.context, LK_STATUS_INVALID_ARGUMENT,
                       "the prompt has %lld tokens, expected 1 to %lld", (long long)count, (long long)max_tokens - 1);
    }
    for (int64_t i = 0; i < count; i++) {
        if (one->ids.data[i] >= self->decoder.model->config->vocab_size) {
            return lk_fail(self->decoder.context, LK_STATUS_FORMAT,
                           "the tokenizer gives the id %d, but the model has %lld tokens", one->ids.data[i],
                           (long long)self->decoder.model->config->vocab_size);
        }
    }
    if (!options->chat) { /* a continuation begins with the space that it has behind the prompt */
        one->stream.previous = one->ids.data[count - 1];
    }
    one->report->prompt_tokens = count;
    one->limit = LK_MIN(options->max_new_tokens, max_tokens - count);
    one->active = true;
    return LK_OK;
}

/* ---- many texts ---- */

typedef struct batch_run {
    lk_generator *self;
    const char *const *prompts;
    size_t count, next; /* next: the first prompt that has not begun */
    const lk_generate_options *options;
    text_receiver receiver;
    lk_generate_report *reports;
    generation *slots;
    size_t num_slots;
    int32_t *ids, *past; /* of the next step */
} batch_run;

static lk_status start_next(batch_run *run, size_t slot) {
    lk_generator *self = run->self;
    generation *one = &run->slots[slot];
    generation_free(one);
    generation_init(one, self, run->options);
    one->index = run->next++;
    one->report = &run->reports[one->index];
    LK_TRY(begin(self, one, run->prompts[one->index], run->options));
    self->decoder.parts[slot] = run->options->adapters != NULL ? run->options->adapters[one->index] : 0;
    double start = lk_seconds();
    LK_TRY(lk_decoder_read(&self->decoder, (int64_t)slot, one->ids.data, (int64_t)one->ids.count));
    one->started = lk_seconds();
    one->report->prompt_seconds = one->started - start;
    int32_t id;
    const float *logits = self->decoder.logits + (int64_t)slot * self->decoder.model->config->vocab_size;
    LK_TRY(choose(self, one, run->options, logits, &id));
    return accept(self, one, &run->receiver, id);
}

/* Each active text's last token goes in, and its next one comes out. */
static lk_status step(batch_run *run) {
    lk_generator *self = run->self;
    for (size_t i = 0; i < run->num_slots; i++) {
        const generation *one = &run->slots[i];
        run->ids[i] = one->active ? one->ids.data[one->ids.count - 1] : -1;
        run->past[i] = one->active ? (int32_t)one->ids.count - 1 : 0;
    }
    LK_TRY(lk_decoder_step(&self->decoder, run->ids, run->past));
    for (size_t i = 0; i < run->num_slots; i++) {
        generation *one = &run->slots[i];
        int32_t id;
        if (one->active) {
            const float *logits = self->decoder.logits + (int64_t)i * self->decoder.model->config->vocab_size;
            LK_TRY(choose(self, one, run->options, logits, &id));
            LK_TRY(accept(self, one, &run->receiver, id));
        }
    }
    return LK_OK;
}

static lk_status run_slots(batch_run *run) {
    for (;;) {
        bool any = false;
        for (size_t i = 0; i < run->num_slots; i++) {
            while (!run->slots[i].active && run->next < run->count) { /* one may end with its first token */
                LK_TRY(start_next(run, i));
            }
            any = any || run->slots[i].active;
        }
        if (!any) {
            return LK_OK;
        }
        LK_TRY(step(run));
    }
}

/* With beams all sequences are one prompt's. */
static lk_status run_beams(batch_run *run) {
    lk_generator *self = run->self;
    for (; run->next < run->count; run->next++) {
        generation *one = &run->slots[0];
        generation_free(one);
        generation_init(one, self, run->options);
        one->index = run->next;
        one->report = &run->reports[run->next];
        LK_TRY(begin(self, one, run->prompts[run->next], run->options));
        for (size_t i = 0; i < run->num_slots; i++) {
            self->decoder.parts[i] = run->options->adapters != NULL ? run->options->adapters[run->next] : 0;
        }
        lk_ids found;
        lk_ids_init(&found, self->decoder.context);
        one->started = lk_seconds();
        lk_status status = lk_generator_search(self, &one->ids, run->options, one->limit, &found);
        for (size_t i = 0; i < found.count && status == LK_OK && one->active; i++) {
            status = accept(self, one, &run->receiver, found.data[i]);
        }
        if (status == LK_OK && one->active) {
            status = finish(one, &run->receiver);
        }
        lk_ids_free(&found);
        LK_TRY(status);
    }
    return LK_OK;
}

static lk_status check_options(const lk_generator *self, const lk_generate_options *options) {
    lk_context *context = self->decoder.context;
    if (options->max_new_tokens < 1 || !(options->temperature >= 0.0) || options->top_k < 0 ||
        !(options->top_p > 0.0 && options->top_p <= 1.0)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "max_new_tokens is %lld, temperature %g, top_k %lld, top_p %g: expected at least 1, 0, 0, and "
                       "more than 0 to 1",
                       (long long)options->max_new_tokens, options->temperature, (long long)options->top_k,
                       options->top_p);
    }
    if (!(options->repetition_penalty > 0.0) || options->no_repeat_ngram_size < 0) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "repetition_penalty is %g and no_repeat_ngram_size %lld: expected more than 0, and at least 0",
                       options->repetition_penalty, (long long)options->no_repeat_ngram_size);
    }
    if (options->num_beams < 1 || options->num_beams > self->decoder.sequences) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "num_beams is %lld, expected 1 to %lld, the generator's max_sequences",
                       (long long)options->num_beams, (long long)self->decoder.sequences);
    }
    if (options->num_beams > 1 && options->temperature > 0.0) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "temperature is %g with %lld beams: beams do not sample, expected 0", options->temperature,
                       (long long)options->num_beams);
    }
    if (self->decoder.model->tokenizer == NULL) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s has no tokenizer",
                       lk_pretrained_path(self->decoder.model->pretrained));
    }
    return LK_OK;
}

static lk_status check_adapters(const lk_generator *self, const lk_generate_options *options, size_t count) {
    lk_context *context = self->decoder.context;
    const lk_adapter *adapter = self->decoder.adapter;
    if (options->adapters == NULL) {
        return LK_OK;
    }
    if (!lk_adapter_is_mixed(adapter)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "adapters for each prompt need a mixed adapter");
    }
    for (size_t i = 0; i < count; i++) {
        if (options->adapters[i] < -1 || options->adapters[i] >= lk_adapter_num_parts(adapter)) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "prompt %zu: adapter %d, expected -1 to %d", i,
                           options->adapters[i], lk_adapter_num_parts(adapter) - 1);
        }
    }
    return LK_OK;
}

static lk_status run_all(batch_run *run) {
    lk_context *context = run->self->decoder.context;
    run->num_slots = (size_t)run->self->decoder.sequences;
    run->slots = lk_calloc(context, run->num_slots, sizeof *run->slots);
    run->ids = lk_calloc(context, run->num_slots, sizeof *run->ids);
    run->past = lk_calloc(context, run->num_slots, sizeof *run->past);
    lk_status status = run->slots && run->ids && run->past
                           ? LK_OK
                           : lk_out_of_memory(context, run->num_slots * sizeof *run->slots, "a batch of texts");
    for (size_t i = 0; i < run->num_slots && run->slots != NULL; i++) {
        generation_init(&run->slots[i], run->self, run->options);
    }
    if (status == LK_OK) {
        status = run->options->num_beams > 1 ? run_beams(run) : run_slots(run);
    }
    for (size_t i = 0; i < run->num_slots && run->slots != NULL; i++) {
        generation_free(&run->slots[i]);
    }
    lk_free(context, run->slots);
    lk_free(context, run->ids);
    lk_free(context, run->past);
    return status;
}

lk_status lk_generator_run_batch(lk_generator *self, const char *const *prompts, size_t count,
                                 const lk_generate_options *given, lk_batch_text_function text, void *user,
                                 lk_generate_report *reports) {
    for (size_t i = 0; i < count; i++) {
        reports[i] = (lk_generate_report){0};
    }
    lk_generate_options options;
    lk_generate_options_init(&options);
    if (given != NULL) {
        memcpy(&options, given, LK_MIN(given->struct_size, sizeof options));
    }
    LK_TRY(check_options(self, &options));
    LK_TRY(check_adapters(self, &options, count));
    batch_run run = {.self = self,
                     .prompts = prompts,
                     .count = count,
                     .options = &options,
                     .receiver = {text, user},
                     .reports = reports};
    return run_all(&run);
}

typedef struct single_text {
    lk_text_function text;
    void *user;
} single_text;

static bool pass_on(void *user, size_t index, const char *text, size_t length) {
    const single_text *single = user;
    (void)index;
    return single->text == NULL || single->text(single->user, text, length);
}

lk_status lk_generator_run(lk_generator *self, const char *prompt, const lk_generate_options *options,
                           lk_text_function text, void *user, lk_generate_report *report) {
    single_text single = {text, user};
    return lk_generator_run_batch(self, &prompt, 1, options, pass_on, &single, report);
}
