/* Takes the place of the toolkit's header when the host's C++ compiler compiles CUDA kernels for the mock driver: the
 * words of CUDA C++ that shaders/lk_cuda.h uses, for lanes that run one after the other (tests/cuda/emulator). */
#ifndef LK_TESTS_CUDA_MOCK_CUDA_FP16_H
#define LK_TESTS_CUDA_MOCK_CUDA_FP16_H
#if defined(__cplusplus)

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tests/cuda/emulator/register.h"

#define __global__
#define __device__
#define __shared__ static /* groups run one after the other */
#define __launch_bounds__(...)
#define __syncthreads() emulator_barrier(__LINE__)

struct uint4 {
    unsigned x, y, z, w;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return uint4{x, y, z, w};
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)(((uint64_t)a * b) >> 32);
}
template <typename To, typename From> static inline To mock_bits(From from) {
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
static inline float __int_as_float(int x) {
    return mock_bits<float>(x);
}
static inline float __uint_as_float(unsigned x) {
    return mock_bits<float>(x);
}
static inline unsigned __float_as_uint(float x) {
    return mock_bits<unsigned>(x);
}

struct __half {
    uint16_t bits;
};
static inline float __half2float(__half h) {
    unsigned sign = (unsigned)(h.bits & 0x8000u) << 16, exponent = (h.bits >> 10) & 31u, mantissa = h.bits & 0x3ffu;
    if (exponent == 31) {
        return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    }
    float magnitude =
        exponent == 0 ? std::ldexp((float)mantissa, -24) : std::ldexp((float)(mantissa | 0x400u), (int)exponent - 25);
    return sign != 0 ? -magnitude : magnitude;
}
/* To the nearest, ties to even: adding and taking away a power of two lets the processor round at the wanted bit. */
static inline __half __float2half_rn(float x) {
    unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u;
    float magnitude = std::fabs(x);
    if (!(magnitude == magnitude)) {
        return __half{(uint16_t)(sign | 0x7e00u)};
    }
    if (magnitude >= 65520.0f) {
        return __half{(uint16_t)(sign | 0x7c00u)};
    }
    int exponent = magnitude < 6.103515625e-05f ? -14 : std::ilogb(magnitude);
    volatile float rounded = magnitude + std::ldexp(1.0f, exponent + 13); /* volatile: not to be simplified away */
    float result = rounded - std::ldexp(1.0f, exponent + 13);
    if (result < 6.103515625e-05f) {
        return __half{(uint16_t)(sign | (unsigned)std::ldexp(result, 24))};
    }
    exponent = std::ilogb(result);
    unsigned mantissa = (unsigned)std::ldexp(result, 10 - exponent) & 0x3ffu;
    return __half{(uint16_t)(sign | (unsigned)(exponent + 15) << 10 | mantissa)};
}

static inline int min(int a, int b) {
    return a < b ? a : b;
}
static inline int max(int a, int b) {
    return a > b ? a : b;
}
using std::cos;
using std::floor;
using std::fmax;
using std::fmin;
using std::log;
using std::sin;
using std::sqrt;

#endif
#endif
