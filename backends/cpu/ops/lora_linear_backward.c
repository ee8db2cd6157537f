/* Three products that share z = scale dy B: dx = dy W + dropout'(z A) + dx_sum, dA = z' dropout(x), dB = scale dy' s.
 * Once z is there they are independent, and their tasks are handed out together. */
#include "backends/cpu/lora.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/simd/dropout.h"
#include "backends/cpu/simd/tile.h"

enum { DY, X, WEIGHT, LORA_A, LORA_B, S, RNG, DX_SUM };

typedef struct backward_job {
    const lk_cpu_call *call;
    lk_cpu_lora_space space;
    lk_cpu_gemm low;        /* z */
    lk_cpu_gemm dx, da, db; /* db holds dB transposed: its rows are as long as dy's */
    lk_cpu_gemm_grid dx_grid, da_grid, db_grid;
    int low_tasks, dx_tasks, da_tasks, db_tasks;
    const dropout_mask *mask; /* NULL: no dropout */
} backward_job;

/* z, and it and s in bf16 where the products take them so. */
static void low_task(void *argument, int task, int worker) {
    const backward_job *job = argument;
    const lk_cpu_lora_space *space = &job->space;
    int64_t rank = job->low.n;
    lk_range rows = lk_split(job->low.m, 2 * TILE_ROWS, job->low_tasks, task);
    int64_t first = rows.begin * rank, count = rows.end - rows.begin;
    if (space->s_pairs != NULL) {
        LK_CPU(pair_rows)(space->s_pairs + first, (const float *)job->call->inputs[S] + first, count, rank);
    }
    if (job->low.num_terms == 0) {
        return;
    }
    LK_CPU(gemm_part)(&job->low, rows, (lk_range){0, rank}, lk_cpu_worker_memory(job->call, worker));
    if (space->narrow != NULL) {
        LK_CPU(narrow_rows)(space->narrow + rows.begin * lk_cpu_narrow_row(rank), space->low + first, count, rank);
    }
    if (space->pairs != NULL) {
        LK_CPU(pair_rows)(space->pairs + first, space->low + first, count, rank);
    }
}

/* The A of a product over tokens: z or s, transposed. */
static lk_cpu_term over_tokens(const float *low, const uint16_t *pairs, int64_t rank, const void *b, lk_dtype b_dtype,
                               int64_t columns, int64_t tokens) {
    lk_cpu_term term = lk_cpu_term_of(low, true, rank, b, b_dtype, false, columns, 1.0f, tokens);
    term.narrow = pairs;
    term.narrow_row = 2;
    term.narrow_pair = 2 * rank;
    return term;
}

/* z A under the mask, by rows, where dx accumulates. */
static void start_dx(const backward_job *job, lk_range rows) {
    const lk_node *node = job->call->node;
    const lk_cpu_gemm *dx = &job->dx;
    int64_t rank = node->inputs[LORA_A]->shape[0], in = dx->n;
    const float *z = job->space.low, *sum = lk_has_input(node, DX_SUM) ? job->call->inputs[DX_SUM] : NULL;
    enum { STRETCH = 1024 };
    float low[STRETCH];
    for (int64_t row = rows.begin; row < rows.end; row++) {
        for (int64_t k = 0; k < in; k += STRETCH) {
            int64_t width = LK_MIN(in - k, (int64_t)STRETCH);
            tile_segment segment = {z + row * rank, rank, 1, (const float *)job->call->inputs[LORA_A] + k, in, rank};
            tile_block(1, width, segment, false, false, low, STRETCH);
            float *to = (float *)dx->c + row * in + k;
            dropout_row(job->mask, low, low, row * in + k, width, false);
            VF_FOR(i, lanes, width, {
                vf base = sum != NULL ? vf_get(sum + row * in + k + i, lanes) : vf_zero();
                vf_put(to + i, vf_add(base, vf_get(low + i, lanes)), lanes);
            });
        }
    }
}

static void start_dx_task(void *argument, int task, int worker) {
    (void)worker;
    const backward_job *job = argument;
    start_dx(job, lk_split(job->dx.m, 1, job->call->threads * 4, task));
}

/* dA with dropout: the mask is drawn again for blocks of x, tall and narrow as the task's columns are. */
static void dropped_da(const backward_job *job, lk_range columns, char *memory) {
    const lk_cpu_gemm *da = &job->da;
    const lk_cpu_term *term = &da->terms[0];
    float *c = (float *)da->c + columns.begin;
    int64_t width = LK_MAX(columns.end - columns.begin, (int64_t)1);
    float *block = (float *)(void *)(memory + LK_CPU_GEMM_BYTES);
    int64_t step = LK_MAX((LK_CPU_WORKER_BYTES - LK_CPU_GEMM_BYTES) / (int64_t)sizeof(float) / width, (int64_t)1);
    for (int64_t t = 0; t < term->k; t += step) {
        int64_t rows = LK_MIN(step, term->k - t);
        for (int64_t i = 0; i < rows; i++) {
            int64_t at = (t + i) * term->b_k + columns.begin;
            float *to = block + i * width;
            VF_FOR(j, lanes, width, vf_put(to + j, vf_read(term->b, term->b_dtype, at + j, lanes), lanes););
            dropout_row(job->mask, to, to, at, width, false);
        }
        lk_cpu_gemm part = *da;
        part.n = width;
        part.c = c;
        part.addend = t > 0 ? c : NULL;
        part.terms[0].a += t * term->a_k;
        part.terms[0].narrow = NULL;
        part.terms[0].b_dtype = LK_DTYPE_F32;
        part.terms[0].b = block;
        part.terms[0].b_k = width;
        part.terms[0].k = rows;
        LK_CPU(gemm_part)(&part, (lk_range){0, part.m}, (lk_range){0, width}, memory);
    }
}

static void backward_task(void *argument, int task, int worker) {
    const backward_job *job = argument;
    char *memory = lk_cpu_worker_memory(job->call, worker);
    /* tasks are claimed from the last: the large ones first, the small ones fill the gaps at the end */
    if (task >= job->da_tasks + job->db_tasks) {
        LK_CPU(gemm_task)(&job->dx, job->dx_grid, task - job->da_tasks - job->db_tasks, memory);
    } else if (task >= job->da_tasks) {
        LK_CPU(gemm_task)(&job->db, job->db_grid, task - job->da_tasks, memory);
        lk_range columns =
            lk_split(job->db.n, job->db_grid.column_grain, job->db_grid.column_tasks, task - job->da_tasks);
        float *db = job->call->outputs[2], scale = job->call->node->attributes.lora.scale;
        for (int64_t n = columns.begin; n < columns.end; n++) {
            for (int64_t r = 0; r < job->db.m; r++) {
                db[n * job->db.m + r] = scale * job->space.db_transposed[r * job->db.c_row + n];
            }
        }
    } else if (job->mask != NULL) {
        dropped_da(job, lk_split(job->da.n, job->da_grid.column_grain, job->da_grid.column_tasks, task), memory);
    } else {
        LK_CPU(gemm_task)(&job->da, job->da_grid, task, memory);
    }
}

/* One task holds all rows of a piece of columns: these products are wide and low. */
static lk_cpu_gemm_grid by_columns(const lk_cpu_gemm *gemm, int threads) {
    lk_cpu_gemm_grid grid = LK_CPU(gemm_grid)(gemm, threads);
    grid.row_tasks = 1;
    return grid;
}

void LK_CPU(lora_linear_backward)(const lk_cpu_call *call) {
    const lk_node *node = call->node;
    const lk_lora_attributes *lora = &node->attributes.lora;
    int64_t tokens = node->inputs[DY]->shape[0], out = node->inputs[DY]->shape[1];
    int64_t in = node->inputs[WEIGHT]->shape[1], rank = node->inputs[LORA_A]->shape[0];
    lk_dtype weight = node->inputs[WEIGHT]->dtype, dy_dtype = node->inputs[DY]->dtype;
    bool merged = lora->order == LK_LORA_MERGED;
    backward_job job = {.call = call, .space = lk_cpu_lora_backward_space_of(call->scratch, VF_PAIRS, node)};
    const lk_cpu_lora_space *space = &job.space;
    dropout_mask mask;
    if (lora->dropout > 0.0f) {
        mask = dropout_mask_of(call->inputs[RNG], lora->dropout, lora->stream);
        job.mask = &mask;
    }

    lk_cpu_term update = lk_cpu_term_of(call->inputs[LORA_B], false, rank, call->inputs[LORA_A], LK_DTYPE_F32, false,
                                        in, lora->scale, rank); /* W + scale B A */
    job.dx = (lk_cpu_gemm){.m = tokens, .n = in, .num_terms = 1, .c = call->outputs[0], .c_row = in};
    job.dx.update = merged ? &update : NULL;
    job.dx.terms[0] = lk_cpu_term_of(NULL, false, out, call->inputs[WEIGHT], weight, false, in, 1.0f, out);
    LK_CPU(gemm_operand)(call, &job.dx, call->inputs[DY], dy_dtype, space->operand);

    job.low = (lk_cpu_gemm){.m = tokens, .n = rank, .c = space->low, .c_row = rank};
    if (call->outputs[1] != NULL || (call->outputs[0] != NULL && !merged)) {
        job.low.num_terms = 1;
        job.low.terms[0] = job.dx.terms[0];
        job.low.terms[0].b = call->inputs[LORA_B];
        job.low.terms[0].b_dtype = LK_DTYPE_F32;
        job.low.terms[0].b_k = rank;
        job.low.terms[0].scale = lora->scale;
    }
    if (job.low.num_terms > 0 || space->s_pairs != NULL) {
        int64_t blocks = (tokens + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS);
        job.low_tasks = lk_cpu_tasks(call, blocks, 40.0 * (double)(tokens * out));
        lk_pool_run(call->pool, low_task, &job, job.low_tasks);
    }

    if (call->outputs[0] != NULL) {
        job.dx.addend = lk_has_input(node, DX_SUM) ? call->inputs[DX_SUM] : NULL;
        if (!merged && job.mask == NULL) {
            lk_cpu_term *term = &job.dx.terms[job.dx.num_terms++];
            *term = lk_cpu_term_of(space->low, false, rank, call->inputs[LORA_A], LK_DTYPE_F32, false, in, 1.0f, rank);
            term->narrow = space->narrow;
            term->narrow_row = lk_cpu_narrow_row(rank);
            term->narrow_pair = 2;
        } else if (!merged) {
            lk_pool_run(call->pool, start_dx_task, &job, call->threads * 4);
            job.dx.addend = job.dx.c;
        }
        job.dx_grid = LK_CPU(gemm_grid)(&job.dx, call->threads);
        job.dx_tasks = job.dx_grid.row_tasks * job.dx_grid.column_tasks;
    }
    if (call->outputs[1] != NULL) {
        job.da = (lk_cpu_gemm){.m = rank, .n = in, .num_terms = 1, .c = call->outputs[1], .c_row = in};
        job.da.terms[0] =
            over_tokens(space->low, space->pairs, rank, call->inputs[X], node->inputs[X]->dtype, in, tokens);
        job.da_grid = by_columns(&job.da, call->threads);
        job.da_tasks = job.da_grid.column_tasks;
    }
    if (call->outputs[2] != NULL) {
        const uint16_t *narrow = job.dx.terms[0].narrow; /* dy is read in bf16, if it is there */
        job.db = (lk_cpu_gemm){.m = rank, .n = out, .num_terms = 1, .c = space->db_transposed, .c_row = out};
        job.db.terms[0] =
            over_tokens(call->inputs[S], space->s_pairs, rank, narrow != NULL ? (const void *)narrow : call->inputs[DY],
                        narrow != NULL ? LK_DTYPE_BF16 : dy_dtype, out, tokens);
        job.db.terms[0].b_k = narrow != NULL ? lk_cpu_narrow_row(out) : out;
        job.db_grid = by_columns(&job.db, call->threads);
        job.db_tasks = job.db_grid.column_tasks;
    }
    lk_pool_run(call->pool, backward_task, &job, job.dx_tasks + job.da_tasks + job.db_tasks);
}
