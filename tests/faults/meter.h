/* Memory that runs out, at every place where it can: each allocation of a piece of work fails in turn, once or from
 * then on. The work must end with OUT_OF_MEMORY, give back all it took, and succeed when memory is back. */
#ifndef LK_TESTS_FAULTS_METER_H
#define LK_TESTS_FAULTS_METER_H

#include "core/base/base.h"

/* Runs `work` once to count the context's allocations, then again for every `stride`th of them with
 * that one failing (only_once), or it and all later ones. Returns their number. */
long meter_fail_every_allocation(lk_status (*work)(lk_context *context), bool only_once, long stride);

#endif
