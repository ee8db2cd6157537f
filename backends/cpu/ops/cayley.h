/* What the kernels of cayley and cayley_backward share. */
#ifndef LK_CPU_CAYLEY_H
#define LK_CPU_CAYLEY_H

#include "backends/cpu/scratch.h"
#include "backends/cpu/simd/simd.h"
#include "core/ops/cayley.h"

/* sign Q */
static inline void lk_cpu_skew(const float *triangle, int64_t size, float sign, float *out) {
    for (int64_t i = 0; i < size; i++) {
        out[i * size + i] = 0.0f;
        for (int64_t j = i + 1; j < size; j++) {
            float value = sign * *triangle++;
            out[i * size + j] = value;
            out[j * size + i] = -value;
        }
    }
}

static inline void lk_cpu_diagonal(int64_t size, float value, float *out) {
    memset(out, 0, (size_t)(size * size) * sizeof *out);
    for (int64_t i = 0; i < size; i++) {
        out[i * size + i] = value;
    }
}

/* c = (add ? c : 0) + diagonal I + a b */
static inline void lk_cpu_square_product(const float *a, const float *b, int64_t size, float diagonal, bool add,
                                         float *c) {
    for (int64_t i = 0; i < size; i++) {
        VF_FOR(j, lanes, size, {
            vf sum = add ? vf_get(c + i * size + j, lanes) : vf_zero();
            for (int64_t k = 0; k < size; k++) {
                sum = vf_fma(vf_set1(a[i * size + k]), vf_get(b + k * size + j, lanes), sum);
            }
            vf_put(c + i * size + j, sum, lanes);
        });
        c[i * size + i] += diagonal;
    }
}

static inline void lk_cpu_widen_all(const float *from, int64_t count, double *to) {
    for (int64_t i = 0; i < count; i++) {
        to[i] = (double)from[i];
    }
}

#endif
