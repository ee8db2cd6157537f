/* How LoRA's A and B start: PEFT's init_lora_weights. */
#ifndef LK_CORE_ADAPTERS_LORA_INIT_H
#define LK_CORE_ADAPTERS_LORA_INIT_H

#include "core/adapters/adapter.h"

typedef struct lk_lora_init_job {
    const lk_adapter *adapter;
    const lk_adapter_site *site;
    const float *weight; /* [out, in]; NULL unless the row asks for it */
    float *a, *b;        /* [r, in], [out, r], zeros */
} lk_lora_init_job;

typedef struct lk_lora_init {
    const char *name;
    /* A and B are made of W, and what the layer adds to x W' is s (B A - B0 A0) with their first values: PEFT subtracts
     * s B0 A0 from W. Here W stays as it is, so that it may be shared, in 16 bits or quantised. */
    bool from_weight;
    lk_status (*make)(const lk_lora_init_job *job);
} lk_lora_init;

/* Standard normals, a function of the adapter's seed; `which` distinguishes the draws of a site. */
double lk_lora_normal(const lk_adapter *adapter, const lk_adapter_site *site, uint64_t which, int64_t index);
/* The row that an adapter's configuration names. */
lk_status lk_lora_init_of(const lk_adapter *adapter, const lk_lora_init **out);
/* Sets the configuration; name NULL: the default. */
lk_status lk_lora_init_configure(lk_adapter *adapter, const char *name);

#endif
