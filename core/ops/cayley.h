/* The Cayley transform R = (I - Q)(I + Q)^-1 of a skew-symmetric Q, which is a rotation, and the polynomial that
 * OFT uses for it (PEFT's use_cayley_neumann: the Neumann series of the inverse, cut short).
 *
 * Q is given by its upper triangle, row by row. Transposes of polynomials in Q are the same polynomials in -Q. */
#ifndef LK_CORE_OPS_CAYLEY_H
#define LK_CORE_OPS_CAYLEY_H

#include "core/base/base.h"

/* R = I + 2Q + 2Q^2 + ... + Q^degree. PEFT's number of terms counts from 1 and gives the third power at least where
 * there is a second. */
static inline int lk_cayley_degree(int terms) {
    return terms < 3 ? terms - 1 : terms == 3 ? 3 : terms - 1;
}

static inline double lk_cayley_coefficient(int degree, int power) {
    return power == 0 || (power == degree && degree > 1) ? 1.0 : 2.0;
}

static inline int64_t lk_cayley_triangle(int64_t size) {
    return size * (size - 1) / 2;
}

/* diagonal I + sign Q */
static inline void lk_cayley_matrix(const double *triangle, int64_t size, double diagonal, double sign, double *out) {
    for (int64_t i = 0; i < size; i++) {
        out[i * size + i] = diagonal;
        for (int64_t j = i + 1; j < size; j++) {
            double value = sign * *triangle++;
            out[i * size + j] = value;
            out[j * size + i] = -value;
        }
    }
}

/* Gauss-Jordan in place, of I + Q: no pivots are needed where the symmetric part is positive definite. */
static inline void lk_cayley_invert(double *m, int64_t size) {
    for (int64_t p = 0; p < size; p++) {
        double factor = 1.0 / m[p * size + p];
        m[p * size + p] = 1.0;
        for (int64_t j = 0; j < size; j++) {
            m[p * size + j] *= factor;
        }
        for (int64_t i = 0; i < size; i++) {
            double other = m[i * size + p];
            if (i != p) {
                m[i * size + p] = 0.0;
                for (int64_t j = 0; j < size; j++) {
                    m[i * size + j] -= other * m[p * size + j];
                }
            }
        }
    }
}

/* c = diagonal I + scale a b */
static inline void lk_cayley_product(const double *a, const double *b, int64_t size, double scale, double diagonal,
                                     double *c) {
    for (int64_t i = 0; i < size; i++) {
        for (int64_t j = 0; j < size; j++) {
            double sum = 0.0;
            for (int64_t k = 0; k < size; k++) {
                sum += a[i * size + k] * b[k * size + j];
            }
            c[i * size + j] = scale * sum + (i == j ? diagonal : 0.0);
        }
    }
}

/* (I - Q)(I + Q)^-1 = 2 (I + Q)^-1 - I */
static inline void lk_cayley_exact(const double *triangle, int64_t size, double *r) {
    lk_cayley_matrix(triangle, size, 1.0, 1.0, r);
    lk_cayley_invert(r, size);
    for (int64_t i = 0; i < size * size; i++) {
        r[i] = 2.0 * r[i] - (i % (size + 1) == 0 ? 1.0 : 0.0);
    }
}

/* dQ = -2 (I - Q)^-1 dR (I - Q)^-1; scratch: two matrices */
static inline void lk_cayley_exact_backward(const double *d_r, const double *triangle, int64_t size, double *scratch,
                                            double *d_q) {
    double *inverse = scratch, *half = scratch + size * size;
    lk_cayley_matrix(triangle, size, 1.0, -1.0, inverse);
    lk_cayley_invert(inverse, size);
    lk_cayley_product(inverse, d_r, size, -2.0, 0.0, half);
    lk_cayley_product(half, inverse, size, 1.0, 0.0, d_q);
}

/* One block, whichever way; scratch: two matrices. terms 0: exact. */
static inline void lk_cayley_block(const double *triangle, int64_t size, int terms, double *scratch, double *r) {
    if (terms == 0) {
        lk_cayley_exact(triangle, size, r);
        return;
    }
    int degree = lk_cayley_degree(terms);
    double *q = scratch, *h = scratch + size * size; /* Horner's scheme */
    lk_cayley_matrix(triangle, size, 0.0, 1.0, q);
    for (int64_t i = 0; i < size * size; i++) {
        r[i] = i % (size + 1) == 0 ? lk_cayley_coefficient(degree, degree) : 0.0;
    }
    for (int p = degree - 1; p >= 0; p--) {
        memcpy(h, r, (size_t)(size * size) * sizeof *h);
        lk_cayley_product(q, h, size, 1.0, lk_cayley_coefficient(degree, p), r);
    }
}

#endif
