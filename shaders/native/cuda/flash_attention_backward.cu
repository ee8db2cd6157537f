/* The gradients of attention on tensor cores, in two passes that each compute the probabilities again from q, k and the
 * saved log-sum-exp: one over queries for dq, one over keys for dk and dv (Dao, arXiv 2307.08691, without its atomics:
 * sums have one order). With p = exp(scale q k' - lse), dp = do v' and delta = rowsum(do o): ds = p (dp - delta), dq =
 * scale ds k, dk = scale ds' q, dv = p' do. A warp has 16 rows of the pass; products stay in registers. */
enum {
    GROUP = LK_SET_GROUP,
    ROWS = LK_SET_ROWS,       /* of the pass: 16 for each warp */
    COLUMNS = LK_SET_COLUMNS, /* of a tile that is gone through */
    DP = LK_SET_DP,
    BLOCKS = COLUMNS / 8,
    ROW_BYTES = 2 * ROWS * DP,
    COLUMN_BYTES = 2 * COLUMNS * DP,
    STAGE_BYTES = 2 * COLUMN_BYTES
};

#include "native/cuda/flash.h"

#ifdef LK_ENTRY_flash_attention_dq
LK_NATIVE_KERNEL(const lk_bf16 *d_o, const lk_bf16 *q, const lk_bf16 *k, const lk_bf16 *v, const float *lse,
                 const float *delta, const int *cu_seqlens, float *dq, int tokens, int heads, int kv_heads,
                 int head_dim, int num_sequences, float scale, int causal, int window, int lk_first) {
    const int lane = lk_thread() % LK_WARP, warp = lk_thread() / LK_WARP;
    const int blocks = (tokens + ROWS - 1) / ROWS, row = (blocks - 1 - LK_PLACE_X) * ROWS;
    const int head = LK_PLACE_Y, kv_head = head / (heads / kv_heads);
    const sequences all = {cu_seqlens, num_sequences, causal, window};
    const lk_shared q_tile = lk_shared_start(), do_tile = q_tile + ROW_BYTES, stages = do_tile + ROW_BYTES;
    const span keys = span_of(all, row, ROWS, false);
    const int start = keys.first / COLUMNS * COLUMNS;
    const int steps = keys.last > start ? (keys.last - start + COLUMNS - 1) / COLUMNS : 0;

    auto copy_step = [&](int step) {
        lk_shared tile = stages + (lk_shared)(step % 2 * STAGE_BYTES);
        copy_pair<COLUMNS>(tile, k + kv_head * DP, v + kv_head * DP, start + step * COLUMNS, tokens, kv_heads * DP);
    };

    int first[2], last[2];
    float row_lse[2], row_delta[2], sums[DP / 8][4] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int token = row + warp * 16 + half * 8 + lane / 4;
        long long at = (long long)token * heads + head;
        range_of(all, token, false, first[half], last[half]);
        row_lse[half] = token < tokens ? lk_load(lse + at) * LK_LOG2E : 0.0f;
        row_delta[half] = token < tokens ? lk_load(delta + at) : 0.0f;
    }
    if (steps > 0) {
        copy_pair<ROWS>(q_tile, q + head * DP, d_o + head * DP, row, tokens, heads * DP);
    }
    go_through(steps, copy_step, [&](int step) {
        const lk_shared k_tile = stages + (lk_shared)(step % 2 * STAGE_BYTES), v_tile = k_tile + COLUMN_BYTES;
        const int key = start + step * COLUMNS;
        const bool masked = key < keys.inner_first || key + COLUMNS > keys.inner_last;
        float ds[BLOCKS][4] = {}, dp[BLOCKS][4] = {};
        multiply_rows<BLOCKS>(ds, q_tile, warp * 16, k_tile, lane);
        multiply_rows<BLOCKS>(dp, do_tile, warp * 16, v_tile, lane);
#pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int half = e / 2, column = key + j * 8 + lane % 4 * 2 + e % 2;
                bool hidden = masked && (column < first[half] || column >= last[half]);
                float p = hidden ? 0.0f : lk_exp2(ds[j][e] * (scale * LK_LOG2E) - row_lse[half]);
                ds[j][e] = p * (dp[j][e] - row_delta[half]);
            }
        }
        multiply_tile<BLOCKS>(sums, ds, k_tile, lane);
    });
    store_rows(dq, sums, scale, row + warp * 16, tokens, heads, head, head_dim, lane);
}
#endif

#ifdef LK_ENTRY_flash_attention_dkv
/* Scores are computed as k q', so that p' and ds' lie as the next products want them. */
LK_NATIVE_KERNEL(const lk_bf16 *d_o, const lk_bf16 *q, const lk_bf16 *k, const lk_bf16 *v, const float *lse,
                 const float *delta, const int *cu_seqlens, float *dk, float *dv, int tokens, int heads, int kv_heads,
                 int head_dim, int num_sequences, float scale, int causal, int window, int wants_dk, int wants_dv,
                 int lk_first) {
    const int lane = lk_thread() % LK_WARP, warp = lk_thread() / LK_WARP;
    const int row = LK_PLACE_X * ROWS, kv_head = LK_PLACE_Y, group = heads / kv_heads;
    const sequences all = {cu_seqlens, num_sequences, causal, window};
    const lk_shared k_tile = lk_shared_start(), v_tile = k_tile + ROW_BYTES, stages = v_tile + ROW_BYTES;
    const lk_shared statistics = stages + 2 * STAGE_BYTES; /* of two tiles: lse, then delta */
    const span queries = span_of(all, row, ROWS, true);
    const int start = queries.first / COLUMNS * COLUMNS;
    const int tiles = queries.last > start ? (queries.last - start + COLUMNS - 1) / COLUMNS : 0;
    const int steps = tiles * group; /* head by head */

    auto copy_step = [&](int step) {
        lk_shared tile = stages + (lk_shared)(step % 2 * STAGE_BYTES);
        int query = start + step % tiles * COLUMNS, head = kv_head * group + step / tiles;
        copy_pair<COLUMNS>(tile, q + head * DP, d_o + head * DP, query, tokens, heads * DP);
        if (lk_thread() < 2 * COLUMNS) {
            int token = query + lk_thread() % COLUMNS;
            const float *from = lk_thread() < COLUMNS ? lse : delta;
            float factor = lk_thread() < COLUMNS ? LK_LOG2E : 1.0f;
            float value = token < tokens ? factor * lk_load(from + (long long)token * heads + head) : 0.0f;
            lk_store_shared(statistics + (lk_shared)((step % 2 * 2 * COLUMNS + lk_thread()) * 4), lk_bits(value));
        }
    };

    int first[2], last[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        range_of(all, row + warp * 16 + half * 8 + lane / 4, true, first[half], last[half]);
    }
    float dk_sums[DP / 8][4] = {}, dv_sums[DP / 8][4] = {};
    if (steps > 0) {
        copy_pair<ROWS>(k_tile, k + kv_head * DP, v + kv_head * DP, row, tokens, kv_heads * DP);
    }
    go_through(steps, copy_step, [&](int step) {
        const lk_shared q_tile = stages + (lk_shared)(step % 2 * STAGE_BYTES), do_tile = q_tile + COLUMN_BYTES;
        const lk_shared tile_lse = statistics + (lk_shared)(step % 2 * 2 * COLUMNS * 4);
        const int query = start + step % tiles * COLUMNS;
        const bool masked = query < queries.inner_first || query + COLUMNS > queries.inner_last;
        float p[BLOCKS][4] = {}, ds[BLOCKS][4] = {};
        multiply_rows<BLOCKS>(p, k_tile, warp * 16, q_tile, lane);
        multiply_rows<BLOCKS>(ds, v_tile, warp * 16, do_tile, lane);
#pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
#pragma unroll
            for (int side = 0; side < 2; side++) {
                int place = j * 8 + lane % 4 * 2 + side, column = query + place;
                float column_lse = lk_float(lk_load_shared(tile_lse + (lk_shared)(place * 4)));
                float column_delta = lk_float(lk_load_shared(tile_lse + (lk_shared)((COLUMNS + place) * 4)));
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int e = half * 2 + side;
                    bool hidden = masked && (column < first[half] || column >= last[half]);
                    p[j][e] = hidden ? 0.0f : lk_exp2(p[j][e] * (scale * LK_LOG2E) - column_lse);
                    ds[j][e] = p[j][e] * (ds[j][e] - column_delta);
                }
            }
        }
        multiply_tile<BLOCKS>(dv_sums, p, do_tile, lane);
        multiply_tile<BLOCKS>(dk_sums, ds, q_tile, lane);
    });
    if (wants_dk) {
        store_rows(dk, dk_sums, scale, row + warp * 16, tokens, kv_heads, kv_head, head_dim, lane);
    }
    if (wants_dv) {
        store_rows(dv, dv_sums, 1.0f, row + warp * 16, tokens, kv_heads, kv_head, head_dim, lane);
    }
}
#endif
