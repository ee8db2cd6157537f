/* The parts of the program that need no model: progress, spelling, options. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "progress.h"
#include "tests/common/runner.h"

static cli_progress half_way(void) {
    cli_progress progress = {.label = "train", .total = 100, .done = 50, .started = 1000.0};
    snprintf(progress.details, sizeof(progress.details), "loss 2.5000");
    return progress;
}

START_TEST(test_progress_line) {
    char text[256];
    cli_progress progress = half_way();
    cli_progress_line(&progress, 1065.0, text, sizeof(text));
    ck_assert_str_eq(text, "train 50/100, loss 2.5000, 1:05 left");
    progress.done = 100;
    cli_progress_line(&progress, 1130.0, text, sizeof(text));
    ck_assert_str_eq(text, "train 100/100, loss 2.5000");
    progress.details[0] = '\0';
    cli_progress_line(&progress, 1130.0, text, sizeof(text));
    ck_assert_str_eq(text, "train 100/100");
}
END_TEST

START_TEST(test_progress_after_resuming_counts_only_new_steps) {
    char text[256];
    cli_progress progress = half_way();
    progress.first = 40;
    cli_progress_line(&progress, 1010.0, text, sizeof(text));
    ck_assert_str_eq(text, "train 50/100, loss 2.5000, 0:50 left");
}
END_TEST

START_TEST(test_progress_long_times) {
    char text[256];
    cli_progress progress = half_way();
    cli_progress_line(&progress, 1000.0 + 7384, text, sizeof(text));
    ck_assert_str_eq(text, "train 50/100, loss 2.5000, 2:03:04 left");
    cli_progress_line(&progress, 1000.0 + 864000, text, sizeof(text));
    ck_assert_str_eq(text, "train 50/100, loss 2.5000, 10 days left");
}
END_TEST

START_TEST(test_progress_bar_fits_every_width) {
    cli_progress progress = half_way();
    for (int width = 0; width < 200; width++) {
        char text[256];
        memset(text, 'x', sizeof(text));
        cli_progress_bar(&progress, 1065.0, width, text, sizeof(text));
        ck_assert_int_le((int)strlen(text), width);
    }
    char text[256];
    cli_progress_bar(&progress, 1065.0, 90, text, sizeof(text));
    ck_assert_str_eq(text, "train [####################....................] 50/100  loss 2.5000, 1:05 left");
    cli_progress_bar(&progress, 1065.0, 20, text, sizeof(text));
    ck_assert_str_eq(text, "train 50/100  loss 2");
    progress.total = 0; /* not known yet */
    progress.done = 0;
    cli_progress_bar(&progress, 1065.0, 40, text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(text, "[....."));
}
END_TEST

START_TEST(test_closest_name) {
    const char *const names[] = {"train", "eval", "generate", "learning-rate", NULL};
    ck_assert_str_eq(cli_closest("trian", names), "train");
    ck_assert_str_eq(cli_closest("evall", names), "eval");
    ck_assert_str_eq(cli_closest("gen", names), "generate");
    ck_assert_str_eq(cli_closest("learningrate", names), "learning-rate");
    ck_assert_ptr_null(cli_closest("x", names));
    ck_assert_ptr_null(cli_closest("", names));
    ck_assert_ptr_null(cli_closest("merge", names));
    ck_assert_ptr_null(cli_closest("a-word-that-is-far-longer-than-any-name-there-could-be", names));
}
END_TEST

typedef struct targets {
    const char *text;
    int32_t small;
    int64_t large;
    uint64_t seed;
    double real;
    int choice;
    const char *word;
    bool on, off;
} targets;

static const char *const words[] = {"one", "two", NULL};

static cli_parse_result parse(targets *values, cli_options *options, const char *const *arguments) {
    const char *argv[16] = {"test"};
    int argc = 1;
    while (arguments[argc - 1] != NULL) {
        argv[argc] = arguments[argc - 1];
        argc++;
    }
    memset(options, 0, sizeof(*options));
    options->usage = "";
    options->description = "";
    cli_group(options, "All:");
    cli_text(options, "text", 't', &values->text, "TEXT", "a text");
    cli_int32(options, "small", 0, &values->small, -5, 5, "a small number");
    cli_int64(options, "large", 0, &values->large, 1, "a large number");
    cli_uint64(options, "seed", 0, &values->seed, "a seed");
    cli_real(options, "real", 0, &values->real, 0, 1, "a real number");
    cli_choice(options, "choice", 0, &values->choice, words, "a choice");
    cli_choice_text(options, "word", 0, &values->word, words, "a word");
    cli_flag(options, "on", 0, &values->on, true, "a flag");
    cli_flag(options, "off", 0, &values->off, false, "a flag that takes away");
    return cli_parse(options, argc, argv);
}

START_TEST(test_options_reach_their_targets) {
    targets values = {.off = true};
    cli_options options;
    const char *arguments[] = {"-t",   "a b",      "--small=-5", "--large", "5000000000", "--seed=18446744073709551615",
                               "--on", "--real=1", "--choice",   "two",     "--word=one", "--off",
                               NULL};
    ck_assert_int_eq(parse(&values, &options, arguments), CLI_PARSED);
    ck_assert_str_eq(values.text, "a b");
    ck_assert_int_eq(values.small, -5);
    ck_assert_int_eq(values.large, 5000000000);
    ck_assert_uint_eq(values.seed, UINT64_MAX);
    ck_assert_double_eq(values.real, 1.0);
    ck_assert_int_eq(values.choice, 1);
    ck_assert_str_eq(values.word, "one");
    ck_assert(values.on);
    ck_assert(!values.off);
    ck_assert(cli_given(&options, "small"));
    cli_options_free(&options);
}
END_TEST

START_TEST(test_options_keep_defaults) {
    targets values = {.text = "default", .small = 3, .off = true, .word = "two"};
    cli_options options;
    const char *arguments[] = {NULL};
    ck_assert_int_eq(parse(&values, &options, arguments), CLI_PARSED);
    ck_assert_str_eq(values.text, "default");
    ck_assert_int_eq(values.small, 3);
    ck_assert_str_eq(values.word, "two");
    ck_assert(values.off);
    ck_assert(!cli_given(&options, "small"));
    cli_options_free(&options);
}
END_TEST

START_TEST(test_options_given_twice_take_the_last) {
    targets values = {0};
    cli_options options;
    const char *arguments[] = {"--text=first", "--text=second", NULL};
    ck_assert_int_eq(parse(&values, &options, arguments), CLI_PARSED);
    ck_assert_str_eq(values.text, "second");
    cli_options_free(&options);
}
END_TEST

START_TEST(test_options_refuse_what_is_out_of_range) {
    const char *const wrong[] = {
        "--small=6", "--small=-6",  "--large=0",  "--large=1e3",    "--seed=18446744073709551616",
        "--seed=-1", "--real=1.01", "--real=inf", "--choice=three", "--word=",
        "extra"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        targets values = {0};
        cli_options options;
        const char *arguments[] = {wrong[i], NULL};
        ck_assert_msg(parse(&values, &options, arguments) == CLI_PARSED_WRONG, "%s was taken", wrong[i]);
        cli_options_free(&options);
    }
}
END_TEST

START_TEST(test_bytes) {
    char text[32];
    ck_assert_str_eq(cli_bytes(0, text), "0 B");
    ck_assert_str_eq(cli_bytes(1023, text), "1023 B");
    ck_assert_str_eq(cli_bytes(1536, text), "1.5 KiB");
    ck_assert_str_eq(cli_bytes(3.0 * 1024 * 1024 * 1024, text), "3.0 GiB");
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("parts");
    tcase_add_test(tests, test_progress_line);
    tcase_add_test(tests, test_progress_after_resuming_counts_only_new_steps);
    tcase_add_test(tests, test_progress_long_times);
    tcase_add_test(tests, test_progress_bar_fits_every_width);
    tcase_add_test(tests, test_closest_name);
    tcase_add_test(tests, test_options_reach_their_targets);
    tcase_add_test(tests, test_options_keep_defaults);
    tcase_add_test(tests, test_options_given_twice_take_the_last);
    tcase_add_test(tests, test_options_refuse_what_is_out_of_range);
    tcase_add_test(tests, test_bytes);
    return run_case("cli", tests);
}
