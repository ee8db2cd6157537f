/* For kernels made of products of small matrices in shared memory (attention): sums[TM x TN vectors] gains the product
 * of LEFT(r, k), r < TM, k < depth, and the rows of `right` (`stride` apart) from column `column` on. */
#define LK_TILE_MULTIPLY(sums, depth, LEFT, right, stride, column)                                \
    for (int lk_k = 0; lk_k < (depth); lk_k++) {                                                  \
        V lk_right[TN];                                                                           \
        LK_UNROLL                                                                                 \
        for (int lk_n = 0; lk_n < TN; lk_n++) {                                                   \
            lk_right[lk_n] = LK_VLOAD(right, lk_k * (stride) + (column) + lk_n * VECTOR);         \
        }                                                                                         \
        LK_UNROLL                                                                                 \
        for (int lk_r = 0; lk_r < TM; lk_r++) {                                                   \
            V lk_left = LK_SPLAT(LEFT(lk_r, lk_k));                                               \
            LK_UNROLL                                                                             \
            for (int lk_m = 0; lk_m < TN; lk_m++) {                                               \
                sums[lk_r * TN + lk_m] = LK_FMA(lk_left, lk_right[lk_m], sums[lk_r * TN + lk_m]); \
            }                                                                                     \
        }                                                                                         \
    }
#define LK_TILE_CLEAR(sums)                      \
    LK_UNROLL                                    \
    for (int lk_s = 0; lk_s < TM * TN; lk_s++) { \
        sums[lk_s] = LK_SPLAT(0.0f);             \
    }
/* Between sums and rows `row` .. of an array. */
#define LK_TILE_LOAD(sums, array, row, stride, column)                                                \
    LK_UNROLL                                                                                         \
    for (int lk_s = 0; lk_s < TM * TN; lk_s++) {                                                      \
        sums[lk_s] = LK_VLOAD(array, ((row) + lk_s / TN) * (stride) + (column) + lk_s % TN * VECTOR); \
    }
#define LK_TILE_STORE(sums, array, row, stride, column)                                               \
    LK_UNROLL                                                                                         \
    for (int lk_s = 0; lk_s < TM * TN; lk_s++) {                                                      \
        LK_VSTORE(array, ((row) + lk_s / TN) * (stride) + (column) + lk_s % TN * VECTOR, sums[lk_s]); \
    }
