#include "backends/cpu/gemm.h"
#include "backends/cpu/simd/tile.h"

#if VF_WIDTH == 1
#include <cblas.h>
#endif

/* ---- the table of tiles ---- */

#define TILE_FUNCTION(rows, vectors)                                     \
    static void tile_##rows##_##vectors(const tile_job *job) {           \
        tile_run(rows, vectors, false, job);                             \
    }                                                                    \
    static void tile_##rows##_##vectors##_guarded(const tile_job *job) { \
        tile_run(rows, vectors, true, job);                              \
    }
#if VF_WIDTH == 8
#define EACH_VECTOR(X, rows) X(rows, 1) X(rows, 2)
#define ROW_OF(rows, suffix) \
    { tile_##rows##_1##suffix, tile_##rows##_2##suffix }
#elif VF_WIDTH == 1
#define EACH_VECTOR(X, rows) X(rows, 1) X(rows, 2) X(rows, 3) X(rows, 4)
#define ROW_OF(rows, suffix) \
    { tile_##rows##_1##suffix, tile_##rows##_2##suffix, tile_##rows##_3##suffix, tile_##rows##_4##suffix }
#else
#define EACH_VECTOR(X, rows) X(rows, 1) X(rows, 2) X(rows, 3)
#define ROW_OF(rows, suffix) \
    { tile_##rows##_1##suffix, tile_##rows##_2##suffix, tile_##rows##_3##suffix }
#endif
EACH_VECTOR(TILE_FUNCTION, 1)
EACH_VECTOR(TILE_FUNCTION, 2)
EACH_VECTOR(TILE_FUNCTION, 3)
EACH_VECTOR(TILE_FUNCTION, 4)
#if VF_WIDTH != 1
EACH_VECTOR(TILE_FUNCTION, 5)
EACH_VECTOR(TILE_FUNCTION, 6)
#define MIDDLE_ROWS(suffix) , ROW_OF(5, suffix), ROW_OF(6, suffix)
#else
#define MIDDLE_ROWS(suffix)
#endif
#if VF_WIDTH == 16
EACH_VECTOR(TILE_FUNCTION, 7)
EACH_VECTOR(TILE_FUNCTION, 8)
#define LAST_ROWS(suffix) , ROW_OF(7, suffix), ROW_OF(8, suffix)
#else
#define LAST_ROWS(suffix)
#endif
#define ROWS_OF(suffix) \
    { ROW_OF(1, suffix), ROW_OF(2, suffix), ROW_OF(3, suffix), ROW_OF(4, suffix) MIDDLE_ROWS(suffix) LAST_ROWS(suffix) }
const tile_function tile_table[2][TILE_ROWS][TILE_VECTORS] = {ROWS_OF(), ROWS_OF(_guarded)};

/* ---- packing ---- */

/* A product's memory: a panel of B, one of the update's B, rows of A that are far apart where they stand, and what a
 * product of several panels has summed so far if C is in 16 bits. */
enum { PANEL_K = 2048, UPDATE_K = 512, PARTIAL_ROWS = 256 };
typedef struct workspace {
    float *panel, *update, *rows, *partial;
} workspace;

_Static_assert(((PANEL_K + UPDATE_K + PARTIAL_ROWS) * TILE_COLUMNS + PANEL_K * TILE_ROWS) * sizeof(float) <=
                   LK_CPU_GEMM_BYTES,
               "a worker's memory holds the panels");

static workspace divide(void *memory) {
    float *panel = memory, *update = panel + PANEL_K * TILE_COLUMNS, *partial = update + UPDATE_K * TILE_COLUMNS;
    return (workspace){panel, update, partial + PARTIAL_ROWS * TILE_COLUMNS, partial};
}

static inline float element_as(const void *p, lk_dtype dtype) {
    if (dtype == LK_DTYPE_F32) {
        return *(const float *)p;
    }
    uint16_t bits = *(const uint16_t *)p;
    return dtype == LK_DTYPE_BF16 ? lk_bf16_to_f32(bits) : lk_f16_to_f32(bits);
}

/* Rows of a panel lie far apart in B, where a processor does not look ahead: asked for some rows in advance. */
enum { AHEAD = 8 };
static inline void prefetch_row(const void *row, int bytes) {
    LK_CPU_PREFETCH(row);
    LK_CPU_PREFETCH((const char *)row + 64);
    LK_CPU_PREFETCH((const char *)row + bytes - 1);
}

/* Rows of B stand one after the other in the panel: columns [column, column + columns), padded with zeros to whole
 * vectors. */
static void pack_rows(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns, float *panel) {
    vf scale = vf_set1(term->scale);
    for (int64_t p = 0; p < k; p++, panel += TILE_COLUMNS) {
        int64_t line = (first_k + p) * term->b_k + column;
        for (int j = 0; j < columns; j += VF_WIDTH) {
            vf x = vf_read(term->b, term->b_dtype, line + j, LK_MIN(columns - j, VF_WIDTH));
            vf_store(panel + j, vf_mul(x, scale));
        }
    }
}

static void pack_transposed(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns,
                            float *panel) {
    vf scale = vf_set1(term->scale);
    for (int j = 0; j < columns; j += VF_WIDTH) {
        int wide = LK_MIN(columns - j, VF_WIDTH);
        for (int64_t p = 0; p < k; p += VF_WIDTH) {
            int deep = (int)LK_MIN(k - p, (int64_t)VF_WIDTH);
            vf block[VF_WIDTH];
            for (int i = 0; i < VF_WIDTH; i++) {
                int64_t line = (column + j + i) * term->b_column + first_k + p;
                block[i] = i < wide ? vf_mul(vf_read(term->b, term->b_dtype, line, deep), scale) : vf_zero();
            }
            vf_transpose(block);
            for (int i = 0; i < deep; i++) {
                vf_store(panel + (p + i) * TILE_COLUMNS + j, block[i]);
            }
        }
    }
}

static void pack_strided(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns,
                         float *panel) {
    for (int64_t p = 0; p < k; p++, panel += TILE_COLUMNS) {
        for (int j = 0; j < TILE_COLUMNS; j++) {
            int64_t at = (first_k + p) * term->b_k + (column + j) * term->b_column;
            const void *element = vf_at(term->b, term->b_dtype, at);
            panel[j] = j < columns ? term->scale * element_as(element, term->b_dtype) : 0.0f;
        }
    }
}

static void pack(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns, float *panel) {
    if (term->b_column == 1) {
        pack_rows(term, first_k, k, column, columns, panel);
    } else if (term->b_k == 1) {
        pack_transposed(term, first_k, k, column, columns, panel);
    } else {
        pack_strided(term, first_k, k, column, columns, panel);
    }
}

/* The same in pairs of bf16: k is even but for the last, which is filled up with a zero. */
#if VF_PAIRS
static void pack_pairs_rows(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns,
                            uint32_t *panel) {
    static const uint16_t zeros[VF_WIDTH];
    const uint16_t *b = (const uint16_t *)term->b + first_k * term->b_k + column;
    int whole = columns / VF_WIDTH * VF_WIDTH;
    for (int64_t p = 0; p < k; p += 2, b += 2 * term->b_k, panel += TILE_COLUMNS) {
        bool last = p + 1 == k;
        if (p + AHEAD + 1 < k) {
            prefetch_row(b + AHEAD * term->b_k, 2 * columns);
            prefetch_row(b + (AHEAD + 1) * term->b_k, 2 * columns);
        }
        for (int j = 0; j < whole; j += VF_WIDTH) {
            vp_store(panel + j, vp_join(b + j, last ? zeros : b + term->b_k + j));
        }
        for (int j = whole; j < columns; j++) {
            panel[j] = b[j] | (last ? 0u : (uint32_t)b[term->b_k + j] << 16);
        }
        for (int j = columns; j % VF_WIDTH != 0; j++) {
            panel[j] = 0;
        }
    }
}

static void pack_pairs_transposed(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns,
                                  uint32_t *panel) {
    const uint16_t *b = (const uint16_t *)term->b + first_k;
    for (int j = 0; j < columns; j += VF_WIDTH) {
        for (int64_t p = 0; p < k; p += 2 * VF_WIDTH) {
            int deep = (int)LK_MIN(k - p, (int64_t)(2 * VF_WIDTH));
            vf block[VF_WIDTH];
            for (int i = 0; i < VF_WIDTH; i++) {
                uint16_t padded[2 * VF_WIDTH] = {0};
                const uint16_t *line = padded;
                if (j + i < columns && deep == 2 * VF_WIDTH) {
                    line = b + (column + j + i) * term->b_column + p;
                } else if (j + i < columns) {
                    memcpy(padded, b + (column + j + i) * term->b_column + p, (size_t)deep * sizeof *padded);
                }
                block[i] = vf_load((const float *)(const void *)line);
            }
            vf_transpose(block); /* moves whole pairs */
            for (int i = 0; 2 * i < deep; i++) {
                vf_store((float *)(void *)(panel + (p / 2 + i) * TILE_COLUMNS + j), block[i]);
            }
        }
    }
}

/* From any type: by way of fp32. */
static void pack_pairs_rounded(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns,
                               const workspace *space, uint32_t *panel) {
    for (int64_t p = 0; p < k; p += UPDATE_K) {
        int64_t depth = LK_MIN(k - p, (int64_t)UPDATE_K);
        pack(term, first_k + p, depth, column, columns, space->update);
        for (int64_t i = 0; i < depth; i += 2, panel += TILE_COLUMNS) {
            const float *low = space->update + i * TILE_COLUMNS, *high = low + TILE_COLUMNS;
            for (int j = 0; j < columns; j += VF_WIDTH) {
                vp_store(panel + j, vp_round(vf_load(low + j), i + 1 < depth ? vf_load(high + j) : vf_zero()));
            }
        }
    }
}

static void pack_pairs(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns,
                       const workspace *space, float *panel) {
    uint32_t *pairs = (uint32_t *)(void *)panel;
    bool plain = term->b_dtype == LK_DTYPE_BF16 && term->scale == 1.0f;
    if (plain && term->b_column == 1) {
        pack_pairs_rows(term, first_k, k, column, columns, pairs);
    } else if (plain && term->b_k == 1) {
        pack_pairs_transposed(term, first_k, k, column, columns, pairs);
    } else {
        pack_pairs_rounded(term, first_k, k, column, columns, space, pairs);
    }
}
#endif

/* Adds the update to a packed part of B: B[k, j] += sum over r of A[k, r] B'[r, j]. */
static void add_update(const lk_cpu_term *update, int64_t first_k, int64_t k, int64_t column, int columns,
                       const workspace *space) {
    for (int64_t r = 0; r < update->k; r += UPDATE_K) {
        int64_t depth = LK_MIN(update->k - r, (int64_t)UPDATE_K);
        pack(update, r, depth, column, columns, space->update);
        tile_segment segment = {update->a + first_k * update->a_row + r * update->a_k,
                                update->a_row,
                                update->a_k,
                                space->update,
                                TILE_COLUMNS,
                                depth};
        tile_block(k, columns, segment, true, true, space->panel, TILE_COLUMNS);
    }
}

/* ---- one panel of columns ---- */

/* A transposed A is read at one short piece per k: fetched once into place, it costs less than in every tile. */
static bool far_apart(const tile_segment *segment, int64_t rows) {
    return segment->a_row == 1 && segment->a_k > 64 && rows > TILE_ROWS;
}

static void *output_at(void *c, lk_dtype dtype, int64_t i) {
    return (char *)c + i * (dtype == LK_DTYPE_F32 ? 4 : 2);
}

static void gather_rows(const tile_segment *from, int rows, float *to) {
    for (int64_t p = 0; p < from->k; p++) {
        for (int i = 0; i < TILE_ROWS; i++) {
            to[p * TILE_ROWS + i] = i < rows ? from->a[p * from->a_k + i] : 0.0f;
        }
    }
}

/* Runs all tiles of the panel over the given segments; the job's pointers are those of rows.begin. */
static void run_tiles(lk_range rows, tile_job *job, const bool *gather, float *gathered) {
    const tile_job first = *job;
    const float *a[2] = {job->segments[0].a, job->segments[1].a};
    const uint16_t *pairs[2] = {job->pairs[0], job->pairs[1]};
    int64_t a_row[2] = {job->segments[0].a_row, job->segments[1].a_row};
    int64_t a_k[2] = {job->segments[0].a_k, job->segments[1].a_k};
    const int step = tile_most_rows(job);
    for (int64_t i = rows.begin; i < rows.end; i += step) {
        int count = (int)LK_MIN(rows.end - i, (int64_t)step);
        float *place = gathered;
        for (int s = 0; s < job->num_segments; s++) {
            tile_segment *segment = &job->segments[s];
            if (pairs[s] != NULL) {
                job->pairs[s] = pairs[s] + i * a_row[s];
                continue;
            }
            segment->a = a[s] + i * a_row[s];
            segment->a_row = a_row[s];
            segment->a_k = a_k[s];
            if (gather[s]) {
                gather_rows(segment, count, place);
                segment->a = place;
                segment->a_row = 1;
                segment->a_k = TILE_ROWS;
                place += segment->k * TILE_ROWS;
            }
        }
        job->c = output_at(first.c, first.c_dtype, (i - rows.begin) * first.c_row);
        job->addend = first.addend != NULL ? first.addend + (i - rows.begin) * first.addend_row : NULL;
        tile(count, job);
    }
}

/* Whether rows of B can be used where they stand. */
static bool usable_in_place(const lk_cpu_term *term) {
    return term->b_column == 1 && term->b_dtype == LK_DTYPE_F32 && term->scale == 1.0f;
}

#if VF_PAIRS
/* Whether the tiles can make pairs of rows of B themselves: for the few of them that dA and dB have, packing costs
 * more. (Registers of tiles are loaded from memory, so not with AMX.) */
static bool joinable(const lk_cpu_term *term, int64_t k, int columns) {
    return term->b_dtype == LK_DTYPE_BF16 && term->b_column == 1 && term->scale == 1.0f && k % 2 == 0 &&
           columns % VF_WIDTH == 0 && (int)TILE_PAIR_ROWS == (int)TILE_ROWS;
}
#endif

/* Rows of a panel that a term takes: pairs are one row. */
static int64_t depth_of(const lk_cpu_term *term) {
    return term->narrow != NULL ? (term->k + 1) / 2 : term->k;
}

static bool is_one_pass(const lk_cpu_gemm *gemm) {
    int64_t depth = 0;
    for (int t = 0; t < gemm->num_terms; t++) {
        depth += depth_of(&gemm->terms[t]);
    }
    return depth <= PANEL_K;
}

/* Packs as much of the product's terms as a panel holds, from where *t and *done say, and sets the job's segments. */
static void pack_segments(const lk_cpu_gemm *gemm, bool few_rows, int64_t column, int columns, const workspace *space,
                          int *t, int64_t *done, tile_job *job) {
    int64_t room = PANEL_K;
    while (*t < gemm->num_terms && job->num_segments < 2 &&
           (job->num_segments == 0 || depth_of(&gemm->terms[*t]) <= room)) {
        const lk_cpu_term *term = &gemm->terms[*t];
        int64_t k = LK_MIN(term->k - *done, term->narrow != NULL ? 2 * room : room);
        tile_segment *segment = &job->segments[job->num_segments];
        float *panel = space->panel + (PANEL_K - room) * TILE_COLUMNS;
        *segment = (tile_segment){term->a, term->a_row, term->a_k, panel, TILE_COLUMNS, k};
#if VF_PAIRS
        if (term->narrow != NULL) {
            bool joined = few_rows && joinable(term, k, columns);
            *segment = (tile_segment){NULL, term->narrow_row, term->narrow_pair, panel, TILE_COLUMNS, (k + 1) / 2};
            job->pairs[job->num_segments] = term->narrow + *done / 2 * term->narrow_pair;
            job->joined[job->num_segments] = joined;
            if (joined) {
                segment->b = (const float *)(const void *)((const uint16_t *)term->b + *done * term->b_k + column);
                segment->b_k = term->b_k;
            } else {
                pack_pairs(term, *done, k, column, columns, space, panel);
            }
        } else
#endif
            if (few_rows && usable_in_place(term)) {
            segment->a += *done * term->a_k;
            segment->b = (const float *)term->b + *done * term->b_k + column;
            segment->b_k = term->b_k;
            job->padded = false;
        } else {
            segment->a += *done * term->a_k;
            pack(term, *done, k, column, columns, panel);
            if (*t == 0 && gemm->update != NULL) {
                add_update(gemm->update, *done, k, column, columns, space);
            }
        }
        job->num_segments++;
        room -= segment->k;
        *done += k;
        if (*done < term->k) {
            return;
        }
        ++*t;
        *done = 0;
    }
}

/* At most PARTIAL_ROWS rows if C is in 16 bits and one pass is not enough. */
static void run_panel(const lk_cpu_gemm *gemm, lk_range rows, int64_t column, int columns, const workspace *space) {
    bool few_rows = rows.end - rows.begin <= 2 * TILE_ROWS && gemm->update == NULL;
    int64_t at = rows.begin * gemm->c_row + column, done = 0;
    void *c = output_at(gemm->c, gemm->c_dtype, at);
    bool in_place = gemm->c_dtype == LK_DTYPE_F32;
    tile_job job = {.c_row = gemm->c_row, .addend_row = gemm->c_row, .columns = columns};
    job.addend = gemm->addend != NULL ? gemm->addend + at : NULL;
    job.bias = gemm->bias != NULL ? gemm->bias + column : NULL;
    for (int t = 0; t < gemm->num_terms || t == 0;) {
        job.num_segments = 0;
        job.padded = true;
        job.pairs[0] = job.pairs[1] = NULL;
        pack_segments(gemm, few_rows, column, columns, space, &t, &done, &job);
        bool gather[2] = {false, false};
        for (int s = 0; s < job.num_segments; s++) {
            gather[s] = job.pairs[s] == NULL && far_apart(&job.segments[s], rows.end - rows.begin);
        }
        bool last = t >= gemm->num_terms;
        job.c = last || in_place ? c : space->partial;
        job.c_dtype = last ? gemm->c_dtype : LK_DTYPE_F32;
        job.c_row = last || in_place ? gemm->c_row : TILE_COLUMNS;
        tile_job tiles = job;
        run_tiles(rows, &tiles, gather, space->rows);
        if (last) {
            return;
        }
        job.addend = job.c;
        job.addend_row = job.c_row;
        job.bias = NULL;
    }
}

/* ---- few rows times a transposed matrix: sums along k, since packing would cost more than the product ---- */

enum { DOT_ROWS = LK_CPU_DOT_ROWS, DOT_COLUMNS = 4 };

static bool is_dot(const lk_cpu_gemm *gemm, lk_range rows) {
    bool dot = rows.end - rows.begin <= DOT_ROWS && gemm->update == NULL && gemm->num_terms > 0;
    for (int t = 0; t < gemm->num_terms; t++) {
        dot = dot && gemm->terms[t].narrow == NULL && gemm->terms[t].a_k == 1 && gemm->terms[t].b_k == 1;
    }
    return dot;
}

LK_CPU_INLINE void dot_block(const int rows, const int columns, const float *a, int64_t a_row, const float *b,
                             int64_t b_row, int64_t k, float scale, float total[DOT_ROWS][DOT_COLUMNS]) {
    vf sum[DOT_ROWS][DOT_COLUMNS];
    LK_CPU_UNROLL for (int i = 0; i < rows; i++) {
        LK_CPU_UNROLL for (int j = 0; j < columns; j++) {
            sum[i][j] = vf_zero();
        }
    }
    VF_FOR(p, lanes, k, {
        vf x[DOT_ROWS];
        LK_CPU_UNROLL for (int i = 0; i < rows; i++) {
            x[i] = vf_get(a + i * a_row + p, lanes);
        }
        LK_CPU_UNROLL for (int j = 0; j < columns; j++) {
            vf y = vf_get(b + j * b_row + p, lanes);
            LK_CPU_UNROLL for (int i = 0; i < rows; i++) {
                sum[i][j] = vf_fma(x[i], y, sum[i][j]);
            }
        }
    });
    LK_CPU_UNROLL for (int i = 0; i < rows; i++) {
        LK_CPU_UNROLL for (int j = 0; j < columns; j++) {
            total[i][j] += scale * vf_sum(sum[i][j]);
        }
    }
}

#define DOT_CASE(rows, columns)                                        \
    case (rows)*8 + (columns):                                         \
        dot_block(rows, columns, a, a_row, b, b_row, k, scale, total); \
        break;
static void dot_any(int rows, int columns, const float *a, int64_t a_row, const float *b, int64_t b_row, int64_t k,
                    float scale, float total[DOT_ROWS][DOT_COLUMNS]) {
    switch (rows * 8 + columns) {
        DOT_CASE(1, 1)
        DOT_CASE(1, 2)
        DOT_CASE(1, 3)
        DOT_CASE(1, 4)
        DOT_CASE(2, 1)
        DOT_CASE(2, 2)
        DOT_CASE(2, 3)
        DOT_CASE(2, 4)
        DOT_CASE(3, 1)
        DOT_CASE(3, 2) DOT_CASE(3, 3) DOT_CASE(3, 4) DOT_CASE(4, 1) DOT_CASE(4, 2) DOT_CASE(4, 3) DOT_CASE(4, 4)
    }
}

static void run_dots(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns, float *memory) {
    int count = (int)(rows.end - rows.begin);
    for (int64_t column = columns.begin; column < columns.end; column += DOT_COLUMNS) {
        int wide = (int)LK_MIN(columns.end - column, (int64_t)DOT_COLUMNS);
        float total[DOT_ROWS][DOT_COLUMNS] = {{0}};
        for (int t = 0; t < gemm->num_terms; t++) {
            const lk_cpu_term *term = &gemm->terms[t];
            for (int64_t done = 0; done < term->k; done += PANEL_K) {
                int64_t k = LK_MIN(term->k - done, (int64_t)PANEL_K);
                const float *b = (const float *)term->b + column * term->b_column + done;
                int64_t b_row = term->b_column;
                if (term->b_dtype != LK_DTYPE_F32) {
                    for (int j = 0; j < wide; j++) {
                        int64_t line = (column + j) * term->b_column + done;
                        VF_FOR(p, lanes, k,
                               vf_store(memory + j * PANEL_K + p, vf_read(term->b, term->b_dtype, line + p, lanes)););
                    }
                    b = memory;
                    b_row = PANEL_K;
                }
                dot_any(count, wide, term->a + rows.begin * term->a_row + done, term->a_row, b, b_row, k, term->scale,
                        total);
            }
        }
        for (int i = 0; i < count; i++) {
            int64_t at = (rows.begin + i) * gemm->c_row + column;
            for (int j = 0; j < wide; j++) {
                total[i][j] += gemm->bias != NULL ? gemm->bias[column + j] : 0.0f;
                total[i][j] += gemm->addend != NULL ? gemm->addend[at + j] : 0.0f;
            }
            for (int j = 0; j < wide; j += VF_WIDTH) {
                int lanes = LK_MIN(wide - j, VF_WIDTH);
                vf_write(gemm->c, gemm->c_dtype, at + j, vf_get(&total[i][j], lanes), lanes);
            }
        }
    }
}

/* ---- without vectors of our own: OpenBLAS, which finds out itself what the processor can do ---- */

#if VF_WIDTH == 1
static bool is_blas(const lk_cpu_gemm *gemm, lk_range rows) {
    bool blas =
        gemm->update == NULL && gemm->num_terms > 0 && rows.end - rows.begin > 1 && gemm->c_dtype == LK_DTYPE_F32;
    for (int t = 0; t < gemm->num_terms; t++) {
        const lk_cpu_term *term = &gemm->terms[t];
        blas = blas && term->b_dtype == LK_DTYPE_F32 && (term->a_row == 1 || term->a_k == 1) &&
               (term->b_k == 1 || term->b_column == 1);
    }
    return blas;
}

static void run_blas(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns) {
    int64_t m = rows.end - rows.begin, n = columns.end - columns.begin;
    float *c = (float *)gemm->c + rows.begin * gemm->c_row + columns.begin;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            float start =
                gemm->addend != NULL ? gemm->addend[(rows.begin + i) * gemm->c_row + columns.begin + j] : 0.0f;
            c[i * gemm->c_row + j] = start + (gemm->bias != NULL ? gemm->bias[columns.begin + j] : 0.0f);
        }
    }
    for (int t = 0; t < gemm->num_terms; t++) {
        const lk_cpu_term *term = &gemm->terms[t];
        bool plain_a = term->a_k == 1, plain_b = term->b_column == 1;
        int64_t lda = plain_a ? term->a_row : term->a_k, ldb = plain_b ? term->b_k : term->b_column;
        cblas_sgemm(CblasRowMajor, plain_a ? CblasNoTrans : CblasTrans, plain_b ? CblasNoTrans : CblasTrans, (blasint)m,
                    (blasint)n, (blasint)term->k, term->scale, term->a + rows.begin * term->a_row,
                    (blasint)LK_MAX(lda, plain_a ? term->k : m),
                    (const float *)term->b + columns.begin * term->b_column,
                    (blasint)LK_MAX(ldb, plain_b ? n : term->k), 1.0f, c, (blasint)gemm->c_row);
    }
}
#endif

/* ---- whole products ---- */

void LK_CPU(gemm_part)(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns, void *memory) {
    if (rows.begin >= rows.end || columns.begin >= columns.end) {
        return;
    }
    if (is_dot(gemm, rows)) {
        run_dots(gemm, rows, columns, memory);
        return;
    }
#if VF_WIDTH == 1
    if (is_blas(gemm, rows)) {
        run_blas(gemm, rows, columns);
        return;
    }
#endif
    workspace space = divide(memory);
    bool whole = gemm->c_dtype == LK_DTYPE_F32 || is_one_pass(gemm);
    int64_t step = whole ? rows.end - rows.begin : PARTIAL_ROWS;
    tile_begin();
    for (int64_t column = columns.begin; column < columns.end; column += TILE_COLUMNS) {
        for (int64_t row = rows.begin; row < rows.end; row += step) {
            run_panel(gemm, (lk_range){row, LK_MIN(row + step, rows.end)}, column,
                      (int)LK_MIN(columns.end - column, (int64_t)TILE_COLUMNS), &space);
        }
    }
    tile_end();
}

lk_cpu_gemm_grid LK_CPU(gemm_grid)(const lk_cpu_gemm *gemm, int threads) {
    double work = 0.0;
    for (int t = 0; t < gemm->num_terms; t++) {
        work += (double)gemm->m * (double)gemm->n * (double)gemm->terms[t].k;
    }
    int64_t grain = VF_WIDTH == 1 ? 64 : TILE_COLUMNS; /* OpenBLAS wants wider pieces than a tile */
    int64_t panels = (gemm->n + grain - 1) / grain;
    if (threads == 1 || work < 65536.0) {
        return (lk_cpu_gemm_grid){1, 1, grain};
    }
    int64_t columns = LK_MIN(panels, (int64_t)threads * (VF_WIDTH == 1 ? 2 : 16));
    int64_t rows = 1;
    if (columns < (int64_t)threads * 3) { /* every row task packs B again: at least 64 rows for it */
        rows = LK_MAX((int64_t)1, LK_MIN(((int64_t)threads * 3 + columns - 1) / columns, gemm->m / 64));
    }
    return (lk_cpu_gemm_grid){(int)rows, (int)LK_MAX(columns, (int64_t)1), grain};
}

void LK_CPU(gemm_task)(const lk_cpu_gemm *gemm, lk_cpu_gemm_grid grid, int task, void *memory) {
    lk_range rows = lk_split(gemm->m, TILE_ROWS, grid.row_tasks, task % grid.row_tasks);
    lk_range columns = lk_split(gemm->n, grid.column_grain, grid.column_tasks, task / grid.row_tasks);
    LK_CPU(gemm_part)(gemm, rows, columns, memory);
}

/* ---- A in the type that the product takes ---- */

void LK_CPU(narrow_rows)(uint16_t *to, const float *from, int64_t rows, int64_t k) {
    int64_t row = lk_cpu_narrow_row(k);
    for (int64_t i = 0; i < rows; i++) {
        LK_CPU(narrow)(to + i * row, from + i * k, LK_DTYPE_BF16, k);
        if (row > k) {
            to[i * row + k] = 0;
        }
    }
}

void LK_CPU(pair_rows)(uint16_t *to, const float *from, int64_t rows, int64_t k) {
    for (int64_t i = 0; i < rows; i += 2, to += 2 * k) {
        const float *even = from + i * k, *odd = i + 1 < rows ? even + k : NULL;
        int64_t whole = 0;
#if VF_PAIRS
        for (; whole + VF_WIDTH <= k; whole += VF_WIDTH) {
            vf high = odd != NULL ? vf_load(odd + whole) : vf_zero();
            vp_store((uint32_t *)(void *)(to + 2 * whole), vp_round(vf_load(even + whole), high));
        }
#endif
        for (int64_t j = whole; j < k; j++) {
            to[2 * j] = lk_f32_to_bf16(even[j]);
            to[2 * j + 1] = odd != NULL ? lk_f32_to_bf16(odd[j]) : 0;
        }
    }
}

typedef struct operand_job {
    const void *from;
    void *to;
    lk_dtype dtype;
    bool narrow;
    int64_t rows, k;
    int tasks;
} operand_job;

static void operand_task(void *argument, int task, int worker) {
    (void)worker;
    const operand_job *job = argument;
    lk_range range = lk_split(job->rows, 1, job->tasks, task);
    int64_t row = job->narrow ? lk_cpu_narrow_row(job->k) : job->k, count = range.end - range.begin;
    const void *from = vf_at(job->from, job->dtype, range.begin * job->k);
    if (!job->narrow) {
        LK_CPU(widen)((float *)job->to + range.begin * row, from, job->dtype, count * job->k);
    } else if (job->dtype == LK_DTYPE_F32) {
        LK_CPU(narrow_rows)((uint16_t *)job->to + range.begin * row, from, count, job->k);
    } else {
        for (int64_t i = range.begin; i < range.end; i++) {
            uint16_t *to = (uint16_t *)job->to + i * row;
            for (int64_t j = 0; j < row; j++) {
                const void *element = vf_at(job->from, job->dtype, i * job->k + j);
                to[j] = j < job->k ? lk_f32_to_bf16(element_as(element, job->dtype)) : 0;
            }
        }
    }
}

void LK_CPU(gemm_operand)(const lk_cpu_call *call, lk_cpu_gemm *gemm, const void *a, lk_dtype a_dtype, void *memory) {
    lk_cpu_term *term = &gemm->terms[0];
    bool narrow = lk_cpu_multiplies_bf16(VF_PAIRS, term->b_dtype, gemm->m) && gemm->update == NULL;
    bool in_place = narrow ? a_dtype == LK_DTYPE_BF16 && term->k % 2 == 0 : a_dtype == LK_DTYPE_F32;
    if (!in_place) {
        operand_job job = {a, memory, a_dtype, narrow, gemm->m, term->k, 0};
        job.tasks = lk_cpu_tasks(call, gemm->m, 6.0 * (double)(gemm->m * term->k));
        lk_pool_run(call->pool, operand_task, &job, job.tasks);
        a = memory;
    }
    if (narrow) {
        term->narrow = a;
        term->narrow_row = lk_cpu_narrow_row(term->k);
        term->narrow_pair = 2;
    } else {
        term->a = a;
    }
}

typedef struct gemm_job {
    const lk_cpu_call *call;
    const lk_cpu_gemm *gemm;
    lk_cpu_gemm_grid grid;
} gemm_job;

static void gemm_job_task(void *argument, int task, int worker) {
    const gemm_job *job = argument;
    LK_CPU(gemm_task)(job->gemm, job->grid, task, lk_cpu_worker_memory(job->call, worker));
}

void LK_CPU(gemm)(const lk_cpu_call *call, const lk_cpu_gemm *gemm) {
    gemm_job job = {call, gemm, LK_CPU(gemm_grid)(gemm, call->threads)};
    lk_pool_run(call->pool, gemm_job_task, &job, job.grid.row_tasks * job.grid.column_tasks);
}
