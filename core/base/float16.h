/* bf16 and IEEE fp16 as storage: exact widening, round-to-nearest-even narrowing. */
#ifndef LK_CORE_BASE_FLOAT16_H
#define LK_CORE_BASE_FLOAT16_H

#include <stdint.h>
#include <string.h>

static inline float lk_f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t lk_f32_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float lk_bf16_to_f32(uint16_t value) {
    return lk_f32_from_bits((uint32_t)value << 16);
}

static inline uint16_t lk_f32_to_bf16(float value) {
    uint32_t bits = lk_f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)((bits >> 16) | 0x40u); /* keep it a quiet NaN */
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float lk_f16_to_f32(uint16_t value) {
    uint32_t sign = (uint32_t)(value & 0x8000u) << 16;
    uint32_t exponent = (value >> 10) & 0x1fu;
    uint32_t mantissa = value & 0x3ffu;
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 is exact in fp32 */
        float magnitude = (float)mantissa * 5.9604644775390625e-08f;
        return lk_f32_from_bits(lk_f32_bits(magnitude) | sign);
    }
    if (exponent == 31) {
        return lk_f32_from_bits(sign | 0x7f800000u | (mantissa << 13));
    }
    return lk_f32_from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

static inline uint16_t lk_f32_to_f16(float value) {
    uint32_t bits = lk_f32_bits(value);
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u);
    }
    if (magnitude >= 0x477ff000u) { /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (magnitude < 0x38800000u) { /* subnormal: adding 0.5 aligns the mantissa and rounds in hardware */
        float aligned = lk_f32_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (lk_f32_bits(aligned) - 0x3f000000u));
    }
    uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | (rounded >> 13));
}

#endif
