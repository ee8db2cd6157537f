#define XXH_INLINE_ALL
#include <xxhash.h>

#include <math.h>

#include "core/base/base.h"

uint64_t lk_hash64(const void *bytes, size_t size, uint64_t seed) {
    return XXH3_64bits_withSeed(bytes, size, seed);
}

void lk_philox4x32(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) {
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c3 = (uint32_t)p0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

float lk_uniform_from_bits(uint32_t bits) {
    return (float)(bits >> 8) * (1.0f / 16777216.0f);
}

void lk_normal_pair_from_bits(uint32_t bits0, uint32_t bits1, double out[2]) {
    double u = ((double)bits0 + 1.0) / 4294967296.0; /* (0, 1]: its logarithm is finite */
    double angle = (double)bits1 * (6.283185307179586 / 4294967296.0);
    double radius = sqrt(-2.0 * log(u));
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}
