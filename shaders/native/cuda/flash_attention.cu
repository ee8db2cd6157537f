/* o = softmax(scale q k' + mask) v on tensor cores (Dao, arXiv 2307.08691), for BQ queries of one head, over tiles of
 * BK keys, of which the next is copied while one is used. A warp has BQ / 4 queries; scores and o stay in registers. */
enum {
    GROUP = LK_SET_GROUP,
    BQ = LK_SET_BQ,
    BK = LK_SET_BK,
    DP = LK_SET_DP,
    PARTS = BQ / 64, /* a warp's rows, 16 at a time */
    BLOCKS = BK / 8,
    Q_BYTES = 2 * BQ * DP,
    K_BYTES = 2 * BK * DP
};

#include "native/cuda/flash.h"

LK_NATIVE_KERNEL(const lk_bf16 *q, const lk_bf16 *k, const lk_bf16 *v, const int *cu_seqlens, float *o, float *lse,
                 int tokens, int heads, int kv_heads, int head_dim, int num_sequences, float scale, int causal,
                 int window, int wants_o, int wants_lse, int lk_first) {
    const int lane = lk_thread() % LK_WARP, warp = lk_thread() / LK_WARP;
    const int blocks = (tokens + BQ - 1) / BQ, row = (blocks - 1 - LK_PLACE_X) * BQ; /* the longest first */
    const int head = LK_PLACE_Y, kv_head = head / (heads / kv_heads);
    const sequences all = {cu_seqlens, num_sequences, causal, window};
    const lk_shared q_tile = lk_shared_start(), stages = q_tile + Q_BYTES, ranges = stages + 4 * K_BYTES;
    const span keys = span_of(all, row, BQ, false);
    const int start = keys.first / BK * BK, steps = keys.last > start ? (keys.last - start + BK - 1) / BK : 0;

    auto copy_step = [&](int step) {
        lk_shared tile = stages + (lk_shared)(step % 2 * 2 * K_BYTES);
        int key = start + step * BK;
        copy_tile<BK, DP>(tile, k + kv_head * DP, key, 0, tokens, DP, kv_heads * DP);
        copy_tile<BK, DP>(tile + K_BYTES, v + kv_head * DP, key, 0, tokens, DP, kv_heads * DP);
    };

    /* each row's range of keys; read only where a tile must be masked, so not worth registers */
    for (int i = lk_thread(); i < BQ; i += GROUP) {
        int first, last;
        range_of(all, row + i, false, first, last);
        lk_store_shared(ranges + (lk_shared)(i * 8), (unsigned)first);
        lk_store_shared(ranges + (lk_shared)(i * 8 + 4), (unsigned)last);
    }
    float sums[PARTS][DP / 8][4] = {}, maxima[PARTS][2], totals[PARTS][2];
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        maxima[i][0] = maxima[i][1] = -1.0e30f;
        totals[i][0] = totals[i][1] = 0.0f;
    }
    if (steps > 0) {
        copy_tile<BQ, DP>(q_tile, q + head * DP, row, 0, tokens, DP, heads * DP);
        copy_step(0);
    }
    lk_copy_commit();
    const float factor = scale * LK_LOG2E;
    for (int step = 0; step < steps; step++) {
        lk_copy_wait<0>();
        lk_barrier(); /* the tiles are there, and all are done with those that are replaced next */
        if (step + 1 < steps) {
            copy_step(step + 1);
        }
        lk_copy_commit();
        const lk_shared k_tile = stages + (lk_shared)(step % 2 * 2 * K_BYTES), v_tile = k_tile + K_BYTES;
        const int key = start + step * BK;
        const bool masked = key < keys.inner_first || key + BK > keys.inner_last;
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            float scores[BLOCKS][4] = {};
            multiply_rows<BLOCKS>(scores, q_tile, (warp * PARTS + i) * 16, k_tile, lane);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float highest = maxima[i][half];
                int first = 0, last = tokens;
                if (masked) {
                    lk_shared range = ranges + (lk_shared)(((warp * PARTS + i) * 16 + half * 8 + lane / 4) * 8);
                    first = (int)lk_load_shared(range);
                    last = (int)lk_load_shared(range + 4);
                }
#pragma unroll
                for (int j = 0; j < BLOCKS; j++) {
#pragma unroll
                    for (int e = half * 2; e < half * 2 + 2; e++) {
                        int column = key + j * 8 + lane % 4 * 2 + e % 2;
                        bool hidden = masked && (column < first || column >= last);
                        scores[j][e] = hidden ? -1.0e30f : factor * scores[j][e];
                        highest = fmaxf(highest, scores[j][e]);
                    }
                }
                highest = fmaxf(highest, lk_shuffle_xor(highest, 1));
                highest = fmaxf(highest, lk_shuffle_xor(highest, 2));
                float shrink = lk_exp2(maxima[i][half] - highest), total = 0.0f;
                maxima[i][half] = highest;
                /* a row that has seen nothing yet: its scores are all the mask's, and must not become 1 */
                bool empty = highest < -1.0e29f;
#pragma unroll
                for (int j = 0; j < BLOCKS; j++) {
#pragma unroll
                    for (int e = half * 2; e < half * 2 + 2; e++) {
                        scores[j][e] = empty ? 0.0f : lk_exp2(scores[j][e] - highest);
                        total += scores[j][e];
                    }
                }
                totals[i][half] = totals[i][half] * shrink + total;
#pragma unroll
                for (int j = 0; j < DP / 8; j++) {
                    sums[i][j][half * 2] *= shrink;
                    sums[i][j][half * 2 + 1] *= shrink;
                }
            }
            multiply_tile<BLOCKS>(sums[i], scores, v_tile, lane);
        }
    }
    lk_copy_wait<0>();

#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        int part = row + (warp * PARTS + i) * 16;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = totals[i][half];
            total += lk_shuffle_xor(total, 1);
            total += lk_shuffle_xor(total, 2);
            float inverse = total > 0.0f ? 1.0f / total : 0.0f;
#pragma unroll
            for (int j = 0; j < DP / 8; j++) {
                sums[i][j][half * 2] *= inverse;
                sums[i][j][half * 2 + 1] *= inverse;
            }
            int token = part + half * 8 + lane / 4;
            if (wants_lse && lane % 4 == 0 && token < tokens) {
                lk_store(lse + (long long)token * heads + head,
                         total > 0.0f ? maxima[i][half] * LK_LN2 + logf(total) : 0.0f);
            }
        }
        if (wants_o) {
            store_rows(o, sums[i], 1.0f, part, tokens, heads, head, head_dim, lane);
        }
    }
}
