#include <stdio.h>

#include "core/text/batch.h"
#include "text_test.h"

enum { SAMPLES = 37 };

/* Sample i has 1 + i * 7 % 11 tokens i * 100 + 0, 1, 2 ...; some labels are ignored. */
static int64_t length_of(int64_t i) {
    return 1 + i * 7 % 11;
}

static lk_dataset *make_dataset(bool classify) {
    lk_text text;
    lk_text_init(&text, context);
    for (int64_t i = 0; i < SAMPLES; i++) {
        for (int64_t t = 0; t < length_of(i); t++) {
            lk_text_printf(&text, "%d ", (int)(i * 100 + t));
        }
        lk_text_append(&text, "\t", 1);
        for (int64_t t = 0; t < length_of(i) && !classify; t++) {
            lk_text_printf(&text, "%d ", t % 3 == 1 ? -100 : (int)(i * 100 + t));
        }
        lk_text_printf(&text, classify ? "%d\n" : "\n", (int)(i % 4));
    }
    lk_dataset_options options;
    lk_dataset_options_init(&options);
    options.classify = classify;
    lk_dataset *dataset;
    ck_ok(lk_dataset_load(context, write_text("data.ids", text.data), &options, &dataset));
    lk_text_free(&text);
    ck_assert_int_eq(lk_dataset_size(dataset), SAMPLES);
    return dataset;
}

static lk_batch_iterator *make_iterator(const lk_dataset *dataset, bool pack, bool shuffle, uint64_t seed) {
    lk_batch_options options;
    lk_batch_options_init(&options);
    options.batch = 4;
    options.seq = 12;
    options.pack = pack;
    options.shuffle = shuffle;
    options.seed = seed;
    lk_batch_iterator *iterator;
    ck_ok(lk_batch_iterator_create(context, dataset, &options, &iterator));
    return iterator;
}

/* Every claim that batch.h makes of one micro-batch; counts its samples in seen[]. */
static void check_batch(const lk_batch *batch, bool classify, int seen[SAMPLES]) {
    ck_assert_int_eq(batch->tokens, 48);
    ck_assert_int_eq(batch->cu_seqlens[0], 0);
    ck_assert_int_eq(batch->cu_seqlens[batch->max_sequences], 48);
    ck_assert_int_ge(batch->num_sequences, 1);
    ck_assert_int_eq(batch->cu_seqlens[batch->num_sequences], batch->num_tokens);
    int64_t targets = 0;
    for (int64_t s = 0; s < batch->max_sequences; s++) {
        int64_t begin = batch->cu_seqlens[s], end = batch->cu_seqlens[s + 1], sample = -1;
        ck_assert_int_le(begin, end);
        ck_assert_int_le(end - begin, 12);
        if (s < batch->num_sequences) {
            sample = batch->input_ids[begin] / 100;
            seen[sample]++;
            ck_assert_int_eq(end - begin, length_of(sample));
        }
        ck_assert_int_eq(batch->class_labels[s], sample >= 0 && classify ? sample % 4 : -100);
        for (int64_t t = begin; t < end; t++) {
            int64_t inside = t - begin, next = inside + 1;
            bool counts = sample >= 0 && !classify && t + 1 < end && next % 3 != 1;
            ck_assert_int_eq(batch->positions[t], inside);
            ck_assert_int_eq(batch->input_ids[t], sample >= 0 ? sample * 100 + inside : 0);
            ck_assert_int_eq(batch->targets[t], counts ? sample * 100 + next : -100);
            targets += counts;
        }
    }
    ck_assert_int_eq(batch->num_targets, classify ? batch->num_sequences : targets);
}

/* bit 0: pack, bit 1: shuffle, bit 2: classify */
START_TEST(test_every_sample_once_an_epoch) {
    bool pack = _i & 1, shuffle = _i & 2, classify = _i & 4;
    lk_dataset *dataset = make_dataset(classify);
    lk_batch_iterator *iterator = make_iterator(dataset, pack, shuffle, 7);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        int seen[SAMPLES] = {0};
        int64_t expected, batches = 0, samples = 0;
        ck_ok(lk_batch_iterator_count(iterator, epoch, &expected));
        const lk_batch *batch;
        do {
            lk_batch_iterator_next(iterator, &batch);
            ck_assert_uint_eq(batch->epoch, epoch);
            check_batch(batch, classify, seen);
            batches++;
            samples += batch->num_sequences;
            if (!pack) {
                ck_assert_int_eq(batch->num_sequences, batch->last_in_epoch ? SAMPLES % 4 : 4);
            }
            if (!shuffle) {
                ck_assert_int_eq(batch->input_ids[0] / 100, samples - batch->num_sequences);
            }
        } while (!batch->last_in_epoch);
        ck_assert_int_eq(batches, expected);
        for (int i = 0; i < SAMPLES; i++) {
            ck_assert_int_eq(seen[i], 1);
        }
        ck_assert(!pack || batches < (SAMPLES + 3) / 4);
    }
    lk_batch_iterator_destroy(iterator);
    lk_dataset_destroy(dataset);
}
END_TEST

static void first_samples(uint64_t seed, int skip, int32_t out[4]) {
    lk_dataset *dataset = make_dataset(false);
    lk_batch_iterator *iterator = make_iterator(dataset, false, true, seed);
    const lk_batch *batch;
    for (int i = 0; i <= skip; i++) {
        lk_batch_iterator_next(iterator, &batch);
    }
    for (int s = 0; s < 4 && s < batch->num_sequences; s++) {
        out[s] = batch->input_ids[batch->cu_seqlens[s]];
    }
    lk_batch_iterator_destroy(iterator);
    lk_dataset_destroy(dataset);
}

START_TEST(test_order_depends_on_seed_and_epoch) {
    int32_t a[4] = {0}, again[4] = {0}, other[4] = {0}, next[4] = {0};
    first_samples(1, 0, a);
    first_samples(1, 0, again);
    first_samples(2, 0, other);
    first_samples(1, 10, next); /* an epoch has 10 */
    ck_assert_mem_eq(a, again, sizeof a);
    ck_assert_mem_ne(a, other, sizeof a);
    ck_assert_mem_ne(a, next, sizeof a);
}
END_TEST

START_TEST(test_restored_iterator_continues_identically) {
    bool pack = _i & 1;
    lk_dataset *dataset = make_dataset(false);
    for (int after = 0; after < 25; after++) {
        lk_batch_iterator *whole = make_iterator(dataset, pack, true, 3),
                          *resumed = make_iterator(dataset, pack, true, 3);
        const lk_batch *expected, *got;
        for (int i = 0; i < after; i++) {
            lk_batch_iterator_next(whole, &expected);
        }
        lk_batch_state state = lk_batch_iterator_state(whole);
        ck_ok(lk_batch_iterator_restore(resumed, &state));
        for (int i = 0; i < 15; i++) {
            lk_batch_iterator_next(whole, &expected);
            lk_batch_iterator_next(resumed, &got);
            ck_assert_uint_eq(expected->epoch, got->epoch);
            ck_assert_int_eq(expected->last_in_epoch, got->last_in_epoch);
            ck_assert_int_eq(expected->num_targets, got->num_targets);
            ck_assert_mem_eq(expected->input_ids, got->input_ids, 48 * sizeof(int32_t));
            ck_assert_mem_eq(expected->targets, got->targets, 48 * sizeof(int32_t));
            ck_assert_mem_eq(expected->cu_seqlens, got->cu_seqlens, (size_t)(got->max_sequences + 1) * sizeof(int32_t));
        }
        lk_batch_iterator_destroy(whole);
        lk_batch_iterator_destroy(resumed);
    }
    lk_batch_iterator *iterator = make_iterator(dataset, pack, true, 3);
    const lk_batch_state beyond = {0, SAMPLES}, before = {0, -1};
    ck_fails(lk_batch_iterator_restore(iterator, &beyond), LK_STATUS_INVALID_ARGUMENT, "37 samples");
    ck_fails(lk_batch_iterator_restore(iterator, &before), LK_STATUS_INVALID_ARGUMENT, "sample -1");
    lk_batch_iterator_destroy(iterator);
    lk_dataset_destroy(dataset);
}
END_TEST

START_TEST(test_options_are_checked) {
    lk_dataset *dataset = make_dataset(false);
    lk_batch_iterator *iterator;
    lk_batch_options options;
    lk_batch_options_init(&options);
    options.seq = 10; /* the longest sample has 11 */
    ck_fails(lk_batch_iterator_create(context, dataset, &options, &iterator), LK_STATUS_INVALID_ARGUMENT,
             "a sample has 11 tokens");
    options.seq = 0;
    ck_fails(lk_batch_iterator_create(context, dataset, &options, &iterator), LK_STATUS_INVALID_ARGUMENT,
             "not possible");
    options.seq = 1 << 20;
    options.batch = 1 << 20;
    ck_fails(lk_batch_iterator_create(context, dataset, &options, &iterator), LK_STATUS_INVALID_ARGUMENT,
             "not possible");
    options = (lk_batch_options){.batch = 2, .seq = 11, .pack = true, .max_packed = 3};
    ck_ok(lk_batch_iterator_create(context, dataset, &options, &iterator));
    const lk_batch *batch;
    for (int i = 0; i < 40; i++) {
        lk_batch_iterator_next(iterator, &batch);
        ck_assert_int_le(batch->num_sequences, 3);
        ck_assert_int_eq(batch->max_sequences, 5);
    }
    lk_batch_iterator_destroy(iterator);
    lk_dataset_destroy(dataset);
}
END_TEST

static void add(TCase *cases) {
    tcase_add_loop_test(cases, test_every_sample_once_an_epoch, 0, 8);
    tcase_add_test(cases, test_order_depends_on_seed_and_epoch);
    tcase_add_loop_test(cases, test_restored_iterator_continues_identically, 0, 2);
    tcase_add_test(cases, test_options_are_checked);
}

int main(void) {
    return run_text_case("batch", text_setup, text_teardown, add);
}
