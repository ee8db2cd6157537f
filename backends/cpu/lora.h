/* What LORA_LINEAR and its backward keep in scratch memory, and the rank-r products that both begin with. */
#ifndef LK_CPU_LORA_H
#define LK_CPU_LORA_H

#include "backends/cpu/gemm.h"
#include "backends/cpu/scratch.h"

/* Parts that are not needed are NULL. */
typedef struct lk_cpu_lora_space {
    float *low;           /* s = x A' of the forward op, z = scale dy B of its backward; [T, r] */
    uint16_t *narrow;     /* the same in bf16, as a matrix */
    uint16_t *pairs;      /* z in pairs of rows */
    uint16_t *s_pairs;    /* s in pairs of rows */
    float *db_transposed; /* [r, N] */
    void *operand;        /* x or dy as the products take it */
    size_t bytes;
} lk_cpu_lora_space;

static inline void *lk_cpu_lora_take(char *memory, lk_cpu_lora_space *space, size_t bytes) {
    void *start = memory != NULL && bytes > 0 ? memory + space->bytes : NULL;
    space->bytes += (bytes + 63) / 64 * 64;
    return start;
}

static inline lk_cpu_lora_space lk_cpu_lora_space_of(void *memory, bool pairs, const lk_node *node) {
    int64_t tokens = node->inputs[0]->shape[0], in = node->inputs[0]->shape[1], rank = node->inputs[3]->shape[0];
    lk_dtype weight = node->inputs[1]->dtype;
    pairs = pairs && node->attributes.lora.order != LK_LORA_MERGED; /* it is added to W in fp32 */
    bool narrow = lk_cpu_multiplies_bf16(pairs, weight, tokens);
    lk_cpu_lora_space space = {0};
    space.low = lk_cpu_lora_take(memory, &space, lk_cpu_floats(tokens * rank));
    space.narrow = lk_cpu_lora_take(memory, &space, narrow ? lk_cpu_narrow_bytes(tokens, rank) : 0);
    space.operand =
        lk_cpu_lora_take(memory, &space, lk_cpu_operand_bytes(pairs, node->inputs[0]->dtype, weight, tokens, in));
    return space;
}

static inline lk_cpu_lora_space lk_cpu_lora_backward_space_of(void *memory, bool pairs, const lk_node *node) {
    int64_t tokens = node->inputs[0]->shape[0], out = node->inputs[0]->shape[1], rank = node->inputs[3]->shape[0];
    lk_dtype weight = node->inputs[2]->dtype;
    pairs = pairs && node->attributes.lora.order != LK_LORA_MERGED;
    bool narrow = lk_cpu_multiplies_bf16(pairs, weight, tokens);
    size_t paired = narrow ? lk_cpu_narrow_bytes(tokens + 1, rank) : 0;
    lk_cpu_lora_space space = {0};
    space.low = lk_cpu_lora_take(memory, &space, lk_cpu_floats(tokens * rank));
    space.narrow = lk_cpu_lora_take(memory, &space, narrow ? lk_cpu_narrow_bytes(tokens, rank) : 0);
    space.pairs = lk_cpu_lora_take(memory, &space, node->outputs[1] != NULL ? paired : 0);
    space.s_pairs = lk_cpu_lora_take(memory, &space, node->outputs[2] != NULL ? paired : 0);
    space.db_transposed = lk_cpu_lora_take(memory, &space, node->outputs[2] != NULL ? lk_cpu_floats(out * rank) : 0);
    space.operand =
        lk_cpu_lora_take(memory, &space, lk_cpu_operand_bytes(pairs, node->inputs[0]->dtype, weight, tokens, out));
    return space;
}

#endif
