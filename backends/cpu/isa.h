/* The instruction sets that kernels are compiled for, best first, the portable one last. A kernel's file in ops/ is
 * compiled once for each, with LK_ISA set to its name and the flags that CMakeLists.txt has for it.
 * LK_CPU_EACH_ISA(X, ...) gives X(isa, features a processor must have, ...) for each. */
#ifndef LK_CPU_ISA_H
#define LK_CPU_ISA_H

#include "dispatch/topology.h"

#define LK_CPU_AVX2_FEATURES (LK_CPU_BIT(AVX2) | LK_CPU_BIT(FMA) | LK_CPU_BIT(F16C))
#define LK_CPU_AVX512_FEATURES \
    (LK_CPU_AVX2_FEATURES | LK_CPU_BIT(AVX512F) | LK_CPU_BIT(AVX512BW) | LK_CPU_BIT(AVX512DQ) | LK_CPU_BIT(AVX512VL))
/* Those that multiply bf16 by bf16 themselves. */
#define LK_CPU_AVX512BF16_FEATURES (LK_CPU_AVX512_FEATURES | LK_CPU_BIT(AVX512_BF16))
#define LK_CPU_AMXBF16_FEATURES (LK_CPU_AVX512BF16_FEATURES | LK_CPU_BIT(AMX_TILE) | LK_CPU_BIT(AMX_BF16))
#define LK_CPU_NEONBF16_FEATURES (LK_CPU_BIT(NEON) | LK_CPU_BIT(NEON_BF16))

#define LK_CPU_PAIR_FEATURES (LK_CPU_BIT(AVX512_BF16) | LK_CPU_BIT(NEON_BF16))

#if defined(__x86_64__)
#define LK_CPU_EACH_ISA(X, ...)                            \
    X(avx512bf16, LK_CPU_AVX512BF16_FEATURES, __VA_ARGS__) \
    X(avx512, LK_CPU_AVX512_FEATURES, __VA_ARGS__)         \
    X(avx2, LK_CPU_AVX2_FEATURES, __VA_ARGS__)             \
    X(generic, 0, __VA_ARGS__)
#elif defined(__aarch64__)
#define LK_CPU_EACH_ISA(X, ...)                        \
    X(neonbf16, LK_CPU_NEONBF16_FEATURES, __VA_ARGS__) \
    X(neon, LK_CPU_BIT(NEON), __VA_ARGS__)             \
    X(generic, 0, __VA_ARGS__)
#else
#define LK_CPU_EACH_ISA(X, ...) X(generic, 0, __VA_ARGS__)
#endif

/* The same for ops that are mostly products (LK_CPU_PRODUCT in kernels.def): they also have kernels for units that do
 * nothing else. */
#if defined(__x86_64__)
#define LK_CPU_EACH_PRODUCT_ISA(X, ...)              \
    X(amxbf16, LK_CPU_AMXBF16_FEATURES, __VA_ARGS__) \
    LK_CPU_EACH_ISA(X, __VA_ARGS__)
#else
#define LK_CPU_EACH_PRODUCT_ISA(X, ...) LK_CPU_EACH_ISA(X, __VA_ARGS__)
#endif

/* lk_cpu_rms_norm_avx2 from LK_CPU_NAME(rms_norm, avx2); LK_CPU(rms_norm) is that of the file being compiled. */
#define LK_CPU_NAME_(name, isa) lk_cpu_##name##_##isa
#define LK_CPU_NAME(name, isa) LK_CPU_NAME_(name, isa)
#define LK_CPU(name) LK_CPU_NAME(name, LK_ISA)

#endif
