/* The innermost kernel of every matrix product: a tile of C stays in registers while k runs.
 *
 * C[i, j] = addend + bias[j] + sum over segments, over k, of a[i, k] b[k, j]. A is read by broadcasting single elements
 * at any stride; rows of B are contiguous. Where the processor multiplies bf16 itself, a segment may consist of pairs:
 * element (2 k, 2 k + 1) of a row of A, and of each column of B, side by side. The pairs of A follow one another along
 * k or along rows. A task that runs tiles does so between tile_begin and tile_end. */
#ifndef LK_CPU_TILE_H
#define LK_CPU_TILE_H

#include "backends/cpu/cpu.h"
#include "backends/cpu/simd/simd.h"

/* Tiles as large as the registers allow: 24, 12, 18 and 16 sums. */
#if VF_WIDTH == 16
enum { TILE_ROWS = 8, TILE_VECTORS = 3 };
#elif VF_WIDTH == 8
enum { TILE_ROWS = 6, TILE_VECTORS = 2 };
#elif VF_WIDTH == 4
enum { TILE_ROWS = 6, TILE_VECTORS = 3 };
#else
enum { TILE_ROWS = 4, TILE_VECTORS = 4 };
#endif
enum { TILE_COLUMNS = TILE_VECTORS * VF_WIDTH };
/* Rows of a tile whose segments are all pairs. */
#if defined(LK_USE_AMX)
enum { TILE_PAIR_ROWS = 32 };
#else
enum { TILE_PAIR_ROWS = TILE_ROWS };
#endif

typedef struct tile_segment {
    const float *a;
    int64_t a_row, a_k;
    const float *b;
    int64_t b_k, k;
} tile_segment;

typedef struct tile_job {
    tile_segment segments[2];
    int num_segments;
    /* not NULL: pairs in place of the segment's a; a_row and a_k are counted in bf16 numbers, b_k and k in pairs */
    const uint16_t *pairs[2];
    bool joined[2];      /* pairs of b are made of two rows of bf16, b_k numbers apart, of whole vectors */
    const float *addend; /* row stride addend_row; NULL: none */
    int64_t addend_row;
    const float *bias; /* NULL: none */
    void *c;
    lk_dtype c_dtype; /* F32, BF16 or F16 */
    int64_t c_row;
    int columns; /* <= TILE_COLUMNS */
    bool padded; /* rows of b may be read up to a multiple of VF_WIDTH beyond `columns` */
} tile_job;

/* The sums of row i and vector j, of which `width` are columns of C. */
LK_CPU_INLINE void tile_put(const tile_job *job, int i, int j, int width, vf sum) {
    if (job->bias != NULL) {
        sum = vf_add(sum, vf_get(job->bias + j * VF_WIDTH, width));
    }
    if (job->addend != NULL) {
        sum = vf_add(sum, vf_get(job->addend + i * job->addend_row + j * VF_WIDTH, width));
    }
    vf_write(job->c, job->c_dtype, i * job->c_row + j * VF_WIDTH, sum, width);
}

#if VF_PAIRS
LK_CPU_INLINE void tile_add_pairs(const int rows, const int vectors, const bool joined, const uint16_t *a,
                                  const tile_segment *segment, vf sum[TILE_ROWS][TILE_VECTORS]) {
    const int64_t a_row = segment->a_row, a_k = segment->a_k, b_k = segment->b_k;
    const uint16_t *row = (const uint16_t *)(const void *)segment->b;
    const uint32_t *panel = (const uint32_t *)(const void *)segment->b;
    for (int64_t k = segment->k; k > 0; k--, a += a_k, panel += b_k, row += 2 * b_k) {
        vp line[TILE_VECTORS];
        LK_CPU_UNROLL for (int j = 0; j < vectors; j++) {
            line[j] = joined ? vp_join(row + j * VF_WIDTH, row + b_k + j * VF_WIDTH) : vp_load(panel + j * VF_WIDTH);
        }
        LK_CPU_UNROLL for (int i = 0; i < rows; i++) {
            vp x = vp_set1(a + i * a_row);
            LK_CPU_UNROLL for (int j = 0; j < vectors; j++) {
                sum[i][j] = vp_dot(x, line[j], sum[i][j]);
            }
        }
    }
}
#endif

LK_CPU_INLINE void tile_run(const int rows, const int vectors, const bool guarded, const tile_job *job) {
    vf sum[TILE_ROWS][TILE_VECTORS];
    const int lanes = job->columns - (vectors - 1) * VF_WIDTH; /* of the last vector */
    LK_CPU_UNROLL for (int i = 0; i < rows; i++) {
        LK_CPU_UNROLL for (int j = 0; j < vectors; j++) {
            sum[i][j] = vf_zero();
        }
    }
    for (int s = 0; s < job->num_segments; s++) {
        const tile_segment *segment = &job->segments[s];
        const float *a = segment->a, *b = segment->b;
        const int64_t a_row = segment->a_row, a_k = segment->a_k, b_k = segment->b_k;
#if VF_PAIRS
        if (job->pairs[s] != NULL) {
            if (job->joined[s]) {
                tile_add_pairs(rows, vectors, true, job->pairs[s], segment, sum);
            } else {
                tile_add_pairs(rows, vectors, false, job->pairs[s], segment, sum);
            }
            continue;
        }
#endif
        for (int64_t k = segment->k; k > 0; k--, a += a_k, b += b_k) {
            vf line[TILE_VECTORS];
            LK_CPU_UNROLL for (int j = 0; j < vectors; j++) {
                line[j] = guarded && j == vectors - 1 ? vf_load_n(b + j * VF_WIDTH, lanes) : vf_load(b + j * VF_WIDTH);
            }
            LK_CPU_UNROLL for (int i = 0; i < rows; i++) {
                vf x = vf_set1(a[i * a_row]);
                LK_CPU_UNROLL for (int j = 0; j < vectors; j++) {
                    sum[i][j] = vf_fma(x, line[j], sum[i][j]);
                }
            }
        }
    }
    LK_CPU_UNROLL for (int i = 0; i < rows; i++) {
        LK_CPU_UNROLL for (int j = 0; j < vectors; j++) {
            tile_put(job, i, j, j == vectors - 1 ? lanes : VF_WIDTH, sum[i][j]);
        }
    }
}

typedef void (*tile_function)(const tile_job *job);
/* tiles[guarded][rows - 1][vectors - 1] (gemm.c) */
#define tile_table LK_CPU(tile_table)
extern const tile_function tile_table[2][TILE_ROWS][TILE_VECTORS];

#if defined(LK_USE_AMX)
#include "backends/cpu/simd/amx.h"
#else
static inline void tile_begin(void) {
}
static inline void tile_end(void) {
}
#endif

static inline bool tile_is_pairs(const tile_job *job) {
    return job->num_segments > 0 && job->pairs[0] != NULL && (job->num_segments == 1 || job->pairs[1] != NULL);
}

/* How many rows a tile of that job may have. */
static inline int tile_most_rows(const tile_job *job) {
    return tile_is_pairs(job) ? TILE_PAIR_ROWS : TILE_ROWS;
}

LK_CPU_INLINE void tile(int rows, const tile_job *job) {
#if defined(LK_USE_AMX)
    if (tile_is_pairs(job)) {
        amx_run(rows, job);
        return;
    }
#endif
    int vectors = (job->columns + VF_WIDTH - 1) / VF_WIDTH;
    bool guarded = !job->padded && job->columns % VF_WIDTH != 0;
    tile_table[guarded][rows - 1][vectors - 1](job);
}

/* C[rows, columns] (+)= A B for blocks that fit the caches, of any size; B is padded if `padded`. */
static inline void tile_block(int64_t rows, int64_t columns, tile_segment segment, bool padded, bool accumulate,
                              float *c, int64_t c_row) {
    for (int64_t j = 0; j < columns; j += TILE_COLUMNS) {
        tile_job job = {.num_segments = 1, .c_row = c_row, .addend_row = c_row, .padded = padded};
        job.columns = (int)LK_MIN(columns - j, (int64_t)TILE_COLUMNS);
        job.segments[0] = segment;
        job.segments[0].b += j;
        for (int64_t i = 0; i < rows; i += TILE_ROWS) {
            job.segments[0].a = segment.a + i * segment.a_row;
            job.c = c + i * c_row + j;
            job.addend = accumulate ? job.c : NULL;
            tile((int)LK_MIN(rows - i, (int64_t)TILE_ROWS), &job);
        }
    }
}

/* The same with pairs: A's (tile_job) and B's, rows of b filled up to whole vectors. */
#if VF_PAIRS
typedef struct tile_pairs {
    const uint16_t *a;
    int64_t a_row, a_pair;
    const uint32_t *b;
    int64_t b_pair, pairs;
} tile_pairs;

static inline void tile_block_pairs(int64_t rows, int64_t columns, tile_pairs pairs, bool accumulate, float *c,
                                    int64_t c_row) {
    for (int64_t j = 0; j < columns; j += TILE_COLUMNS) {
        tile_job job = {.num_segments = 1, .c_row = c_row, .addend_row = c_row, .padded = true};
        job.columns = (int)LK_MIN(columns - j, (int64_t)TILE_COLUMNS);
        job.segments[0] = (tile_segment){
            NULL, pairs.a_row, pairs.a_pair, (const float *)(const void *)(pairs.b + j), pairs.b_pair, pairs.pairs};
        for (int64_t i = 0; i < rows; i += TILE_PAIR_ROWS) {
            job.pairs[0] = pairs.a + i * pairs.a_row;
            job.c = c + i * c_row + j;
            job.addend = accumulate ? job.c : NULL;
            tile((int)LK_MIN(rows - i, (int64_t)TILE_PAIR_ROWS), &job);
        }
    }
}

/* Pairs of rows, to[r / 2][c] = (from[r][c], from[r + 1][c]), of F32 or BF16; zeros up to whole pairs and vectors. */
static inline void tile_pair_rows(const void *from, lk_dtype dtype, int64_t from_row, int64_t rows, int64_t columns,
                                  uint32_t *to, int64_t to_row) {
    for (int64_t r = 0; r < rows; r += 2, to += to_row) {
        int64_t even = r * from_row, odd = even + from_row;
        bool last = r + 1 == rows;
        VF_FOR(c, lanes, columns, {
            vf low = vf_read(from, dtype, even + c, lanes);
            vp_store(to + c, vp_round(low, last ? vf_zero() : vf_read(from, dtype, odd + c, lanes)));
        });
    }
}

/* Makes rows of A of pairs that stand side by side at from + pair * stride, once for several tiles; `to` has room for
 * TILE_PAIR_ROWS * tile_gathered_pairs(pairs). Rows up to whole vectors can be read. */
static inline int64_t tile_gathered_pairs(int64_t pairs) {
    return (pairs + VF_WIDTH - 1) / VF_WIDTH * VF_WIDTH;
}

static inline void tile_gather(const uint32_t *from, int64_t stride, int rows, int64_t pairs, uint32_t *to,
                               tile_job *job) {
    job->pairs[0] = (const uint16_t *)(const void *)to;
#if defined(LK_USE_AMX)
    int64_t row = tile_gathered_pairs(pairs);
    for (int r = 0; r < rows; r += VF_WIDTH) {
        for (int64_t k = 0; k < pairs; k += VF_WIDTH) {
            vf block[VF_WIDTH];
            for (int i = 0; i < VF_WIDTH; i++) {
                const void *pair = from + (k + i) * stride + r;
                block[i] = k + i < pairs ? vf_load(pair) : vf_zero();
            }
            vf_transpose(block);
            for (int i = 0; i < VF_WIDTH; i++) {
                vf_store((float *)(void *)(to + (r + i) * row + k), block[i]);
            }
        }
    }
    job->segments[0].a_row = 2 * row;
    job->segments[0].a_k = 2;
#else
    (void)rows;
    for (int64_t i = 0; i < pairs; i++) {
        memcpy(to + i * TILE_ROWS, from + i * stride, TILE_ROWS * sizeof *to);
    }
    job->segments[0].a_row = 2;
    job->segments[0].a_k = 2 * TILE_ROWS;
#endif
}
#endif

/* to[c][r] = from[r][c], with zeros in `to` up to a whole vector of rows: so it can be a padded B. */
static inline void tile_transpose(const float *from, int64_t from_row, int64_t rows, int64_t columns, float *to,
                                  int64_t to_row) {
    for (int64_t r = 0; r < rows; r += VF_WIDTH) {
        for (int64_t c = 0; c < columns; c += VF_WIDTH) {
            int lanes = (int)LK_MIN(columns - c, (int64_t)VF_WIDTH);
            vf block[VF_WIDTH];
            for (int i = 0; i < VF_WIDTH; i++) {
                block[i] = r + i < rows ? vf_get(from + (r + i) * from_row + c, lanes) : vf_zero();
            }
            vf_transpose(block);
            for (int i = 0; i < lanes; i++) {
                vf_store(to + (c + i) * to_row + r, block[i]);
            }
        }
    }
}

#endif
