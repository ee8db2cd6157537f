#include "backends/cpu/lora.h"
#include "backends/cpu/simd/dropout.h"
#include "backends/cpu/simd/tile.h"

enum { X, WEIGHT, BIAS, LORA_A, LORA_B, RNG };

/* s = dropout(x) A', and s in bf16 where the second product takes it so. */
typedef struct low_job {
    const lk_cpu_call *call;
    lk_cpu_gemm low;
    const dropout_mask *mask; /* NULL: no dropout */
    uint16_t *narrow;         /* NULL: not needed */
    int tasks;
} low_job;

enum { BLOCK_ROWS = 2 * TILE_ROWS, BLOCK_WIDTH = 8192 };

/* From blocks of dropped rows, which stand behind the memory that the product takes for its panels. */
static void dropped_rows(const low_job *job, lk_range range, char *memory) {
    const lk_cpu_term *term = &job->low.terms[0];
    lk_dtype dtype = job->call->node->inputs[X]->dtype;
    float *block = (float *)(void *)(memory + LK_CPU_GEMM_BYTES);
    int64_t room = (LK_CPU_WORKER_BYTES - LK_CPU_GEMM_BYTES) / (int64_t)sizeof(float);
    for (int64_t k = 0; k < term->k; k += BLOCK_WIDTH) {
        int64_t width = LK_MIN(term->k - k, (int64_t)BLOCK_WIDTH), step = LK_MIN(room / width, (int64_t)BLOCK_ROWS * 4);
        for (int64_t row = range.begin; row < range.end; row += step) {
            int64_t rows = LK_MIN(step, range.end - row);
            for (int64_t i = 0; i < rows; i++) {
                int64_t at = (row + i) * term->k + k;
                float *to = block + i * width;
                VF_FOR(j, lanes, width, vf_put(to + j, vf_read(job->call->inputs[X], dtype, at + j, lanes), lanes););
                dropout_row(job->mask, to, to, at, width, false);
            }
            lk_cpu_gemm part = job->low;
            float *c = (float *)part.c + row * part.c_row;
            part.m = rows;
            part.c = c;
            part.addend = k > 0 ? c : NULL;
            part.terms[0].a = block;
            part.terms[0].a_row = width;
            part.terms[0].narrow = NULL;
            part.terms[0].b = (const float *)term->b + k;
            part.terms[0].k = width;
            LK_CPU(gemm_part)(&part, (lk_range){0, rows}, (lk_range){0, part.n}, memory);
        }
    }
}

static void low_task(void *argument, int task, int worker) {
    const low_job *job = argument;
    char *memory = lk_cpu_worker_memory(job->call, worker);
    int64_t rank = job->low.n;
    lk_range rows = lk_split(job->low.m, BLOCK_ROWS, job->tasks, task);
    if (job->mask != NULL) {
        dropped_rows(job, rows, memory);
    } else {
        LK_CPU(gemm_part)(&job->low, rows, (lk_range){0, rank}, memory);
    }
    if (job->narrow != NULL) {
        LK_CPU(narrow_rows)
        (job->narrow + rows.begin * lk_cpu_narrow_row(rank), (const float *)job->low.c + rows.begin * rank,
         rows.end - rows.begin, rank);
    }
}

void LK_CPU(lora_linear)(const lk_cpu_call *call) {
    const lk_node *node = call->node;
    const lk_lora_attributes *lora = &node->attributes.lora;
    int64_t tokens = node->inputs[X]->shape[0], in = node->inputs[X]->shape[1];
    int64_t out = node->inputs[WEIGHT]->shape[0], rank = node->inputs[LORA_A]->shape[0];
    bool merged = lora->order == LK_LORA_MERGED;
    lk_cpu_lora_space space = lk_cpu_lora_space_of(call->scratch, VF_PAIRS, node);

    lk_cpu_gemm gemm = {.m = tokens, .n = out, .num_terms = 1, .c = call->outputs[0], .c_row = out};
    gemm.terms[0] =
        lk_cpu_term_of(NULL, false, in, call->inputs[WEIGHT], node->inputs[WEIGHT]->dtype, true, in, 1.0f, in);
    float *s = call->outputs[1] != NULL ? call->outputs[1] : space.low;
    /* either s B', scale as a second term, or scale A' B' added to W' while it is packed */
    lk_cpu_term update = lk_cpu_term_of(merged ? call->inputs[LORA_A] : s, merged, merged ? in : rank,
                                        call->inputs[LORA_B], LK_DTYPE_F32, true, rank, lora->scale, rank);
    gemm.update = merged ? &update : NULL;
    LK_CPU(gemm_operand)(call, &gemm, call->inputs[X], node->inputs[X]->dtype, space.operand);

    if (!merged || call->outputs[1] != NULL) {
        dropout_mask mask;
        low_job job = {.call = call, .narrow = space.narrow};
        job.low = (lk_cpu_gemm){.m = tokens, .n = rank, .num_terms = 1, .c = s, .c_row = rank};
        job.low.terms[0] = gemm.terms[0];
        job.low.terms[0].b = call->inputs[LORA_A];
        job.low.terms[0].b_dtype = LK_DTYPE_F32;
        if (lora->dropout > 0.0f) {
            mask = dropout_mask_of(call->inputs[RNG], lora->dropout, lora->stream);
            job.mask = &mask;
        }
        job.tasks = lk_cpu_tasks(call, (tokens + BLOCK_ROWS - 1) / BLOCK_ROWS, 40.0 * (double)(tokens * in));
        lk_pool_run(call->pool, low_task, &job, job.tasks);
    }
    if (call->outputs[0] == NULL) {
        return;
    }
    gemm.c_dtype = node->outputs[0]->dtype;
    gemm.bias = lk_has_input(node, BIAS) ? call->inputs[BIAS] : NULL;
    if (!merged) {
        update.narrow = space.narrow;
        update.narrow_row = lk_cpu_narrow_row(rank);
        update.narrow_pair = 2;
        gemm.terms[gemm.num_terms++] = update;
    }
    LK_CPU(gemm)(call, &gemm);
}
