/* Shared by the tests of core/text. */
#ifndef LK_TESTS_TEXT_TEXT_TEST_H
#define LK_TESTS_TEXT_TEXT_TEST_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/text/tokenizer.h"

extern lk_context *context;
/* The warnings logged since the test began, a line each. */
extern lk_text logged;
/* An empty folder, removed at the end of the test with the files in it. */
extern char folder[64];

void text_setup(void);
void text_teardown(void);

#define ck_ok(expression)                                                                   \
    do {                                                                                    \
        lk_status status_ = (expression);                                                   \
        ck_assert_msg(status_ == LK_OK, "%s: %s: %s", #expression, lk_status_name(status_), \
                      lk_error_message(context));                                           \
    } while (0)
/* The call fails with this status and a message that contains the text. */
#define ck_fails(expression, expected, text)                                                                       \
    do {                                                                                                           \
        lk_status status_ = (expression);                                                                          \
        ck_assert_msg(status_ == (expected), "%s: %s: %s", #expression, lk_status_name(status_),                   \
                      lk_error_message(context));                                                                  \
        ck_assert_msg(strstr(lk_error_message(context), (text)) != NULL, "%s lacks %s", lk_error_message(context), \
                      (text));                                                                                     \
    } while (0)

/* tests/data/<name>; every line of it handed to check() as JSON. */
void for_each_row(const char *name, void (*check)(const json_t *row, void *user), void *user);
lk_tokenizer *load_tokenizer(const char *name); /* a folder in tests/data */
const char *json_text(const json_t *row, const char *key);
void assert_ids(const json_t *expected, const lk_ids *ids, const char *what);
/* folder/<name>, in a buffer that the next call but three overwrites; with that content. */
const char *path_of(const char *name);
const char *write_text(const char *name, const char *text);
char *read_text(const char *path, size_t *size); /* free() it */
int run_text_case(const char *name, void (*setup)(void), void (*teardown)(void), void (*add)(TCase *));

#endif
