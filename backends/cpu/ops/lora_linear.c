#include "backends/cpu/gemm.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/simd/dropout.h"
#include "backends/cpu/simd/tile.h"

enum { X, WEIGHT, BIAS, LORA_A, LORA_B, RNG };

/* s = dropout(x) A' from blocks of dropped rows. */
typedef struct dropped_job {
    const lk_cpu_call *call;
    const lk_cpu_gemm *gemm;
    dropout_mask mask;
    int tasks;
} dropped_job;

enum { BLOCK_ROWS = 2 * TILE_ROWS, BLOCK_WIDTH = 8192 };

/* Rows of dropout(x) stand behind the memory that the product takes for its panels. */
static void dropped_task(void *argument, int task, int worker) {
    const dropped_job *job = argument;
    const lk_cpu_gemm *whole = job->gemm;
    const lk_cpu_term *term = &whole->terms[0];
    lk_range range = lk_split(whole->m, BLOCK_ROWS, job->tasks, task);
    char *memory = lk_cpu_worker_memory(job->call, worker);
    float *block = (float *)(void *)(memory + LK_CPU_GEMM_BYTES);
    int64_t room = (LK_CPU_WORKER_BYTES - LK_CPU_GEMM_BYTES) / (int64_t)sizeof(float);
    for (int64_t k = 0; k < term->k; k += BLOCK_WIDTH) {
        int64_t width = LK_MIN(term->k - k, (int64_t)BLOCK_WIDTH), step = LK_MIN(room / width, (int64_t)BLOCK_ROWS * 4);
        for (int64_t row = range.begin; row < range.end; row += step) {
            int64_t rows = LK_MIN(step, range.end - row);
            for (int64_t i = 0; i < rows; i++) {
                dropout_row(&job->mask, block + i * width, term->a + (row + i) * term->a_row + k,
                            (row + i) * term->k + k, width, false);
            }
            lk_cpu_gemm part = *whole;
            part.m = rows;
            part.c = whole->c + row * whole->c_row;
            part.addend = k > 0 ? part.c : NULL;
            part.terms[0].a = block;
            part.terms[0].a_row = width;
            part.terms[0].b = (const float *)term->b + k;
            part.terms[0].k = width;
            LK_CPU(gemm_part)(&part, (lk_range){0, rows}, (lk_range){0, part.n}, memory);
        }
    }
}

void LK_CPU(lora_linear)(const lk_cpu_call *call) {
    const lk_node *node = call->node;
    const lk_lora_attributes *lora = &node->attributes.lora;
    int64_t tokens = node->inputs[X]->shape[0], in = node->inputs[X]->shape[1];
    int64_t out = node->inputs[WEIGHT]->shape[0], rank = node->inputs[LORA_A]->shape[0];
    bool merged = lora->order == LK_LORA_MERGED;

    float *s = call->outputs[1] != NULL ? call->outputs[1] : call->scratch;
    if (!merged || call->outputs[1] != NULL) {
        lk_cpu_gemm low = {.m = tokens, .n = rank, .num_terms = 1, .c = s, .c_row = rank};
        low.terms[0] =
            lk_cpu_term_of(call->inputs[X], false, in, call->inputs[LORA_A], LK_DTYPE_F32, true, in, 1.0f, in);
        if (lora->dropout > 0.0f) {
            dropped_job job = {
                call, &low, dropout_mask_of(call->inputs[RNG], lora->dropout, lora->stream),
                lk_cpu_tasks(call, (tokens + BLOCK_ROWS - 1) / BLOCK_ROWS, 40.0 * (double)(tokens * in))};
            lk_pool_run(call->pool, dropped_task, &job, job.tasks);
        } else {
            LK_CPU(gemm)(call, &low);
        }
    }
    if (call->outputs[0] == NULL) {
        return;
    }
    lk_cpu_gemm gemm = {.m = tokens, .n = out, .num_terms = 1, .c = call->outputs[0], .c_row = out};
    gemm.terms[0] = lk_cpu_term_of(call->inputs[X], false, in, call->inputs[WEIGHT], node->inputs[WEIGHT]->dtype, true,
                                   in, 1.0f, in);
    gemm.bias = lk_has_input(node, BIAS) ? call->inputs[BIAS] : NULL;
    /* either s B', scale as a second term, or scale A' B' added to W' while it is packed */
    lk_cpu_term update = lk_cpu_term_of(merged ? call->inputs[LORA_A] : s, merged, merged ? in : rank,
                                        call->inputs[LORA_B], LK_DTYPE_F32, true, rank, lora->scale, rank);
    if (merged) {
        gemm.update = &update;
    } else {
        LK_CPU(gemm_narrow)(call, &gemm, (float *)call->scratch + lk_cpu_floats(tokens * rank) / sizeof(float));
        gemm.terms[gemm.num_terms++] = update;
    }
    LK_CPU(gemm)(call, &gemm);
}
