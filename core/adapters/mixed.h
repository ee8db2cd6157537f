/* Several LoRA adapters side by side, of which each token is computed with one. */
#ifndef LK_CORE_ADAPTERS_MIXED_H
#define LK_CORE_ADAPTERS_MIXED_H

#include "core/adapters/adapter.h"

bool lk_adapter_is_mixed(const lk_adapter *adapter); /* NULL is not */
/* Parts; forward passes take numbers below this, or this one for the base alone, as lk_forward.adapter_rows. */
int32_t lk_adapter_num_parts(const lk_adapter *adapter);
/* As lk_adapter_mix, but made of the parts' own tensors, which are trained: they must outlive it. */
lk_status lk_adapter_mix_in_place(lk_adapter *const *adapters, size_t count, lk_adapter **out);

#endif
