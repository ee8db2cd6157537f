/* MATMUL and LINEAR, and the product that other ops are made of. */
#include "backends/shaders/rows.h"

/* The shape of a group's tile in matmul.lk. */
typedef struct tile {
    int32_t group, lanes_m, tm, tn, bk;
} tile;

enum { MIN_SPAN = 256, MAX_SPLITS = 32, PANEL_BK = 640, PANEL_ROWS = 64 };

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t tile_rows(const tile *t) {
    return (int64_t)t->lanes_m * t->tm;
}

static int64_t tile_columns(const tile *t) {
    return (int64_t)(t->group / t->lanes_m) * t->tn;
}

static tile square_tile(const lk_device_caps *caps) {
    return caps->max_group_size >= 256 ? (tile){256, 16, 4, 4, 16} : (tile){64, 8, 4, 4, 16};
}

/* 16 rows or columns, so that products with a matrix of rank r do not compute zeros. */
static tile skinny_tile(const lk_device_caps *caps, int64_t m, int64_t n) {
    if (caps->max_group_size < 256) {
        return m < n ? (tile){64, 4, 4, 4, 16} : (tile){64, 16, 4, 4, 16};
    }
    return m < n ? (tile){256, 8, 2, 4, 16} : (tile){256, 32, 4, 2, 16};
}

static tile tile_for(const lk_device_caps *caps, int64_t m, int64_t n) {
    return LK_MIN(m, n) <= 16 ? skinny_tile(caps, m, n) : square_tile(caps);
}

static int64_t groups_for(const tile *t, int64_t m, int64_t n) {
    return ceil_div(m, tile_rows(t)) * ceil_div(n, tile_columns(t));
}

/* Parts of K, where the tiles alone are too few for the device. */
static int64_t splits_for(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k) {
    tile t = tile_for(caps, m, n);
    int64_t wanted = ceil_div(4 * LK_MAX(caps->threads, 1), groups_for(&t, m, n));
    return LK_MAX((int64_t)1, LK_MIN(LK_MIN(wanted, k / MIN_SPAN), (int64_t)MAX_SPLITS));
}

static void add_operands(lk_launch *launch, const lk_product *p, const lk_binding *y) {
    lk_launch_type(launch, "W_TYPE", p->b_type);
    lk_launch_buffer(launch, &p->a);
    lk_launch_buffer(launch, &p->b);
    lk_launch_buffer(launch, p->c.buffer != NULL ? &p->c : y);
    lk_launch_buffer(launch, p->bias.buffer != NULL ? &p->bias : y);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, p->M);
    lk_launch_int(launch, p->N);
    lk_launch_int(launch, p->K);
    lk_launch_int(launch, 0);
    lk_launch_int(launch, p->a_row);
    lk_launch_int(launch, p->a_inner);
    lk_launch_int(launch, p->b_inner);
    lk_launch_int(launch, p->b_column);
    lk_launch_int(launch, 0);
}

void lk_record_sum_of_parts(lk_recorder *recorder, const lk_product *p, const lk_binding *parts, int64_t count) {
    lk_launch *launch = lk_launch_begin(recorder, "matmul", "matmul_reduce", lk_lanes_for_elements(recorder->caps));
    lk_launch_buffer(launch, parts);
    lk_launch_buffer(launch, p->c.buffer != NULL ? &p->c : &p->y);
    lk_launch_buffer(launch, p->bias.buffer != NULL ? &p->bias : &p->y);
    lk_launch_buffer(launch, &p->y);
    lk_launch_int(launch, p->M * p->N);
    lk_launch_int(launch, p->N);
    lk_launch_int(launch, count);
    lk_launch_int(launch, p->c.buffer != NULL);
    lk_launch_int(launch, p->bias.buffer != NULL);
    lk_launch_float(launch, p->alpha);
    lk_launch_cover(launch, recorder, p->M * p->N);
}

static void record_tiles(lk_recorder *recorder, const lk_product *p, tile t, int64_t splits) {
    int64_t tiles_m = ceil_div(p->M, tile_rows(&t)), span = ceil_div(ceil_div(p->K, splits), t.bk) * t.bk;
    bool last = splits == 1;
    lk_launch *launch = lk_launch_begin(recorder, "matmul", "matmul", t.group);
    lk_launch_constant(launch, "LANES_M", t.lanes_m);
    lk_launch_constant(launch, "TM", t.tm);
    lk_launch_constant(launch, "TN", t.tn);
    lk_launch_constant(launch, "BK", t.bk);
    add_operands(launch, p, last ? &p->y : &p->scratch);
    lk_launch_int(launch, last && p->c.buffer != NULL);
    lk_launch_int(launch, last && p->bias.buffer != NULL);
    lk_launch_float(launch, last ? p->alpha : 1.0f);
    lk_launch_int(launch, tiles_m);
    lk_launch_int(launch, span);
    lk_launch_grid(launch, ceil_div(p->N, tile_columns(&t)), tiles_m * splits);
    if (!last) {
        lk_record_sum_of_parts(recorder, p, &p->scratch, splits);
    }
}

static void record_panels(lk_recorder *recorder, const lk_product *p) {
    /* 8 x 16 or 4 x 16 sums: compilers halve vectors of 16 floats, and twice as many would not fit the registers */
    int32_t width = lk_vector_width(recorder->caps), tm = width >= 16 ? 8 : 4;
    int32_t tn = width >= 16 || p->N <= width ? 1 : 2;
    int64_t spans = ceil_div(p->K, PANEL_BK), span = ceil_div(ceil_div(p->K, spans), 8) * 8;
    int64_t panels = ceil_div(p->N, (int64_t)tn * width);
    int64_t blocks = ceil_div(4 * LK_MAX(recorder->caps->threads, 1), panels);
    blocks = LK_MAX((int64_t)1, LK_MIN(blocks, ceil_div(p->M, PANEL_ROWS)));
    int64_t rows = ceil_div(ceil_div(p->M, blocks), tm) * tm;
    lk_launch *launch = lk_launch_begin(recorder, "matmul_panel", "matmul_panel", 1);
    lk_launch_constant(launch, "TM", tm);
    lk_launch_constant(launch, "TN", tn);
    lk_launch_constant(launch, "BK", PANEL_BK);
    lk_launch_constant(launch, "A_BY_ROWS", p->a_inner == 1);
    lk_launch_constant(launch, "VECTOR", width);
    add_operands(launch, p, &p->y);
    lk_launch_int(launch, p->c.buffer != NULL);
    lk_launch_int(launch, p->bias.buffer != NULL);
    lk_launch_float(launch, p->alpha);
    lk_launch_int(launch, rows);
    lk_launch_int(launch, span);
    lk_launch_grid(launch, panels, ceil_div(p->M, rows));
}

static void record_product(lk_recorder *recorder, const lk_product *p) {
    if (recorder->caps->is_cpu) {
        record_panels(recorder, p);
    } else {
        record_tiles(recorder, p, tile_for(recorder->caps, p->M, p->N), splits_for(recorder->caps, p->M, p->N, p->K));
    }
}

static size_t product_scratch(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type,
                              bool a_ready) {
    (void)b_type;
    (void)a_ready;
    int64_t splits = caps->is_cpu ? 1 : splits_for(caps, m, n, k);
    return splits > 1 ? (size_t)splits * (size_t)m * (size_t)n * sizeof(float) : 0;
}

/* What tiles that hang over the edges compute counts as well. */
static double time_of(const lk_device_caps *caps, const tile *t, int64_t m, int64_t n, int64_t k, int64_t splits) {
    double groups = (double)(groups_for(t, m, n) * splits), units = (double)LK_MAX(caps->threads, 1);
    double waves = groups < units ? units / groups : 1.0; /* processors that have nothing to do */
    double work = 2.0 * (double)groups_for(t, m, n) * (double)tile_rows(t) * (double)tile_columns(t) * (double)k;
    /* eight loads from shared memory for sixteen multiply-adds; processors emulate shared memory and barriers */
    double efficiency = caps->is_cpu ? 0.05 : 0.3;
    return caps->launch_seconds * (splits > 1 ? 2.0 : 1.0) + waves * work / (caps->flops_f32 * efficiency);
}

static double panel_time(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k) {
    double columns = (double)(ceil_div(n, 16) * 16), rows = (double)(ceil_div(m, 8) * 8);
    return caps->launch_seconds +
           (2.0 * rows * columns * (double)k + 8.0 * columns * (double)k) / (caps->flops_f32 * 0.8);
}

static double product_cost(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    (void)b_type;
    (void)a_ready;
    tile t = tile_for(caps, m, n);
    return caps->is_cpu ? panel_time(caps, m, n, k) : time_of(caps, &t, m, n, k, splits_for(caps, m, n, k));
}

const lk_products lk_products_dialect = {.cost = product_cost, .scratch = product_scratch, .record = record_product};

const lk_products *lk_products_of(const lk_recorder *recorder) {
    return recorder->products != NULL ? recorder->products : &lk_products_dialect;
}

void lk_record_product(lk_recorder *recorder, const lk_product *p) {
    lk_products_of(recorder)->record(recorder, p);
}

/* ---- MATMUL ---- */

static void shape_of(const lk_node *node, int64_t *m, int64_t *n, int64_t *k) {
    *m = node->outputs[0]->shape[0];
    *n = node->outputs[0]->shape[1];
    *k = node->inputs[0]->shape[node->attributes.matmul.transpose_a ? 0 : 1];
}

static lk_product product_of(const lk_command *command) {
    const lk_node *node = command->node;
    const lk_matmul_attributes *matmul = &node->attributes.matmul;
    lk_product p = {.a = command->inputs[0],
                    .b = command->inputs[1],
                    .y = command->outputs[0],
                    .scratch = command->scratch,
                    .b_type = node->inputs[1]->dtype,
                    .alpha = matmul->alpha};
    if (lk_has_input(node, 2)) {
        p.c = command->inputs[2];
    }
    shape_of(node, &p.M, &p.N, &p.K);
    p.a_row = matmul->transpose_a ? 1 : p.K;
    p.a_inner = matmul->transpose_a ? p.M : 1;
    p.b_inner = matmul->transpose_b ? 1 : p.N;
    p.b_column = matmul->transpose_b ? p.K : 1;
    return p;
}

bool lk_supports_tiles(const lk_device_caps *caps, lk_refusal *why) {
    LK_REQUIRE(why, caps->shared_bytes >= 12288, "needs 12 KiB of shared memory");
    LK_REQUIRE(why, caps->max_group_size >= 64, "needs groups of 64");
    return true;
}

bool lk_supports_matmul(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    return lk_supports_tiles(caps, why) && lk_supports_f32_but(node, 1, why);
}

bool lk_supports_matmul_panel(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    LK_REQUIRE(why, caps->is_cpu, "made for processors");
    return lk_supports_f32_but(node, 1, why);
}

bool lk_supports_matmul_split(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    int64_t m, n, k;
    shape_of(node, &m, &n, &k);
    LK_REQUIRE(why, splits_for(caps, m, n, k) > 1, "K is too short to be split, or there are tiles enough");
    return lk_supports_matmul(caps, node, why);
}

double lk_cost_matmul_panel(const lk_device_caps *caps, const lk_node *node) {
    int64_t m, n, k;
    shape_of(node, &m, &n, &k);
    return panel_time(caps, m, n, k);
}

double lk_cost_matmul_split(const lk_device_caps *caps, const lk_node *node) {
    int64_t m, n, k;
    shape_of(node, &m, &n, &k);
    tile t = tile_for(caps, m, n);
    return time_of(caps, &t, m, n, k, splits_for(caps, m, n, k));
}

double lk_cost_matmul_skinny(const lk_device_caps *caps, const lk_node *node) {
    int64_t m, n, k;
    shape_of(node, &m, &n, &k);
    tile t = skinny_tile(caps, m, n);
    return time_of(caps, &t, m, n, k, 1);
}

double lk_cost_matmul(const lk_device_caps *caps, const lk_node *node) {
    int64_t m, n, k;
    shape_of(node, &m, &n, &k);
    tile t = square_tile(caps);
    return time_of(caps, &t, m, n, k, 1);
}

size_t lk_scratch_matmul_split(const lk_device_caps *caps, const lk_node *node) {
    int64_t m, n, k;
    shape_of(node, &m, &n, &k);
    return (size_t)splits_for(caps, m, n, k) * (size_t)m * (size_t)n * sizeof(float);
}

void lk_record_matmul_panel(lk_recorder *recorder, const lk_command *command) {
    lk_product p = product_of(command);
    record_panels(recorder, &p);
}

void lk_record_matmul_split(lk_recorder *recorder, const lk_command *command) {
    lk_product p = product_of(command);
    record_tiles(recorder, &p, tile_for(recorder->caps, p.M, p.N), splits_for(recorder->caps, p.M, p.N, p.K));
}

void lk_record_matmul_skinny(lk_recorder *recorder, const lk_command *command) {
    lk_product p = product_of(command);
    record_tiles(recorder, &p, skinny_tile(recorder->caps, p.M, p.N), 1);
}

void lk_record_matmul(lk_recorder *recorder, const lk_command *command) {
    lk_product p = product_of(command);
    record_tiles(recorder, &p, square_tile(recorder->caps), 1);
}

double lk_cost_matmul_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    int64_t m, n, k;
    shape_of(node, &m, &n, &k);
    return by->cost(caps, m, n, k, node->inputs[1]->dtype, false);
}

size_t lk_scratch_matmul_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    int64_t m, n, k;
    shape_of(node, &m, &n, &k);
    return by->scratch(caps, m, n, k, node->inputs[1]->dtype, false);
}

void lk_record_matmul_product(lk_recorder *recorder, const lk_command *command) {
    lk_product p = product_of(command);
    lk_record_product(recorder, &p);
}

/* ---- LINEAR ---- */

bool lk_supports_linear(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    return (caps->is_cpu || lk_supports_tiles(caps, why)) && lk_supports_f32_but(node, 1, why);
}

double lk_cost_linear_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    const lk_tensor *weight = node->inputs[1];
    return by->cost(caps, node->inputs[0]->shape[0], weight->shape[0], weight->shape[1], weight->dtype, false);
}

size_t lk_scratch_linear_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    const lk_tensor *weight = node->inputs[1];
    return by->scratch(caps, node->inputs[0]->shape[0], weight->shape[0], weight->shape[1], weight->dtype, false);
}

double lk_cost_linear(const lk_device_caps *caps, const lk_node *node) {
    return lk_cost_linear_by(&lk_products_dialect, caps, node);
}

size_t lk_scratch_linear(const lk_device_caps *caps, const lk_node *node) {
    return lk_scratch_linear_by(&lk_products_dialect, caps, node);
}

void lk_record_linear(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t in = node->inputs[1]->shape[1];
    lk_product p = {.M = node->inputs[0]->shape[0],
                    .N = node->inputs[1]->shape[0],
                    .K = in,
                    .a = command->inputs[0],
                    .b = command->inputs[1],
                    .y = command->outputs[0],
                    .scratch = command->scratch,
                    .a_row = in,
                    .a_inner = 1,
                    .b_inner = 1,
                    .b_column = in,
                    .b_type = node->inputs[1]->dtype,
                    .alpha = 1.0f};
    if (lk_has_input(node, 2)) {
        p.bias = command->inputs[2];
    }
    lk_record_product(recorder, &p);
}
