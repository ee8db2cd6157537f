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

/* A product's memory: a panel of B, one of the update's B, and rows of A that are far apart where they stand. */
enum { PANEL_K = 2048, UPDATE_K = 512 };
typedef struct workspace {
    float *panel, *update, *rows;
} workspace;

_Static_assert((PANEL_K * TILE_COLUMNS + UPDATE_K * TILE_COLUMNS + PANEL_K * TILE_ROWS) * sizeof(float) <=
                   LK_CPU_GEMM_BYTES,
               "a worker's memory holds the panels");

static workspace divide(void *memory) {
    float *start = memory;
    return (workspace){start, start + PANEL_K * TILE_COLUMNS, start + (PANEL_K + UPDATE_K) * TILE_COLUMNS};
}

static size_t size_of(lk_dtype dtype) {
    return dtype == LK_DTYPE_F32 ? 4 : 2;
}

static inline vf load_as(const void *p, lk_dtype dtype, int lanes) {
    if (dtype == LK_DTYPE_F32) {
        return vf_get(p, lanes);
    }
    uint16_t padded[VF_WIDTH] = {0};
    if (lanes < VF_WIDTH) {
        for (int i = 0; i < lanes; i++) {
            padded[i] = ((const uint16_t *)p)[i];
        }
        p = padded;
    }
    return dtype == LK_DTYPE_BF16 ? vf_load_bf16(p) : vf_load_f16(p);
}

static inline float element_as(const void *p, lk_dtype dtype) {
    if (dtype == LK_DTYPE_F32) {
        return *(const float *)p;
    }
    uint16_t bits = *(const uint16_t *)p;
    return dtype == LK_DTYPE_BF16 ? lk_bf16_to_f32(bits) : lk_f16_to_f32(bits);
}

/* Rows of B stand one after the other in the panel: columns [column, column + columns), padded with zeros to whole
 * vectors. */
static void pack_rows(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns, float *panel) {
    const char *b = term->b;
    size_t size = size_of(term->b_dtype);
    vf scale = vf_set1(term->scale);
    for (int64_t p = 0; p < k; p++, panel += TILE_COLUMNS) {
        const char *line = b + (size_t)((first_k + p) * term->b_k + column) * size;
        for (int j = 0; j < columns; j += VF_WIDTH) {
            vf x = load_as(line + (size_t)j * size, term->b_dtype, LK_MIN(columns - j, VF_WIDTH));
            vf_store(panel + j, vf_mul(x, scale));
        }
    }
}

static void pack_transposed(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns,
                            float *panel) {
    const char *b = term->b;
    size_t size = size_of(term->b_dtype);
    vf scale = vf_set1(term->scale);
    for (int j = 0; j < columns; j += VF_WIDTH) {
        int wide = LK_MIN(columns - j, VF_WIDTH);
        for (int64_t p = 0; p < k; p += VF_WIDTH) {
            int deep = (int)LK_MIN(k - p, (int64_t)VF_WIDTH);
            vf block[VF_WIDTH];
            for (int i = 0; i < VF_WIDTH; i++) {
                const char *line = b + (size_t)((column + j + i) * term->b_column + first_k + p) * size;
                block[i] = i < wide ? vf_mul(load_as(line, term->b_dtype, deep), scale) : vf_zero();
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
    const char *b = term->b;
    size_t size = size_of(term->b_dtype);
    for (int64_t p = 0; p < k; p++, panel += TILE_COLUMNS) {
        for (int j = 0; j < TILE_COLUMNS; j++) {
            int64_t at = (first_k + p) * term->b_k + (column + j) * term->b_column;
            panel[j] = j < columns ? term->scale * element_as(b + (size_t)at * size, term->b_dtype) : 0.0f;
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
    const uint16_t *b = (const uint16_t *)term->b + first_k * term->b_k + column;
    for (int64_t p = 0; p < k; p += 2, b += 2 * term->b_k, panel += TILE_COLUMNS) {
        for (int j = 0; j < columns; j += VF_WIDTH) {
            int lanes = LK_MIN(columns - j, VF_WIDTH);
            vf low = load_as(b + j, LK_DTYPE_BF16, lanes);
            vp_store(panel + j,
                     vp_round(low, p + 1 < k ? load_as(b + term->b_k + j, LK_DTYPE_BF16, lanes) : vf_zero()));
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

static void pack_pairs(const lk_cpu_term *term, int64_t first_k, int64_t k, int64_t column, int columns, float *panel) {
    if (term->b_column == 1) {
        pack_pairs_rows(term, first_k, k, column, columns, (uint32_t *)(void *)panel);
    } else {
        pack_pairs_transposed(term, first_k, k, column, columns, (uint32_t *)(void *)panel);
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
static bool far_apart(const lk_cpu_term *term, int64_t rows) {
    return term->a_row == 1 && term->a_k > 64 && rows > TILE_ROWS;
}

static void gather_rows(const tile_segment *from, int rows, float *to) {
    for (int64_t p = 0; p < from->k; p++) {
        for (int i = 0; i < TILE_ROWS; i++) {
            to[p * TILE_ROWS + i] = i < rows ? from->a[p * from->a_k + i] : 0.0f;
        }
    }
}

/* Runs all tiles of the panel over the given segments. a[s] is the first row's A of segment s. */
static void run_tiles(const lk_cpu_gemm *gemm, lk_range rows, tile_job *job, const bool *gather, float *gathered,
                      const float *addend, int64_t column) {
    const float *a[2] = {job->segments[0].a, job->segments[1].a};
    const uint16_t *pairs[2] = {job->pairs[0], job->pairs[1]};
    int64_t a_row[2] = {job->segments[0].a_row, job->segments[1].a_row};
    int64_t a_k[2] = {job->segments[0].a_k, job->segments[1].a_k};
    for (int64_t i = rows.begin; i < rows.end; i += TILE_ROWS) {
        int count = (int)LK_MIN(rows.end - i, (int64_t)TILE_ROWS);
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
        job->c = gemm->c + i * gemm->c_row + column;
        job->addend = addend != NULL ? addend + i * gemm->c_row + column : NULL;
        tile(count, job);
    }
}

/* Whether rows of B can be used where they stand. */
static bool usable_in_place(const lk_cpu_term *term) {
    return term->b_column == 1 && term->b_dtype == LK_DTYPE_F32 && term->scale == 1.0f;
}

static void run_panel(const lk_cpu_gemm *gemm, lk_range rows, int64_t column, int columns, const workspace *space) {
    bool few_rows = rows.end - rows.begin <= 2 * TILE_ROWS && gemm->update == NULL;
    const float *addend = gemm->addend, *bias = gemm->bias;
    int64_t done = 0; /* of the current term's k */
    for (int t = 0; t < gemm->num_terms || t == 0;) {
        tile_job job = {.c_row = gemm->c_row, .addend_row = gemm->c_row, .columns = columns, .padded = true};
        job.bias = bias != NULL ? bias + column : NULL;
        bool gather[2] = {false, false};
        int64_t room = PANEL_K;
        while (t < gemm->num_terms && job.num_segments < 2 && (job.num_segments == 0 || gemm->terms[t].k <= room)) {
            const lk_cpu_term *term = &gemm->terms[t];
            int64_t k = LK_MIN(term->k - done, room);
            tile_segment *segment = &job.segments[job.num_segments];
            float *panel = space->panel + (PANEL_K - room) * TILE_COLUMNS;
            *segment = (tile_segment){term->a + done * term->a_k, term->a_row, term->a_k, panel, TILE_COLUMNS, k};
            gather[job.num_segments] = term->narrow == NULL && far_apart(term, rows.end - rows.begin);
#if VF_PAIRS
            if (term->narrow != NULL) {
                *segment = (tile_segment){NULL, term->narrow_row, 2, panel, TILE_COLUMNS, (k + 1) / 2};
                job.pairs[job.num_segments] = term->narrow + done;
                pack_pairs(term, done, k, column, columns, panel);
            } else
#endif
                if (few_rows && usable_in_place(term)) {
                segment->b = (const float *)term->b + done * term->b_k + column;
                segment->b_k = term->b_k;
                job.padded = false;
            } else {
                pack(term, done, k, column, columns, panel);
                if (t == 0 && gemm->update != NULL) {
                    add_update(gemm->update, done, k, column, columns, space);
                }
            }
            job.num_segments++;
            room -= k;
            done += k;
            if (done < term->k) {
                break;
            }
            t++;
            done = 0;
        }
        run_tiles(gemm, rows, &job, gather, space->rows, addend, column);
        addend = gemm->c;
        bias = NULL;
        if (gemm->num_terms == 0) {
            return;
        }
    }
}

/* ---- few rows times a transposed matrix: sums along k, since packing would cost more than the product ---- */

enum { DOT_ROWS = 4, DOT_COLUMNS = 4 };

static bool is_dot(const lk_cpu_gemm *gemm, lk_range rows) {
    bool dot = rows.end - rows.begin <= DOT_ROWS && gemm->update == NULL && gemm->num_terms > 0;
    for (int t = 0; t < gemm->num_terms; t++) {
        dot = dot && gemm->terms[t].a_k == 1 && gemm->terms[t].b_k == 1;
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
                        const uint16_t *line = (const uint16_t *)term->b + (column + j) * term->b_column + done;
                        VF_FOR(p, lanes, k,
                               vf_store(memory + j * PANEL_K + p, load_as(line + p, term->b_dtype, lanes)););
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
                float sum = total[i][j] + (gemm->bias != NULL ? gemm->bias[column + j] : 0.0f);
                gemm->c[at + j] = sum + (gemm->addend != NULL ? gemm->addend[at + j] : 0.0f);
            }
        }
    }
}

/* ---- without vectors of our own: OpenBLAS, which finds out itself what the processor can do ---- */

#if VF_WIDTH == 1
static bool is_blas(const lk_cpu_gemm *gemm, lk_range rows) {
    bool blas = gemm->update == NULL && gemm->num_terms > 0 && rows.end - rows.begin > 1;
    for (int t = 0; t < gemm->num_terms; t++) {
        const lk_cpu_term *term = &gemm->terms[t];
        blas = blas && term->b_dtype == LK_DTYPE_F32 && (term->a_row == 1 || term->a_k == 1) &&
               (term->b_k == 1 || term->b_column == 1);
    }
    return blas;
}

static void run_blas(const lk_cpu_gemm *gemm, lk_range rows, lk_range columns) {
    int64_t m = rows.end - rows.begin, n = columns.end - columns.begin;
    float *c = gemm->c + rows.begin * gemm->c_row + columns.begin;
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
    for (int64_t column = columns.begin; column < columns.end; column += TILE_COLUMNS) {
        run_panel(gemm, rows, column, (int)LK_MIN(columns.end - column, (int64_t)TILE_COLUMNS), &space);
    }
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

/* Rows of A rounded to bf16, filled up with zeros to a multiple of 32. */
#if VF_PAIRS
typedef struct narrow_job {
    const lk_cpu_term *term;
    uint16_t *to;
    int64_t rows, row;
    int tasks;
} narrow_job;

static void narrow_task(void *argument, int task, int worker) {
    (void)worker;
    const narrow_job *job = argument;
    const lk_cpu_term *term = job->term;
    lk_range range = lk_split(job->rows, 1, job->tasks, task);
    for (int64_t i = range.begin; i < range.end; i++) {
        uint16_t *to = job->to + i * job->row;
        LK_CPU(narrow)(to, term->a + i * term->a_row, LK_DTYPE_BF16, term->k);
        memset(to + term->k, 0, (size_t)(job->row - term->k) * sizeof *to);
    }
}
#endif

void LK_CPU(gemm_narrow)(const lk_cpu_call *call, lk_cpu_gemm *gemm, void *memory) {
#if VF_PAIRS
    lk_cpu_term *term = &gemm->terms[0];
    if (gemm->num_terms > 0 && term->b_dtype == LK_DTYPE_BF16 && term->a_k == 1 && term->scale == 1.0f &&
        gemm->update == NULL && gemm->m > DOT_ROWS && (term->b_column == 1 || term->b_k == 1)) {
        narrow_job job = {term, memory, gemm->m, (term->k + 31) / 32 * 32, 0};
        job.tasks = lk_cpu_tasks(call, gemm->m, 6.0 * (double)(gemm->m * term->k));
        lk_pool_run(call->pool, narrow_task, &job, job.tasks);
        term->narrow = memory;
        term->narrow_row = job.row;
    }
#else
    (void)call;
    (void)gemm;
    (void)memory;
#endif
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
