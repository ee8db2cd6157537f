#include "core/train/metrics.h"

/* 2 TP / (2 TP + FP + FN); 0 for a class that is neither there nor predicted, as in scikit-learn. */
static double f1_of(const int64_t *confusion, int64_t num_labels, int64_t label) {
    int64_t there = 0, predicted = 0, right = confusion[label * num_labels + label];
    for (int64_t i = 0; i < num_labels; i++) {
        there += confusion[label * num_labels + i];
        predicted += confusion[i * num_labels + label];
    }
    return there + predicted > 0 ? 2.0 * (double)right / (double)(there + predicted) : 0.0;
}

void lk_classification_metrics(const int64_t *confusion, int64_t num_labels, lk_eval_report *report) {
    int64_t total = 0, right = 0;
    double sum = 0.0;
    for (int64_t i = 0; i < num_labels * num_labels; i++) {
        total += confusion[i];
    }
    for (int64_t i = 0; i < num_labels; i++) {
        right += confusion[i * num_labels + i];
        sum += f1_of(confusion, num_labels, i);
    }
    report->num_labels = num_labels;
    report->accuracy = total > 0 ? (double)right / (double)total : 0.0;
    report->macro_f1 = sum / (double)num_labels;
    report->f1 = num_labels == 2 ? f1_of(confusion, num_labels, 1) : report->macro_f1;
}
