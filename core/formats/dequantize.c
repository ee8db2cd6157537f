/* The block layouts are those of ggml (ggml-common.h, ggml-quants.c): a block holds a scale d, for some types a minimum
 * m, and packed integers q; a value is d * q, or d * q + m. The K types add sub-blocks with scales of their own. */
#include "core/formats/dequantize.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 1024 }; /* elements converted at a time; a multiple of every block size */

typedef void decode_function(const uint8_t *source, int64_t blocks, float *out);

static float half_at(const uint8_t *bytes) {
    return lk_f16_to_f32((uint16_t)(bytes[0] | bytes[1] << 8));
}

/* ---- plain types: blocks of one element ---- */

static void decode_f32(const uint8_t *source, int64_t blocks, float *out) {
    memcpy(out, source, (size_t)blocks * sizeof *out);
}

static void decode_bf16(const uint8_t *source, int64_t blocks, float *out) {
    for (int64_t i = 0; i < blocks; i++) {
        uint16_t value;
        memcpy(&value, source + 2 * i, sizeof value);
        out[i] = lk_bf16_to_f32(value);
    }
}

static void decode_f16(const uint8_t *source, int64_t blocks, float *out) {
    for (int64_t i = 0; i < blocks; i++) {
        out[i] = half_at(source + 2 * i);
    }
}

static void decode_f64(const uint8_t *source, int64_t blocks, float *out) {
    for (int64_t i = 0; i < blocks; i++) {
        double value;
        memcpy(&value, source + 8 * i, sizeof value);
        out[i] = (float)value;
    }
}

/* ---- blocks of 32 ---- */

/* d, then 16 bytes: low nibbles are elements 0..15, high nibbles 16..31; stored with 8 added. */
static void decode_q4_0(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 18, out += 32) {
        float d = half_at(source);
        const uint8_t *q = source + 2;
        for (int j = 0; j < 16; j++) {
            out[j] = (float)((q[j] & 15) - 8) * d;
            out[j + 16] = (float)((q[j] >> 4) - 8) * d;
        }
    }
}

static void decode_q4_1(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 20, out += 32) {
        float d = half_at(source), m = half_at(source + 2);
        const uint8_t *q = source + 4;
        for (int j = 0; j < 16; j++) {
            out[j] = (float)(q[j] & 15) * d + m;
            out[j + 16] = (float)(q[j] >> 4) * d + m;
        }
    }
}

/* The fifth bits of the 32 elements are the bits of a 32-bit word. */
static uint32_t fifth_bits(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void decode_q5_0(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 22, out += 32) {
        float d = half_at(source);
        uint32_t high = fifth_bits(source + 2);
        const uint8_t *q = source + 6;
        for (int j = 0; j < 16; j++) {
            out[j] = (float)((int)((q[j] & 15) | (high >> j & 1) << 4) - 16) * d;
            out[j + 16] = (float)((int)((q[j] >> 4) | (high >> (j + 16) & 1) << 4) - 16) * d;
        }
    }
}

static void decode_q5_1(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 24, out += 32) {
        float d = half_at(source), m = half_at(source + 2);
        uint32_t high = fifth_bits(source + 4);
        const uint8_t *q = source + 8;
        for (int j = 0; j < 16; j++) {
            out[j] = (float)((q[j] & 15) | (high >> j & 1) << 4) * d + m;
            out[j + 16] = (float)((q[j] >> 4) | (high >> (j + 16) & 1) << 4) * d + m;
        }
    }
}

static void decode_q8_0(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 34, out += 32) {
        float d = half_at(source);
        for (int j = 0; j < 32; j++) {
            out[j] = (float)(int8_t)source[2 + j] * d;
        }
    }
}

/* ---- blocks of 256 ---- */

/* 16 bytes of 4-bit scales and minima, one per 16 elements; 64 bytes of 2-bit q; d, dmin. In each half of the block, 32
 * bytes hold four groups of 32 elements, a group in each pair of bits. */
static void decode_q2_k(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 84, out += 256) {
        const uint8_t *scales = source, *quants = source + 16;
        float d = half_at(source + 80), dmin = half_at(source + 82);
        for (int i = 0; i < 256; i++) {
            int half = i / 128, group = i % 128 / 32;
            uint8_t scale = scales[i / 16];
            int q = quants[32 * half + i % 32] >> 2 * group & 3;
            out[i] = d * (float)(scale & 15) * (float)q - dmin * (float)(scale >> 4);
        }
    }
}

/* 32 bytes of third bits, 64 bytes of low 2 bits as in Q2_K, 12 bytes of 6-bit scales with 32 added, d. The scales' low
 * nibbles are in bytes 0..7, their upper two bits in bytes 8..11. A cleared third bit means minus 4. */
static void decode_q3_k(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 110, out += 256) {
        const uint8_t *high = source, *quants = source + 32, *packed = source + 96;
        float d = half_at(source + 108), scales[16];
        for (int i = 0; i < 16; i++) {
            int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
            scales[i] = d * (float)((low | (packed[8 + i % 4] >> 2 * (i / 4) & 3) << 4) - 32);
        }
        for (int i = 0; i < 256; i++) {
            int half = i / 128, group = i % 128 / 32;
            int q = quants[32 * half + i % 32] >> 2 * group & 3;
            int third = high[i % 32] >> (4 * half + group) & 1;
            out[i] = scales[i / 16] * (float)(q - (third ? 0 : 4));
        }
    }
}

/* The eight 6-bit scales and minima of Q4_K and Q5_K in 12 bytes. */
static void unpack_scales(const uint8_t *packed, float d, float dmin, float scales[8], float minima[8]) {
    for (int i = 0; i < 4; i++) {
        scales[i] = d * (float)(packed[i] & 63);
        minima[i] = dmin * (float)(packed[i + 4] & 63);
        scales[i + 4] = d * (float)((packed[i + 8] & 15) | packed[i] >> 6 << 4);
        minima[i + 4] = dmin * (float)(packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4);
    }
}

/* d, dmin, 12 bytes of scales and minima, one of each per 32 elements, 128 bytes: in each run of 32 bytes the low
 * nibbles are 32 elements and the high ones the next 32. */
static void decode_q4_k(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 144, out += 256) {
        float scales[8], minima[8];
        const uint8_t *quants = source + 16;
        unpack_scales(source + 4, half_at(source), half_at(source + 2), scales, minima);
        for (int i = 0; i < 256; i++) {
            int group = i / 32;
            int q = quants[32 * (group / 2) + i % 32] >> 4 * (group % 2) & 15;
            out[i] = scales[group] * (float)q - minima[group];
        }
    }
}

/* As Q4_K, with 32 bytes of fifth bits before the nibbles: bit g of byte i belongs to element i of group g. */
static void decode_q5_k(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 176, out += 256) {
        float scales[8], minima[8];
        const uint8_t *high = source + 16, *quants = source + 48;
        unpack_scales(source + 4, half_at(source), half_at(source + 2), scales, minima);
        for (int i = 0; i < 256; i++) {
            int group = i / 32;
            int q = quants[32 * (group / 2) + i % 32] >> 4 * (group % 2) & 15;
            q |= (high[i % 32] >> group & 1) << 4;
            out[i] = scales[group] * (float)q - minima[group];
        }
    }
}

/* 128 bytes of low nibbles, 64 of upper 2 bits, 16 signed 8-bit scales (one per 16 elements), d. In each half of the
 * block, 64 bytes hold groups 0 and 1 in their low nibbles, 2 and 3 in their high ones. */
static void decode_q6_k(const uint8_t *source, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, source += 210, out += 256) {
        const uint8_t *low = source, *high = source + 128, *scales = source + 192;
        float d = half_at(source + 208);
        for (int i = 0; i < 256; i++) {
            int half = i / 128, group = i % 128 / 32;
            int q = low[64 * half + 32 * (group % 2) + i % 32] >> 4 * (group / 2) & 15;
            q |= (high[32 * half + i % 32] >> 2 * group & 3) << 4;
            out[i] = d * (float)(int8_t)scales[i / 16] * (float)(q - 32);
        }
    }
}

/* ---- writing ---- */

typedef void encode_function(const float *source, int64_t blocks, uint8_t *out);

static void encode_f32(const float *source, int64_t blocks, uint8_t *out) {
    memcpy(out, source, (size_t)blocks * sizeof *source);
}

static void encode_bf16(const float *source, int64_t blocks, uint8_t *out) {
    for (int64_t i = 0; i < blocks; i++) {
        uint16_t value = lk_f32_to_bf16(source[i]);
        memcpy(out + 2 * i, &value, sizeof value);
    }
}

static void encode_f16(const float *source, int64_t blocks, uint8_t *out) {
    for (int64_t i = 0; i < blocks; i++) {
        uint16_t value = lk_f32_to_f16(source[i]);
        memcpy(out + 2 * i, &value, sizeof value);
    }
}

static void encode_q8_0(const float *source, int64_t blocks, uint8_t *out) {
    for (; blocks > 0; blocks--, source += 32, out += 34) {
        float largest = 0;
        for (int j = 0; j < 32; j++) {
            largest = fmaxf(largest, fabsf(source[j]));
        }
        float d = largest / 127, inverse = d > 0 ? 1 / d : 0;
        uint16_t half = lk_f32_to_f16(d);
        memcpy(out, &half, sizeof half);
        for (int j = 0; j < 32; j++) {
            float scaled = roundf(source[j] * inverse);
            out[2 + j] = (uint8_t)(int8_t)fmaxf(-127, fminf(127, scaled)); /* fmin and fmax drop NaN */
        }
    }
}

/* ---- the table ---- */

typedef struct codec {
    decode_function *decode;
    encode_function *encode;
} codec;

static const codec codecs[LK_DTYPE_COUNT] = {
    [LK_DTYPE_F32] = {decode_f32, encode_f32},    [LK_DTYPE_BF16] = {decode_bf16, encode_bf16},
    [LK_DTYPE_F16] = {decode_f16, encode_f16},    [LK_DTYPE_F64] = {decode_f64, NULL},
    [LK_DTYPE_Q4_0] = {decode_q4_0, NULL},        [LK_DTYPE_Q4_1] = {decode_q4_1, NULL},
    [LK_DTYPE_Q5_0] = {decode_q5_0, NULL},        [LK_DTYPE_Q5_1] = {decode_q5_1, NULL},
    [LK_DTYPE_Q8_0] = {decode_q8_0, encode_q8_0}, [LK_DTYPE_Q2_K] = {decode_q2_k, NULL},
    [LK_DTYPE_Q3_K] = {decode_q3_k, NULL},        [LK_DTYPE_Q4_K] = {decode_q4_k, NULL},
    [LK_DTYPE_Q5_K] = {decode_q5_k, NULL},        [LK_DTYPE_Q6_K] = {decode_q6_k, NULL},
};

bool lk_can_dequantize(lk_dtype dtype) {
    return codecs[dtype].decode != NULL;
}

void lk_dequantize(lk_dtype dtype, const void *source, int64_t elements, float *destination) {
    codecs[dtype].decode(source, elements / lk_dtype_block_size(dtype), destination);
}

bool lk_can_quantize(lk_dtype dtype) {
    return codecs[dtype].encode != NULL;
}

void lk_quantize(lk_dtype dtype, const float *source, int64_t elements, void *destination) {
    codecs[dtype].encode(source, elements / lk_dtype_block_size(dtype), destination);
}

lk_status lk_convert(lk_context *context, lk_dtype from, const void *source, lk_dtype to, void *destination,
                     int64_t elements) {
    size_t from_bytes, to_bytes;
    if (!lk_dtype_size(from, elements, &from_bytes) || !lk_dtype_size(to, elements, &to_bytes)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%lld elements do not fill whole blocks of %s and %s",
                       (long long)elements, lk_dtype_name(from), lk_dtype_name(to));
    }
    if (elements == 0) {
        return LK_OK;
    }
    if (from == to) {
        memcpy(destination, source, from_bytes);
    } else if (!lk_can_dequantize(from) || !lk_can_quantize(to)) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s cannot be converted to %s", lk_dtype_name(from),
                       lk_dtype_name(to));
    } else if (to == LK_DTYPE_F32) {
        lk_dequantize(from, source, elements, destination);
    } else {
        float values[CHUNK];
        const uint8_t *in = source;
        uint8_t *out = destination;
        for (int64_t done = 0; done < elements; done += CHUNK) {
            int64_t count = LK_MIN(elements - done, (int64_t)CHUNK);
            lk_dequantize(from, in, count, values);
            lk_quantize(to, values, count, out);
            in += (size_t)(count / lk_dtype_block_size(from)) * lk_dtype_block_bytes(from);
            out += (size_t)(count / lk_dtype_block_size(to)) * lk_dtype_block_bytes(to);
        }
    }
    return LK_OK;
}
