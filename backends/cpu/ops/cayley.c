#include "backends/cpu/ops/cayley.h"
#include "backends/cpu/rows.h"

static void exact(const float *triangle, int64_t size, double *scratch, float *r) {
    double *wide = scratch + size * size;
    lk_cpu_widen_all(triangle, lk_cayley_triangle(size), wide);
    lk_cayley_exact(wide, size, scratch);
    for (int64_t i = 0; i < size * size; i++) {
        r[i] = (float)scratch[i];
    }
}

static void series(const float *triangle, int64_t size, int degree, float *scratch, float *r) {
    float *q = scratch, *made = scratch + size * size;
    lk_cpu_skew(triangle, size, 1.0f, q);
    lk_cpu_diagonal(size, (float)lk_cayley_coefficient(degree, degree), r);
    for (int p = degree - 1; p >= 0; p--) {
        lk_cpu_square_product(q, r, size, (float)lk_cayley_coefficient(degree, p), false, made);
        memcpy(r, made, (size_t)(size * size) * sizeof *r);
    }
}

static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    const lk_cayley_attributes *cayley = &call->node->attributes.cayley;
    int64_t size = cayley->size, area = size * size;
    for (int64_t block = range.begin; block < range.end; block++) {
        const float *triangle = (const float *)call->inputs[0] + block * lk_cayley_triangle(size);
        float *r = (float *)call->outputs[0] + block * area;
        float *scratch = (float *)call->scratch + block * area * lk_cpu_cayley_matrices(cayley);
        if (cayley->terms == 0) {
            exact(triangle, size, (double *)(void *)scratch, r);
        } else {
            series(triangle, size, lk_cayley_degree(cayley->terms), scratch, r);
        }
    }
}

void LK_CPU(cayley)(const lk_cpu_call *call) {
    int64_t size = call->node->attributes.cayley.size;
    lk_cpu_run_rows(call, call->node->inputs[0]->shape[0], 1, 16.0 * (double)(size * size), part);
}
