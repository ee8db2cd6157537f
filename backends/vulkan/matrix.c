/* Products with weights stored in 16 bits by cooperative matrices (matmul_matrix.lk). The left operand, which is fp32,
 * is rounded to fp16 first, each row scaled to fp16's range; sums are fp32. Other products are left to the dialect's
 * kernels. */
#include <string.h>

#include "backends/shaders/rows.h"
#include "backends/vulkan/vulkan.h"

enum { SUBGROUPS = 4, MATRIX_N = 16, BK = 32 };

/* Matrices that each subgroup of a group has; they are two by two. */
typedef struct tile {
    int32_t matrix_m, rows, columns;
} tile;

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t round_up(int64_t a, int64_t b) {
    return ceil_div(a, b) * b;
}

static int64_t tile_m(const tile *t) {
    return 2 * (int64_t)t->rows * t->matrix_m;
}

static int64_t tile_n(const tile *t) {
    return 2 * (int64_t)t->columns * MATRIX_N;
}

/* Of matmul_matrix_SHARED. */
static size_t shared_bytes(const tile *t) {
    return 2 * (size_t)(tile_m(t) * (BK + 8) + BK * (tile_n(t) + 8)) +
           sizeof(float) * SUBGROUPS * (size_t)t->matrix_m * MATRIX_N;
}

/* 64 x 64, or 128 x 128 where that leaves work for every unit. */
static tile tile_for(const lk_device_caps *caps, int64_t m, int64_t n) {
    int32_t matrix_m = (caps->features & (LK_VK_MATRIX_16 | LK_VK_MATRIX_8)) == LK_VK_MATRIX_8 ? 8 : 16;
    tile small = {matrix_m, 32 / matrix_m, 2}, large = {matrix_m, 64 / matrix_m, 4};
    bool fills = ceil_div(m, 128) * ceil_div(n, 128) >= 2 * LK_MAX(caps->threads, 1);
    return fills && shared_bytes(&large) <= caps->shared_bytes ? large : small;
}

bool lk_vk_matrices_are_built(void) {
    for (const lk_spirv *kernel = lk_spirv_kernels; kernel->entry != NULL; kernel++) {
        if (strstr(kernel->choice, "MATRIX=cooperative") != NULL) {
            return true;
        }
    }
    return false;
}

bool lk_vk_supports_matrix(const lk_device_caps *caps, const lk_node *node, int weight, lk_refusal *why) {
    const uint64_t matrices = LK_VK_MATRIX_16 | LK_VK_MATRIX_8, emulated = LK_VK_MATRIX_EMULATED;
    LK_REQUIRE(why, (caps->features & (matrices | emulated)) != 0,
               "the device has no cooperative matrices of fp16 with fp32 sums");
    LK_REQUIRE(why, (caps->features & emulated) != 0 || lk_vk_matrices_are_built(),
               "this build had no glslangValidator that knows GL_KHR_cooperative_matrix");
    lk_dtype stored = node->inputs[weight]->dtype;
    LK_REQUIRE(why, stored == LK_DTYPE_BF16 || stored == LK_DTYPE_F16, "the weight is not stored in 16 bits");
    bool lora = node->op == LK_OP_LORA_LINEAR || node->op == LK_OP_LORA_LINEAR_BACKWARD;
    LK_REQUIRE(why, !lora || node->attributes.lora.order != LK_LORA_MERGED,
               "the sum of weight and update would be rounded to fp16");
    LK_REQUIRE(why, node->op != LK_OP_MATMUL || !node->attributes.matmul.transpose_a, "the left operand is transposed");
    tile small = tile_for(caps, 1, 1);
    LK_REQUIRE(why, caps->shared_bytes >= shared_bytes(&small), "needs 14 KiB of shared memory");
    LK_REQUIRE(why, caps->subgroup_size > 0 && caps->max_group_size >= SUBGROUPS * caps->subgroup_size,
               "needs groups of four subgroups");
    return true;
}

/* ---- as products ---- */

static bool has_stored_weight(lk_dtype b_type) {
    return b_type == LK_DTYPE_BF16 || b_type == LK_DTYPE_F16;
}

static double cost(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    if (!has_stored_weight(b_type)) {
        return lk_products_dialect.cost(caps, m, n, k, b_type, a_ready);
    }
    tile t = tile_for(caps, m, n);
    double groups = (double)(ceil_div(m, tile_m(&t)) * ceil_div(n, tile_n(&t)));
    double rounds = LK_MAX(groups, (double)LK_MAX(caps->threads, 1)) / groups; /* processors that have nothing to do */
    double work = 2.0 * groups * (double)(tile_m(&t) * tile_n(&t)) * (double)round_up(k, BK);
    double arithmetic = rounds * work / (LK_MAX(caps->flops_16, caps->flops_f32) * 0.3);
    double memory = (2.0 * (double)n * (double)k + 4.0 * (double)m * (double)n) / caps->bandwidth;
    return 2.0 * caps->launch_seconds + 6.0 * (double)m * (double)k / caps->bandwidth + LK_MAX(arithmetic, memory);
}

/* The rounded rows, then their scales. */
static size_t rounded_bytes(const tile *t, int64_t m, int64_t k) {
    return (size_t)round_up(2 * round_up(m, tile_m(t)) * round_up(k, BK), LK_BUFFER_ALIGNMENT);
}

static size_t scratch(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    if (!has_stored_weight(b_type)) {
        return lk_products_dialect.scratch(caps, m, n, k, b_type, a_ready);
    }
    tile t = tile_for(caps, m, n);
    return rounded_bytes(&t, m, k) + (size_t)round_up(m, tile_m(&t)) * sizeof(float);
}

static void record_rounding(lk_recorder *recorder, const lk_product *p, const lk_binding *rounded,
                            const lk_binding *scales, int64_t padded_rows, int64_t pitch) {
    lk_launch *launch = lk_launch_rows(recorder, "round_rows", "round_rows", lk_lanes_for_row(recorder->caps));
    lk_launch_buffer(launch, &p->a);
    lk_launch_buffer(launch, rounded);
    lk_launch_buffer(launch, scales);
    lk_launch_int(launch, p->M);
    lk_launch_int(launch, p->K);
    lk_launch_int(launch, pitch);
    lk_launch_int(launch, padded_rows);
    lk_launch_groups(launch, padded_rows);
}

static void record(lk_recorder *recorder, const lk_product *p) {
    const lk_device_caps *caps = recorder->caps;
    if (!has_stored_weight(p->b_type)) {
        lk_products_dialect.record(recorder, p);
        return;
    }
    tile t = tile_for(caps, p->M, p->N);
    int64_t padded_rows = round_up(p->M, tile_m(&t)), pitch = round_up(p->K, BK);
    size_t bytes = rounded_bytes(&t, p->M, p->K);
    lk_binding rounded = lk_binding_part(&p->scratch, 0, bytes);
    lk_binding scales = lk_binding_part(&p->scratch, bytes, (size_t)padded_rows * sizeof(float));
    record_rounding(recorder, p, &rounded, &scales, padded_rows, pitch);
    bool emulated = (caps->features & LK_VK_MATRIX_EMULATED) != 0;
    lk_launch *launch = lk_launch_begin(recorder, "matmul_matrix", "matmul_matrix", SUBGROUPS * caps->subgroup_size);
    lk_launch_type(launch, "B_TYPE", p->b_type);
    lk_launch_word(launch, "MATRIX", emulated ? "emulated" : "cooperative");
    lk_launch_constant(launch, "SUBGROUP", caps->subgroup_size);
    lk_launch_constant(launch, "MATRIX_M", t.matrix_m);
    lk_launch_constant(launch, "ROWS", t.rows);
    lk_launch_constant(launch, "COLUMNS", t.columns);
    lk_launch_buffer(launch, &rounded);
    lk_launch_buffer(launch, &scales);
    lk_launch_buffer(launch, &p->b);
    lk_launch_buffer(launch, p->c.buffer != NULL ? &p->c : &p->y);
    lk_launch_buffer(launch, p->bias.buffer != NULL ? &p->bias : &p->y);
    lk_launch_buffer(launch, &p->y);
    lk_launch_int(launch, p->M);
    lk_launch_int(launch, p->N);
    lk_launch_int(launch, p->K);
    lk_launch_int(launch, pitch);
    lk_launch_int(launch, p->b_inner);
    lk_launch_int(launch, p->b_column);
    lk_launch_int(launch, p->c.buffer != NULL);
    lk_launch_int(launch, p->bias.buffer != NULL);
    lk_launch_float(launch, p->alpha);
    lk_launch_grid(launch, ceil_div(p->N, tile_n(&t)), padded_rows / tile_m(&t));
}

const lk_products lk_vk_products_matrix = {.cost = cost, .scratch = scratch, .record = record};
