/* The constants of GELU's approximation by tanh, which GELU and its backward share. */
#ifndef LK_CORE_OPS_GELU_H
#define LK_CORE_OPS_GELU_H

/* x / 2 (1 + tanh(LK_GELU_SLOPE (x + LK_GELU_CUBIC x^3))); the slope is sqrt(2 / pi). */
#define LK_GELU_SLOPE 0.79788456080286535588
#define LK_GELU_CUBIC 0.044715
/* 1 / sqrt(2) and 1 / sqrt(2 pi), for the exact form x Phi(x) */
#define LK_SQRT_HALF 0.70710678118654752440
#define LK_NORMAL_DENSITY_0 0.39894228040143267794

#endif
