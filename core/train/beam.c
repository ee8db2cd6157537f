/* Beam search as in transformers 5 (GenerationMixin, num_beams > 1, do_sample=False): the same candidates, scores,
 * rules for stopping and treatment of length. Running beams are kept apart from finished ones; a finished beam's score
 * is its log-probability divided by its length to the power of length_penalty. */
#include <math.h>
#include <string.h>

#include "core/train/generator.h"

static const double none = -1.0e9; /* worse than any score: below it candidates are there only to fill a list */

typedef struct beam {
    int32_t *ids; /* [limit] new tokens */
    double score;
    bool finished;
} beam;

typedef struct candidate {
    double score;
    int32_t parent, id;
    bool ends;
} candidate;

typedef struct search {
    lk_generator *self;
    const lk_ids *prompt;
    const lk_generate_options *options;
    int64_t limit, length;             /* length: new tokens of the running beams */
    int32_t beams, keep;               /* keep: candidates of a step */
    beam *all;                         /* the memory of the three lists */
    beam *running, *finished, *others; /* others: room for the next running ones */
    candidate *candidates;
    int32_t found;
    int32_t *ids, *past, *parents; /* [sequences], in one block */
    int32_t *whole;                /* prompt and new tokens of one beam */
    int32_t *storage;              /* of all beams' ids */
    bool improvable;
} search;

/* Several end tokens may all be among the best: so many candidates leave enough that go on. */
static int32_t count_candidates(const lk_generator *self, int32_t beams) {
    const lk_model_config *config = self->decoder.model->config;
    int32_t ends = 0, tokenizer_end = lk_tokenizer_eos_id(self->decoder.model->tokenizer);
    bool listed = tokenizer_end < 0;
    for (int i = 0; i < config->eos_count; i++) {
        ends++;
        listed = listed || config->eos_token_id[i] == tokenizer_end;
    }
    ends += !listed;
    return LK_MAX(2, 1 + ends) * beams;
}

static lk_status allocate(search *at) {
    lk_context *context = at->self->decoder.context;
    size_t beams = (size_t)at->beams, sequences = (size_t)at->self->decoder.sequences, limit = (size_t)at->limit;
    at->all = at->running = lk_calloc(context, 3 * beams, sizeof *at->all);
    at->candidates = lk_calloc(context, (size_t)at->keep + 1, sizeof *at->candidates);
    at->ids = lk_calloc(context, 3 * sequences, sizeof *at->ids);
    at->whole = lk_calloc(context, at->prompt->count + limit, sizeof *at->whole);
    at->storage = lk_calloc(context, 3 * beams * limit, sizeof *at->storage);
    if (!at->running || !at->candidates || !at->ids || !at->whole || !at->storage) {
        return lk_out_of_memory(context, 3 * beams * limit * sizeof *at->storage, "beam search");
    }
    for (size_t i = 0; i < 3 * beams; i++) {
        at->running[i] = (beam){.ids = at->storage + i * limit, .score = none};
    }
    at->finished = at->running + beams;
    at->others = at->finished + beams;
    at->past = at->ids + sequences;
    at->parents = at->past + sequences;
    return LK_OK;
}

static void release(search *at) {
    lk_context *context = at->self->decoder.context;
    lk_free(context, at->all);
    lk_free(context, at->candidates);
    lk_free(context, at->ids);
    lk_free(context, at->whole);
    lk_free(context, at->storage);
}

/* Keeps the best, in order; of equals the one that came first. */
static void offer(search *at, double score, int32_t parent, int32_t id) {
    if (at->found == at->keep && !(score > at->candidates[at->keep - 1].score)) {
        return;
    }
    int32_t place = at->found < at->keep ? at->found++ : at->keep - 1;
    while (place > 0 && score > at->candidates[place - 1].score) {
        at->candidates[place] = at->candidates[place - 1];
        place--;
    }
    bool ends = lk_generator_is_end(at->self, id) || at->length + 1 >= at->limit;
    at->candidates[place] = (candidate){score, parent, id, ends};
}

/* Offers all continuations of a running beam; its logits are in row `parent`. */
static lk_status extend(search *at, int32_t parent) {
    lk_generator *self = at->self;
    const beam *from = &at->running[parent];
    int64_t vocab_size = self->decoder.model->config->vocab_size;
    const float *logits = self->decoder.logits + parent * vocab_size;
    const lk_logits_rules rules = {at->options->repetition_penalty, at->options->no_repeat_ngram_size};
    LK_TRY(lk_logits_check(self->decoder.context, logits, vocab_size));
    double largest = -INFINITY, total = 0.0;
    for (int64_t i = 0; i < vocab_size; i++) {
        largest = LK_MAX(largest, (double)logits[i]);
    }
    for (int64_t i = 0; i < vocab_size; i++) {
        total += exp((double)logits[i] - largest);
    }
    double log_total = largest + log(total);
    for (int64_t i = 0; i < vocab_size; i++) {
        self->scores[i] = (float)((double)logits[i] - log_total);
    }
    size_t count = at->prompt->count;
    memcpy(at->whole, at->prompt->data, count * sizeof *at->whole);
    memcpy(at->whole + count, from->ids, (size_t)at->length * sizeof *at->whole);
    lk_logits_apply(&rules, at->whole, count + (size_t)at->length, self->scores, vocab_size, self->seen);
    for (int64_t i = 0; i < vocab_size; i++) {
        if (isfinite(self->scores[i])) {
            offer(at, from->score + (double)self->scores[i], parent, (int32_t)i);
        }
    }
    return LK_OK;
}

static void copy(beam *to, const beam *from, int64_t length) {
    memcpy(to->ids, from->ids, (size_t)length * sizeof *to->ids);
    to->score = from->score;
    to->finished = from->finished;
}

static void swap(beam **a, beam **b) {
    beam *other = *a;
    *a = *b;
    *b = other;
}

static bool all_finished(const search *at) {
    bool all = true;
    for (int32_t i = 0; i < at->beams; i++) {
        all = all && at->finished[i].finished;
    }
    return all;
}

/* Candidates that end and are among the best take their place among the finished beams by their score. */
static void update_finished(search *at) {
    bool closed = !at->improvable || (at->options->early_stopping && all_finished(at));
    for (int32_t i = 0; i < LK_MIN(at->beams, at->found); i++) {
        const candidate *one = &at->candidates[i];
        double score = one->score / pow((double)(at->length + 1), at->options->length_penalty);
        if (!one->ends || closed || one->score <= none / 2.0) {
            continue;
        }
        int32_t place = at->beams;
        while (place > 0 && score > at->finished[place - 1].score) {
            place--;
        }
        if (place == at->beams) {
            continue;
        }
        beam last = at->finished[at->beams - 1];
        memmove(&at->finished[place + 1], &at->finished[place], (size_t)(at->beams - 1 - place) * sizeof last);
        memcpy(last.ids, at->running[one->parent].ids, (size_t)at->length * sizeof *last.ids);
        last.ids[at->length] = one->id;
        for (int64_t t = at->length + 1; t < at->limit; t++) {
            last.ids[t] = -1;
        }
        last.score = score;
        last.finished = true;
        at->finished[place] = last;
    }
}

/* The best candidates that do not end go on; where there are too few, those that end fill up, without hope. */
static void update_running(search *at) {
    int32_t next = 0;
    for (int32_t pass = 0; pass < 2; pass++) {
        for (int32_t i = 0; i < at->found && next < at->beams; i++) {
            const candidate *one = &at->candidates[i];
            if (one->ends != (pass == 1)) {
                continue;
            }
            beam *to = &at->others[next];
            copy(to, &at->running[one->parent], at->length);
            to->ids[at->length] = one->id;
            to->score = one->score + (one->ends ? none : 0.0);
            at->parents[next++] = one->parent;
        }
    }
    for (; next < at->beams; next++) { /* a very small vocabulary */
        copy(&at->others[next], &at->others[0], at->length + 1);
        at->others[next].score = 2.0 * none;
        at->parents[next] = at->parents[0];
    }
    swap(&at->running, &at->others);
}

/* Whether the best running beam could still be better than the worst finished one. */
static bool can_improve(const search *at) {
    double best = at->running[0].score / pow((double)at->length, at->options->length_penalty);
    double worst = INFINITY;
    for (int32_t i = 0; i < at->beams; i++) {
        worst = LK_MIN(worst, at->finished[i].finished ? at->finished[i].score : none);
    }
    return best > worst;
}

/* One token more; *go_on says whether to take another step. */
static lk_status step(search *at, bool *go_on) {
    at->found = 0;
    int32_t alive = at->length == 0 ? 1 : at->beams; /* at first all beams are the same */
    for (int32_t i = 0; i < alive; i++) {
        LK_TRY(extend(at, i));
    }
    if (at->found == 0) {
        return lk_fail(at->self->decoder.context, LK_STATUS_NUMERIC, "no token is left to choose: all are ruled out");
    }
    bool all_end = true;
    for (int32_t i = 0; i < at->found; i++) {
        all_end = all_end && at->candidates[i].ends;
    }
    update_finished(at);
    update_running(at);
    at->length++;
    at->improvable = at->improvable && can_improve(at);
    *go_on = at->improvable && !all_end && !(at->options->early_stopping && all_finished(at));
    return LK_OK;
}

/* Gives the beams' new tokens to the decoder, each behind its own past. */
static lk_status feed(search *at) {
    lk_decoder *decoder = &at->self->decoder;
    int32_t prompt = (int32_t)at->prompt->count;
    for (int32_t i = 0; i < (int32_t)decoder->sequences; i++) {
        bool used = i < at->beams;
        at->parents[i] = used ? at->parents[i] : i;
        at->ids[i] = used ? at->running[i].ids[at->length - 1] : -1;
        at->past[i] = used ? prompt + (int32_t)at->length - 1 : 0;
    }
    int64_t first = at->length == 1 ? 0 : prompt; /* the first step spreads the prompt */
    LK_TRY(lk_decoder_reorder(decoder, at->parents, first, prompt + at->length - 1));
    return lk_decoder_step(decoder, at->ids, at->past);
}

static lk_status run(search *at, lk_ids *out) {
    LK_TRY(allocate(at));
    at->running[0].score = 0.0;
    LK_TRY(lk_decoder_read(&at->self->decoder, 0, at->prompt->data, (int64_t)at->prompt->count));
    for (bool go_on = true; go_on;) {
        LK_TRY(step(at, &go_on));
        if (go_on) {
            LK_TRY(feed(at));
        }
    }
    const beam *best = at->finished[0].finished ? &at->finished[0] : &at->running[0];
    int64_t length = best == &at->running[0] ? at->length : at->limit;
    for (int64_t i = 0; i < length && best->ids[i] >= 0; i++) {
        LK_TRY(lk_ids_push(out, best->ids[i]));
    }
    return LK_OK;
}

lk_status lk_generator_search(lk_generator *self, const lk_ids *prompt, const lk_generate_options *options,
                              int64_t limit, lk_ids *out) {
    search at = {.self = self,
                 .prompt = prompt,
                 .options = options,
                 .limit = limit,
                 .beams = (int32_t)options->num_beams,
                 .improvable = true};
    at.keep = count_candidates(self, at.beams);
    lk_status status = run(&at, out);
    release(&at);
    return status;
}
