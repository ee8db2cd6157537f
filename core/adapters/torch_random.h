/* The numbers of torch.Generator("cpu").manual_seed(seed), for adapters that store a seed instead of tensors. */
#ifndef LK_CORE_ADAPTERS_TORCH_RANDOM_H
#define LK_CORE_ADAPTERS_TORCH_RANDOM_H

#include <stdint.h>

typedef struct lk_torch_random {
    uint32_t state[624];
    int next;
} lk_torch_random;

void lk_torch_random_seed(lk_torch_random *random, uint64_t seed);
/* Tensor.uniform_(-bound, bound) on float32 elements, in order. */
void lk_torch_random_uniform(lk_torch_random *random, float bound, int64_t count, float *values);

#endif
