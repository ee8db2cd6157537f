#ifndef LK_CORE_TRAIN_METRICS_H
#define LK_CORE_TRAIN_METRICS_H

#include "core/base/base.h"

/* Fills accuracy, f1 and macro_f1 of a report from a confusion matrix [num_labels][num_labels], class by prediction. */
void lk_classification_metrics(const int64_t *confusion, int64_t num_labels, lk_eval_report *report);

#endif
