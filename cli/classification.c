/* The figures of a model that classifies: what train and eval print. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"

enum { LABELS_SHOWN = 20 }; /* a larger matrix is no reading */

/* counts[class * num_labels + prediction]; free() it. NULL: memory is out. */
static int64_t *confusion_of(const lk_evaluator *evaluator, int64_t num_labels) {
    int64_t *counts = calloc((size_t)(num_labels * num_labels), sizeof *counts);
    if (counts != NULL && lk_evaluator_get_confusion(evaluator, counts) != LK_OK) {
        free(counts);
        return NULL;
    }
    return counts;
}

void cli_print_classification(const lk_evaluator *evaluator, const lk_eval_report *report) {
    int64_t labels = report->num_labels;
    printf("classes   accuracy %.4f, F1 %.4f, macro F1 %.4f, %" PRId64 " texts, %.1f texts/s\n", report->accuracy,
           report->f1, report->macro_f1, report->sequences,
           report->seconds > 0 ? (double)report->sequences / report->seconds : 0);
    int64_t *counts = labels <= LABELS_SHOWN ? confusion_of(evaluator, labels) : NULL;
    if (counts == NULL) {
        return;
    }
    printf("          predicted");
    for (int64_t i = 0; i < labels; i++) {
        printf(" %7" PRId64, i);
    }
    printf("\n");
    for (int64_t row = 0; row < labels; row++) {
        printf("          class %3" PRId64, row);
        for (int64_t i = 0; i < labels; i++) {
            printf(" %7" PRId64, counts[row * labels + i]);
        }
        printf("\n");
    }
    free(counts);
}

json_t *cli_classification_json(const lk_evaluator *evaluator, const lk_eval_report *report) {
    int64_t labels = report->num_labels;
    int64_t *counts = confusion_of(evaluator, labels);
    json_t *matrix = json_array();
    for (int64_t row = 0; counts != NULL && row < labels; row++) {
        json_t *line = json_array();
        for (int64_t i = 0; i < labels; i++) {
            json_array_append_new(line, json_integer(counts[row * labels + i]));
        }
        json_array_append_new(matrix, line);
    }
    free(counts);
    return json_pack("{s:f,s:f,s:f,s:o}", "accuracy", report->accuracy, "f1", report->f1, "macro_f1", report->macro_f1,
                     "confusion", matrix);
}
