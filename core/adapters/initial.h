/* First values of an adapter's tensors. */
#ifndef LK_CORE_ADAPTERS_INITIAL_H
#define LK_CORE_ADAPTERS_INITIAL_H

#include "core/adapters/adapter.h"

typedef enum lk_initial {
    LK_INITIAL_ZEROS,
    LK_INITIAL_UNIFORM, /* +-1/sqrt(columns): PEFT's kaiming_uniform_ with a = sqrt(5) */
    LK_INITIAL_NORMAL   /* deviation 0.02 */
} lk_initial;

/* lk_adapter_add_tensor of a trained matrix with random values, which depend on the adapter's seed, the layer and the
 * place among the site's tensors alone. Nothing is drawn for a plan or an adapter read from files. */
lk_status lk_adapter_add_matrix(lk_adapter *adapter, lk_adapter_site *site, lk_peft_kind kind, int64_t rows,
                                int64_t columns, lk_initial initial);

#endif
