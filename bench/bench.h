/* What the measurements share. */
#ifndef LK_BENCH_BENCH_H
#define LK_BENCH_BENCH_H

#include "core/base/base.h"
#include "dispatch/session.h"
#include "lorikeet_bench.h"

/* Uploads: of floats, pseudo-random values in [-scale, scale) that bf16 holds exactly, or ones with scale 0; of
 * integers, 0, last, last, ...: the borders of one sequence. */
lk_status lk_bench_fill(lk_context *context, lk_variable *variable, float scale, int64_t last);
/* Sorts them. */
double lk_bench_median(double *values, int count);

#endif
