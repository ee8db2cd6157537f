/* What stands around the model in generation: rules on repetition, stop strings, batches of prompts, beams. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/logits.h"
#include "core/train/stop_text.h"
#include "tests/common/runner.h"
#include "tests/train/fixture.h"

START_TEST(test_repetition_penalty_pushes_both_signs_down) {
    float scores[] = {2.0f, -2.0f, 1.0f, 0.5f};
    bool seen[4];
    const int32_t ids[] = {0, 1, 0, 1, 9};
    const lk_logits_rules rules = {2.0, 0};
    lk_logits_apply(&rules, ids, 5, scores, 4, seen);
    ck_assert_float_eq(scores[0], 1.0f); /* once, however often it is there */
    ck_assert_float_eq(scores[1], -4.0f);
    ck_assert_float_eq(scores[2], 1.0f);
    ck_assert_float_eq(scores[3], 0.5f);
}
END_TEST

START_TEST(test_ngrams_are_not_repeated) {
    const int32_t ids[] = {1, 2, 3, 1, 2, 0, 1, 2};
    bool seen[4];
    for (int64_t size = 0; size <= 10; size++) {
        float scores[] = {1.0f, 1.0f, 1.0f, 1.0f};
        lk_logits_apply(&(lk_logits_rules){1.0, size}, ids, 8, scores, 4, seen);
        bool banned[] = {isinf(scores[0]), isinf(scores[1]), isinf(scores[2]), isinf(scores[3])};
        const bool expected[11][4] = {
            {false, false, false, false}, /* no rule */
            {true, true, true, true},     /* no token twice */
            {true, false, false, true},   /* 2 was followed by 3 and 0 */
            {true, false, false, true},   /* so was 1 2 */
        };
        ck_assert_msg(memcmp(banned, expected[size], sizeof banned) == 0, "n-grams of %d", (int)size);
    }
}
END_TEST

START_TEST(test_scores_that_are_no_numbers_are_refused) {
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    const float fine[] = {-INFINITY, 1.0f}, nan[] = {1.0f, NAN}, infinite[] = {INFINITY, 0.0f};
    const float nothing[] = {-INFINITY, -INFINITY};
    ck_assert_int_eq(lk_logits_check(context, fine, 2), LK_OK);
    ck_assert_int_eq(lk_logits_check(context, nan, 2), LK_STATUS_NUMERIC);
    ck_assert_ptr_nonnull(strstr(lk_error_message(context), "token 1"));
    ck_assert_int_eq(lk_logits_check(context, infinite, 2), LK_STATUS_NUMERIC);
    ck_assert_int_eq(lk_logits_check(context, nothing, 2), LK_STATUS_NUMERIC);
    lk_context_destroy(context);
}
END_TEST

/* The text comes in pieces of every size; what goes out does not depend on it. */
static void check_stop(const char *const *stops, const char *text, const char *expected) {
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    for (size_t size = 1; size <= strlen(text); size++) {
        lk_stop_text stop;
        lk_text piece;
        char out[256] = "";
        lk_stop_text_init(&stop, context, stops);
        lk_text_init(&piece, context);
        for (size_t at = 0; at < strlen(text); at += size) {
            lk_text_append(&piece, text + at, LK_MIN(size, strlen(text) - at));
            ck_assert_int_eq(lk_stop_text_pass(&stop, &piece, false), LK_OK);
            strncat(out, piece.data ? piece.data : "", piece.length);
            piece.length = 0;
        }
        ck_assert_int_eq(lk_stop_text_pass(&stop, &piece, true), LK_OK);
        strncat(out, piece.data ? piece.data : "", piece.length);
        ck_assert_str_eq(out, expected);
        ck_assert_int_eq(stop.stopped, strcmp(text, expected) != 0);
        lk_stop_text_free(&stop);
        lk_text_free(&piece);
    }
    lk_context_destroy(context);
}

START_TEST(test_texts_end_before_stop_strings) {
    check_stop(NULL, "abc", "abc");
    check_stop((const char *const[]){"cd", NULL}, "abcde", "ab");
    check_stop((const char *const[]){"cdx", "de", NULL}, "abcdef", "abc");
    check_stop((const char *const[]){"aab", NULL}, "aaab", "a");
    check_stop((const char *const[]){"fg", "", NULL}, "abcdef", "abcdef"); /* a beginning at the end is no end */
    check_stop((const char *const[]){"abc", NULL}, "abc", "");
}
END_TEST

typedef struct collected {
    char text[8][2048];
} collected;

static bool collect(void *user, size_t index, const char *text, size_t length) {
    strncat(((collected *)user)->text[index], text, length);
    return true;
}

static const char *const prompts[] = {
    "Once upon a time", "The dog", "Lily and Tom went to the park and", "One day, a big bear", "It was", "Mom said",
};
enum { PROMPTS = sizeof prompts / sizeof prompts[0] };

/* In a batch of any width, each text is what it is alone: greedy, and drawn at random. */
START_TEST(test_a_batch_gives_each_text_as_alone) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    lk_generate_options options;
    lk_generate_options_init(&options);
    options.max_new_tokens = 24;
    options.repetition_penalty = 1.1;
    options.stop = (const char *const[]){"big", NULL};
    for (int sampled = 0; sampled < 2; sampled++) {
        collected alone = {0};
        options.temperature = 0.8 * sampled;
        for (size_t i = 0; i < PROMPTS; i++) {
            lk_generate_options one = options;
            lk_generator *generator;
            lk_generate_report report;
            collected out = {0};
            one.seed = 5 + i;
            SUCCEEDS(&self, lk_generator_create(self.model, self.adapter, 64, &generator));
            SUCCEEDS(&self, lk_generator_run_batch(generator, &prompts[i], 1, &one, collect, &out, &report));
            memcpy(alone.text[i], out.text[0], sizeof out.text[0]);
            ck_assert_ptr_null(strstr(out.text[0], "big"));
            lk_generator_destroy(generator);
        }
        options.seed = 5;
        for (int64_t width = 1; width <= 7; width += 2) {
            lk_generator *generator;
            lk_generate_report reports[PROMPTS];
            collected out = {0};
            SUCCEEDS(&self, lk_generator_create_batch(self.model, self.adapter, 64, width, &generator));
            SUCCEEDS(&self, lk_generator_run_batch(generator, prompts, PROMPTS, &options, collect, &out, reports));
            for (size_t i = 0; i < PROMPTS; i++) {
                ck_assert_str_eq(out.text[i], alone.text[i]);
                ck_assert_int_gt(reports[i].prompt_tokens, 0);
            }
            lk_generator_destroy(generator);
        }
    }
    fixture_close(&self);
}
END_TEST

/* The log-probability of `text` behind `prompt`, token by token; -> tokens. */
static double score_of(fixture *self, const char *prompt, const char *text, int64_t *tokens) {
    char whole[4096];
    snprintf(whole, sizeof whole, "%s%s", prompt, text);
    int32_t *ids, *start;
    size_t count, before, vocab = (size_t)self->model->config->vocab_size;
    SUCCEEDS(self, lk_tokenizer_to_ids(self->model->tokenizer, whole, strlen(whole), true, &ids, &count));
    SUCCEEDS(self, lk_tokenizer_to_ids(self->model->tokenizer, prompt, strlen(prompt), true, &start, &before));
    float *logits = malloc(count * vocab * sizeof *logits);
    SUCCEEDS(self, lk_logits(self->model, NULL, ids, count, logits));
    double sum = 0.0;
    for (size_t t = before; t < count; t++) {
        const float *row = logits + (t - 1) * vocab;
        double total = 0.0;
        for (size_t v = 0; v < vocab; v++) {
            total += exp((double)row[v]);
        }
        sum += (double)row[ids[t]] - log(total);
    }
    *tokens = (int64_t)(count - before);
    free(logits);
    lk_release(self->context, ids);
    lk_release(self->context, start);
    return sum;
}

/* More beams find texts that are as likely or likelier; and a second run after the first starts afresh. */
START_TEST(test_beams_find_likelier_texts) {
    fixture self;
    fixture_open(&self, NULL);
    lk_generator *generator;
    SUCCEEDS(&self, lk_generator_create_batch(self.model, NULL, 64, 6, &generator));
    lk_generate_options options;
    lk_generate_options_init(&options);
    options.max_new_tokens = 20;
    double sums[2] = {0.0, 0.0};
    for (int wide = 0; wide < 2; wide++) {
        collected out = {0};
        lk_generate_report reports[PROMPTS];
        options.num_beams = wide ? 6 : 1;
        SUCCEEDS(&self, lk_generator_run_batch(generator, prompts, PROMPTS, &options, collect, &out, reports));
        for (size_t i = 0; i < PROMPTS; i++) {
            int64_t tokens;
            sums[wide] += score_of(&self, prompts[i], out.text[i], &tokens);
            ck_assert_int_le(reports[i].new_tokens, 20);
        }
    }
    ck_assert_double_gt(sums[1], sums[0] + 0.5);
    lk_generator_destroy(generator);
    fixture_close(&self);
}
END_TEST

START_TEST(test_options_are_checked) {
    fixture self;
    fixture_open(&self, NULL);
    lk_generator *generator;
    lk_generate_report report;
    SUCCEEDS(&self, lk_generator_create_batch(self.model, NULL, 32, 2, &generator));
    static const struct {
        double temperature, repetition_penalty;
        int64_t ngrams, beams;
    } wrong[] = {{0, 1, 0, 3}, {0, 1, 0, 0}, {1, 1, 0, 2}, {0, 0, 0, 1}, {0, 1, -1, 1}, {NAN, 1, 0, 1}};
    for (size_t i = 0; i < LK_COUNT(wrong); i++) {
        lk_generate_options options;
        lk_generate_options_init(&options);
        options.temperature = wrong[i].temperature;
        options.repetition_penalty = wrong[i].repetition_penalty;
        options.no_repeat_ngram_size = wrong[i].ngrams;
        options.num_beams = wrong[i].beams;
        ck_assert_msg(lk_generator_run(generator, "The", &options, NULL, NULL, &report) == LK_STATUS_INVALID_ARGUMENT,
                      "row %zu was taken", i);
    }
    lk_generator_destroy(generator);
    ck_assert_int_eq(lk_generator_create_batch(self.model, NULL, 32, 0, &generator), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_null(generator);
    fixture_close(&self);
}
END_TEST

/* Several adapters on one base, each used or left out, one destroyed; and mixed in a batch: each text is what its own
 * adapter gives, alone. */
START_TEST(test_each_prompt_has_its_adapter) {
    enum { ADAPTERS = 3 };
    fixture self;
    fixture_open(&self, NULL);
    lk_adapter *adapters[ADAPTERS], *mixed;
    for (int i = 0; i < ADAPTERS; i++) {
        lk_adapter_options options;
        lk_adapter_options_init(&options);
        options.method = i == 1 ? "rslora" : "lora";
        options.rank = 2 + i;
        options.target_modules = i == 2 ? "q_proj,v_proj" : "all-linear";
        options.seed = (uint64_t)i;
        SUCCEEDS(&self, lk_adapter_create(self.model, &options, &adapters[i]));
        for (int32_t t = 0; t < lk_adapter_num_tensors(adapters[i]); t++) { /* B is zero: make each do something */
            lk_variable *value = lk_adapter_tensor_at(adapters[i], t)->value;
            float *values = malloc(value->bytes);
            for (size_t v = 0; v < value->bytes / sizeof *values; v++) {
                uint32_t words[4];
                lk_philox4x32((uint64_t)i, (uint64_t)t, v, words);
                values[v] = 0.4f * (lk_uniform_from_bits(words[0]) - 0.5f);
            }
            SUCCEEDS(&self, lk_variable_upload(value, values));
            free(values);
        }
    }
    lk_generate_options options;
    lk_generate_options_init(&options);
    options.max_new_tokens = 16;
    int32_t choice[PROMPTS];
    collected alone = {0};
    for (int beams = 1; beams <= 2; beams++) {
        lk_generate_report reports[PROMPTS];
        memset(&alone, 0, sizeof alone);
        options.num_beams = beams;
        options.adapters = NULL;
        for (size_t i = 0; i < PROMPTS; i++) {
            lk_generator *generator;
            collected out = {0};
            choice[i] = (int32_t)(i % (ADAPTERS + 1)) - 1;
            lk_adapter *own = choice[i] < 0 ? NULL : adapters[choice[i]];
            SUCCEEDS(&self, lk_generator_create_batch(self.model, own, 64, 2, &generator));
            SUCCEEDS(&self, lk_generator_run_batch(generator, &prompts[i], 1, &options, collect, &out, reports));
            memcpy(alone.text[i], out.text[0], sizeof out.text[0]);
            lk_generator_destroy(generator);
        }
        lk_generator *generator;
        collected out = {0};
        SUCCEEDS(&self, lk_adapter_mix(adapters, ADAPTERS, &mixed));
        SUCCEEDS(&self, lk_generator_create_batch(self.model, mixed, 64, 4, &generator));
        options.adapters = choice;
        SUCCEEDS(&self, lk_generator_run_batch(generator, prompts, PROMPTS, &options, collect, &out, reports));
        for (size_t i = 0; i < PROMPTS; i++) {
            ck_assert_str_eq(out.text[i], alone.text[i]);
        }
        ck_assert_str_ne(out.text[0], "");
        choice[0] = ADAPTERS;
        ck_assert_int_eq(lk_generator_run_batch(generator, prompts, PROMPTS, &options, collect, &out, reports),
                         LK_STATUS_INVALID_ARGUMENT);
        lk_generator_destroy(generator);
        ck_assert_int_eq(lk_adapter_save(mixed, fixture_path(&self, "mixed")), LK_STATUS_UNSUPPORTED);
        ck_assert_int_eq(lk_merge(self.model, mixed, LK_DTYPE_F32, fixture_path(&self, "mixed"), NULL, NULL),
                         LK_STATUS_UNSUPPORTED);
        float logits[1024];
        const int32_t id = 5;
        ck_assert_int_eq(lk_logits(self.model, mixed, &id, 1, logits), LK_STATUS_UNSUPPORTED);
        lk_adapter_destroy(mixed);
    }
    for (int i = 0; i < ADAPTERS; i++) {
        lk_adapter_destroy(adapters[i]);
    }
    lk_adapter_options dora;
    lk_adapter_options_init(&dora);
    dora.method = "dora";
    SUCCEEDS(&self, lk_adapter_create(self.model, &dora, &adapters[0]));
    ck_assert_int_eq(lk_adapter_mix(adapters, 1, &mixed), LK_STATUS_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "dora"));
    ck_assert_ptr_null(mixed);
    lk_adapter_destroy(adapters[0]);
    fixture_close(&self);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("generate");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_repetition_penalty_pushes_both_signs_down);
    tcase_add_test(tests, test_ngrams_are_not_repeated);
    tcase_add_test(tests, test_scores_that_are_no_numbers_are_refused);
    tcase_add_test(tests, test_texts_end_before_stop_strings);
    tcase_add_test(tests, test_a_batch_gives_each_text_as_alone);
    tcase_add_test(tests, test_beams_find_likelier_texts);
    tcase_add_test(tests, test_each_prompt_has_its_adapter);
    tcase_add_test(tests, test_options_are_checked);
    return run_case("generate", tests);
}
