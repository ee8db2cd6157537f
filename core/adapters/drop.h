/* What a training step leaves out of an update at random: PEFT's rank_dropout and module_dropout. Outside of training,
 * and where the adapter has none, x is handed back. */
#ifndef LK_CORE_ADAPTERS_DROP_H
#define LK_CORE_ADAPTERS_DROP_H

#include "core/adapters/adapter.h"

/* Rows of x [rows, columns] become zeros with probability p; the others are divided by 1 - p if `rescale`. */
lk_tensor *lk_adapter_drop_rows(lk_forward *forward, lk_tensor *x, double p, bool rescale);
/* The same of columns. */
lk_tensor *lk_adapter_drop_columns(lk_forward *forward, lk_tensor *x, double p, bool rescale);
/* All of x. */
lk_tensor *lk_adapter_drop_whole(lk_forward *forward, lk_tensor *x, double p);

#endif
