/* shaders/native/cuda/vocabulary.h for the host: each word is a call of the emulator. */
#ifndef LK_TESTS_CUDA_EMULATOR_DEVICE_H
#define LK_TESTS_CUDA_EMULATOR_DEVICE_H
#ifdef __cplusplus

#include <cmath>
#include <cstring>

#include "tests/cuda/emulator/register.h"

#define LK_DEVICE [[maybe_unused]] static inline
#define LK_NATIVE_KERNEL [[maybe_unused]] static void LK_VARIANT
#define LK_LINE int line = __builtin_LINE()

using std::fmax;
using std::fmin;
static inline int min(int a, int b) {
    return a < b ? a : b;
}
static inline int max(int a, int b) {
    return a > b ? a : b;
}

LK_DEVICE int lk_thread() {
    return (int)threadIdx.x;
}
LK_DEVICE int lk_block_x() {
    return (int)blockIdx.x;
}
LK_DEVICE int lk_block_y() {
    return (int)blockIdx.y;
}
LK_DEVICE int lk_blocks_x() {
    return (int)gridDim.x;
}

enum { EMULATOR_SHARED_START = 1024 }; /* not 0, so that an address that was forgotten is out of bounds */
LK_DEVICE lk_shared lk_shared_start() {
    return EMULATOR_SHARED_START;
}
LK_DEVICE void lk_store_shared(lk_shared to, unsigned value, LK_LINE) {
    emulator_store_shared(to, value, line);
}
LK_DEVICE unsigned lk_load_shared(lk_shared from, LK_LINE) {
    return emulator_load_shared(from, line);
}
LK_DEVICE void lk_copy_async(lk_shared to, const void *from, int bytes, LK_LINE) {
    emulator_copy(to, from, bytes, line);
}
LK_DEVICE void lk_copy_commit() {
    emulator_copy_commit();
}
template <int pending> LK_DEVICE void lk_copy_wait() {
    emulator_copy_wait(pending);
}
LK_DEVICE void lk_load_matrices(unsigned to[4], lk_shared row, LK_LINE) {
    emulator_load_matrices(to, row, 0, line);
}
LK_DEVICE void lk_load_matrices_transposed(unsigned to[4], lk_shared row, LK_LINE) {
    emulator_load_matrices(to, row, 1, line);
}
LK_DEVICE void lk_mma(float c[4], const unsigned a[4], unsigned b0, unsigned b1, LK_LINE) {
    emulator_mma(c, a, b0, b1, line);
}
LK_DEVICE float lk_shuffle_xor(float value, int mask, LK_LINE) {
    return emulator_shuffle_xor(value, mask, line);
}
LK_DEVICE void lk_barrier(LK_LINE) {
    emulator_barrier(line);
}

LK_DEVICE unsigned lk_bits(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
LK_DEVICE float lk_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
LK_DEVICE unsigned emulator_bf16(float x) {
    unsigned bits = lk_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0x7fffu;
    }
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
LK_DEVICE unsigned lk_pack(float low, float high) {
    return emulator_bf16(low) | emulator_bf16(high) << 16;
}
LK_DEVICE float lk_exp2(float x) {
    return x < -126.0f ? 0.0f : std::exp2(x);
}

template <typename T> LK_DEVICE T lk_load(const T *from, LK_LINE) {
    return emulator_may_touch(from, sizeof *from, line) ? *from : T();
}
template <typename T, typename U> LK_DEVICE void lk_store(T *to, U value, LK_LINE) {
    if (emulator_may_touch(to, sizeof *to, line)) {
        *to = (T)value;
    }
}
/* `bytes` at once, at an address that is a multiple of them. */
LK_DEVICE void emulator_load(void *to, const void *from, size_t bytes, int line) {
    std::memset(to, 0, bytes);
    if (emulator_may_touch(from, bytes, line)) {
        std::memcpy(to, from, bytes);
    }
}
LK_DEVICE void emulator_store(void *to, const void *from, size_t bytes, int line) {
    if (emulator_may_touch(to, bytes, line)) {
        std::memcpy(to, from, bytes);
    }
}
LK_DEVICE void lk_load_pair(const float *from, float to[2], LK_LINE) {
    emulator_load(to, from, 2 * sizeof *to, line);
}
LK_DEVICE void lk_load_quad(const float *from, float to[4], LK_LINE) {
    emulator_load(to, from, 4 * sizeof *to, line);
}
LK_DEVICE void lk_store_pair(float *to, float first, float second, LK_LINE) {
    const float pair[] = {first, second};
    emulator_store(to, pair, sizeof pair, line);
}
LK_DEVICE void lk_store_bf16_pair(lk_bf16 *to, unsigned packed, LK_LINE) {
    emulator_store(to, &packed, sizeof packed, line);
}
LK_DEVICE void lk_store_bf16_quad(lk_bf16 *to, unsigned first, unsigned second, LK_LINE) {
    const unsigned quad[] = {first, second};
    emulator_store(to, quad, sizeof quad, line);
}

#endif
#endif
