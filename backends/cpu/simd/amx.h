/* Tiles of pairs by AMX (Intel Architecture Instruction Set Extensions Programming Reference, chapter 3): tile
 * registers of 16 rows of 64 bytes, here 16 x 16 sums, 16 rows x 16 pairs of A, 16 pairs x 16 columns of B, which is
 * how panels are packed already. Part of tile.h.
 *
 * Six registers hold 32 x 48 sums, one A's part and one B's: nine loads to six multiplications, and those take twice as
 * long. All registers have their full size always; what does not fill one is copied and filled up with zeros. */
#ifndef LK_CPU_AMX_H
#define LK_CPU_AMX_H

enum { AMX_ROWS = 16, AMX_PAIRS = 16 };
_Static_assert(TILE_PAIR_ROWS == 2 * AMX_ROWS && VF_WIDTH == 16 && TILE_VECTORS == 3, "two by three registers of sums");

/* The layout of LDTILECFG's operand. */
typedef struct amx_configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_configuration;
_Static_assert(sizeof(amx_configuration) == 64, "as the processor reads it");

/* The intrinsics do not tell the compiler what memory they read. */
#define AMX_BARRIER __asm__ volatile("" ::: "memory")

static inline void tile_begin(void) {
    static const amx_configuration configuration = {
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&configuration);
}

static inline void tile_end(void) {
    _tile_release();
}

/* What is loaded into a register: 16 rows, `stride` bytes apart. */
typedef struct amx_block {
    const void *rows;
    int64_t stride;
} amx_block;

static inline amx_block amx_a(const tile_job *job, int s, int rows, int row, int64_t k, float *buffer) {
    const tile_segment *segment = &job->segments[s];
    const uint16_t *a = job->pairs[s] + row * segment->a_row + k * segment->a_k;
    int count = LK_MIN(rows - row, (int)AMX_ROWS), pairs = (int)LK_MIN(segment->k - k, (int64_t)AMX_PAIRS);
    bool along_rows = segment->a_k == 2;
    if (along_rows && count == AMX_ROWS && pairs == AMX_PAIRS) {
        return (amx_block){a, 2 * segment->a_row};
    }
    vf block[AMX_ROWS];
    for (int i = 0; i < AMX_ROWS; i++) {
        const void *from = a + i * (along_rows ? segment->a_row : segment->a_k);
        block[i] = i < (along_rows ? count : pairs) ? vf_load_n(from, along_rows ? pairs : count) : vf_zero();
    }
    if (!along_rows) { /* pairs of one k stand side by side */
        vf_transpose(block);
    }
    for (int i = 0; i < AMX_ROWS; i++) {
        vf_store(buffer + i * AMX_PAIRS, block[i]);
    }
    return (amx_block){buffer, 4 * AMX_PAIRS};
}

static inline amx_block amx_b(const tile_segment *segment, int column, int64_t k, float *buffer) {
    const float *b = segment->b + k * segment->b_k + column;
    if (segment->k - k >= AMX_PAIRS) {
        return (amx_block){b, 4 * segment->b_k};
    }
    for (int i = 0; i < AMX_PAIRS; i++) {
        vf_store(buffer + i * VF_WIDTH, k + i < segment->k ? vf_load(b + i * segment->b_k) : vf_zero());
    }
    return (amx_block){buffer, 4 * VF_WIDTH};
}

/* Registers are named in the instructions: `upper` and `lower` are the sums of the j-th 16 columns. */
#define AMX_COLUMN(j, upper, lower)                               \
    if (vectors > (j)) {                                          \
        amx_block b = amx_b(segment, (j)*VF_WIDTH, k, buffer[2]); \
        AMX_BARRIER;                                              \
        _tile_loadd(7, b.rows, b.stride);                         \
        _tile_loadd(6, above.rows, above.stride);                 \
        _tile_dpbf16ps(upper, 6, 7);                              \
        if (tall) {                                               \
            _tile_loadd(6, below.rows, below.stride);             \
            _tile_dpbf16ps(lower, 6, 7);                          \
        }                                                         \
    }

/* At most TILE_PAIR_ROWS rows, between tile_begin and tile_end. */
static void amx_run(int rows, const tile_job *job) {
    const int vectors = (job->columns + VF_WIDTH - 1) / VF_WIDTH;
    const bool tall = rows > AMX_ROWS;
    _Alignas(64) float sum[TILE_PAIR_ROWS][TILE_COLUMNS], buffer[3][AMX_ROWS * AMX_PAIRS];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    for (int s = 0; s < job->num_segments; s++) {
        const tile_segment *segment = &job->segments[s];
        for (int64_t k = 0; k < segment->k; k += AMX_PAIRS) {
            amx_block above = amx_a(job, s, rows, 0, k, buffer[0]), below = above;
            if (tall) {
                below = amx_a(job, s, rows, AMX_ROWS, k, buffer[1]);
            }
            AMX_COLUMN(0, 0, 3)
            AMX_COLUMN(1, 1, 4)
            AMX_COLUMN(2, 2, 5)
        }
    }
    const int64_t stride = sizeof sum[0];
    _tile_stored(0, &sum[0][0], stride);
    _tile_stored(1, &sum[0][16], stride);
    _tile_stored(2, &sum[0][32], stride);
    if (tall) {
        _tile_stored(3, &sum[16][0], stride);
        _tile_stored(4, &sum[16][16], stride);
        _tile_stored(5, &sum[16][32], stride);
    }
    AMX_BARRIER;
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < vectors; j++) {
            int width = LK_MIN(job->columns - j * VF_WIDTH, VF_WIDTH);
            tile_put(job, i, j, width, vf_load(&sum[i][j * VF_WIDTH]));
        }
    }
}

#endif
