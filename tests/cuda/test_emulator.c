/* The native CUDA kernels under the emulator, operands and results compared in double precision with bounds that follow
 * from the roundings, and kernels with planted faults, which it must find. */
#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/float16.h"
#include "tests/common/runner.h"
#include "tests/cuda/emulator/emulator.h"

#ifdef LK_HAS_EMULATOR

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))

static const double bf16_rounding = 1.0 / 256.0, f32_rounding = 1.0 / 16777216.0; /* to the nearest, relative */
static const double exp2_error = 2.0 / 4194304.0; /* of ex2.approx and of the score that goes into it, about */

static uint32_t state;
static float draw(void) { /* exact in bf16, -1 .. 1 */
    state = state * 1664525u + 1013904223u;
    return lk_bf16_to_f32(lk_f32_to_bf16((float)(int32_t)state * (1.0f / 2147483648.0f)));
}

/* Memory that a kernel may touch, and no byte more. */
static void *memory(size_t bytes, int value) {
    void *start = aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
    ck_assert_ptr_nonnull(start);
    memset(start, value, bytes);
    emulator_allow(start, bytes);
    return start;
}

static void give_back(void *start) {
    emulator_forbid(start);
    free(start);
}

/* A matrix of random bf16 numbers, rows `pitch` long; what lies between rows is NaN. */
static uint16_t *matrix(int rows, int columns, int pitch) {
    uint16_t *m = memory(sizeof *m * (size_t)MAX(rows * pitch, 1), 0xff);
    for (int i = 0; i < rows * columns; i++) {
        m[i / columns * pitch + i % columns] = lk_f32_to_bf16(draw());
    }
    return m;
}

static float *floats(int count) {
    float *f = memory(sizeof *f * (size_t)count, 0xff);
    for (int i = 0; i < count; i++) {
        f[i] = draw();
    }
    return f;
}

static double at(const uint16_t *m, int index) {
    return (double)lk_bf16_to_f32(m[index]);
}

static emulator_report run(const char *name, unsigned x, unsigned y, unsigned shared_bytes, void *const *arguments,
                           const emulator_options *options) {
    const emulator_kernel *kernel = emulator_find(name);
    ck_assert_msg(kernel != NULL, "no kernel %s", name);
    emulator_report report;
    unsigned grid[3] = {x, y, 1};
    emulator_run(kernel, grid, (unsigned)kernel->group, shared_bytes, arguments, options, &report);
    return report;
}

static void expect_clean(const char *name, const emulator_report *report) {
    ck_assert_msg(report->problems == 0, "%s: %u problems, the first: %s", name, report->problems, report->first);
    ck_assert_uint_eq(report->matrix_load_cycles, report->matrix_loads); /* no bank conflicts */
}

/* Copies that arrive late or at once, and both orders. */
static const emulator_options ways[] = {{0, 0}, {1, 1}};

/* ---- products ---- */

typedef struct product {
    int M, N, K, tile, transpose_a, transpose_b, has_c, has_bias, y_is_bf16, splits, rows_too_many, rank;
} product;

static int padded(int x) {
    return (x + 7) / 8 * 8;
}

/* The largest error over the bound that the roundings allow. */
static double run_product(const char *name, const product *p, const emulator_options *options,
                          emulator_report *report) {
    int a_rows = p->transpose_a ? p->K : p->M, a_columns = p->transpose_a ? p->M : p->K;
    int b_rows = p->transpose_b ? p->N : p->K, b_columns = p->transpose_b ? p->K : p->N;
    int a_pitch = padded(a_columns), b_pitch = padded(b_columns), count = p->M * p->N, zero = 0;
    int span = (p->K + p->splits - 1) / p->splits, splits = p->splits;
    span = (span + 31) / 32 * 32;
    state = 1;
    uint16_t *a = matrix(a_rows, a_columns, a_pitch), *b = matrix(b_rows, b_columns, b_pitch);
    int low_a_pitch = padded(p->transpose_a ? p->M : p->rank), low_b_pitch = padded(p->transpose_b ? p->rank : p->N);
    uint16_t *low_a = matrix(p->transpose_a ? p->rank : p->M, p->transpose_a ? p->M : p->rank, low_a_pitch);
    uint16_t *low_b = matrix(p->transpose_b ? p->N : p->rank, p->transpose_b ? p->rank : p->N, low_b_pitch);
    float *c = floats(count), *bias = floats(p->N), alpha = 0.75f;
    void *y = memory((p->y_is_bf16 ? 2 : 4) * (size_t)count * (size_t)splits, 0xff);
    int tiles_m = (p->M + p->tile - 1) / p->tile, tiles_n = (p->N + p->tile - 1) / p->tile;
    product q = *p;
    q.M += p->rows_too_many; /* a host that is wrong */
    void *arguments[] = {&a,          &b,           &low_a,  &low_b,   &c,       &bias,        &y,           &q.M,
                         &q.N,        &q.K,         &q.rank, &a_pitch, &b_pitch, &low_a_pitch, &low_b_pitch, &q.has_c,
                         &q.has_bias, &q.y_is_bf16, &alpha,  &tiles_m, &tiles_n, &span,        &zero};
    unsigned shared = (unsigned)(p->tile * 4 * 32 * (p->tile == 128 ? 3 : 4));
    *report = run(name, (unsigned)(tiles_m * tiles_n), (unsigned)splits, shared, arguments, options);
    double worst = 0.0;
    for (int s = 0; s < splits && report->problems == 0; s++) {
        for (int i = 0; i < count; i++) {
            int m = i / p->N, n = i % p->N, last = MIN(p->K, (s + 1) * span);
            double sum = 0.0, size = 0.0;
            for (int k = s * span; k < last; k++) {
                double term = at(a, p->transpose_a ? k * a_pitch + m : m * a_pitch + k) *
                              at(b, p->transpose_b ? n * b_pitch + k : k * b_pitch + n);
                sum += term;
                size += fabs(term);
            }
            for (int k = 0; k < p->rank && s == 0; k++) {
                double term = at(low_a, p->transpose_a ? k * low_a_pitch + m : m * low_a_pitch + k) *
                              at(low_b, p->transpose_b ? n * low_b_pitch + k : k * low_b_pitch + n);
                sum += term;
                size += fabs(term);
            }
            double wanted =
                (double)alpha * sum + (p->has_bias ? (double)bias[n] : 0.0) + (p->has_c ? (double)c[i] : 0.0);
            double found = p->y_is_bf16 ? at(y, s * count + i) : (double)((float *)y)[s * count + i];
            double allowed = f32_rounding * ((double)(p->K + p->rank + 2) * size + 4.0);
            allowed += p->y_is_bf16 ? bf16_rounding * (fabs(wanted) + allowed) : 0.0;
            double error = fabs(found - wanted) / allowed;
            worst = error >= 0.0 ? MAX(worst, error) : INFINITY; /* NaN */
        }
    }
    void *given[] = {a, b, low_a, low_b, c, bias, y};
    for (size_t i = 0; i < COUNT(given); i++) {
        give_back(given[i]);
    }
    return worst;
}

static const product products[] = {
    {64, 64, 64, 64, 0, 0, 0, 0, 0, 1, 0, 0},
    {100, 150, 96, 64, 0, 1, 1, 1, 0, 1, 0, 0},
    {130, 72, 200, 64, 0, 0, 1, 0, 1, 1, 0, 0},
    {33, 41, 57, 64, 0, 1, 1, 1, 0, 1, 0, 0},
    {65, 67, 31, 64, 0, 0, 0, 1, 1, 1, 0, 0},
    {70, 130, 90, 64, 1, 0, 1, 1, 0, 1, 0, 0},
    {61, 64, 129, 64, 1, 1, 0, 0, 1, 1, 0, 0},
    {1, 8, 8, 64, 0, 1, 0, 0, 0, 1, 0, 0},
    {64, 96, 700, 64, 0, 1, 0, 0, 0, 3, 0, 0},
    {128, 128, 64, 128, 0, 0, 0, 0, 0, 1, 0, 0},
    {200, 140, 100, 128, 0, 1, 1, 1, 0, 1, 0, 0},
    {131, 257, 72, 128, 0, 0, 1, 0, 1, 1, 0, 0},
    {70, 72, 100, 64, 0, 1, 0, 1, 0, 1, 0, 16},
    {70, 72, 100, 64, 0, 0, 1, 0, 0, 1, 0, 5},
    {150, 130, 300, 128, 0, 0, 1, 0, 0, 1, 0, 64},
    {64, 64, 600, 64, 1, 0, 0, 0, 0, 2, 0, 8},    /* with the first part of K */
    {1200, 130, 32, 128, 0, 1, 0, 0, 0, 1, 0, 0}, /* more than one band of tiles */
};

START_TEST(test_products) {
    const product *p = &products[_i];
    char name[64];
    snprintf(name, sizeof name, "gemm_128_%d_%d_32_%d_%d_%d", p->tile, p->tile, p->tile == 128 ? 3 : 4, p->transpose_a,
             p->transpose_b);
    for (size_t w = 0; w < COUNT(ways); w++) {
        emulator_report report;
        double worst = run_product(name, p, &ways[w], &report);
        expect_clean(name, &report);
        ck_assert_msg(worst <= 1.0, "%s M=%d N=%d K=%d: %g times the error that roundings allow", name, p->M, p->N,
                      p->K, worst);
    }
}
END_TEST

START_TEST(test_rounding_rows) {
    int rows = 5, columns[] = {8, 7, 12, 1}, zero = 0;
    for (size_t i = 0; i < COUNT(columns); i++) {
        int pitch = padded(columns[i]) + 8;
        float *x = floats(rows * columns[i]);
        uint16_t *y = memory(2 * (size_t)(rows * pitch), 0xff);
        x[0] = 1.00390625f; /* half way between two, the even one is below */
        x[1] = 1.01171875f; /* above */
        float factor = i % 2 == 0 ? 1.0f : -0.5f;
        void *arguments[] = {&x, &y, &rows, &columns[i], &pitch, &factor, &zero};
        emulator_report report = run("round_rows_256", 1, 1, 0, arguments, NULL);
        expect_clean("round_rows", &report);
        for (int j = 0; j < rows * pitch; j++) {
            int column = j % pitch;
            float wanted = column < columns[i] ? x[j / pitch * columns[i] + column] : 0.0f;
            ck_assert_uint_eq(y[j], lk_f32_to_bf16(factor * wanted));
        }
        give_back(x);
        give_back(y);
    }
}
END_TEST

/* ---- attention ---- */

enum { MAX_SEQUENCES = 8 };
typedef struct attention {
    int tokens, heads, kv_heads, head_dim, causal, window, num_sequences;
    int borders[MAX_SEQUENCES + 1];
} attention;

static const attention attentions[] = {
    {128, 1, 1, 64, 1, 0, 1, {0, 128}},
    {150, 4, 2, 64, 1, 0, 3, {0, 37, 37, 150}}, /* an empty sequence */
    {77, 3, 3, 64, 0, 0, 2, {0, 30, 70}},       /* tokens of no sequence */
    {200, 4, 1, 64, 1, 33, 2, {0, 20, 200}},    /* a window */
    {70, 2, 1, 40, 1, 0, 1, {0, 70}},           /* padded to 64 */
    {130, 2, 1, 128, 1, 0, 4, {0, 1, 64, 65, 130}},
    {140, 2, 2, 128, 0, 0, 2, {0, 100, 140}},
    {65, 2, 1, 80, 1, 0, 2, {0, 64, 65}}, /* padded to 128 */
};

static int sequence_of(const attention *a, int row) {
    for (int s = 0; s < a->num_sequences; s++) {
        if (row >= a->borders[s] && row < a->borders[s + 1]) {
            return s;
        }
    }
    return -1;
}

static int sees(const attention *a, int query, int key) {
    int s = sequence_of(a, query);
    return s >= 0 && s == sequence_of(a, key) && (!a->causal || key <= query) &&
           (a->window == 0 || query - key < a->window);
}

/* Operands, results, and what they should be with the bounds of their errors, all per row (token, head). */
typedef struct flash {
    const attention *a;
    int dp, *cu_seqlens;
    float scale, *o, *lse, *delta, *dq, *dk, *dv;
    uint16_t *q, *k, *v, *d_o;
    double *wanted[6], *bound[6]; /* o, lse, dq, dk, dv, delta */
} flash;
enum { O, LSE, DQ, DK, DV, DELTA };

static double dot(const uint16_t *x, const uint16_t *y, int count) {
    double sum = 0.0;
    for (int d = 0; d < count; d++) {
        sum += at(x, d) * at(y, d);
    }
    return sum;
}

static size_t outputs_of(const attention *a, int which) {
    size_t queries = (size_t)(a->tokens * a->heads), keys = (size_t)(a->tokens * a->kv_heads);
    size_t rows = which == DK || which == DV ? keys : queries;
    return which == LSE || which == DELTA ? rows : rows * (size_t)a->head_dim;
}

/* For one query of one head. The probabilities are rounded to bf16 before they meet v and do, ds before it meets q and
 * k; everything else is fp32. */
static void expect_row(flash *f, int i, int h) {
    const attention *a = f->a;
    int D = a->head_dim, row = i * a->heads + h, kv = h / (a->heads / a->kv_heads);
    const uint16_t *q = f->q + row * f->dp, *d_o = f->d_o + row * f->dp;
    double highest = -INFINITY, total = 0.0, *p = calloc((size_t)a->tokens, sizeof *p);
    for (int j = 0; j < a->tokens; j++) {
        int key = (j * a->kv_heads + kv) * f->dp;
        p[j] = sees(a, i, j) ? (double)f->scale * dot(q, f->k + key, D) : -INFINITY;
        highest = MAX(highest, p[j]);
    }
    for (int j = 0; j < a->tokens; j++) {
        p[j] = p[j] > -INFINITY ? exp(p[j] - highest) : 0.0;
        total += p[j];
    }
    f->wanted[LSE][row] = total > 0.0 ? highest + log(total) : 0.0;
    f->bound[LSE][row] = 64.0 * f32_rounding * (1.0 + fabs(highest));
    double relative = bf16_rounding + 16.0 * exp2_error * (1.0 + fabs(highest)); /* of a probability */
    double *o = f->wanted[O] + row * D, delta = 0.0;
    for (int j = 0; j < a->tokens; j++) {
        p[j] = total > 0.0 ? p[j] / total : 0.0;
        for (int d = 0; d < D; d++) {
            double v = at(f->v, (j * a->kv_heads + kv) * f->dp + d);
            o[d] += p[j] * v;
            f->bound[O][row * D + d] += p[j] * fabs(v) * relative;
        }
    }
    for (int d = 0; d < D; d++) {
        delta += o[d] * at(d_o, d);
    }
    f->wanted[DELTA][row] = delta;
    for (int j = 0; j < a->tokens; j++) {
        int key = j * a->kv_heads + kv;
        double dp = p[j] > 0.0 ? dot(d_o, f->v + key * f->dp, D) : 0.0;
        double ds = p[j] * (dp - delta), ds_error = p[j] * (fabs(dp) + fabs(delta)) * 64.0 * exp2_error;
        ds_error += fabs(ds) * relative;
        for (int d = 0; d < D && p[j] > 0.0; d++) {
            double k = at(f->k, key * f->dp + d), scale = (double)f->scale;
            f->wanted[DQ][row * D + d] += scale * ds * k;
            f->bound[DQ][row * D + d] += scale * ds_error * fabs(k);
            f->wanted[DK][key * D + d] += scale * ds * at(q, d);
            f->bound[DK][key * D + d] += scale * ds_error * fabs(at(q, d));
            f->wanted[DV][key * D + d] += p[j] * at(d_o, d);
            f->bound[DV][key * D + d] += p[j] * fabs(at(d_o, d)) * relative;
        }
    }
    free(p);
}

static uint16_t *operand(const attention *a, int heads, int dp) {
    uint16_t *m = matrix(a->tokens * heads, a->head_dim, dp);
    for (int i = 0; i < a->tokens * heads * dp; i++) {
        m[i] = i % dp < a->head_dim ? m[i] : 0;
    }
    return m;
}

static void flash_make(flash *f, const attention *a) {
    *f = (flash){.a = a, .dp = a->head_dim <= 64 ? 64 : 128, .scale = (float)(1.5 / sqrt(a->head_dim))};
    state = 7;
    f->q = operand(a, a->heads, f->dp);
    f->d_o = operand(a, a->heads, f->dp);
    f->k = operand(a, a->kv_heads, f->dp);
    f->v = operand(a, a->kv_heads, f->dp);
    f->cu_seqlens = memory(sizeof(int) * (size_t)(a->num_sequences + 1), 0);
    memcpy(f->cu_seqlens, a->borders, sizeof(int) * (size_t)(a->num_sequences + 1));
    float **results[] = {&f->o, &f->lse, &f->dq, &f->dk, &f->dv, &f->delta};
    for (int i = 0; i < 6; i++) {
        *results[i] = memory(sizeof(float) * outputs_of(a, i), 0xff);
        f->wanted[i] = calloc(outputs_of(a, i), sizeof(double));
        f->bound[i] = calloc(outputs_of(a, i), sizeof(double));
    }
    for (int row = 0; row < a->tokens * a->heads; row++) {
        expect_row(f, row / a->heads, row % a->heads);
    }
    for (size_t row = 0; row < outputs_of(a, DELTA); row++) {
        f->delta[row] = (float)f->wanted[DELTA][row];
    }
}

static void flash_free(flash *f) {
    void *memories[] = {f->q, f->k, f->v, f->d_o, f->cu_seqlens, f->o, f->lse, f->delta, f->dq, f->dk, f->dv};
    for (size_t i = 0; i < COUNT(memories); i++) {
        give_back(memories[i]);
    }
    for (int i = 0; i < 6; i++) {
        free(f->wanted[i]);
        free(f->bound[i]);
    }
}

static emulator_report run_forward(const char *name, flash *f, const emulator_options *options) {
    attention a = *f->a;
    int one = 1, zero = 0, keys = f->dp == 64 ? 64 : 32;
    void *arguments[] = {&f->q,    &f->k,       &f->v,       &f->cu_seqlens,   &f->o,     &f->lse,   &a.tokens,
                         &a.heads, &a.kv_heads, &a.head_dim, &a.num_sequences, &f->scale, &a.causal, &a.window,
                         &one,     &one,        &zero};
    unsigned shared = (unsigned)(2 * f->dp * (128 + 4 * keys) + 8 * 128);
    return run(name, (unsigned)(a.tokens + 127) / 128, (unsigned)a.heads, shared, arguments, options);
}

static emulator_report run_backward(flash *f, int keys, const emulator_options *options) {
    attention a = *f->a;
    int one = 1, zero = 0, columns = f->dp == 64 ? 64 : 32;
    float **first = keys ? &f->dk : &f->dq;
    void *arguments[24] = {&f->d_o, &f->q, &f->k, &f->v, &f->lse, &f->delta, &f->cu_seqlens, first};
    int count = 8;
    if (keys) {
        arguments[count++] = &f->dv;
    }
    void *rest[] = {&a.tokens, &a.heads, &a.kv_heads, &a.head_dim, &a.num_sequences, &f->scale, &a.causal, &a.window};
    memcpy(arguments + count, rest, sizeof rest);
    count += (int)COUNT(rest);
    if (keys) {
        arguments[count++] = &one;
        arguments[count++] = &one;
    }
    arguments[count++] = &zero;
    char name[64];
    snprintf(name, sizeof name, "flash_attention_%s_128_64_%d_%d", keys ? "dkv" : "dq", columns, f->dp);
    unsigned shared = (unsigned)(2 * f->dp * (128 + 4 * columns) + 16 * columns);
    return run(name, (unsigned)(a.tokens + 63) / 64, (unsigned)(keys ? a.kv_heads : a.heads), shared, arguments,
               options);
}

/* The largest error over its bound; rows of no sequence must be 0. */
static double worst_of(const flash *f, int which, const float *found) {
    double worst = 0.0;
    for (size_t i = 0; i < outputs_of(f->a, which); i++) {
        double error = fabs((double)found[i] - f->wanted[which][i]);
        double allowed = f->bound[which][i] + 4.0 * f32_rounding * fabs(f->wanted[which][i]);
        double ratio = error == 0.0 ? 0.0 : error / allowed;
        worst = ratio >= 0.0 ? MAX(worst, ratio) : INFINITY;
    }
    return worst;
}

START_TEST(test_attention) {
    const attention *a = &attentions[_i];
    flash f;
    flash_make(&f, a);
    char name[64];
    snprintf(name, sizeof name, "flash_attention_128_128_%d_%d", f.dp == 64 ? 64 : 32, f.dp);
    for (size_t w = 0; w < COUNT(ways); w++) {
        emulator_report report = run_forward(name, &f, &ways[w]);
        expect_clean(name, &report);
        for (int keys = 0; keys < 2; keys++) {
            report = run_backward(&f, keys, &ways[w]);
            expect_clean(keys ? "dkv" : "dq", &report);
        }
        const float *found[] = {f.o, f.lse, f.dq, f.dk, f.dv};
        static const char *const names[] = {"o", "lse", "dq", "dk", "dv"};
        for (int i = 0; i < 5; i++) {
            double worst = worst_of(&f, i, found[i]);
            ck_assert_msg(worst <= 1.0, "T=%d heads=%d/%d D=%d: %s has %g times the error that roundings allow",
                          a->tokens, a->heads, a->kv_heads, a->head_dim, names[i], worst);
        }
    }
    flash_free(&f);
}
END_TEST

/* ---- planted faults ---- */

static const struct {
    const char *kernel, *found; /* what the report begins with; NULL: the result is wrong */
    int eager;
} gemm_faults[] = {
    {"gemm_without_wait", "race", 0},      {"gemm_without_wait", "race", 1},
    {"gemm_waits_too_little", "race", 0},  {"gemm_without_barrier", "race", 0},
    {"gemm_without_barrier", "race", 1},   {"gemm_without_commit", "race", 0},
    {"gemm_with_wrong_fragment", NULL, 0}, {"gemm_with_swapped_registers", NULL, 0},
    {"gemm_copies_beyond_rows", NULL, 0},  {"gemm_128_64_64_32_4_0_0", "out of bounds", 0},
};

START_TEST(test_faults_of_products) {
    bool sound = strncmp(gemm_faults[_i].kernel, "gemm_128", 8) == 0;
    product p = {70, 72, 203, 64, 0, 0, 0, 0, 0, 1, sound ? 2 : 0, 0};
    emulator_options options = {gemm_faults[_i].eager, 0};
    emulator_report report;
    double worst = run_product(gemm_faults[_i].kernel, &p, &options, &report);
    if (gemm_faults[_i].found == NULL) {
        ck_assert_msg(report.problems == 0 && worst > 1e3, "%s: %g, %s", gemm_faults[_i].kernel, worst, report.first);
    } else {
        ck_assert_uint_gt(report.problems, 0);
        ck_assert_msg(strstr(report.first, gemm_faults[_i].found) == report.first, "%s: %s", gemm_faults[_i].kernel,
                      report.first);
    }
}
END_TEST

START_TEST(test_faults_of_attention) {
    static const char *const kernels[] = {"attention_without_barrier", "attention_without_wait"};
    flash f;
    flash_make(&f, &attentions[1]);
    emulator_report report = run_forward(kernels[_i], &f, NULL);
    ck_assert_msg(strstr(report.first, "race") == report.first, "%s: %s", kernels[_i], report.first);
    flash_free(&f);
}
END_TEST

static const struct {
    const char *kernel, *found;
} small_faults[] = {
    {"reads_what_nobody_wrote", "uninitialised"},
    {"reads_before_the_barrier", "race"},
    {"writes_before_the_barrier", "race"},
    {"writes_beyond_shared", "out of bounds: 4 bytes at 256 of 256 of shared memory"},
    {"writes_beyond_global", "out of bounds: 4 bytes of global memory at byte 256 of 256"},
    {"parts_at_a_barrier", "barrier"},
    {"waits_at_two_barriers", "barrier"},
    {"never_waits_for_its_copy", "lost copy"},
    {"never_commits_its_copy", "lost copy"},
    {"parts_in_a_warp", "d"}, /* divergence, or a deadlock where the others wait elsewhere */
    {"is_misaligned", "alignment"},
};

START_TEST(test_small_faults) {
    float *y = memory(64 * sizeof *y, 0);
    int zero = 0;
    void *arguments[] = {&y, &zero};
    emulator_report report = run(small_faults[_i].kernel, 1, 1, 256, arguments, NULL);
    ck_assert_uint_gt(report.problems, 0);
    ck_assert_msg(strstr(report.first, small_faults[_i].found) == report.first, "%s: %s", small_faults[_i].kernel,
                  report.first);
    give_back(y);
}
END_TEST

START_TEST(test_bank_conflicts) {
    float *y = memory(64 * sizeof *y, 0);
    int zero = 0;
    void *arguments[] = {&y, &zero};
    emulator_report report = run("has_bank_conflicts", 1, 1, 4096, arguments, NULL);
    ck_assert_msg(report.problems == 0, "%s", report.first);
    ck_assert_uint_eq(report.matrix_loads, 8);
    ck_assert_uint_eq(report.matrix_load_cycles, 64);
    give_back(y);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("cuda-emulator");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, test_products, 0, (int)COUNT(products));
    tcase_add_test(tests, test_rounding_rows);
    tcase_add_loop_test(tests, test_attention, 0, (int)COUNT(attentions));
    tcase_add_loop_test(tests, test_faults_of_products, 0, (int)COUNT(gemm_faults));
    tcase_add_loop_test(tests, test_faults_of_attention, 0, 2);
    tcase_add_loop_test(tests, test_small_faults, 0, (int)COUNT(small_faults));
    tcase_add_test(tests, test_bank_conflicts);
    return run_case("cuda-emulator", tests);
}

#else
int main(void) {
    printf("SKIP: no nvcc or no C++ compiler in this build\n");
    return 77;
}
#endif
