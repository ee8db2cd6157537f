/* The dropout mask (core/ops/dropout.h) for a stretch of elements, many at a time. */
#ifndef LK_CPU_DROPOUT_H
#define LK_CPU_DROPOUT_H

#include "backends/cpu/cpu.h"
#include "backends/cpu/simd/simd.h"

/* Philox4x32-10 on this many consecutive indices at once; loops over them become vector instructions. */
enum { PHILOX_LANES = 16 };

typedef struct dropout_mask {
    uint64_t seed, stream; /* of Philox: the stream holds counter and layer */
    uint32_t threshold;    /* kept where the top 24 bits are at least this */
    float scale;           /* 1 / (1 - p) */
} dropout_mask;

static inline dropout_mask dropout_mask_of(const int32_t *rng, float p, uint32_t stream) {
    uint64_t counter = (uint32_t)rng[2] | (uint64_t)(uint32_t)rng[3] << 32;
    return (dropout_mask){(uint32_t)rng[0] | (uint64_t)(uint32_t)rng[1] << 32, counter << 20 | stream,
                          (uint32_t)ceil((double)p * 16777216.0), (float)(1.0 / (1.0 - (double)p))};
}

/* words[w][i] is word w of index first + i. */
static inline void philox_lanes(const dropout_mask *mask, uint64_t first, uint32_t words[4][PHILOX_LANES]) {
    uint32_t key0 = (uint32_t)mask->seed, key1 = (uint32_t)(mask->seed >> 32);
    uint32_t *c0 = words[0], *c1 = words[1], *c2 = words[2], *c3 = words[3];
    for (int i = 0; i < PHILOX_LANES; i++) {
        c0[i] = (uint32_t)(first + (uint64_t)i);
        c1[i] = (uint32_t)((first + (uint64_t)i) >> 32);
        c2[i] = (uint32_t)mask->stream;
        c3[i] = (uint32_t)(mask->stream >> 32);
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < PHILOX_LANES; i++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[i], p1 = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ key0;
            c1[i] = (uint32_t)p1;
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ key1;
            c3[i] = (uint32_t)p0;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

/* y[i] = x[i] mask / (1 - p) (+ y[i] where `accumulate`) for elements first .. first + count of the tensor that the
 * mask belongs to. y may be x. */
static inline void dropout_row(const dropout_mask *mask, float *y, const float *x, int64_t first, int64_t count,
                               bool accumulate) {
    for (int64_t done = 0; done < count;) {
        uint64_t block = (uint64_t)(first + done) / (4 * PHILOX_LANES);
        uint32_t words[4][PHILOX_LANES];
        philox_lanes(mask, block * PHILOX_LANES, words);
        float factors[4 * PHILOX_LANES];
        for (int i = 0; i < PHILOX_LANES; i++) {
            for (int w = 0; w < 4; w++) {
                factors[4 * i + w] = (words[w][i] >> 8) >= mask->threshold ? mask->scale : 0.0f;
            }
        }
        int64_t skip = first + done - (int64_t)block * 4 * PHILOX_LANES;
        int64_t here = LK_MIN(count - done, 4 * PHILOX_LANES - skip);
        VF_FOR(i, lanes, here, {
            vf dropped = vf_mul(vf_get(x + done + i, lanes), vf_get(factors + skip + i, lanes));
            vf_put(y + done + i, accumulate ? vf_add(vf_get(y + done + i, lanes), dropped) : dropped, lanes);
        });
        done += here;
    }
}

#endif
