/* Which ranks of which layers are kept: AdaLoRA's budget, allocated by importance (Zhang et al., arXiv 2303.10512),
 * with the schedule and the rules of PEFT's RankAllocator. The steps of a run count from 0: up to tinit all ranks are
 * trained then                         the budget falls by a cubic from all ranks to target_r per layer; after every
 * deltaT steps the lambdas of the least important are set to 0 (they may grow again) from total_step - tfinal on  the
 * ranks that are left at that step stay, the others stay 0 */
#ifndef LK_CORE_ADAPTERS_RANK_ALLOCATOR_H
#define LK_CORE_ADAPTERS_RANK_ALLOCATOR_H

#include "core/adapters/adapter.h"

enum { LK_RANK_A, LK_RANK_B, LK_RANK_E, LK_RANK_TENSORS }; /* a site's tensors: A [r, in], B [out, r], lambda [r] */

/* The functions of an lk_adapter_method. */
lk_status lk_rank_allocator_prepare(lk_adapter *adapter);
void lk_rank_allocator_observe(lk_graph *graph, const lk_adapter *adapter, lk_tensor *norm);
lk_status lk_rank_allocator_before_update(lk_adapter *adapter, int64_t step);
lk_status lk_rank_allocator_after_update(lk_adapter *adapter, int64_t step);
lk_status lk_rank_allocator_pack(lk_adapter *adapter);

/* How many ranks are left at a step, and whether lambdas are set to 0 after it. total: all ranks. */
int64_t lk_rank_budget(const lk_peft_config *config, int64_t total, int64_t layers, int64_t step, bool *allocates);

#endif
