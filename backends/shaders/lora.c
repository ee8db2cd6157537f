/* LORA_LINEAR and its backward, as products that share their scratch memory. */
#include "backends/shaders/rows.h"

enum { X = 0, WEIGHT = 1, BIAS = 2, LORA_A = 3, LORA_B = 4, RNG = 5 };
enum { B_DY = 0, B_X = 1, B_WEIGHT = 2, B_LORA_A = 3, B_LORA_B = 4, B_S = 5, B_RNG = 6, B_DX_SUM = 7 };

typedef struct sizes {
    int64_t tokens, in, out, rank;
    lk_dtype type; /* of the weight */
} sizes;

static sizes sizes_of(const lk_node *node) {
    bool backward = node->op == LK_OP_LORA_LINEAR_BACKWARD;
    const lk_tensor *weight = node->inputs[backward ? B_WEIGHT : WEIGHT];
    return (sizes){node->inputs[0]->shape[0], weight->shape[1], weight->shape[0], node->inputs[LORA_A]->shape[0],
                   weight->dtype};
}

/* Scratch memory is handed out from the front, in steps of the alignment; only counted where there is no buffer. */
typedef struct pool {
    lk_binding memory;
    size_t used;
} pool;

static lk_binding take(pool *from, int64_t floats) {
    size_t bytes =
        ((size_t)floats * sizeof(float) + LK_BUFFER_ALIGNMENT - 1) / LK_BUFFER_ALIGNMENT * LK_BUFFER_ALIGNMENT;
    lk_binding part = lk_binding_part(&from->memory, from->used, (size_t)floats * sizeof(float));
    from->used += bytes;
    return part;
}

static lk_binding take_bytes(pool *from, size_t bytes) {
    return take(from, (int64_t)((bytes + sizeof(float) - 1) / sizeof(float)));
}

bool lk_supports_lora(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    return (caps->is_cpu || lk_supports_tiles(caps, why)) && lk_supports_f32_but(node, WEIGHT, why);
}

bool lk_supports_lora_backward(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    return (caps->is_cpu || lk_supports_tiles(caps, why)) && lk_supports_f32_but(node, B_WEIGHT, why);
}

/* The low-rank part of y or dx is added within the product with the weight; a mask on it must come first. */
static bool adds_within(const lk_products *by, const lk_node *node) {
    bool masked = node->op == LK_OP_LORA_LINEAR_BACKWARD && node->attributes.lora.dropout > 0.0f;
    return by->low_scratch != NULL && node->attributes.lora.order != LK_LORA_MERGED && !masked;
}

/* The sum of the products that the node is made of. */
double lk_cost_lora_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    sizes z = sizes_of(node);
    bool forward = node->op == LK_OP_LORA_LINEAR, merged = node->attributes.lora.order == LK_LORA_MERGED;
    lk_dtype type = merged ? LK_DTYPE_F32 : z.type; /* the sum of weight and update is fp32 */
    double seconds = 0.0;
    if (forward || node->outputs[0] != NULL) {
        seconds += by->cost(caps, z.tokens, z.out, z.in, type, false);
        if (!adds_within(by, node)) {
            seconds += merged ? by->cost(caps, z.out, z.in, z.rank, LK_DTYPE_F32, false)
                              : by->cost(caps, z.tokens, z.out, z.rank, LK_DTYPE_F32, false);
        }
    }
    for (int i = 1; i < 3; i++) {
        seconds += node->outputs[i] != NULL ? by->cost(caps, z.tokens, z.rank, z.in, LK_DTYPE_F32, true) : 0.0;
    }
    return seconds;
}

double lk_cost_lora(const lk_device_caps *caps, const lk_node *node) {
    return lk_cost_lora_by(&lk_products_dialect, caps, node);
}

/* The most that one of them needs: of the weight's, or of a low-rank one. */
static size_t product_scratch(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    sizes z = sizes_of(node);
    bool forward = node->op == LK_OP_LORA_LINEAR, dropout = node->attributes.lora.dropout > 0.0f;
    const struct {
        bool forward;
        int64_t m, n, k;
        bool a_ready;
    } low[] = {{true, z.tokens, z.rank, z.in, !dropout}, {true, z.tokens, z.out, z.rank, false},
               {false, z.tokens, z.rank, z.out, true},   {false, z.tokens, z.in, z.rank, false},
               {false, z.rank, z.in, z.tokens, false},   {false, z.out, z.rank, z.tokens, true}};
    bool merged = node->attributes.lora.order == LK_LORA_MERGED;
    lk_dtype type = merged ? LK_DTYPE_F32 : z.type;
    size_t most = by->scratch(caps, z.tokens, forward ? z.out : z.in, forward ? z.in : z.out, type, true);
    most += adds_within(by, node) ? by->low_scratch(z.tokens, forward ? z.out : z.in, z.rank) : 0;
    for (size_t i = 0; i < LK_COUNT(low); i++) {
        size_t one = by->scratch(caps, low[i].m, low[i].n, low[i].k, LK_DTYPE_F32, low[i].a_ready);
        most = low[i].forward == forward ? LK_MAX(most, one) : most;
    }
    if (merged) {
        most = LK_MAX(most, by->scratch(caps, z.out, z.in, z.rank, LK_DTYPE_F32, false));
    }
    return most;
}

/* Room for an operand that is made ready once; none where it is taken as it is. */
static lk_binding take_prepared(pool *from, const lk_products *by, int64_t rows, int64_t columns) {
    return by->prepared_bytes != NULL ? take_bytes(from, by->prepared_bytes(rows, columns)) : (lk_binding){NULL, 0, 0};
}

static void prepare(lk_recorder *recorder, const lk_binding *x, int64_t rows, int64_t columns, lk_binding *room) {
    if (room->bytes > 0) {
        lk_products_of(recorder)->prepare(recorder, x, rows, columns, room);
    } else {
        *room = (lk_binding){NULL, 0, 0};
    }
}

/* W + scale B A. A product's c is fp32, so 16-bit weights are widened first, into the result's place. */
static void record_merged(lk_recorder *recorder, const sizes *z, const lk_binding *weight, lk_dtype weight_type,
                          const lk_binding *lora_a, const lk_binding *lora_b, float scale, const lk_binding *merged,
                          const lk_binding *scratch) {
    if (weight_type != LK_DTYPE_F32) {
        lk_record_cast_into(recorder, weight, weight_type, merged, LK_DTYPE_F32, z->out * z->in);
    }
    lk_product p = {.M = z->out,
                    .N = z->in,
                    .K = z->rank,
                    .a = *lora_b,
                    .b = *lora_a,
                    .c = weight_type != LK_DTYPE_F32 ? *merged : *weight,
                    .y = *merged,
                    .scratch = *scratch,
                    .a_row = z->rank,
                    .a_inner = 1,
                    .b_inner = z->in,
                    .b_column = 1,
                    .alpha = scale};
    lk_record_product(recorder, &p);
}

/* ---- forward ---- */

typedef struct forward_parts {
    lk_binding x, dropped, s, merged, product;
} forward_parts;

static forward_parts forward_layout(const lk_products *by, const lk_device_caps *caps, const lk_node *node,
                                    pool *memory) {
    sizes z = sizes_of(node);
    bool merged = node->attributes.lora.order == LK_LORA_MERGED;
    forward_parts parts = {.x = take_prepared(memory, by, z.tokens, z.in)};
    if (node->attributes.lora.dropout > 0.0f) {
        parts.dropped = take(memory, z.tokens * z.in);
    }
    if (node->outputs[1] == NULL && !merged) {
        parts.s = take(memory, z.tokens * z.rank);
    }
    if (merged) {
        parts.merged = take(memory, z.out * z.in);
    }
    parts.product = take_bytes(memory, product_scratch(by, caps, node));
    return parts;
}

size_t lk_scratch_lora_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    pool memory = {0};
    forward_layout(by, caps, node, &memory);
    return memory.used;
}

size_t lk_scratch_lora(const lk_device_caps *caps, const lk_node *node) {
    return lk_scratch_lora_by(&lk_products_dialect, caps, node);
}

void lk_record_lora_linear(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    const lk_lora_attributes *lora = &node->attributes.lora;
    sizes z = sizes_of(node);
    pool memory = {command->scratch, 0};
    forward_parts parts = forward_layout(lk_products_of(recorder), recorder->caps, node, &memory);
    bool merged = lora->order == LK_LORA_MERGED;
    lk_binding x = command->inputs[X];
    prepare(recorder, &x, z.tokens, z.in, &parts.x);
    lk_binding x_ready = parts.x;
    if (lora->dropout > 0.0f) {
        lk_record_mask(recorder, &x, &command->inputs[RNG], &parts.dropped, z.tokens * z.in, lora->dropout,
                       lora->stream);
        x_ready = (lk_binding){NULL, 0, 0};
        x = parts.dropped;
    }
    lk_binding s = node->outputs[1] != NULL ? command->outputs[1] : parts.s;
    if (node->outputs[1] != NULL || (!merged && node->outputs[0] != NULL)) { /* s = x A' */
        lk_product p = {.M = z.tokens,
                        .N = z.rank,
                        .K = z.in,
                        .a = x,
                        .b = command->inputs[LORA_A],
                        .y = s,
                        .scratch = parts.product,
                        .a_row = z.in,
                        .a_inner = 1,
                        .b_inner = 1,
                        .b_column = z.in,
                        .alpha = 1.0f,
                        .a_ready = x_ready};
        lk_record_product(recorder, &p);
    }
    if (node->outputs[0] == NULL) {
        return;
    }
    lk_product p = {.M = z.tokens,
                    .N = z.out,
                    .K = z.in,
                    .a = command->inputs[X],
                    .b = command->inputs[WEIGHT],
                    .y = command->outputs[0],
                    .scratch = parts.product,
                    .a_row = z.in,
                    .a_inner = 1,
                    .b_inner = 1,
                    .b_column = z.in,
                    .b_type = node->inputs[WEIGHT]->dtype,
                    .alpha = 1.0f,
                    .a_ready = parts.x};
    if (lk_has_input(node, BIAS)) {
        p.bias = command->inputs[BIAS];
    }
    if (merged) {
        record_merged(recorder, &z, &command->inputs[WEIGHT], p.b_type, &command->inputs[LORA_A],
                      &command->inputs[LORA_B], lora->scale, &parts.merged, &parts.product);
        p.b = parts.merged;
        p.b_type = LK_DTYPE_F32;
        lk_record_product(recorder, &p);
        return;
    }
    if (adds_within(lk_products_of(recorder), node)) {
        p.rank = z.rank;
        p.low_a = s;
        p.low_b = command->inputs[LORA_B];
        p.low_scale = lora->scale;
        lk_record_product(recorder, &p);
        return;
    }
    lk_record_product(recorder, &p);
    lk_product low = {.M = z.tokens,
                      .N = z.out,
                      .K = z.rank,
                      .a = s,
                      .b = command->inputs[LORA_B],
                      .c = command->outputs[0],
                      .y = command->outputs[0],
                      .scratch = parts.product,
                      .a_row = z.rank,
                      .a_inner = 1,
                      .b_inner = 1,
                      .b_column = z.rank,
                      .alpha = lora->scale};
    lk_record_product(recorder, &low);
}

/* ---- backward ---- */

typedef struct backward_parts {
    lk_binding dy, z, dropped, low, merged, product;
    bool needs_z;
} backward_parts;

static backward_parts backward_layout(const lk_products *by, const lk_device_caps *caps, const lk_node *node,
                                      pool *memory) {
    sizes z = sizes_of(node);
    bool merged = node->attributes.lora.order == LK_LORA_MERGED, dropout = node->attributes.lora.dropout > 0.0f;
    backward_parts parts = {.needs_z = node->outputs[1] != NULL || (node->outputs[0] != NULL && !merged)};
    parts.dy = take_prepared(memory, by, z.tokens, z.out);
    if (parts.needs_z) {
        parts.z = take(memory, z.tokens * z.rank);
    }
    if (dropout) { /* x with its mask, or the low-rank part of dx: one after the other */
        parts.dropped = take(memory, z.tokens * z.in);
        parts.low = parts.dropped;
    }
    if (merged && node->outputs[0] != NULL) {
        parts.merged = take(memory, z.out * z.in);
    }
    parts.product = take_bytes(memory, product_scratch(by, caps, node));
    return parts;
}

size_t lk_scratch_lora_backward_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    pool memory = {0};
    backward_layout(by, caps, node, &memory);
    return memory.used;
}

size_t lk_scratch_lora_backward(const lk_device_caps *caps, const lk_node *node) {
    return lk_scratch_lora_backward_by(&lk_products_dialect, caps, node);
}

/* dx = dy W + (z A) mask + dx_sum */
static void record_dx(lk_recorder *recorder, const lk_command *command, const sizes *z, const backward_parts *parts) {
    const lk_node *node = command->node;
    const lk_lora_attributes *lora = &node->attributes.lora;
    bool merged = lora->order == LK_LORA_MERGED, dropout = lora->dropout > 0.0f;
    lk_binding sum = lk_has_input(node, B_DX_SUM) ? command->inputs[B_DX_SUM] : (lk_binding){NULL, 0, 0};
    lk_product p = {.M = z->tokens,
                    .N = z->in,
                    .K = z->out,
                    .a = command->inputs[B_DY],
                    .b = command->inputs[B_WEIGHT],
                    .c = sum,
                    .y = command->outputs[0],
                    .scratch = parts->product,
                    .a_row = z->out,
                    .a_inner = 1,
                    .b_inner = z->in,
                    .b_column = 1,
                    .b_type = node->inputs[B_WEIGHT]->dtype,
                    .alpha = 1.0f,
                    .a_ready = parts->dy};
    lk_product low = {.M = z->tokens,
                      .N = z->in,
                      .K = z->rank,
                      .a = parts->z,
                      .b = command->inputs[B_LORA_A],
                      .c = sum,
                      .y = command->outputs[0],
                      .scratch = parts->product,
                      .a_row = z->rank,
                      .a_inner = 1,
                      .b_inner = z->in,
                      .b_column = 1,
                      .alpha = 1.0f};
    if (merged) {
        record_merged(recorder, z, &command->inputs[B_WEIGHT], p.b_type, &command->inputs[B_LORA_A],
                      &command->inputs[B_LORA_B], lora->scale, &parts->merged, &parts->product);
        p.b = parts->merged;
        p.b_type = LK_DTYPE_F32;
        lk_record_product(recorder, &p);
    } else if (adds_within(lk_products_of(recorder), node)) {
        p.rank = z->rank;
        p.low_a = parts->z;
        p.low_b = command->inputs[B_LORA_A];
        p.low_scale = 1.0f;
        lk_record_product(recorder, &p);
    } else if (dropout) {
        low.c = (lk_binding){NULL, 0, 0};
        low.y = parts->low;
        lk_record_product(recorder, &low);
        lk_record_mask(recorder, &parts->low, &command->inputs[B_RNG], &parts->low, z->tokens * z->in, lora->dropout,
                       lora->stream);
        lk_record_product(recorder, &p);
        lk_record_sum_into(recorder, &command->outputs[0], &parts->low, z->tokens * z->in);
    } else {
        lk_record_product(recorder, &low);
        p.c = command->outputs[0];
        lk_record_product(recorder, &p);
    }
}

void lk_record_lora_linear_backward(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    const lk_lora_attributes *lora = &node->attributes.lora;
    sizes z = sizes_of(node);
    pool memory = {command->scratch, 0};
    backward_parts parts = backward_layout(lk_products_of(recorder), recorder->caps, node, &memory);
    prepare(recorder, &command->inputs[B_DY], z.tokens, z.out, &parts.dy);
    if (parts.needs_z) { /* z = scale dy B */
        lk_product p = {.M = z.tokens,
                        .N = z.rank,
                        .K = z.out,
                        .a = command->inputs[B_DY],
                        .b = command->inputs[B_LORA_B],
                        .y = parts.z,
                        .scratch = parts.product,
                        .a_row = z.out,
                        .a_inner = 1,
                        .b_inner = z.rank,
                        .b_column = 1,
                        .alpha = lora->scale,
                        .a_ready = parts.dy};
        lk_record_product(recorder, &p);
    }
    if (node->outputs[1] != NULL) { /* dA = z' x */
        lk_binding x = command->inputs[B_X];
        if (lora->dropout > 0.0f) {
            lk_record_mask(recorder, &x, &command->inputs[B_RNG], &parts.dropped, z.tokens * z.in, lora->dropout,
                           lora->stream);
            x = parts.dropped;
        }
        lk_product p = {.M = z.rank,
                        .N = z.in,
                        .K = z.tokens,
                        .a = parts.z,
                        .b = x,
                        .y = command->outputs[1],
                        .scratch = parts.product,
                        .a_row = 1,
                        .a_inner = z.rank,
                        .b_inner = z.in,
                        .b_column = 1,
                        .alpha = 1.0f};
        lk_record_product(recorder, &p);
    }
    if (node->outputs[2] != NULL) { /* dB = scale dy' s */
        lk_product p = {.M = z.out,
                        .N = z.rank,
                        .K = z.tokens,
                        .a = command->inputs[B_DY],
                        .b = command->inputs[B_S],
                        .y = command->outputs[2],
                        .scratch = parts.product,
                        .a_row = 1,
                        .a_inner = z.out,
                        .b_inner = z.rank,
                        .b_column = 1,
                        .alpha = lora->scale,
                        .a_ready = parts.dy};
        lk_record_product(recorder, &p);
    }
    if (node->outputs[0] != NULL) {
        record_dx(recorder, command, &z, &parts);
    }
}
