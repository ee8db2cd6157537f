/* Using what was trained: evaluation, generation with its cache, merging, saving and loading. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/train/sample.h"
#include "tests/common/runner.h"
#include "tests/train/fixture.h"

static void train(fixture *self, int steps) {
    lk_step_report report;
    for (int i = 0; i < steps; i++) {
        SUCCEEDS(self, lk_trainer_step(self->trainer, &report));
    }
}

static double evaluate(fixture *self, lk_model *model, lk_adapter *adapter, lk_eval_report *report) {
    lk_evaluator *evaluator;
    SUCCEEDS(self, lk_evaluator_create(model, adapter, self->data, &evaluator));
    SUCCEEDS(self, lk_evaluator_run(evaluator, NULL, NULL, report));
    lk_evaluator_destroy(evaluator);
    return report->loss;
}

START_TEST(test_evaluation_counts_every_target_once) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    lk_eval_report report;
    double loss = evaluate(&self, self.model, NULL, &report);
    lk_data_info info;
    lk_data_get_info(self.data, &info);
    ck_assert_int_eq(report.targets, info.num_targets);
    ck_assert_int_eq(report.sequences, info.num_samples);
    ck_assert_double_eq_tol(report.perplexity, exp(loss), 1e-9);
    /* the mean over all targets, recomputed from logits of each sequence */
    size_t vocab = (size_t)self.model->config->vocab_size;
    double sum = 0.0;
    for (int64_t s = 0; s < info.num_samples; s++) {
        lk_sample sample = lk_dataset_sample(self.data->dataset, s);
        float *logits = malloc((size_t)sample.length * vocab * sizeof *logits);
        SUCCEEDS(&self, lk_logits(self.model, NULL, sample.ids, (size_t)sample.length, logits));
        for (int64_t t = 0; t + 1 < sample.length; t++) {
            double total = 0.0;
            for (size_t v = 0; v < vocab; v++) {
                total += exp((double)logits[(size_t)t * vocab + v]);
            }
            sum += log(total) - (double)logits[(size_t)t * vocab + (size_t)sample.ids[t + 1]];
        }
        free(logits);
    }
    ck_assert_double_eq_tol(loss, sum / (double)info.num_targets, 1e-5);
    fixture_close(&self);
}
END_TEST

typedef struct collected {
    char text[4096];
    size_t length, pieces, stop_after;
} collected;

static bool collect(void *user, const char *text, size_t length) {
    collected *self = user;
    memcpy(self->text + self->length, text, length);
    self->length += length;
    self->text[self->length] = '\0';
    self->pieces++;
    return self->stop_after == 0 || self->pieces < self->stop_after;
}

/* Greedy continuation with the cache equals taking the largest logit of the whole text again and again; the prompt is
 * longer than the pieces in which it goes through. */
START_TEST(test_the_cache_changes_nothing) {
    static const char prompt[] =
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her friends. "
        "One day, she saw a big red ball near the tree and wanted to play with it, but a dog was there too.";
    enum { NEW = 12 };
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    train(&self, 3);
    lk_generator *generator;
    SUCCEEDS(&self, lk_generator_create(self.model, self.adapter, 256, &generator));
    lk_generate_options options;
    lk_generate_options_init(&options);
    options.max_new_tokens = NEW;
    lk_generate_report report;
    collected found = {.length = 0};
    SUCCEEDS(&self, lk_generator_run(generator, prompt, &options, collect, &found, &report));
    int32_t *ids;
    size_t count;
    SUCCEEDS(&self, lk_tokenizer_to_ids(self.model->tokenizer, prompt, strlen(prompt), true, &ids, &count));
    ck_assert_uint_gt(count, 64);
    ck_assert_int_eq(report.prompt_tokens, (int64_t)count);
    int32_t text[512];
    memcpy(text, ids, count * sizeof *text);
    size_t vocab = (size_t)self.model->config->vocab_size, length = count;
    float *logits = malloc(512 * vocab * sizeof *logits);
    for (int i = 0; i < NEW && (int64_t)i < report.new_tokens; i++) {
        SUCCEEDS(&self, lk_logits(self.model, self.adapter, text, length, logits));
        const lk_sampler greedy = {0.0, 0, 1.0, 0};
        text[length] = lk_sample_token(&greedy, logits + (length - 1) * vocab, (int64_t)vocab, 0, NULL);
        length++;
    }
    char *prefix, *whole;
    SUCCEEDS(&self, lk_tokenizer_to_text(self.model->tokenizer, text, count, true, &prefix));
    SUCCEEDS(&self, lk_tokenizer_to_text(self.model->tokenizer, text, length, true, &whole));
    ck_assert_str_eq(found.text, whole + strlen(prefix));
    /* a second run on the same generator starts from nothing */
    collected again = {.length = 0};
    SUCCEEDS(&self, lk_generator_run(generator, prompt, &options, collect, &again, &report));
    ck_assert_str_eq(again.text, found.text);
    collected stopped = {.stop_after = 2};
    SUCCEEDS(&self, lk_generator_run(generator, prompt, &options, collect, &stopped, &report));
    ck_assert_uint_eq(stopped.pieces, 2);
    lk_release(self.context, prefix);
    lk_release(self.context, whole);
    lk_release(self.context, ids);
    free(logits);
    lk_generator_destroy(generator);
    fixture_close(&self);
}
END_TEST

START_TEST(test_sampling_is_a_function_of_the_seed) {
    enum { COUNT = 50, DRAWS = 4000 };
    float logits[COUNT];
    lk_sample_item items[COUNT];
    for (int i = 0; i < COUNT; i++) {
        logits[i] = (float)(i % 7) * 0.5f;
    }
    logits[13] = 5.0f;
    lk_sampler sampler = {1.0, 0, 1.0, 42};
    ck_assert_int_eq(lk_sample_token(&(lk_sampler){0.0, 0, 1.0, 1}, logits, COUNT, 0, items), 13);
    ck_assert_int_eq(lk_sample_token(&(lk_sampler){1.0, 1, 1.0, 1}, logits, COUNT, 0, items), 13);
    ck_assert_int_eq(lk_sample_token(&(lk_sampler){1.0, 0, 1e-6, 1}, logits, COUNT, 0, items), 13);
    double total = 0.0;
    int hits = 0;
    for (int i = 0; i < COUNT; i++) {
        total += exp((double)logits[i]);
    }
    for (uint64_t draw = 0; draw < DRAWS; draw++) {
        int32_t id = lk_sample_token(&sampler, logits, COUNT, draw, items);
        ck_assert_int_eq(id, lk_sample_token(&sampler, logits, COUNT, draw, items));
        hits += id == 13;
    }
    double p = exp(5.0) / total, spread = sqrt(p * (1.0 - p) / DRAWS); /* five standard deviations */
    ck_assert_double_eq_tol((double)hits / DRAWS, p, 5.0 * spread);
    sampler.top_k = 3;
    for (uint64_t draw = 0; draw < 200; draw++) {
        ck_assert_float_ge(logits[lk_sample_token(&sampler, logits, COUNT, draw, items)], 3.0f);
    }
}
END_TEST

START_TEST(test_a_merged_model_equals_base_plus_adapter) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    train(&self, 4);
    lk_eval_report report;
    double base = evaluate(&self, self.model, NULL, &report),
           adapted = evaluate(&self, self.model, self.adapter, &report);
    ck_assert_double_gt(fabs(base - adapted), 1e-3);
    SUCCEEDS(&self, lk_merge(self.model, self.adapter, LK_DTYPE_F32, fixture_path(&self, "merged"), NULL, NULL));
    lk_model *merged;
    SUCCEEDS(&self, lk_model_load(self.session, fixture_path(&self, "merged"), NULL, &merged));
    ck_assert_ptr_nonnull(lk_model_tokenizer(merged));
    ck_assert_double_eq_tol(evaluate(&self, merged, NULL, &report), adapted, 1e-5);
    lk_model_destroy(merged);
    SUCCEEDS(&self, lk_merge(self.model, self.adapter, LK_DTYPE_BF16, fixture_path(&self, "half"), NULL, NULL));
    SUCCEEDS(&self, lk_model_load(self.session, fixture_path(&self, "half"), NULL, &merged));
    ck_assert_double_eq_tol(evaluate(&self, merged, NULL, &report), adapted, 3e-2);
    lk_model_destroy(merged);
    fixture_close(&self);
}
END_TEST

START_TEST(test_an_adapter_comes_back_as_it_was) {
    fixture self;
    fixture_open(&self, NULL);
    fixture_start(&self);
    train(&self, 2);
    uint64_t hash = fixture_hash(&self);
    SUCCEEDS(&self, lk_adapter_save(self.adapter, fixture_path(&self, "adapter")));
    fixture_stop(&self);
    SUCCEEDS(&self, lk_adapter_load(self.model, fixture_path(&self, "adapter"), &self.adapter));
    ck_assert_uint_eq(fixture_hash(&self), hash);
    /* an adapter of another model names what does not fit */
    lk_model *other;
    SUCCEEDS(&self, lk_model_load(self.session, LK_TEST_DATA "/models/tiny-qwen2", NULL, &other));
    lk_adapter *made;
    ck_assert_int_ne(lk_adapter_load(other, fixture_path(&self, "adapter"), &made), LK_OK);
    ck_assert_ptr_null(made);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "q_proj"));
    lk_model_destroy(other);
    fixture_close(&self);
}
END_TEST

START_TEST(test_a_plan_can_be_read) {
    fixture self;
    fixture_open(&self, NULL);
    lk_model_options options;
    lk_model_options_init(&options);
    options.plan_only = true;
    lk_model *model;
    SUCCEEDS(&self, lk_model_load(self.session, LK_TEST_DATA "/models/stories260k", &options, &model));
    lk_adapter *adapter;
    SUCCEEDS(&self, lk_adapter_create(model, NULL, &adapter));
    char *text, *json;
    SUCCEEDS(&self, lk_plan(model, adapter, NULL, NULL, false, &text));
    SUCCEEDS(&self, lk_plan(model, adapter, NULL, NULL, true, &json));
    ck_assert_ptr_nonnull(strstr(text, "lora_linear_backward"));
    ck_assert_ptr_nonnull(strstr(text, "activations_lower_bound"));
    json_t *root = json_loads(json, 0, NULL);
    ck_assert_ptr_nonnull(root);
    ck_assert_int_gt(json_integer_value(json_object_get(json_object_get(root, "memory"), "activations")), 0);
    json_decref(root);
    lk_release(self.context, text);
    lk_release(self.context, json);
    lk_trainer *trainer;
    ck_assert_int_eq(lk_trainer_create(model, adapter, self.data, NULL, &trainer), LK_STATUS_INVALID_ARGUMENT);
    lk_adapter_destroy(adapter);
    lk_model_destroy(model);
    fixture_close(&self);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("use");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_evaluation_counts_every_target_once);
    tcase_add_test(tests, test_the_cache_changes_nothing);
    tcase_add_test(tests, test_sampling_is_a_function_of_the_seed);
    tcase_add_test(tests, test_a_merged_model_equals_base_plus_adapter);
    tcase_add_test(tests, test_an_adapter_comes_back_as_it_was);
    tcase_add_test(tests, test_a_plan_can_be_read);
    return run_case("use", tests);
}
