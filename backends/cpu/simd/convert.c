#include "backends/cpu/cpu.h"
#include "backends/cpu/simd/simd.h"

void LK_CPU(widen)(float *to, const void *from, lk_dtype dtype, int64_t count) {
    const uint16_t *halves = from;
    int64_t i = 0;
    for (; i + VF_WIDTH <= count; i += VF_WIDTH) {
        vf_store(to + i, dtype == LK_DTYPE_BF16 ? vf_load_bf16(halves + i) : vf_load_f16(halves + i));
    }
    for (; i < count; i++) {
        to[i] = dtype == LK_DTYPE_BF16 ? lk_bf16_to_f32(halves[i]) : lk_f16_to_f32(halves[i]);
    }
}

void LK_CPU(narrow)(void *to, const float *from, lk_dtype dtype, int64_t count) {
    uint16_t *halves = to;
    int64_t i = 0;
    for (; i + VF_WIDTH <= count; i += VF_WIDTH) {
        if (dtype == LK_DTYPE_BF16) {
            vf_store_bf16(halves + i, vf_load(from + i));
        } else {
            vf_store_f16(halves + i, vf_load(from + i));
        }
    }
    for (; i < count; i++) {
        halves[i] = dtype == LK_DTYPE_BF16 ? lk_f32_to_bf16(from[i]) : lk_f32_to_f16(from[i]);
    }
}
