/* The backend's table of kernels, made from kernels.def and isa.h. */
#include <math.h>

#include "backends/cpu/attention.h"
#include "backends/cpu/lora.h"
#include "backends/cpu/scratch.h"

static const lk_cpu_op ops[LK_OP_COUNT] = {
#define LK_CPU_KERNEL(OP, name, in_place, scratch, native) [LK_OP_##OP] = {native, scratch},
#include "backends/cpu/kernels.def"
};

const lk_cpu_op *lk_cpu_op_of(lk_op op) {
    return &ops[op];
}

/* ---- conditions and estimates ---- */

static bool is_plain(const lk_tensor *tensor) {
    return tensor->dtype == LK_DTYPE_F32 || tensor->dtype == LK_DTYPE_BF16 || tensor->dtype == LK_DTYPE_F16;
}

static bool supports(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    (void)caps;
    for (int i = 0; i < node->num_inputs; i++) {
        const lk_tensor *tensor = node->inputs[i];
        LK_REQUIRE(why, tensor == NULL || tensor->dtype == LK_DTYPE_I32 || is_plain(tensor),
                   "the CPU's kernels take fp32, bf16 and fp16 only");
    }
    for (int i = 0; i < node->num_outputs; i++) {
        LK_REQUIRE(why, node->outputs[i] == NULL || is_plain(node->outputs[i]),
                   "the CPU's kernels make fp32, bf16 and fp16 only");
    }
    if (node->op == LK_OP_KV_CACHE_WRITE) {
        LK_REQUIRE(why, node->inputs[0]->dtype == node->inputs[1]->dtype, "the cache has another dtype than x");
    }
    if (node->op == LK_OP_CAST || node->op == LK_OP_ACCUMULATE) {
        LK_REQUIRE(why, is_plain(node->inputs[0]), "integers are not converted");
    }
    return true;
}

static double cost(const lk_device_caps *caps, const lk_node *node) {
    return caps->launch_seconds + fmax(lk_node_flops(node) / caps->flops_f32, lk_node_bytes(node) / caps->bandwidth);
}

/* Kernels that multiply bf16 by bf16, where the weight of a product is stored so. */
static double cost_bf16(const lk_device_caps *caps, const lk_node *node) {
    const lk_cpu_op *op = lk_cpu_op_of(node->op);
    bool product = false;
    for (int i = 0; i < node->num_inputs && op->native != LK_CPU_ALL_NATIVE; i++) {
        product = product ||
                  (lk_has_input(node, i) && node->inputs[i]->dtype == LK_DTYPE_BF16 && lk_cpu_is_native(op, i, false));
    }
    double rate = product ? fmax(caps->flops_16, caps->flops_f32) : caps->flops_f32;
    return caps->launch_seconds + fmax(lk_node_flops(node) / rate, lk_node_bytes(node) / caps->bandwidth);
}

/* The portable kernels: products go to OpenBLAS, all else runs one element at a time. */
static double cost_generic(const lk_device_caps *caps, const lk_node *node) {
    return 2.0 * cost(caps, node);
}

/* ---- scratch ---- */

static size_t widened_bytes(const lk_tensor *tensor, bool native) {
    bool widened = tensor != NULL && !native && (tensor->dtype == LK_DTYPE_BF16 || tensor->dtype == LK_DTYPE_F16);
    return widened ? lk_cpu_floats(lk_tensor_elements(tensor)) : 0;
}

/* Kernels that multiply bf16 by bf16 and others take different amounts: `features` are those of the kernel's row. */
size_t lk_cpu_own_scratch(const lk_device_caps *caps, uint64_t features, const lk_node *node) {
    lk_device_caps row = *caps;
    row.features = features;
    return ops[node->op].scratch != NULL ? (ops[node->op].scratch(&row, node) + 63) / 64 * 64 : 0;
}

/* The kernel's own, then fp32 copies of 16-bit tensors, in the order in which program.c takes them. */
static size_t scratch_bytes(const lk_device_caps *caps, uint64_t features, const lk_node *node) {
    const lk_cpu_op *op = &ops[node->op];
    size_t bytes = lk_cpu_own_scratch(caps, features, node);
    for (int i = 0; i < node->num_inputs; i++) {
        bytes += widened_bytes(node->inputs[i], lk_cpu_is_native(op, i, false));
    }
    for (int i = 0; i < node->num_outputs; i++) {
        bytes += widened_bytes(node->outputs[i], lk_cpu_is_native(op, i, true));
    }
    return bytes;
}

static bool has_pairs(const lk_device_caps *caps) {
    return (caps->features & LK_CPU_PAIR_FEATURES) != 0;
}

/* x, a or dy as the product takes it */
static size_t operand_bytes(const lk_device_caps *caps, const lk_tensor *a, lk_dtype a_dtype, const lk_tensor *weight) {
    return lk_cpu_operand_bytes(has_pairs(caps), a_dtype, weight->dtype, a->shape[0], a->shape[1]);
}

LK_CPU_SCRATCH(linear) {
    return operand_bytes(caps, node->inputs[0], node->inputs[0]->dtype, node->inputs[1]);
}

LK_CPU_SCRATCH(matmul) {
    return node->attributes.matmul.transpose_a ? 0
                                               : operand_bytes(caps, node->inputs[0], LK_DTYPE_F32, node->inputs[1]);
}

LK_CPU_SCRATCH(lora_linear) {
    return lk_cpu_lora_space_of(NULL, has_pairs(caps), node).bytes;
}

LK_CPU_SCRATCH(lora_linear_backward) {
    return lk_cpu_lora_backward_space_of(NULL, has_pairs(caps), node).bytes;
}

/* Scores, and of the backward also their gradients, of a block of queries and all keys. */
static size_t wide_bytes(const lk_tensor *q, const lk_tensor *k, int matrices) {
    return (size_t)matrices * lk_cpu_floats(lk_cpu_wide_rows(q->shape[0]) * ((k->shape[0] + 15) / 16 * 16));
}

LK_CPU_SCRATCH(attention) {
    (void)caps;
    return lk_cpu_is_wide(&node->attributes.attention) ? wide_bytes(node->inputs[0], node->inputs[1], 1) : 0;
}

LK_CPU_SCRATCH(attention_backward) { /* rowsum(do o) */
    (void)caps;
    return lk_cpu_is_wide(&node->attributes.attention) ? wide_bytes(node->inputs[1], node->inputs[2], 2)
                                                       : lk_cpu_floats(lk_tensor_elements(node->inputs[5]));
}

LK_CPU_SCRATCH(cross_entropy) { /* each row's loss */
    (void)caps;
    return lk_cpu_floats(node->inputs[0]->shape[0]);
}

LK_CPU_SCRATCH(linear_cross_entropy) {
    int64_t tokens = node->inputs[0]->shape[0], width = node->inputs[0]->shape[1];
    int64_t vocab_size = node->inputs[1]->shape[0];
    int64_t block = lk_cpu_loss_block(tokens, vocab_size), parts = lk_cpu_loss_parts(caps->threads, vocab_size);
    return lk_cpu_floats(tokens) +                       /* the tokens that count */
           lk_cpu_floats(block * vocab_size) +           /* logits, by rows of the vocabulary */
           lk_cpu_floats(block * width) +                /* x transposed */
           2 * lk_cpu_floats(block * parts) +            /* maxima and sums of each part */
           lk_cpu_floats(block) +                        /* log-sum-exp */
           (size_t)parts * lk_cpu_floats(block * width); /* each part's share of dx */
}

static size_t cayley_scratch(const lk_node *node, int64_t blocks) {
    const lk_cayley_attributes *cayley = &node->attributes.cayley;
    return lk_cpu_floats(blocks * cayley->size * cayley->size * lk_cpu_cayley_matrices(cayley));
}

LK_CPU_SCRATCH(cayley) {
    (void)caps;
    return cayley_scratch(node, node->inputs[0]->shape[0]);
}

LK_CPU_SCRATCH(cayley_backward) {
    (void)caps;
    return cayley_scratch(node, node->inputs[1]->shape[0]);
}

LK_CPU_SCRATCH(grad_norm) { /* a double per chunk */
    (void)caps;
    int64_t chunks = 0;
    for (int i = 0; i < node->num_inputs; i++) {
        chunks += lk_cpu_chunks(node->inputs[i]);
    }
    return lk_cpu_floats(2 * chunks);
}

/* ---- the table ---- */

#define LK_CPU_DEFINE_ISA(isa, features, unused) \
    static const lk_cpu_isa isa_##isa = {LK_CPU_NAME(widen, isa), LK_CPU_NAME(narrow, isa)};
LK_CPU_EACH_PRODUCT_ISA(LK_CPU_DEFINE_ISA, )

#define LK_CPU_DEFINE_SCRATCH(isa, features, unused)                               \
    static size_t scratch_##isa(const lk_device_caps *caps, const lk_node *node) { \
        return scratch_bytes(caps, features, node);                                \
    }
LK_CPU_EACH_PRODUCT_ISA(LK_CPU_DEFINE_SCRATCH, )

#define LK_CPU_COST_OF(features) \
    ((features) == 0 ? cost_generic : ((features)&LK_CPU_PAIR_FEATURES) != 0 ? cost_bf16 : cost)
#define LK_CPU_ROW(isa, features, OP, name, in_place) \
    {"cpu_" #name "_" #isa,                           \
     LK_OP_##OP,                                      \
     features,                                        \
     supports,                                        \
     LK_CPU_COST_OF(features),                        \
     scratch_##isa,                                   \
     in_place,                                        \
     (void (*)(void))LK_CPU_NAME(name, isa),          \
     &isa_##isa},
static const lk_kernel rows[] = {
#define LK_CPU_KERNEL(OP, name, in_place, scratch, native) LK_CPU_EACH_ISA(LK_CPU_ROW, OP, name, in_place)
#define LK_CPU_PRODUCT(OP, name, in_place, scratch, native) LK_CPU_EACH_PRODUCT_ISA(LK_CPU_ROW, OP, name, in_place)
#include "backends/cpu/kernels.def"
};

const lk_kernel *lk_cpu_kernels(int *count) {
    *count = (int)LK_COUNT(rows);
    return rows;
}
