#include <dirent.h>
#include <stdio.h>

#include "core/text/dataset.h"
#include "text_test.h"

static lk_tokenizer *tokenizer;
static lk_dataset_options options;

static void dataset_setup(void) {
    text_setup();
    tokenizer = load_tokenizer("tokenizers/bytes");
    lk_dataset_options_init(&options);
    options.tokenizer = tokenizer;
    options.seq = 64;
}

static void dataset_teardown(void) {
    lk_tokenizer_destroy(tokenizer);
    text_teardown();
}

static lk_dataset *load(const char *name, const char *text) {
    lk_dataset *dataset;
    ck_ok(lk_dataset_load(context, write_text(name, text), &options, &dataset));
    return dataset;
}

/* The sample's ids are those of the text, then `extra` if that is not negative. */
static void assert_sample_text(const lk_sample *sample, const char *text, unsigned flags, int32_t extra) {
    lk_ids ids;
    lk_ids_init(&ids, context);
    ck_ok(lk_tokenizer_encode(tokenizer, text, strlen(text), flags, &ids));
    if (extra >= 0) {
        ck_ok(lk_ids_push(&ids, extra));
    }
    ck_assert_int_eq(sample->length, (int64_t)ids.count);
    ck_assert_mem_eq(sample->ids, ids.data, ids.count * sizeof *ids.data);
    lk_ids_free(&ids);
}

/* The tokens that have labels, as text; labels are the ids where they are not -100. */
static void assert_trained(const lk_sample *sample, const char *expected) {
    lk_text text;
    lk_text_init(&text, context);
    lk_text_append(&text, "", 0);
    for (int64_t i = 0; i < sample->length; i++) {
        if (sample->labels[i] != LK_IGNORE_LABEL) {
            ck_assert_int_eq(sample->labels[i], sample->ids[i]);
            ck_ok(lk_tokenizer_decode(tokenizer, &sample->ids[i], 1, false, &text));
        }
    }
    ck_assert_str_eq(text.data, expected);
    lk_text_free(&text);
}

START_TEST(test_txt_is_cut_into_blocks) {
    static const char text[] = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n";
    options.seq = 10;
    lk_dataset *dataset = load("a.txt", text);
    lk_ids ids;
    lk_ids_init(&ids, context);
    ck_ok(lk_tokenizer_encode(tokenizer, text, strlen(text), LK_ENCODE_DEFAULT, &ids));
    int64_t blocks = ((int64_t)ids.count + 9) / 10;
    ck_assert_int_gt(blocks, 2);
    ck_assert_int_eq(lk_dataset_size(dataset), blocks);
    int64_t at = 0;
    for (int64_t i = 0; i < blocks; i++) {
        lk_sample sample = lk_dataset_sample(dataset, i);
        ck_assert_int_eq(sample.length, i + 1 < blocks ? 10 : (int64_t)ids.count - at);
        ck_assert_mem_eq(sample.ids, ids.data + at, (size_t)sample.length * sizeof *ids.data);
        ck_assert_ptr_eq(sample.labels, sample.ids);
        at += sample.length;
    }
    lk_dataset_info info = lk_dataset_get_info(dataset);
    ck_assert_int_eq(info.tokens, (int64_t)ids.count);
    ck_assert_int_eq(info.targets, (int64_t)ids.count - blocks);
    ck_assert_int_eq(info.longest, 10);
    lk_ids_free(&ids);
    lk_dataset_destroy(dataset);
}
END_TEST

START_TEST(test_jsonl_text) {
    lk_dataset *dataset =
        load("a.jsonl", "{\"text\": \"Hello there\"}\r\n\n  \n{\"text\": \"Bye<|im_end|>\", \"x\": 1}");
    ck_assert_int_eq(lk_dataset_size(dataset), 2);
    lk_sample sample = lk_dataset_sample(dataset, 0);
    assert_sample_text(&sample, "Hello there", LK_ENCODE_DEFAULT, 2);
    assert_trained(&sample, "Hello there<|im_end|>");
    sample = lk_dataset_sample(dataset, 1); /* ends with it already */
    assert_sample_text(&sample, "Bye<|im_end|>", LK_ENCODE_DEFAULT, -1);
    lk_dataset_destroy(dataset);
    options.append_eos = false;
    dataset = load("a.jsonl", "{\"text\": \"Hello there\"}");
    sample = lk_dataset_sample(dataset, 0);
    assert_sample_text(&sample, "Hello there", LK_ENCODE_DEFAULT, -1);
    lk_dataset_destroy(dataset);
}
END_TEST

START_TEST(test_jsonl_completion) {
    lk_dataset *dataset = load("a.jsonl", "{\"prompt\": \"Who is it?\", \"completion\": \" The king.\"}");
    lk_sample sample = lk_dataset_sample(dataset, 0);
    assert_sample_text(&sample, "Who is it? The king.", LK_ENCODE_DEFAULT, 2);
    assert_trained(&sample, " The king.<|im_end|>");
    lk_dataset_destroy(dataset);
}
END_TEST

START_TEST(test_jsonl_messages) {
    options.seq = 256;
    lk_dataset *dataset = load("a.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, "
                                          "{\"role\": \"assistant\", \"content\": \"Good day.\"}, "
                                          "{\"role\": \"user\", \"content\": \"And?\"}, "
                                          "{\"role\": \"assistant\", \"content\": \"\\nBye\"}]}");
    lk_sample sample = lk_dataset_sample(dataset, 0);
    assert_sample_text(&sample,
                       "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
                       "<|im_start|>assistant\nGood day.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n"
                       "<|im_start|>assistant\n\nBye<|im_end|>\n",
                       LK_ENCODE_PARSE_SPECIAL, -1);
    /* "\n\n" is no token of this vocabulary, so that the boundary is clean */
    assert_trained(&sample, "Good day.<|im_end|>\nBye<|im_end|>");
    lk_dataset_destroy(dataset);
}
END_TEST

START_TEST(test_classification) {
    options.classify = true;
    options.class_count = 3;
    lk_dataset *dataset = load("a.tsv", "1\tgood\n0\tbad, \tvery\n");
    ck_assert_int_eq(lk_dataset_size(dataset), 2);
    lk_sample sample = lk_dataset_sample(dataset, 1);
    assert_sample_text(&sample, "bad, \tvery", LK_ENCODE_DEFAULT, -1);
    ck_assert_int_eq(sample.class_label, 0);
    ck_assert_ptr_null(sample.labels);
    ck_assert_int_eq(lk_dataset_sample(dataset, 0).class_label, 1);
    ck_assert_int_eq(lk_dataset_get_info(dataset).classes, 2);
    ck_assert_int_eq(lk_dataset_get_info(dataset).targets, 2);
    lk_dataset_destroy(dataset);
    dataset = load("a.jsonl", "{\"text\": \"fine\", \"label\": 2}");
    sample = lk_dataset_sample(dataset, 0);
    assert_sample_text(&sample, "fine", LK_ENCODE_DEFAULT, -1);
    ck_assert_int_eq(sample.class_label, 2);
    lk_dataset_destroy(dataset);
    options.tokenizer = NULL;
    dataset = load("a.ids", "5 6 7\t1\n8\t0\n");
    sample = lk_dataset_sample(dataset, 0);
    ck_assert_int_eq(sample.length, 3);
    ck_assert_int_eq(sample.ids[2], 7);
    ck_assert_int_eq(sample.class_label, 1);
    lk_dataset_destroy(dataset);
    ck_fails(lk_dataset_load(context, write_text("b.ids", "5 6\n"), &options, &dataset), LK_STATUS_FORMAT, "line 1");
    ck_fails(lk_dataset_load(context, write_text("b.ids", "5 6\t3\n"), &options, &dataset), LK_STATUS_FORMAT,
             "the label is 3, expected 0 to 2");
}
END_TEST

/* A cut keeps the [SEP] at the end, as Hugging Face does. */
START_TEST(test_cut_keeps_the_special_end) {
    lk_tokenizer *words = load_tokenizer("tokenizers/words");
    options.tokenizer = words;
    options.classify = true;
    options.seq = 6;
    lk_dataset *dataset = load("a.tsv", "1\tthe king is not there and we are all gone\n");
    lk_sample sample = lk_dataset_sample(dataset, 0);
    ck_assert_int_eq(sample.length, 6);
    ck_assert_int_eq(sample.ids[0], lk_tokenizer_token_to_id(words, "[CLS]"));
    ck_assert_int_eq(sample.ids[5], lk_tokenizer_token_to_id(words, "[SEP]"));
    ck_assert_int_eq(lk_dataset_get_info(dataset).cut, 1);
    ck_assert_ptr_nonnull(strstr(logged.data, "1 of 1 rows have more than 6 tokens"));
    lk_dataset_destroy(dataset);
    lk_tokenizer_destroy(words);
}
END_TEST

START_TEST(test_ids_and_labels) {
    options.tokenizer = NULL;
    options.vocab_size = 100;
    lk_dataset *dataset = load("a.ids", "1 2 3\n 4  5 \n6 7 8\t-100 7 -100\n");
    ck_assert_int_eq(lk_dataset_size(dataset), 3);
    lk_sample sample = lk_dataset_sample(dataset, 0);
    ck_assert_int_eq(sample.length, 3);
    ck_assert_int_eq(sample.labels[2], 3);
    sample = lk_dataset_sample(dataset, 2);
    ck_assert_int_eq(sample.labels[0], -100);
    ck_assert_int_eq(sample.labels[1], 7);
    ck_assert_int_eq(sample.labels[2], -100);
    ck_assert_int_eq(lk_dataset_get_info(dataset).targets, 2 + 1 + 1);
    lk_dataset_destroy(dataset);
}
END_TEST

START_TEST(test_long_rows_are_cut_and_counted) {
    options.seq = 8;
    lk_dataset *dataset = load("a.jsonl", "{\"text\": \"one two three four five six seven eight nine ten\"}\n"
                                          "{\"text\": \"ab\"}\n"
                                          "{\"prompt\": \"a prompt that is long and leaves no room at all\", "
                                          "\"completion\": \"x\"}\n");
    lk_dataset_info info = lk_dataset_get_info(dataset);
    ck_assert_int_eq(info.samples, 2);
    ck_assert_int_eq(info.cut, 2);
    ck_assert_int_eq(info.dropped, 1);
    ck_assert_int_eq(info.longest, 8);
    ck_assert_ptr_nonnull(strstr(logged.data, "2 of 3 rows have more than 8 tokens and are cut"));
    ck_assert_ptr_nonnull(strstr(logged.data, "1 of 3 rows have no token to train on and are left out"));
    lk_dataset_destroy(dataset);
}
END_TEST

static const struct {
    const char *name, *text;
    bool classify;
    lk_status status;
    const char *message;
} errors[] = {
    {"a.csv", "x", false, LK_STATUS_UNSUPPORTED, ".jsonl"},
    {"a.txt", "", false, LK_STATUS_FORMAT, "no samples"},
    {"a.jsonl", "\n\n", false, LK_STATUS_FORMAT, "no samples"},
    {"a.jsonl", "{\"text\": \"a b c\"}\n{\"text\": 3}", false, LK_STATUS_FORMAT, "line 2: \"text\" is an integer"},
    {"a.jsonl", "{\"text\": \"a b c\"}\n\n{\"text\": ", false, LK_STATUS_FORMAT, "line 3"},
    {"a.jsonl", "{\"txt\": \"a\"}", false, LK_STATUS_FORMAT, "line 1: expected \"text\""},
    {"a.jsonl", "[1]", false, LK_STATUS_FORMAT, "line 1"},
    {"a.jsonl", "{\"prompt\": \"a\"}", false, LK_STATUS_FORMAT, "\"completion\" is missing"},
    {"a.jsonl", "{\"messages\": \"a\"}", false, LK_STATUS_FORMAT, "\"messages\" is a string"},
    {"a.jsonl", "{\"messages\": [{\"role\": \"user\"}]}", false, LK_STATUS_FORMAT, "\"content\" is missing"},
    {"a.jsonl", "{\"messages\": [3]}", false, LK_STATUS_FORMAT, "\"role\""},
    {"a.jsonl", "{\"messages\": [{\"role\": \"x\", \"content\": \"\"}]}", false, LK_STATUS_INVALID_ARGUMENT,
     "a.jsonl: line 1: message 1 has the role \"x\""},
    {"a.jsonl", "{\"text\": \"a\"}", true, LK_STATUS_FORMAT, "\"label\" is missing"},
    {"a.jsonl", "{\"text\": \"a\", \"label\": -1}", true, LK_STATUS_FORMAT, "\"label\" is -1"},
    {"a.tsv", "1\ta", false, LK_STATUS_INVALID_ARGUMENT, "classification"},
    {"a.txt", "abc", true, LK_STATUS_INVALID_ARGUMENT, "language modelling"},
    {"a.tsv", "1\ta\nx\tb", true, LK_STATUS_FORMAT, "line 2: expected a number, a TAB and a text, found \"x\tb\""},
    {"a.tsv", "1\ta\n1 b", true, LK_STATUS_FORMAT, "line 2"},
    {"a.tsv", "99999999999\tb", true, LK_STATUS_FORMAT, "line 1"},
    {"a.tsv", "1\t", true, LK_STATUS_FORMAT, "line 1: no tokens"},
    {"a.ids", "1 2\n3 x", false, LK_STATUS_FORMAT, "line 2: expected a token id, found \"x\""},
    {"a.ids", "1 2\n3 4\n5 200", false, LK_STATUS_FORMAT, "line 3: a token id is 200, expected 0 to 99"},
    {"a.ids", "1 -2", false, LK_STATUS_FORMAT, "line 1: a token id is -2"},
    {"a.ids", "1 -100", false, LK_STATUS_FORMAT, "line 1: a token id is -100"},
    {"a.ids", "1 2\t1", false, LK_STATUS_FORMAT, "line 1: 2 ids but 1 labels"},
    {"a.ids", "1 2\t1 -5", false, LK_STATUS_FORMAT, "line 1: a label is -5, expected 0 to 99 or -100"},
    {"a.ids", "1 2\t1 2\t1", false, LK_STATUS_FORMAT, "second TAB"},
    {"a.ids", "1 2 3 4 5 6 7 8 9", false, LK_STATUS_FORMAT, "line 1: 9 ids, but the model takes 8 at most"},
    {"a.ids", "1.5", false, LK_STATUS_FORMAT, "line 1"},
};

START_TEST(test_errors_name_their_place) {
    const char *path = write_text(errors[_i].name, errors[_i].text);
    options.seq = 8;
    options.classify = errors[_i].classify;
    if (strcmp(errors[_i].name, "a.ids") == 0) {
        options.vocab_size = 100;
        options.max_length = 8;
    }
    lk_dataset *dataset = (lk_dataset *)1;
    ck_fails(lk_dataset_load(context, path, &options, &dataset), errors[_i].status, errors[_i].message);
    ck_assert_ptr_null(dataset);
    ck_assert_ptr_nonnull(strstr(lk_error_message(context), path));
}
END_TEST

START_TEST(test_ids_of_the_tokenizer_must_fit_the_model) {
    options.vocab_size = 50;
    lk_dataset *dataset;
    ck_fails(lk_dataset_load(context, write_text("a.jsonl", "{\"text\": \"zebra\"}"), &options, &dataset),
             LK_STATUS_FORMAT, "vocabulary has 50");
    ck_fails(lk_dataset_load(context, path_of("none.txt"), &options, &dataset), LK_STATUS_NOT_FOUND, "none.txt");
    options.tokenizer = NULL;
    ck_fails(lk_dataset_load(context, write_text("a.txt", "x"), &options, &dataset), LK_STATUS_INVALID_ARGUMENT,
             "no tokenizer");
}
END_TEST

/* ---- the cache ---- */

static int files_in(const char *path, char *first, size_t size) {
    DIR *directory = opendir(path);
    int count = 0;
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        if (entry->d_name[0] != '.') {
            count++;
            snprintf(first, size, "%s/%s", path, entry->d_name);
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count;
}

static void assert_same(const lk_dataset *a, const lk_dataset *b) {
    ck_assert_int_eq(lk_dataset_size(a), lk_dataset_size(b));
    for (int64_t i = 0; i < lk_dataset_size(a); i++) {
        lk_sample x = lk_dataset_sample(a, i), y = lk_dataset_sample(b, i);
        ck_assert_int_eq(x.length, y.length);
        ck_assert_int_eq(x.class_label, y.class_label);
        ck_assert_mem_eq(x.ids, y.ids, (size_t)x.length * sizeof *x.ids);
        ck_assert_int_eq(x.labels == NULL, y.labels == NULL);
        ck_assert(x.labels == NULL || memcmp(x.labels, y.labels, (size_t)x.length * sizeof *x.ids) == 0);
    }
}

static const struct {
    const char *name, *text;
    bool classify;
} cached[] = {{"a.txt", "Once more unto the breach, dear friends, once more.", false},
              {"a.jsonl", "{\"prompt\": \"a\", \"completion\": \" b c\"}\n{\"text\": \"d e f\"}", false},
              {"a.tsv", "1\tgood\n0\tbad\n", true}};

START_TEST(test_cache) {
    char file[512];
    options.seq = 5;
    options.classify = cached[_i].classify;
    lk_dataset *plain = load(cached[_i].name, cached[_i].text);
    ck_assert(!lk_dataset_get_info(plain).from_cache);
    char cache[256];
    snprintf(cache, sizeof cache, "%s", path_of("cache/inner"));
    options.cache_directory = cache;
    lk_dataset *first = load(cached[_i].name, cached[_i].text), *second = load(cached[_i].name, cached[_i].text);
    ck_assert(!lk_dataset_get_info(first).from_cache);
    ck_assert(lk_dataset_get_info(second).from_cache);
    assert_same(plain, first);
    assert_same(plain, second);
    lk_dataset_info a = lk_dataset_get_info(first), b = lk_dataset_get_info(second);
    b.from_cache = false;
    ck_assert_int_eq(a.targets, b.targets);
    ck_assert_int_eq(a.cut, b.cut);
    lk_dataset_destroy(first);
    lk_dataset_destroy(second);
    ck_assert_int_eq(files_in(cache, file, sizeof file), 1);

    /* any damage is noticed, and mended */
    size_t size;
    char *bytes = read_text(file, &size);
    for (size_t at = 0; at < size; at += at < 80 ? 3 : 17) {
        bytes[at] ^= 0x40;
        ck_ok(lk_write_file(context, file, bytes, size));
        lk_dataset *mended = load(cached[_i].name, cached[_i].text);
        ck_assert_msg(!lk_dataset_get_info(mended).from_cache, "byte %zu", at);
        assert_same(plain, mended);
        lk_dataset_destroy(mended);
        bytes[at] ^= 0x40;
    }
    for (size_t cut = 0; cut < size; cut += 23) {
        ck_ok(lk_write_file(context, file, bytes, cut));
        lk_dataset *mended = load(cached[_i].name, cached[_i].text);
        ck_assert(!lk_dataset_get_info(mended).from_cache);
        assert_same(plain, mended);
        lk_dataset_destroy(mended);
    }
    free(bytes);
    lk_dataset_destroy(plain);
}
END_TEST

START_TEST(test_cache_depends_on_all_that_matters) {
    char file[512];
    char cache[256];
    snprintf(cache, sizeof cache, "%s", path_of("cache"));
    options.cache_directory = cache;
    lk_dataset_destroy(load("a.jsonl", "{\"text\": \"d e f\"}"));
    lk_dataset_destroy(load("a.jsonl", "{\"text\": \"d e g\"}"));
    options.seq = 7;
    lk_dataset_destroy(load("a.jsonl", "{\"text\": \"d e f\"}"));
    options.append_eos = false;
    lk_dataset_destroy(load("a.jsonl", "{\"text\": \"d e f\"}"));
    lk_tokenizer *words = load_tokenizer("tokenizers/words");
    options.tokenizer = words;
    lk_dataset *dataset = load("a.jsonl", "{\"text\": \"d e f\"}");
    ck_assert(!lk_dataset_get_info(dataset).from_cache);
    lk_dataset_destroy(dataset);
    lk_tokenizer_destroy(words);
    ck_assert_int_eq(files_in(cache, file, sizeof file), 5);
}
END_TEST

START_TEST(test_cache_that_cannot_be_written_is_a_warning) {
    options.cache_directory = write_text("file", "in the way");
    lk_dataset *dataset = load("a.jsonl", "{\"text\": \"d e f\"}");
    ck_assert_ptr_nonnull(strstr(logged.data, "tokenised data is not kept"));
    lk_dataset_destroy(dataset);
}
END_TEST

static void add(TCase *cases) {
    tcase_add_test(cases, test_txt_is_cut_into_blocks);
    tcase_add_test(cases, test_jsonl_text);
    tcase_add_test(cases, test_jsonl_completion);
    tcase_add_test(cases, test_jsonl_messages);
    tcase_add_test(cases, test_classification);
    tcase_add_test(cases, test_cut_keeps_the_special_end);
    tcase_add_test(cases, test_ids_and_labels);
    tcase_add_test(cases, test_long_rows_are_cut_and_counted);
    tcase_add_loop_test(cases, test_errors_name_their_place, 0, LK_COUNT(errors));
    tcase_add_test(cases, test_ids_of_the_tokenizer_must_fit_the_model);
    tcase_add_loop_test(cases, test_cache, 0, LK_COUNT(cached));
    tcase_add_test(cases, test_cache_depends_on_all_that_matters);
    tcase_add_test(cases, test_cache_that_cannot_be_written_is_a_warning);
}

int main(void) {
    return run_text_case("dataset", dataset_setup, dataset_teardown, add);
}
