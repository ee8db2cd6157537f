/* CAYLEY and its backward: products of matrices of which each block has its own, as the specification has them. */
#include "core/ops/cayley.h"

#include "backends/shaders/rows.h"

/* Rows of a matrix that cayley_inverse has room for. */
static int32_t inverse_size(int64_t size) {
    return size <= 32 ? 32 : 64;
}

static size_t inverse_bytes(int64_t size) {
    size_t side = (size_t)inverse_size(size);
    return (side + 2) * side * sizeof(float);
}

typedef struct blocks {
    lk_recorder *recorder;
    int64_t size, count; /* elements of all matrices together */
    int32_t degree, terms;
    lk_binding memory; /* matrices, one for each block, in a row */
} blocks;

static blocks blocks_of(lk_recorder *recorder, const lk_command *command) {
    const lk_cayley_attributes *cayley = &command->node->attributes.cayley;
    int64_t number = command->node->inputs[command->node->num_inputs - 1]->shape[0];
    return (blocks){.recorder = recorder,
                    .size = cayley->size,
                    .count = number * cayley->size * cayley->size,
                    .degree = lk_cayley_degree(cayley->terms),
                    .terms = cayley->terms,
                    .memory = command->scratch};
}

static size_t aligned_bytes(int64_t count) {
    return ((size_t)count * sizeof(float) + LK_BUFFER_ALIGNMENT - 1) / LK_BUFFER_ALIGNMENT * LK_BUFFER_ALIGNMENT;
}

/* The scratch memory's matrices of number `index`. */
static lk_binding matrices(const blocks *of, int32_t index) {
    return lk_binding_part(&of->memory, (size_t)index * aligned_bytes(of->count), (size_t)of->count * sizeof(float));
}

bool lk_supports_cayley(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    const lk_cayley_attributes *cayley = &node->attributes.cayley;
    bool inverts = cayley->terms == 0;
    LK_REQUIRE(why, !inverts || cayley->size <= 64, "blocks of more than 64 rows are not inverted");
    LK_REQUIRE(why, !inverts || caps->is_cpu || caps->shared_bytes >= inverse_bytes(cayley->size),
               "a block does not fit the shared memory");
    LK_REQUIRE(why, node->inputs[node->num_inputs - 1]->shape[0] <= INT32_MAX / cayley->size / cayley->size,
               "indices are 32 bits");
    return lk_supports_f32(caps, node, why);
}

size_t lk_scratch_cayley(const lk_device_caps *caps, const lk_node *node) {
    (void)caps;
    const lk_cayley_attributes *cayley = &node->attributes.cayley;
    int64_t count = node->inputs[node->num_inputs - 1]->shape[0] * cayley->size * cayley->size;
    int32_t degree = LK_MAX(lk_cayley_degree(cayley->terms), 1);
    bool backward = node->op == LK_OP_CAYLEY_BACKWARD;
    return (size_t)(backward ? 4 + degree : 2) * aligned_bytes(count);
}

/* ---- launches ---- */

static void make_matrix(const blocks *of, const lk_binding *triangles, double diagonal, double sign,
                        const lk_binding *y) {
    lk_launch *launch =
        lk_launch_begin(of->recorder, "cayley", "cayley_matrix", lk_lanes_for_elements(of->recorder->caps));
    lk_launch_buffer(launch, triangles);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, of->count);
    lk_launch_int(launch, of->size);
    lk_launch_float(launch, (float)diagonal);
    lk_launch_float(launch, (float)sign);
    lk_launch_cover(launch, of->recorder, of->count);
}

/* y = scale a b + diagonal I, or is added to */
static void multiply(const blocks *of, const lk_binding *a, const lk_binding *b, double scale, double diagonal,
                     bool adds, const lk_binding *y) {
    lk_launch *launch =
        lk_launch_begin(of->recorder, "cayley", "cayley_product", lk_lanes_for_elements(of->recorder->caps));
    lk_launch_buffer(launch, a);
    lk_launch_buffer(launch, b);
    lk_launch_buffer(launch, y);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, of->count);
    lk_launch_int(launch, of->size);
    lk_launch_float(launch, (float)scale);
    lk_launch_float(launch, (float)diagonal);
    lk_launch_int(launch, adds);
    lk_launch_cover(launch, of->recorder, of->count);
}

/* y = scale x^-1 + diagonal I */
static void invert(const blocks *of, const lk_binding *x, double scale, double diagonal, const lk_binding *y) {
    lk_launch *launch = lk_launch_begin(of->recorder, "cayley", "cayley_inverse", lk_lanes_for_row(of->recorder->caps));
    lk_launch_constant(launch, "SIZE", inverse_size(of->size));
    lk_launch_buffer(launch, x);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, of->size);
    lk_launch_float(launch, (float)scale);
    lk_launch_float(launch, (float)diagonal);
    lk_launch_groups(launch, of->count / (of->size * of->size));
}

/* ---- CAYLEY ---- */

void lk_record_cayley(lk_recorder *recorder, const lk_command *command) {
    blocks of = blocks_of(recorder, command);
    const lk_binding *triangles = &command->inputs[0], *r = &command->outputs[0];
    lk_binding q = matrices(&of, 0), other = matrices(&of, 1);
    if (of.terms == 0) {
        make_matrix(&of, triangles, 1.0, 1.0, &q);
        invert(&of, &q, 2.0, -1.0, r);
        return;
    }
    if (of.degree < 2) { /* I + 2 Q, or I */
        make_matrix(&of, triangles, 1.0, of.degree > 0 ? lk_cayley_coefficient(1, 1) : 0.0, r);
        return;
    }
    make_matrix(&of, triangles, 0.0, 1.0, &q);
    /* Horner's scheme: the first two coefficients are a matrix, and each product goes where the last did not */
    const lk_binding *places[] = {r, &other};
    int at = (of.degree - 1) % 2;
    make_matrix(&of, triangles, lk_cayley_coefficient(of.degree, of.degree - 1),
                lk_cayley_coefficient(of.degree, of.degree), places[at]);
    for (int p = of.degree - 2; p >= 0; p--, at = 1 - at) {
        multiply(&of, &q, places[at], 1.0, lk_cayley_coefficient(of.degree, p), false, places[1 - at]);
    }
}

/* ---- CAYLEY_BACKWARD ---- */

static void record_exact(const blocks *of, const lk_command *command, const lk_binding *d_q) {
    lk_binding from = matrices(of, 1), inverse = matrices(of, 2);
    make_matrix(of, &command->inputs[1], 1.0, -1.0, &from);
    invert(of, &from, 1.0, 0.0, &inverse);
    multiply(of, &inverse, &command->inputs[0], -2.0, 0.0, false, &from);
    multiply(of, &from, &inverse, 1.0, 0.0, false, d_q);
}

/* h_p are the transposes of the sums of Horner's scheme, g the gradients that arrive at them. */
static void record_series(const blocks *of, const lk_command *command, const lk_binding *d_q) {
    enum { MINUS = 1, G = 2, H = 4 };
    const lk_binding *triangles = &command->inputs[1];
    lk_binding minus = matrices(of, MINUS), g = command->inputs[0];
    if (of->degree == 0) {
        make_matrix(of, triangles, 0.0, 0.0, d_q);
        return;
    }
    make_matrix(of, triangles, 0.0, -1.0, &minus);
    for (int p = of->degree; p >= 1; p--) {
        lk_binding h = matrices(of, H + p - 1), above = matrices(of, H + p);
        double coefficient = lk_cayley_coefficient(of->degree, p);
        if (p == of->degree) {
            make_matrix(of, triangles, coefficient, 0.0, &h);
        } else {
            multiply(of, &minus, &above, 1.0, coefficient, false, &h);
        }
    }
    for (int p = 0; p < of->degree; p++) {
        lk_binding h = matrices(of, H + p), next = matrices(of, G + p % 2);
        multiply(of, &g, &h, 1.0, 0.0, p > 0, d_q);
        if (p + 1 < of->degree) {
            multiply(of, &minus, &g, 1.0, 0.0, false, &next);
            g = next;
        }
    }
}

void lk_record_cayley_backward(lk_recorder *recorder, const lk_command *command) {
    blocks of = blocks_of(recorder, command);
    lk_binding d_q = matrices(&of, 0);
    if (of.terms == 0) {
        record_exact(&of, command, &d_q);
    } else {
        record_series(&of, command, &d_q);
    }
    lk_launch *launch = lk_launch_begin(recorder, "cayley", "cayley_triangle", lk_lanes_for_elements(recorder->caps));
    lk_launch_buffer(launch, &d_q);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, of.count);
    lk_launch_int(launch, of.size);
    lk_launch_cover(launch, recorder, of.count);
}
