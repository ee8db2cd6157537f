/* What methods that train A and B share. */
#ifndef LK_CORE_ADAPTERS_LORA_H
#define LK_CORE_ADAPTERS_LORA_H

#include "core/adapters/adapter.h"

enum { LK_LORA_A, LK_LORA_B }; /* the first two tensors of a site */

/* Methods that PEFT's format does not tell apart (LoRA-FA trains a plain LoRA in another way) put their name into
 * adapter_config.json, where PEFT ignores it. NULL: the file names none. */
const char *lk_lora_method_of(const lk_peft_config *config);
lk_status lk_lora_set_method(lk_adapter *adapter, const char *name);

/* The functions of an lk_adapter_method. */
lk_status lk_lora_configure(lk_adapter *adapter, const lk_adapter_options *options);
lk_status lk_lora_declare(lk_adapter *adapter, lk_adapter_site *site);
lk_tensor *lk_lora_apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x);
lk_tensor *lk_lora_embed(lk_forward *forward, const lk_adapter_site *site, lk_tensor *ids);
lk_status lk_lora_merge(const lk_adapter_merge *merge);

/* The same with A frozen. */
lk_status lk_lora_declare_pair(lk_adapter *adapter, lk_adapter_site *site, bool freeze_a);
/* Whether the layer is that of LoRA and its tensors are trained as they are. */
bool lk_lora_is_plain(const lk_adapter_method *method);
/* x W' + scale (x A') B', without bias or dropout. */
lk_tensor *lk_lora_build(lk_graph *graph, const lk_adapter_site *site, lk_tensor *x);
/* Dropout's probability in this pass (0: none) and the number of its mask. */
float lk_lora_dropout(lk_forward *forward, uint32_t *stream);

#endif
