/* Products by gemm.cu. Activations are fp32, so a is rounded to bf16 first: a pass over a is a small part of a large
 * product, and the kernel then copies both operands without touching them. */
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
    LK_REQUIRE(why, stored->shape[1] % 8 == 0, "rows of the weight are not multiples of 16 bytes");
    LK_REQUIRE(why, caps->flops_16 > 0.0, "no tensor cores");
    LK_REQUIRE(why, caps->shared_bytes >= shared_bytes(&tiles[0]), "needs 48 KiB of shared memory");
    return true;
}

static double cost(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type) {
    if (b_type != LK_DTYPE_BF16) {
        return lk_products_dialect.cost(caps, m, n, k, b_type);
    }
    double rounding = memory_seconds(caps, 6.0 * (double)m * (double)k);
    return caps->launch_seconds + rounding + plan_for(caps, m, n, k).seconds;
}

/* a in bf16, as [m, k] or [k, m]. */
static size_t operand_bytes(int64_t m, int64_t k) {
    return aligned((size_t)LK_MAX(m * round_up(k, 8), k * round_up(m, 8)) * sizeof(uint16_t));
}

static size_t scratch(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type) {
    if (b_type != LK_DTYPE_BF16) {
        return lk_products_dialect.scratch(caps, m, n, k, b_type);
    }
    int64_t splits = plan_for(caps, m, n, k).splits;
    return operand_bytes(m, k) + (splits > 1 ? (size_t)(splits * m * n) * sizeof(float) : 0);
}

void lk_cuda_record_round_rows(lk_recorder *recorder, const lk_binding *x, const lk_binding *y, int64_t rows,
                               int64_t columns, int64_t pitch) {
    int64_t lanes = rows * pitch / 4;
    lk_launch *launch = lk_launch_begin(recorder, "round_rows", "round_rows", 256);
    lk_launch_buffer(launch, x);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, rows);
    lk_launch_int(launch, columns);
    lk_launch_int(launch, pitch);
    lk_launch_groups(launch, ceil_div(lanes, 256));
}

typedef struct layout {
    bool transpose_a, transpose_b;
    int64_t a_pitch, b_pitch;
} layout;

static void record_gemm(lk_recorder *recorder, const lk_product *p, const plan *chosen, const layout *stored,
                        const lk_binding *a, const lk_binding *y) {
    const tile *t = &chosen->tile;
    bool whole = chosen->splits == 1;
    int64_t tiles_m = ceil_div(p->M, t->bm), tiles_n = ceil_div(p->N, t->bn);
    lk_launch *launch = lk_launch_begin(recorder, "gemm", "gemm", GROUP);
    lk_launch_constant(launch, "BM", t->bm);
    lk_launch_constant(launch, "BN", t->bn);
    lk_launch_constant(launch, "BK", BK);
    lk_launch_constant(launch, "STAGES", t->stages);
    lk_launch_constant(launch, "TRANSPOSE_A", stored->transpose_a);
    lk_launch_constant(launch, "TRANSPOSE_B", stored->transpose_b);
    lk_launch_buffer(launch, a);
    lk_launch_buffer(launch, &p->b);
    lk_launch_buffer(launch, p->c.buffer != NULL ? &p->c : y);
    lk_launch_buffer(launch, p->bias.buffer != NULL ? &p->bias : y);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, p->M);
    lk_launch_int(launch, p->N);
    lk_launch_int(launch, p->K);
    lk_launch_int(launch, stored->a_pitch);
    lk_launch_int(launch, stored->b_pitch);
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

static void record(lk_recorder *recorder, const lk_product *p) {
    if (p->b_type != LK_DTYPE_BF16) {
        lk_products_dialect.record(recorder, p);
        return;
    }
    plan chosen = plan_for(recorder->caps, p->M, p->N, p->K);
    layout stored = {.transpose_a = p->a_inner != 1, .transpose_b = p->b_column != 1};
    int64_t rows = stored.transpose_a ? p->K : p->M, columns = stored.transpose_a ? p->M : p->K;
    stored.a_pitch = round_up(columns, 8);
    stored.b_pitch = stored.transpose_b ? p->b_column : p->b_inner;
    if (stored.transpose_a) { /* rare; only the small tile is compiled for it */
        tile small = tiles[1];
        int64_t splits = chosen.splits, span = chosen.span;
        chosen = (plan){small, splits, span, 0.0};
    }
    size_t operand = operand_bytes(p->M, p->K), sums = (size_t)(chosen.splits * p->M * p->N) * sizeof(float);
    lk_binding a = lk_binding_part(&p->scratch, 0, (size_t)(rows * stored.a_pitch) * sizeof(uint16_t));
    lk_binding parts = lk_binding_part(&p->scratch, operand, sums);
    lk_cuda_record_round_rows(recorder, &p->a, &a, rows, columns, stored.a_pitch);
    record_gemm(recorder, p, &chosen, &stored, &a, chosen.splits > 1 ? &parts : &p->y);
    if (chosen.splits > 1) {
        lk_record_sum_of_parts(recorder, p, &parts, chosen.splits);
    }
}

const lk_products lk_cuda_products_mma = {cost, scratch, record};
