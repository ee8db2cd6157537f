/* y = alpha (op(a) op(b) + op(low_a) op(low_b)) + c + bias on tensor cores: bf16 operands, sums in fp32, y in fp32 or
 * bf16. The second product, of the same kind with an inner size `rank` (0: there is none), is what an adapter adds to a
 * linear: it costs a step more along K and no pass over y.
 *
 * A group makes a tile of BM x BN; its four warps stand two by two, each with a quarter of it in registers. Tiles of a
 * and b of BK along K come by cp.async, STAGES - 1 of them under way while one is multiplied. In shared memory a tile
 * keeps the order it has in global memory, in chunks of 16 bytes that are permuted so that the eight rows that ldmatrix
 * reads at a time lie in different banks; what must be transposed is so by ldmatrix.trans.
 *
 * Storage: a is [M, K], or [K, M] with TRANSPOSE_A; b is [K, N], or [N, K] with TRANSPOSE_B. Rows start at multiples of
 * 16 bytes (a_pitch, b_pitch in elements); M, N and K are free. */
enum {
    GROUP = LK_SET_GROUP,
    BM = LK_SET_BM,
    BN = LK_SET_BN,
    BK = LK_SET_BK,
    STAGES = LK_SET_STAGES,
    TRANSPOSE_A = LK_SET_TRANSPOSE_A,
    TRANSPOSE_B = LK_SET_TRANSPOSE_B,
    WM = BM / 2, /* a warp's part of the tile */
    WN = BN / 2,
    A_ROWS = TRANSPOSE_A ? BK : BM, /* of the tiles as they are stored */
    A_COLUMNS = TRANSPOSE_A ? BM : BK,
    B_ROWS = TRANSPOSE_B ? BN : BK,
    B_COLUMNS = TRANSPOSE_B ? BK : BN,
    A_BYTES = 2 * BM * BK,
    STAGE_BYTES = 2 * (BM + BN) * BK,
    BAND = 8 /* rows of tiles that are gone through together, so that their part of b stays in the cache */
};

#include "native/cuda/tile.h"

LK_NATIVE_KERNEL(const lk_bf16 *a, const lk_bf16 *b, const lk_bf16 *low_a, const lk_bf16 *low_b, const float *c,
                 const float *bias, void *y, int M, int N, int K, int rank, int a_pitch, int b_pitch, int low_a_pitch,
                 int low_b_pitch, int has_c, int has_bias, int y_is_bf16, float alpha, int tiles_m, int tiles_n,
                 int span, int lk_first) {
    /* bands of BAND rows of tiles, each gone through column by column */
    int in_band = BAND * tiles_n, band = LK_PLACE_X / in_band, place = LK_PLACE_X % in_band;
    int band_rows = min(BAND, tiles_m - band * BAND);
    int row = (band * BAND + place % band_rows) * BM, column = place / band_rows * BN;
    /* this group's part of K, where it is shared among several: each makes a y of its own */
    const int first = LK_PLACE_Y * span, last = min(K, first + span), main_steps = (last - first + BK - 1) / BK;
    const int steps = main_steps + (LK_PLACE_Y == 0 ? (rank + BK - 1) / BK : 0);
    const lk_shared stages = lk_shared_start();
    const int lane = lk_thread() % LK_WARP, warp = lk_thread() / LK_WARP;
    const int warp_row = warp / 2 * WM, warp_column = warp % 2 * WN;

    auto copy_step = [&](int step) {
        lk_shared tile = stages + (lk_shared)(step % STAGES * STAGE_BYTES);
        const bool low = step >= main_steps;
        const int k = low ? (step - main_steps) * BK : first + step * BK, end = low ? rank : last;
        const lk_bf16 *left = low ? low_a : a, *right = low ? low_b : b;
        const int left_pitch = low ? low_a_pitch : a_pitch, right_pitch = low ? low_b_pitch : b_pitch;
        if (TRANSPOSE_A) {
            copy_tile<A_ROWS, A_COLUMNS>(tile, left, k, row, end, M, left_pitch);
        } else {
            copy_tile<A_ROWS, A_COLUMNS>(tile, left, row, k, M, end, left_pitch);
        }
        if (TRANSPOSE_B) {
            copy_tile<B_ROWS, B_COLUMNS>(tile + A_BYTES, right, column, k, N, end, right_pitch);
        } else {
            copy_tile<B_ROWS, B_COLUMNS>(tile + A_BYTES, right, k, column, end, N, right_pitch);
        }
    };

    float sums[WM / 16][WN / 8][4] = {};
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) {
            copy_step(step);
        }
        lk_copy_commit();
    }
    for (int step = 0; step < steps; step++) {
        lk_copy_wait<STAGES - 2>(); /* this step's tiles, of this lane */
        lk_barrier();               /* and of the others; and all are done with the tiles that are replaced next */
        if (step + STAGES - 1 < steps) {
            copy_step(step + STAGES - 1);
        }
        lk_copy_commit(); /* an empty group at the end, so that the count of those under way stays the same */
        const lk_shared a_tile = stages + (lk_shared)(step % STAGES * STAGE_BYTES), b_tile = a_tile + A_BYTES;
#pragma unroll
        for (int k = 0; k < BK; k += 16) {
            unsigned a_part[WM / 16][4], b_part[WN / 16][4];
#pragma unroll
            for (int i = 0; i < WM / 16; i++) {
                int m = warp_row + i * 16;
                if (TRANSPOSE_A) {
                    int r = k + lane / 16 * 8 + lane % 8;
                    lk_load_matrices_transposed(a_part[i], chunk_at<A_COLUMNS>(a_tile, r, lane / 8 % 2, m));
                } else {
                    lk_load_matrices(a_part[i], chunk_at<A_COLUMNS>(a_tile, m + lane % 16, lane / 16, k));
                }
            }
#pragma unroll
            for (int j = 0; j < WN / 16; j++) {
                int n = warp_column + j * 16;
                if (TRANSPOSE_B) {
                    int r = n + lane / 16 * 8 + lane % 8;
                    lk_load_matrices(b_part[j], chunk_at<B_COLUMNS>(b_tile, r, lane / 8 % 2, k));
                } else {
                    int r = k + lane % 16;
                    lk_load_matrices_transposed(b_part[j], chunk_at<B_COLUMNS>(b_tile, r, lane / 16, n));
                }
            }
#pragma unroll
            for (int i = 0; i < WM / 16; i++) {
#pragma unroll
                for (int j = 0; j < WN / 8; j++) {
                    lk_mma(sums[i][j], a_part[i], b_part[j / 2][j % 2 * 2], b_part[j / 2][j % 2 * 2 + 1]);
                }
            }
        }
    }

    const long long part = (long long)LK_PLACE_Y * M * N;
    const bool in_pairs = N % 2 == 0; /* then pairs of columns are whole, and aligned */
#pragma unroll
    for (int i = 0; i < WM / 16; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int m = row + warp_row + i * 16 + half * 8 + lane / 4;
            if (m >= M) {
                continue;
            }
#pragma unroll
            for (int j = 0; j < WN / 8; j++) {
                int n = column + warp_column + j * 8 + lane % 4 * 2;
                long long at = part + (long long)m * N + n;
                float pair[2] = {alpha * sums[i][j][half * 2], alpha * sums[i][j][half * 2 + 1]};
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    if (n + e < N && has_bias) {
                        pair[e] += lk_load(bias + n + e);
                    }
                    if (n + e < N && has_c) {
                        pair[e] += lk_load(c + at + e);
                    }
                }
                if (in_pairs && n < N) {
                    if (y_is_bf16) {
                        lk_store_bf16_pair((lk_bf16 *)y + at, lk_pack(pair[0], pair[1]));
                    } else {
                        lk_store_pair((float *)y + at, pair[0], pair[1]);
                    }
                    continue;
                }
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    if (n + e < N && y_is_bf16) {
                        lk_store((lk_bf16 *)y + at + e, (lk_bf16)lk_pack(pair[e], 0.0f));
                    } else if (n + e < N) {
                        lk_store((float *)y + at + e, pair[e]);
                    }
                }
            }
        }
    }
}
