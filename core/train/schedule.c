#include "core/train/schedule.h"

#include <math.h>

double lk_schedule_rate(lk_schedule schedule, double learning_rate, int64_t warmup_steps, int64_t total_steps,
                        int64_t step) {
    if (step < warmup_steps) {
        return learning_rate * (double)step / (double)warmup_steps;
    }
    double remaining = (double)LK_MAX((int64_t)1, total_steps - warmup_steps);
    double progress = fmin(1.0, (double)(step - warmup_steps) / remaining);
    switch (schedule) {
    case LK_SCHEDULE_LINEAR:
        return learning_rate * (1.0 - progress);
    case LK_SCHEDULE_COSINE:
        return learning_rate * 0.5 * (1.0 + cos(3.141592653589793 * progress));
    case LK_SCHEDULE_CONSTANT:
        break;
    }
    return learning_rate;
}
