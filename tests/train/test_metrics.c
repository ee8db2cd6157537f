/* Accuracy and F1 from a confusion matrix, by hand. */
#include <check.h>
#include <stdlib.h>

#include "core/train/metrics.h"
#include "tests/common/runner.h"

START_TEST(test_two_classes_score_class_one) {
    const int64_t confusion[] = {50, 10, 5, 35}; /* class by prediction */
    lk_eval_report report = {0};
    lk_classification_metrics(confusion, 2, &report);
    ck_assert_int_eq(report.num_labels, 2);
    ck_assert_double_eq_tol(report.accuracy, 0.85, 1e-12);
    ck_assert_double_eq_tol(report.f1, 70.0 / 85.0, 1e-12); /* 2 TP / (2 TP + FP + FN) */
    ck_assert_double_eq_tol(report.macro_f1, (100.0 / 115.0 + 70.0 / 85.0) / 2.0, 1e-12);
}
END_TEST

/* As scikit-learn's f1_score(average="macro", zero_division=0). */
START_TEST(test_a_class_that_is_nowhere_counts_as_zero) {
    const int64_t confusion[] = {3, 1, 0, 2, 4, 0, 0, 0, 0};
    lk_eval_report report = {0};
    lk_classification_metrics(confusion, 3, &report);
    ck_assert_double_eq_tol(report.accuracy, 0.7, 1e-12);
    ck_assert_double_eq_tol(report.macro_f1, (6.0 / 9.0 + 8.0 / 11.0) / 3.0, 1e-12);
    ck_assert_double_eq(report.f1, report.macro_f1);
}
END_TEST

START_TEST(test_nothing_counted) {
    const int64_t confusion[] = {0, 0, 0, 0};
    lk_eval_report report = {0};
    lk_classification_metrics(confusion, 2, &report);
    ck_assert_double_eq(report.accuracy, 0.0);
    ck_assert_double_eq(report.f1, 0.0);
    ck_assert_double_eq(report.macro_f1, 0.0);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("metrics");
    tcase_add_test(tests, test_two_classes_score_class_one);
    tcase_add_test(tests, test_a_class_that_is_nowhere_counts_as_zero);
    tcase_add_test(tests, test_nothing_counted);
    return run_case("metrics", tests);
}
