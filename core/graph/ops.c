#include "core/graph/ops.h"

#include <stdio.h>

#define GRADIENT_OF_GRADIENT(name) lk_op_##name##_gradient
#define GRADIENT_OF_NO_GRADIENT(name) NULL
#define GRADIENT_OF_DETACHED(name) NULL
#define IS_DETACHED_GRADIENT false
#define IS_DETACHED_NO_GRADIENT false
#define IS_DETACHED_DETACHED true
#define DECOMPOSE_OF_DECOMPOSES(name) lk_op_##name##_decompose
#define DECOMPOSE_OF_NO_DECOMPOSITION(name) NULL
#define MUTATES_OF_MUTATES true
#define MUTATES_OF_PURE false
#define FLOPS_OF_OWN(name) 0.0, lk_op_##name##_flops
#define FLOPS_OF_PER_ELEMENT(count) count, FLOPS_NONE
#define FLOPS_NONE(name) NULL

static const lk_op_info table[LK_OP_COUNT] = {
#define LK_OP(NAME, name, signature, gradient, decomposition, accumulate, effect, flops) \
    {#name,                                                                              \
     signature,                                                                          \
     lk_op_##name##_infer,                                                               \
     lk_op_##name##_reference,                                                           \
     GRADIENT_OF_##gradient(name),                                                       \
     DECOMPOSE_OF_##decomposition(name),                                                 \
     IS_DETACHED_##gradient,                                                             \
     accumulate,                                                                         \
     MUTATES_OF_##effect,                                                                \
     FLOPS_OF_##flops(name)},
#include "lorikeet/ops.def"
#undef LK_OP
};

const lk_op_info *lk_op_info_of(lk_op op) {
    return &table[op];
}

const char *lk_op_name(lk_op op) {
    return (unsigned)op < LK_OP_COUNT ? table[op].name : "unknown";
}

const char *lk_op_signature(lk_op op) {
    return (unsigned)op < LK_OP_COUNT ? table[op].signature : "";
}

static void format_shape(char *text, size_t size, int rank, const int64_t *extents) {
    int length = snprintf(text, size, "[");
    for (int i = 0; i < rank && (size_t)length < size; i++) {
        const char *comma = i > 0 ? "," : "";
        if (extents[i] < 0) {
            length += snprintf(text + length, size - (size_t)length, "%s*", comma);
        } else {
            length += snprintf(text + length, size - (size_t)length, "%s%lld", comma, (long long)extents[i]);
        }
    }
    if ((size_t)length < size) {
        snprintf(text + length, size - (size_t)length, "]");
    }
}

static lk_status complain(lk_context *context, const lk_node *node, const char *name, const char *text) {
    return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s%s%s: input %s %s", lk_op_name(node->op),
                   node->scope[0] ? " at " : "", node->scope, name, text);
}

static lk_status complain_shape(lk_context *context, const lk_node *node, const char *name, const lk_tensor *found,
                                int rank, const int64_t *expected) {
    char is[64], wanted[64], text[192];
    format_shape(is, sizeof is, found->rank, found->shape);
    format_shape(wanted, sizeof wanted, rank, expected);
    snprintf(text, sizeof text, "has shape %s, expected %s", is, wanted);
    return complain(context, node, name, text);
}

double lk_node_flops(const lk_node *node) {
    const lk_op_info *info = lk_op_info_of(node->op);
    if (info->flops != NULL) {
        return info->flops(node);
    }
    int64_t elements = 0;
    for (int i = 0; i < node->num_inputs; i++) {
        elements = node->inputs[i] ? LK_MAX(elements, lk_tensor_elements(node->inputs[i])) : elements;
    }
    for (int i = 0; i < node->num_outputs; i++) {
        elements = node->outputs[i] ? LK_MAX(elements, lk_tensor_elements(node->outputs[i])) : elements;
    }
    return info->flops_per_element * (double)elements;
}

double lk_node_bytes(const lk_node *node) {
    double bytes = 0.0;
    for (int i = 0; i < node->num_inputs; i++) {
        bytes += node->inputs[i] ? (double)lk_tensor_bytes(node->inputs[i]) : 0.0;
    }
    for (int i = 0; i < node->num_outputs; i++) {
        bytes += node->outputs[i] ? (double)lk_tensor_bytes(node->outputs[i]) : 0.0;
    }
    return bytes;
}

bool lk_has_input(const lk_node *node, int index) {
    return index < node->num_inputs && node->inputs[index] != NULL;
}

lk_status lk_expect(lk_context *context, const lk_node *node, int index, const char *name, lk_kind kind, int rank,
                    int64_t extent0, int64_t extent1) {
    if (!lk_has_input(node, index)) {
        return complain(context, node, name, "is missing");
    }
    const lk_tensor *tensor = node->inputs[index];
    if ((tensor->dtype == LK_DTYPE_I32) != (kind == LK_KIND_INT)) {
        char text[96];
        snprintf(text, sizeof text, "has dtype %s", lk_dtype_name(tensor->dtype));
        return complain(context, node, name, text);
    }
    int64_t expected[LK_MAX_RANK] = {extent0, extent1, 1, 1};
    bool fits = tensor->rank == rank;
    for (int i = 0; i < rank && fits; i++) {
        fits = expected[i] < 0 || expected[i] == tensor->shape[i];
    }
    return fits ? LK_OK : complain_shape(context, node, name, tensor, rank, expected);
}

lk_status lk_expect_like(lk_context *context, const lk_node *node, int index, const char *name, int like) {
    if (!lk_has_input(node, index) || !lk_has_input(node, like)) {
        return complain(context, node, name, "is missing");
    }
    const lk_tensor *a = node->inputs[index], *b = node->inputs[like];
    bool same = a->rank == b->rank;
    for (int i = 0; i < a->rank && same; i++) {
        same = a->shape[i] == b->shape[i];
    }
    return same ? LK_OK : complain_shape(context, node, name, a, b->rank, b->shape);
}

lk_status lk_expect_attribute(lk_context *context, const lk_node *node, bool condition, const char *text) {
    if (!condition) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s%s%s: %s", lk_op_name(node->op),
                       node->scope[0] ? " at " : "", node->scope, text);
    }
    return LK_OK;
}

lk_shape lk_shape_of(const lk_tensor *tensor) {
    lk_shape shape = {tensor->dtype, tensor->rank, {1, 1, 1, 1}};
    for (int i = 0; i < LK_MAX_RANK; i++) {
        shape.extent[i] = tensor->shape[i];
    }
    return shape;
}

lk_shape lk_shape_make(lk_dtype dtype, int rank, int64_t extent0, int64_t extent1) {
    return (lk_shape){dtype, rank, {extent0, rank > 1 ? extent1 : 1, 1, 1}};
}
