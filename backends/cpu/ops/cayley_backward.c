#include "backends/cpu/ops/cayley.h"
#include "backends/cpu/rows.h"

static void exact(const float *d_r, const float *triangle, int64_t size, double *scratch, float *d_q) {
    int64_t area = size * size;
    double *wide = scratch, *from = scratch + area, *made = scratch + 2 * area, *rest = scratch + 3 * area;
    lk_cpu_widen_all(d_r, area, wide);
    lk_cpu_widen_all(triangle, lk_cayley_triangle(size), from);
    lk_cayley_exact_backward(wide, from, size, rest, made);
    for (int64_t i = 0; i < area; i++) {
        d_q[i] = (float)made[i];
    }
}

/* As in the specification: h are the transposes of the sums of Horner's scheme, g the gradients that arrive at them. */
static void series(const float *d_r, const float *triangle, int64_t size, int degree, float *scratch, float *d_q) {
    int64_t area = size * size;
    float *minus = scratch, *g = minus + area, *next = g + area, *h = next + area;
    lk_cpu_skew(triangle, size, -1.0f, minus);
    memcpy(g, d_r, (size_t)area * sizeof *g);
    memset(d_q, 0, (size_t)area * sizeof *d_q);
    for (int p = degree; p >= 1; p--) {
        float *made = h + (p - 1) * area, c = (float)lk_cayley_coefficient(degree, p);
        if (p == degree) {
            lk_cpu_diagonal(size, c, made);
        } else {
            lk_cpu_square_product(minus, made + area, size, c, false, made);
        }
    }
    for (int p = 0; p < degree; p++) {
        lk_cpu_square_product(g, h + p * area, size, 0.0f, true, d_q);
        lk_cpu_square_product(minus, g, size, 0.0f, false, next);
        memcpy(g, next, (size_t)area * sizeof *g);
    }
}

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const lk_cayley_attributes *cayley = &call->node->attributes.cayley;
    int64_t size = cayley->size, area = size * size, matrices = lk_cpu_cayley_matrices(cayley);
    for (int64_t block = range.begin; block < range.end; block++) {
        const float *d_r = (const float *)call->inputs[0] + block * area;
        const float *triangle = (const float *)call->inputs[1] + block * lk_cayley_triangle(size);
        float *out = (float *)call->outputs[0] + block * lk_cayley_triangle(size);
        float *scratch = (float *)call->scratch + block * area * matrices, *d_q = scratch + (matrices - 1) * area;
        if (cayley->terms == 0) {
            exact(d_r, triangle, size, (double *)(void *)scratch, d_q);
        } else {
            series(d_r, triangle, size, lk_cayley_degree(cayley->terms), scratch, d_q);
        }
        for (int64_t i = 0; i < size; i++) {
            for (int64_t j = i + 1; j < size; j++) {
                *out++ = d_q[i * size + j] - d_q[j * size + i];
            }
        }
    }
}

void LK_CPU(cayley_backward)(const lk_cpu_call *call) {
    int64_t size = call->node->attributes.cayley.size;
    lk_cpu_run_rows(call, call->node->inputs[1]->shape[0], 1, 48.0 * (double)(size * size), part);
}
