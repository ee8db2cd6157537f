/* The one way in which tests run. */
#ifndef LK_TESTS_COMMON_RUNNER_H
#define LK_TESTS_COMMON_RUNNER_H

#include <check.h>

/* Runs the tests, releases them, and returns the program's exit status: EXIT_SUCCESS unless one has failed. */
int run_suite(Suite *suite);
/* The same of a suite that is one case. */
int run_case(const char *name, TCase *tests);

#endif
