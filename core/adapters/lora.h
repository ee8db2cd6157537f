/* What methods that train A and B share. */
#ifndef LK_CORE_ADAPTERS_LORA_H
#define LK_CORE_ADAPTERS_LORA_H

#include "core/adapters/adapter.h"

/* The functions of an lk_adapter_method. */
lk_status lk_lora_declare(lk_adapter *adapter, lk_adapter_site *site);
lk_tensor *lk_lora_apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x);
void lk_lora_merge(const lk_adapter_site *site, float *const *values, float *weight);

#endif
