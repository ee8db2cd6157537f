/* A small vector vocabulary. `vf` holds VF_WIDTH floats; the file for the instruction set being compiled for defines
 *   vf_zero vf_set1 vf_load vf_store (unaligned), vf_load_n vf_store_n (the first n <= VF_WIDTH; other lanes load as 0)
 *   vf_add vf_sub vf_mul vf_div vf_sqrt, vf_fma(a,b,c) = a b + c and vf_fnma(a,b,c) = c - a b (rounded once where the
 *   processor can), vf_min vf_max (a NaN in the second operand is kept), vf_abs vf_copysign(magnitude, sign)
 *   vf_select_lt(a, b, x, y) = a < b ? x : y, vf_round (to even), vf_scale2(x, n) = x 2^n for integral n in [-150, 128]
 *   vf_sum vf_maximum (over lanes, in a fixed order)
 *   vf_load_bf16 vf_load_f16 vf_store_bf16 vf_store_f16 (to even), vf_transpose (VF_WIDTH rows, in place)
 * and, with VF_PAIRS, where the processor multiplies bf16 itself: a `vp` holds VF_WIDTH pairs of bf16,
 *   vp_load vp_store, vp_set1 (one pair, of any alignment, in all lanes), vp_round(a, b) (a pair per lane, from both),
 *   vp_join(p, q) (the same from bf16 in memory)
 *   vp_dot(x, y, c) = c + x[0] y[0] + x[1] y[1] in each lane. Numbers below the normal range count as zero in these.
 * Kernels are written in it once, and compiled for each instruction set. */
#ifndef LK_CPU_SIMD_H
#define LK_CPU_SIMD_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/base/float16.h"
#include "lorikeet.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "backends/cpu/simd/avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "backends/cpu/simd/avx2.h"
#elif defined(__aarch64__) && defined(LK_USE_NEON)
#include "backends/cpu/simd/neon.h"
#else
#include "backends/cpu/simd/generic.h"
#endif

#ifndef VF_PAIRS
#define VF_PAIRS 0
#endif

/* Polynomials: minimax fits (Remez) of our own; coefficients from the constant upwards. */

#define VF_HORNER(x, c)                                               \
    vf sum_ = vf_set1(c[sizeof c / sizeof c[0] - 1]);                 \
    for (int i_ = (int)(sizeof c / sizeof c[0]) - 2; i_ >= 0; i_--) { \
        sum_ = vf_fma(sum_, x, vf_set1(c[i_]));                       \
    }                                                                 \
    return sum_

static inline vf vf_exp_polynomial(vf r) { /* (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2, to 3e-9 */
    static const float c[] = {0.4999999345f, 0.1666652063f, 0.04166838805f, 0.008368716885f, 0.001381459848f};
    VF_HORNER(r, c);
}

/* Within 1 ulp; 0 and infinity beyond the range, NaN for NaN. */
static inline vf vf_exp(vf x) {
    x = vf_max(vf_set1(-104.0f), vf_min(vf_set1(89.0f), x));
    vf n = vf_round(vf_mul(x, vf_set1(1.44269504088896341f)));
    vf r = vf_fnma(n, vf_set1(0.693359375f), x); /* ln 2 in two parts, the first exact in few bits */
    r = vf_fnma(n, vf_set1(-2.12194440054690583e-4f), r);
    vf p = vf_fma(vf_mul(r, r), vf_exp_polynomial(r), r);
    return vf_scale2(vf_add(p, vf_set1(1.0f)), n);
}

static inline vf vf_sigmoid(vf x) {
    return vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}

static inline vf vf_tanh_polynomial(vf u) { /* (tanh(x) / x - 1) / x^2 with u = x^2 <= 0.55^2 */
    static const float c[] = {-0.3333331805f, 0.133326017f, -0.05385385915f, 0.02107776268f, -0.006282478768f};
    VF_HORNER(u, c);
}

static inline vf vf_tanh(vf x) {
    vf magnitude = vf_abs(x), u = vf_mul(x, x);
    vf small = vf_fma(vf_mul(u, vf_tanh_polynomial(vf_min(vf_set1(0.31f), u))), x, x);
    vf e = vf_exp(vf_add(magnitude, magnitude));
    vf large = vf_sub(vf_set1(1.0f), vf_div(vf_set1(2.0f), vf_add(e, vf_set1(1.0f))));
    return vf_select_lt(magnitude, vf_set1(0.55f), small, vf_copysign(large, x));
}

static inline vf vf_erf_small(vf u) { /* erf(x) / x with u = x^2 <= 1 */
    static const float c[] = {1.128379166f,    -0.3761262582f,   0.1128358515f,  -0.02685381193f,
                              0.005188327676f, -8.010193529e-4f, 7.853861002e-5f};
    VF_HORNER(u, c);
}

static inline vf vf_erf_large(vf x) { /* log(1 - erf(x)) for 1 <= x <= 4, weighted by 1 - erf(x) */
    static const float c[] = {0.0001880356285f, -1.129578404f,    -0.6332199316f,  -0.1084185378f,
                              0.02520823282f,   -0.004204553358f, 4.413347242e-4f, -2.16867151e-5f};
    VF_HORNER(x, c);
}

static inline vf vf_erf(vf x) {
    vf magnitude = vf_abs(x);
    vf small = vf_mul(x, vf_erf_small(vf_min(vf_set1(1.0f), vf_mul(x, x))));
    vf bounded = vf_max(vf_set1(1.0f), vf_min(vf_set1(4.0f), magnitude));
    vf large = vf_copysign(vf_sub(vf_set1(1.0f), vf_exp(vf_erf_large(bounded))), x);
    return vf_select_lt(magnitude, vf_set1(1.0f), small, large);
}

/* Walks `count` elements in vectors: BODY sees the offset `i` and the number of valid lanes `lanes`. The loop's body is
 * expanded twice, so that full vectors are loaded without masks: use vf_get and vf_put with `lanes`, which is a
 * constant in the first copy. */
#define VF_FOR(i, lanes, count, ...)                       \
    do {                                                   \
        int64_t vf_count_ = (count), i = 0;                \
        for (; i + VF_WIDTH <= vf_count_; i += VF_WIDTH) { \
            enum { lanes = VF_WIDTH };                     \
            __VA_ARGS__                                    \
        }                                                  \
        if (i < vf_count_) {                               \
            const int lanes = (int)(vf_count_ - i);        \
            __VA_ARGS__                                    \
        }                                                  \
    } while (0)

static inline vf vf_get(const float *p, int lanes) {
    return lanes == VF_WIDTH ? vf_load(p) : vf_load_n(p, lanes);
}

static inline void vf_put(float *p, vf x, int lanes) {
    if (lanes == VF_WIDTH) {
        vf_store(p, x);
    } else {
        vf_store_n(p, x, lanes);
    }
}

/* Element i and those after it, in any of F32, BF16 and F16. */
static inline const void *vf_at(const void *p, lk_dtype dtype, int64_t i) {
    return (const char *)p + i * (dtype == LK_DTYPE_F32 ? 4 : 2);
}

static inline vf vf_read(const void *p, lk_dtype dtype, int64_t i, int lanes) {
    if (dtype == LK_DTYPE_F32) {
        return vf_get((const float *)p + i, lanes);
    }
    const uint16_t *halves = (const uint16_t *)p + i;
    uint16_t padded[VF_WIDTH] = {0};
    if (lanes < VF_WIDTH) {
        for (int j = 0; j < lanes; j++) {
            padded[j] = halves[j];
        }
        halves = padded;
    }
    return dtype == LK_DTYPE_BF16 ? vf_load_bf16(halves) : vf_load_f16(halves);
}

static inline void vf_write(void *p, lk_dtype dtype, int64_t i, vf x, int lanes) {
    if (dtype == LK_DTYPE_F32) {
        vf_put((float *)p + i, x, lanes);
        return;
    }
    uint16_t padded[VF_WIDTH], *halves = lanes == VF_WIDTH ? (uint16_t *)p + i : padded;
    if (dtype == LK_DTYPE_BF16) {
        vf_store_bf16(halves, x);
    } else {
        vf_store_f16(halves, x);
    }
    for (int j = 0; j < lanes && halves == padded; j++) {
        ((uint16_t *)p)[i + j] = padded[j];
    }
}

/* Four partial sums, so that additions do not wait for one another; always in the same order. */
static inline float vf_dot(const float *a, const float *b, int64_t count) {
    vf s0 = vf_zero(), s1 = vf_zero(), s2 = vf_zero(), s3 = vf_zero();
    int64_t i = 0;
    for (; i + 4 * VF_WIDTH <= count; i += 4 * VF_WIDTH) {
        s0 = vf_fma(vf_load(a + i), vf_load(b + i), s0);
        s1 = vf_fma(vf_load(a + i + VF_WIDTH), vf_load(b + i + VF_WIDTH), s1);
        s2 = vf_fma(vf_load(a + i + 2 * VF_WIDTH), vf_load(b + i + 2 * VF_WIDTH), s2);
        s3 = vf_fma(vf_load(a + i + 3 * VF_WIDTH), vf_load(b + i + 3 * VF_WIDTH), s3);
    }
    for (; i < count; i += VF_WIDTH) {
        int lanes = count - i < VF_WIDTH ? (int)(count - i) : VF_WIDTH;
        s0 = vf_fma(vf_get(a + i, lanes), vf_get(b + i, lanes), s0);
    }
    return vf_sum(vf_add(vf_add(s0, s1), vf_add(s2, s3)));
}

/* y += a x */
static inline void vf_axpy(float *y, float a, const float *x, int64_t count) {
    vf factor = vf_set1(a);
    VF_FOR(i, lanes, count, vf_put(y + i, vf_fma(factor, vf_get(x + i, lanes), vf_get(y + i, lanes)), lanes););
}

#endif
