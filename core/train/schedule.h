#ifndef LK_CORE_TRAIN_SCHEDULE_H
#define LK_CORE_TRAIN_SCHEDULE_H

#include "core/base/base.h"

/* The learning rate of optimizer step `step` (from 0), as transformers' schedulers of the same names give it: a linear
 * rise over warmup_steps, then constant, or down to zero at total_steps, linearly or along half a cosine. */
double lk_schedule_rate(lk_schedule schedule, double learning_rate, int64_t warmup_steps, int64_t total_steps,
                        int64_t step);

#endif
