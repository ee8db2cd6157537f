/* What the passes of flash attention have in common: part of each kernel's namespace, after its GROUP and DP.
 *
 * q, k, v and do are bf16 and padded: row (token, head) has DP elements. Tokens of several sequences may share a tile;
 * every row has its own range of columns. Of one warp's 16 rows a lane has rows g and g + 8 (vocabulary.h). */
#include "native/cuda/tile.h"

#define LK_LOG2E 1.44269504f
#define LK_LN2 0.693147181f

/* cu_seqlens with what a query may see: lk_attention_range() of core/ops/attention.h. */
struct sequences {
    const int *borders;
    int count, causal, window;
};

/* The sequence of a row: borders[s] <= row < borders[s + 1]; -1: none. */
LK_DEVICE int sequence_of(const sequences &all, int row) {
    int low = 0, high = all.count; /* the largest s with borders[s] <= row lies in [low, high] */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (lk_load(all.borders + middle) <= row) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low < all.count && lk_load(all.borders + low) <= row ? low : -1;
}

/* The keys [first, last) that a query sees, or the queries that see a key. Both ends grow with the row. */
LK_DEVICE void range_of(const sequences &all, int row, bool of_key, int &first, int &last) {
    int s = sequence_of(all, row);
    first = last = 0;
    if (s < 0) {
        return;
    }
    int start = lk_load(all.borders + s), end = lk_load(all.borders + s + 1);
    first = all.causal && of_key ? row : start;
    last = all.causal && !of_key ? row + 1 : end;
    if (all.window > 0 && of_key) {
        last = min(last, row + all.window);
    } else if (all.window > 0) {
        first = max(first, row + 1 - all.window);
    }
}

/* The columns that any of the rows [row, row + count) needs, [first, last), and those that all need, [inner_first,
 * inner_last): only tiles that reach beyond these must be masked. */
struct span {
    int first, last, inner_first, inner_last;
};
LK_DEVICE span span_of(const sequences &all, int row, int count, bool of_key) {
    int end = lk_load(all.borders + all.count), lowest = max(row, lk_load(all.borders)),
        highest = min(row + count, end) - 1;
    span result = {0, 0, 0, 0};
    if (lowest <= highest) {
        range_of(all, lowest, of_key, result.first, result.inner_last);
        range_of(all, highest, of_key, result.inner_first, result.last);
        if (row + count > end || row < lowest) { /* some rows need nothing */
            result.inner_last = 0;
        }
    }
    return result;
}

/* The same rows of two matrices of one shape, at `tile` and behind it. */
template <int rows>
LK_DEVICE void copy_pair(lk_shared tile, const lk_bf16 *first, const lk_bf16 *second, int row, int tokens, int pitch) {
    copy_tile<rows, DP>(tile, first, row, 0, tokens, DP, pitch);
    copy_tile<rows, DP>(tile + 2 * rows * DP, second, row, 0, tokens, DP, pitch);
}

/* The tiles of `steps` steps, of which the next is copied while one is used. What was copied before belongs to the
 * first. */
template <typename Copy, typename Use>
LK_DEVICE void go_through(int steps, const Copy &copy_step, const Use &use_step) {
    if (steps > 0) {
        copy_step(0);
    }
    lk_copy_commit();
    for (int step = 0; step < steps; step++) {
        lk_copy_wait<0>();
        lk_barrier(); /* the tiles are there, and all are done with those that are replaced next */
        if (step + 1 < steps) {
            copy_step(step + 1);
        }
        lk_copy_commit();
        use_step(step);
    }
    lk_copy_wait<0>();
}

/* c[j] += a b' over DP, for 16 rows of a from row a_row and 8 x `blocks` rows of b: both tiles as they are stored. */
template <int blocks> LK_DEVICE void multiply_rows(float c[blocks][4], lk_shared a, int a_row, lk_shared b, int lane) {
#pragma unroll
    for (int d = 0; d < DP; d += 16) {
        unsigned a_part[4];
        lk_load_matrices(a_part, chunk_at<DP>(a, a_row + lane % 16, lane / 16, d));
#pragma unroll
        for (int j = 0; j < blocks; j += 2) {
            unsigned b_part[4];
            lk_load_matrices(b_part, chunk_at<DP>(b, j * 8 + lane / 16 * 8 + lane % 8, lane / 8 % 2, d));
            lk_mma(c[j], a_part, b_part[0], b_part[1]);
            lk_mma(c[j + 1], a_part, b_part[2], b_part[3]);
        }
    }
}

/* Fragments of p, 16 x 8 `blocks` of fp32 as products leave them, as the left operand of a product. */
LK_DEVICE void pack_rows(unsigned a[4], const float left[4], const float right[4]) {
    a[0] = lk_pack(left[0], left[1]);
    a[1] = lk_pack(left[2], left[3]);
    a[2] = lk_pack(right[0], right[1]);
    a[3] = lk_pack(right[2], right[3]);
}

/* c += p b for p of 16 x 8 `blocks` in registers and `b` a tile of 8 `blocks` rows. */
template <int blocks>
LK_DEVICE void multiply_tile(float c[DP / 8][4], const float p[blocks][4], lk_shared b, int lane) {
#pragma unroll
    for (int k = 0; k < blocks; k += 2) {
        unsigned a_part[4];
        pack_rows(a_part, p[k], p[k + 1]);
#pragma unroll
        for (int d = 0; d < DP; d += 16) {
            unsigned b_part[4];
            lk_load_matrices_transposed(b_part, chunk_at<DP>(b, k * 8 + lane % 16, lane / 16, d));
            lk_mma(c[d / 8], a_part, b_part[0], b_part[1]);
            lk_mma(c[d / 8 + 1], a_part, b_part[2], b_part[3]);
        }
    }
}

/* 16 rows from registers, times a factor, to fp32 rows (token, head) of head_dim elements (an even number). */
LK_DEVICE void store_rows(float *to, const float values[DP / 8][4], float factor, int row, int tokens, int heads,
                          int head, int head_dim, int lane) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int token = row + half * 8 + lane / 4;
        float *at = to + ((long long)token * heads + head) * head_dim;
#pragma unroll
        for (int j = 0; j < DP / 8; j++) {
            int d = j * 8 + lane % 4 * 2;
            if (token < tokens && d < head_dim) {
                lk_store_pair(at + d, factor * values[j][half * 2], factor * values[j][half * 2 + 1]);
            }
        }
    }
}
