/* Products by gemm.cu. Activations and adapters are fp32, so they are rounded to bf16 first: a pass over an operand is
 * a small part of a large product, and the kernel then copies both operands without touching them. */
#include "backends/cuda/tensor_cores.h"

/* The shapes of tiles that backends/cuda/variants.txt has, and how many groups of them fit a multiprocessor. */
typedef struct tile {
    int32_t bm, bn, stages, per_unit;
    double efficiency; /* of the tensor cores' peak */
} tile;
static const tile tiles[] = {{128, 128, 3, 2, 0.6}, {64, 64, 4, 3, 0.4}};

enum { GROUP = 128, BK = 32, MAX_SPLITS = 16, MIN_SPAN = 256 };

typedef struct plan {
    tile tile;
    int64_t splits, span; /* parts of K, and their length */
    double seconds;
} plan;

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t round_up(int64_t a, int64_t b) {
    return ceil_div(a, b) * b;
}

static size_t shared_bytes(const tile *t) {
    return (size_t)t->stages * (size_t)(t->bm + t->bn) * BK * sizeof(uint16_t);
}

static size_t aligned(size_t bytes) {
    return (bytes + LK_BUFFER_ALIGNMENT - 1) / LK_BUFFER_ALIGNMENT * LK_BUFFER_ALIGNMENT;
}

/* What fits the second-level cache stays there from the kernel that makes it to the one that reads it. */
static double memory_seconds(const lk_device_caps *caps, double bytes) {
    return bytes / (bytes <= (double)caps->l2_bytes ? 2.0 * caps->bandwidth : caps->bandwidth);
}

static plan plan_with(const lk_device_caps *caps, const tile *t, int64_t splits, int64_t m, int64_t n, int64_t k) {
    int64_t units = LK_MAX(caps->threads, 1), groups = ceil_div(m, t->bm) * ceil_div(n, t->bn);
    plan made = {.tile = *t, .span = round_up(ceil_div(k, splits), BK)};
    made.splits = ceil_div(k, made.span);
    double rounds = (double)ceil_div(groups * made.splits, units);
    double work = 2.0 * (double)t->bm * (double)t->bn * (double)made.span;
    double arithmetic = rounds * work * (double)units / (caps->flops_16 * t->efficiency);
    double sums = (made.splits > 1 ? 8.0 * (double)made.splits + 4.0 : 4.0) * (double)m * (double)n;
    double memory = memory_seconds(caps, 2.0 * (double)(m + n) * (double)k + sums);
    made.seconds = LK_MAX(arithmetic, memory) + caps->launch_seconds * (made.splits > 1 ? 2.0 : 1.0);
    return made;
}

static plan plan_for(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k) {
    plan best = plan_with(caps, &tiles[0], 1, m, n, k);
    for (size_t i = 0; i < LK_COUNT(tiles); i++) {
        int64_t groups = ceil_div(m, tiles[i].bm) * ceil_div(n, tiles[i].bn);
        int64_t most = LK_MIN(LK_MIN(caps->threads * tiles[i].per_unit / groups, k / MIN_SPAN), (int64_t)MAX_SPLITS);
        for (int64_t splits = 1; splits <= LK_MAX(most, (int64_t)1); splits++) {
            plan other = plan_with(caps, &tiles[i], splits, m, n, k);
            best = other.seconds < best.seconds ? other : best;
        }
    }
    return best;
}

bool lk_cuda_supports_mma(const lk_device_caps *caps, const lk_node *node, int weight, lk_refusal *why) {
    const lk_tensor *stored = node->inputs[weight];
    LK_REQUIRE(why, stored->dtype == LK_DTYPE_BF16, "the weight is not stored in bf16");
    bool lora = node->op == LK_OP_LORA_LINEAR || node->op == LK_OP_LORA_LINEAR_BACKWARD;
    LK_REQUIRE(why, !lora || node->attributes.lora.order != LK_LORA_MERGED,
               "the sum of weight and update would be rounded to bf16");
    LK_REQUIRE(why, stored->shape[1] % 8 == 0, "rows of the weight are not multiples of 16 bytes");
    LK_REQUIRE(why, caps->flops_16 > 0.0, "no tensor cores");
    LK_REQUIRE(why, caps->shared_bytes >= shared_bytes(&tiles[0]), "needs 48 KiB of shared memory");
    return true;
}

/* The weight is in bf16 as it is; a and adapters' tensors are rounded in passes of their own. */
static double seconds_of(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    double seconds = plan_for(caps, m, n, k).seconds;
    seconds += a_ready ? 0.0 : caps->launch_seconds + memory_seconds(caps, 6.0 * (double)m * (double)k);
    return seconds +
           (b_type == LK_DTYPE_BF16 ? 0.0 : caps->launch_seconds + memory_seconds(caps, 6.0 * (double)n * (double)k));
}

/* Small products of two fp32 matrices are left to the dialect's kernels: they need no rounding. */
static bool is_worth_it(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    return b_type == LK_DTYPE_BF16 ||
           seconds_of(caps, m, n, k, b_type, a_ready) < lk_products_dialect.cost(caps, m, n, k, b_type, a_ready);
}

static double cost(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    return is_worth_it(caps, m, n, k, b_type, a_ready) ? seconds_of(caps, m, n, k, b_type, a_ready)
                                                       : lk_products_dialect.cost(caps, m, n, k, b_type, a_ready);
}

static size_t rounded_bytes(int64_t rows, int64_t columns) {
    return (size_t)(rows * round_up(columns, 8)) * sizeof(uint16_t);
}

/* Of an operand in bf16, as [m, k] or [k, m]. */
static size_t operand_bytes(int64_t m, int64_t k) {
    return aligned(LK_MAX(rounded_bytes(m, k), rounded_bytes(k, m)));
}

static size_t scratch(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    if (!is_worth_it(caps, m, n, k, b_type, a_ready)) {
        return lk_products_dialect.scratch(caps, m, n, k, b_type, a_ready);
    }
    int64_t splits = plan_for(caps, m, n, k).splits;
    size_t operands = (a_ready ? 0 : operand_bytes(m, k)) + (b_type == LK_DTYPE_BF16 ? 0 : operand_bytes(n, k));
    return operands + (splits > 1 ? (size_t)(splits * m * n) * sizeof(float) : 0);
}

void lk_cuda_record_round_rows(lk_recorder *recorder, const lk_binding *x, const lk_binding *y, int64_t rows,
                               int64_t columns, int64_t pitch, float factor) {
    int64_t lanes = rows * pitch / 4;
    lk_launch *launch = lk_launch_begin(recorder, "round_rows", "round_rows", 256);
    lk_launch_buffer(launch, x);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, rows);
    lk_launch_int(launch, columns);
    lk_launch_int(launch, pitch);
    lk_launch_float(launch, factor);
    lk_launch_groups(launch, ceil_div(lanes, 256));
}

static void prepare(lk_recorder *recorder, const lk_binding *x, int64_t rows, int64_t columns, const lk_binding *to) {
    lk_cuda_record_round_rows(recorder, x, to, rows, columns, round_up(columns, 8), 1.0f);
}

/* An operand as it is stored in bf16: [rows, pitch]. */
typedef struct operand {
    lk_binding data;
    int64_t pitch;
    bool transposed;
} operand;

typedef struct operands {
    operand a, b, low_a, low_b;
} operands;

static void record_gemm(lk_recorder *recorder, const lk_product *p, const plan *chosen, const operands *of,
                        const lk_binding *y) {
    const tile *t = &chosen->tile;
    bool whole = chosen->splits == 1;
    int64_t tiles_m = ceil_div(p->M, t->bm), tiles_n = ceil_div(p->N, t->bn);
    lk_launch *launch = lk_launch_begin(recorder, "gemm", "gemm", GROUP);
    lk_launch_constant(launch, "BM", t->bm);
    lk_launch_constant(launch, "BN", t->bn);
    lk_launch_constant(launch, "BK", BK);
    lk_launch_constant(launch, "STAGES", t->stages);
    lk_launch_constant(launch, "TRANSPOSE_A", of->a.transposed);
    lk_launch_constant(launch, "TRANSPOSE_B", of->b.transposed);
    lk_launch_buffer(launch, &of->a.data);
    lk_launch_buffer(launch, &of->b.data);
    lk_launch_buffer(launch, p->rank > 0 ? &of->low_a.data : y);
    lk_launch_buffer(launch, p->rank > 0 ? &of->low_b.data : y);
    lk_launch_buffer(launch, p->c.buffer != NULL ? &p->c : y);
    lk_launch_buffer(launch, p->bias.buffer != NULL ? &p->bias : y);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, p->M);
    lk_launch_int(launch, p->N);
    lk_launch_int(launch, p->K);
    lk_launch_int(launch, p->rank);
    lk_launch_int(launch, of->a.pitch);
    lk_launch_int(launch, of->b.pitch);
    lk_launch_int(launch, of->low_a.pitch);
    lk_launch_int(launch, of->low_b.pitch);
    lk_launch_int(launch, whole && p->c.buffer != NULL);
    lk_launch_int(launch, whole && p->bias.buffer != NULL);
    lk_launch_int(launch, 0); /* y is fp32 */
    lk_launch_float(launch, whole ? p->alpha : 1.0f);
    lk_launch_int(launch, tiles_m);
    lk_launch_int(launch, tiles_n);
    lk_launch_int(launch, chosen->span);
    lk_launch_grid(launch, tiles_m * tiles_n, chosen->splits);
    if (launch != NULL) {
        launch->shared_bytes = shared_bytes(t);
    }
}

/* Rounds factor x into scratch memory, from byte *used on. */
static operand rounded(lk_recorder *recorder, const lk_product *p, const lk_binding *x, int64_t rows, int64_t columns,
                       float factor, size_t *used) {
    operand made = {lk_binding_part(&p->scratch, *used, rounded_bytes(rows, columns)), round_up(columns, 8), false};
    lk_cuda_record_round_rows(recorder, x, &made.data, rows, columns, made.pitch, factor);
    *used += operand_bytes(rows, columns);
    return made;
}

static void record(lk_recorder *recorder, const lk_product *p) {
    bool a_ready = p->a_ready.buffer != NULL;
    if (!is_worth_it(recorder->caps, p->M, p->N, p->K, p->b_type, a_ready)) {
        lk_products_dialect.record(recorder, p);
        return;
    }
    plan chosen = plan_for(recorder->caps, p->M, p->N, p->K);
    /* [M, K] or [K, M]; [K, N] or [N, K] */
    bool transpose_a = p->a_inner != 1 || p->a_row != p->K, transpose_b = p->b_column != 1 || p->b_inner != p->N;
    int64_t a_rows = transpose_a ? p->K : p->M, a_columns = transpose_a ? p->M : p->K;
    int64_t b_rows = transpose_b ? p->N : p->K, b_columns = transpose_b ? p->K : p->N;
    size_t used = 0;
    operands of = {.a = {p->a_ready, round_up(a_columns, 8), false}, .b = {p->b, b_columns, false}};
    if (!a_ready) {
        of.a = rounded(recorder, p, &p->a, a_rows, a_columns, 1.0f, &used);
    }
    if (p->b_type != LK_DTYPE_BF16) {
        of.b = rounded(recorder, p, &p->b, b_rows, b_columns, 1.0f, &used);
    }
    of.a.transposed = transpose_a;
    of.b.transposed = transpose_b;
    if (p->rank > 0) {
        of.low_a = rounded(recorder, p, &p->low_a, p->M, p->rank, p->low_scale, &used);
        of.low_b =
            rounded(recorder, p, &p->low_b, transpose_b ? p->N : p->rank, transpose_b ? p->rank : p->N, 1.0f, &used);
    }
    if (transpose_a) { /* of small matrices; only the small tile is compiled for it */
        chosen.tile = tiles[1];
    }
    lk_binding parts = lk_binding_part(&p->scratch, used, (size_t)(chosen.splits * p->M * p->N) * sizeof(float));
    record_gemm(recorder, p, &chosen, &of, chosen.splits > 1 ? &parts : &p->y);
    if (chosen.splits > 1) {
        lk_record_sum_of_parts(recorder, p, &parts, chosen.splits);
    }
}

/* Adapters' additions to a product with a weight need their operands in bf16. */
static size_t low_scratch(int64_t m, int64_t n, int64_t rank) {
    return operand_bytes(m, rank) + operand_bytes(n, rank);
}

const lk_products lk_cuda_products_mma = {.cost = cost,
                                          .scratch = scratch,
                                          .record = record,
                                          .prepared_bytes = rounded_bytes,
                                          .prepare = prepare,
                                          .low_scratch = low_scratch};
