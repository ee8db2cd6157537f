/* Loss and its gradient without the logits of all tokens ever being there.
 *
 * Tokens that count are taken in blocks. Of a block the logits are made transposed, [vocab][token]: rows of W are then
 * used where they stand, maxima and sums of many tokens go in one vector, and every thread has a part of the vocabulary
 * to itself. The second pass turns logits into their gradients and multiplies them by W again, while W is at hand.
 *
 * Where the processor multiplies bf16 itself and W is bf16, x and the gradients of the logits are rounded to bf16 for
 * the products, and packed in pairs (tile.h); rows of W are then pairs as they stand. */
#include <float.h>

#include "core/ops/cross_entropy.h"

#include "backends/cpu/rows.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/simd/tile.h"

enum { X, WEIGHT, TARGETS, LOSS_SCALE };

_Static_assert(LK_CPU_LOSS_COLUMNS % TILE_COLUMNS == 0, "whole tiles");

/* Rows of the vocabulary taken at a time, so that they and their logits stay in the core's own cache; twice as many in
 * bf16, since each slice is one more pass over dx. */
enum { SLICE = 128, SLICE_FLOATS = LK_CPU_WORKER_BYTES / 2 / 4 };

/* A slice's gradients in pairs, and the same gathered, share half a worker's memory. */
enum { BLOCK = LK_CPU_LOSS_PANELS * LK_CPU_LOSS_COLUMNS };
_Static_assert(SLICE *(BLOCK + BLOCK + TILE_PAIR_ROWS) <= SLICE_FLOATS, "a block's gradients fit");

/* W and the logits come from memory, row after row, but a processor looks ahead within a page only: rows asked for in
 * advance. */
enum { AHEAD = 8 };

typedef struct loss_job {
    const lk_cpu_call *call;
    int64_t width, vocab_size, parts;
    int64_t stride;        /* of a row of logits: the block's tokens, filled up to whole vectors */
    int64_t count;         /* tokens of this block */
    const int32_t *tokens; /* which ones */
    float *logits, *x, *maxima, *sums, *lse, *shares;
    float scale;
    bool pairs;
} loss_job;

static int64_t slice_rows(const loss_job *job) {
    int64_t most = job->pairs ? 2 * SLICE : SLICE, fitting = SLICE_FLOATS / LK_MAX(job->width, (int64_t)1);
    return LK_MAX(LK_MIN(fitting, most) / (2 * TILE_ROWS), (int64_t)1) * (2 * TILE_ROWS);
}

/* Rows of W as fp32: in place, or widened into `memory`. */
static const float *weight_rows(const loss_job *job, int64_t first, int64_t rows, float *memory) {
    lk_dtype dtype = job->call->node->inputs[WEIGHT]->dtype;
    if (dtype == LK_DTYPE_F32) {
        return (const float *)job->call->inputs[WEIGHT] + first * job->width;
    }
    LK_CPU(widen)(memory, (const uint16_t *)job->call->inputs[WEIGHT] + first * job->width, dtype, rows * job->width);
    return memory;
}

#if VF_PAIRS
/* Whether rows of W are whole pairs, and a slice of it fits in half a worker's memory. */
static bool can_pair(const loss_job *job) {
    return job->call->node->inputs[WEIGHT]->dtype == LK_DTYPE_BF16 && job->width % 2 == 0 &&
           (job->width + TILE_COLUMNS) * TILE_ROWS <= SLICE_FLOATS;
}

/* Some rows of W in panels, with rows 2 i and 2 i + 1 as pairs. */
static void pack_weight_pairs(const loss_job *job, int64_t first, int64_t rows, uint32_t *packed) {
    const uint16_t *weight = (const uint16_t *)job->call->inputs[WEIGHT] + first * job->width;
    static const uint16_t zeros[VF_WIDTH];
    int64_t pairs = (rows + 1) / 2, whole = job->width / VF_WIDTH * VF_WIDTH;
    for (int64_t i = 0; i < pairs; i++) {
        const uint16_t *even = weight + 2 * i * job->width;
        const uint16_t *odd = 2 * i + 1 < rows ? even + job->width : NULL;
        for (int64_t h = 0; h < job->width; h += VF_WIDTH) {
            LK_CPU_PREFETCH(even + AHEAD * job->width + 2 * h);
            uint32_t *to = packed + h / TILE_COLUMNS * TILE_COLUMNS * pairs + i * TILE_COLUMNS + h % TILE_COLUMNS;
            if (h < whole) {
                vp_store(to, vp_join(even + h, odd != NULL ? odd + h : zeros));
                continue;
            }
            for (int64_t j = 0; j < VF_WIDTH; j++) {
                uint32_t high = odd != NULL && h + j < job->width ? odd[h + j] : 0;
                to[j] = h + j < job->width ? even[h + j] | high << 16 : 0;
            }
        }
    }
}

/* The gradients of a slice's logits, scale (softmax - one at the target), rounded to pairs of rows. */
static void gradient_pairs(const loss_job *job, int64_t first, int64_t rows, uint32_t *pairs) {
    const int32_t *targets = job->call->inputs[TARGETS];
    vf scale = vf_set1(job->scale);
    for (int64_t i = 0; i < rows; i += 2) {
        const float *even = job->logits + (first + i) * job->stride, *odd = i + 1 < rows ? even + job->stride : NULL;
        for (int64_t t = 0; t < job->stride; t += VF_WIDTH) {
            LK_CPU_PREFETCH(even + AHEAD * job->stride + t);
            LK_CPU_PREFETCH(even + (AHEAD + 1) * job->stride + t);
            vf lse = vf_load(job->lse + t), low = vf_exp(vf_sub(vf_load(even + t), lse));
            vf high = odd != NULL ? vf_exp(vf_sub(vf_load(odd + t), lse)) : vf_zero();
            vp_store(pairs + i / 2 * job->stride + t, vp_round(vf_mul(scale, low), vf_mul(scale, high)));
        }
    }
    for (int64_t t = 0; t < job->count; t++) {
        int64_t target = targets[job->tokens[t]] - first;
        if (target >= 0 && target < rows) {
            float weight = expf(job->logits[(first + target) * job->stride + t] - job->lse[t]);
            uint16_t *pair = (uint16_t *)(void *)(pairs + target / 2 * job->stride + t);
            pair[target % 2] = lk_f32_to_bf16(job->scale * (weight - 1.0f));
        }
    }
}

/* dx of the part += the gradients of its logits, in pairs, times its rows of W. A panel of W stays in the innermost
 * cache while all tokens pass. */
static void add_share_pairs(const loss_job *job, int64_t first, int64_t rows, uint32_t *packed, uint32_t *memory,
                            float *share) {
    int64_t pairs = (rows + 1) / 2, columns = job->width, block = TILE_PAIR_ROWS * tile_gathered_pairs(pairs);
    const uint32_t *gathered = memory + pairs * job->stride;
    tile_job tile_of = {.num_segments = 1, .c_row = columns, .addend_row = columns, .padded = true};
    pack_weight_pairs(job, first, rows, packed);
    gradient_pairs(job, first, rows, memory);
    for (int64_t t = 0; t < job->count; t += TILE_PAIR_ROWS) {
        tile_gather(memory + t, job->stride, (int)LK_MIN(job->count - t, (int64_t)TILE_PAIR_ROWS), pairs,
                    memory + pairs * job->stride + t / TILE_PAIR_ROWS * block, &tile_of);
    }
    tile_of.segments[0].b_k = TILE_COLUMNS;
    tile_of.segments[0].k = pairs;
    for (int64_t h = 0; h < columns; h += TILE_COLUMNS) {
        tile_of.columns = (int)LK_MIN(columns - h, (int64_t)TILE_COLUMNS);
        tile_of.segments[0].b = (const float *)(const void *)(packed + h * pairs);
        for (int64_t t = 0; t < job->count; t += TILE_PAIR_ROWS) {
            tile_of.pairs[0] = (const uint16_t *)(const void *)(gathered + t / TILE_PAIR_ROWS * block);
            tile_of.addend = share + t * columns + h;
            tile_of.c = share + t * columns + h;
            tile((int)LK_MIN(job->count - t, (int64_t)TILE_PAIR_ROWS), &tile_of);
        }
    }
}
#endif

/* x transposed, in panels of a tile's width; the last is filled up with zeros. */
static void pack_task(void *argument, int task, int worker) {
    (void)worker;
    const loss_job *job = argument;
    float *panel = job->x + (int64_t)task * job->width * TILE_COLUMNS;
    for (int64_t j = 0; j < TILE_COLUMNS; j++) {
        int64_t t = (int64_t)task * TILE_COLUMNS + j;
        const float *x = (const float *)job->call->inputs[X] + (t < job->count ? job->tokens[t] : 0) * job->width;
        if (job->pairs) {
            uint16_t *to = (uint16_t *)(void *)panel + 2 * j;
            for (int64_t i = 0; i < job->width; i += 2) {
                to[i * TILE_COLUMNS] = t < job->count ? lk_f32_to_bf16(x[i]) : 0;
                to[i * TILE_COLUMNS + 1] = t < job->count ? lk_f32_to_bf16(x[i + 1]) : 0;
            }
            continue;
        }
        for (int64_t i = 0; i < job->width; i++) {
            panel[i * TILE_COLUMNS + j] = t < job->count ? x[i] : 0.0f;
        }
    }
}

/* Maximum and sum of exponentials of each token over rows [first, first + rows) of the logits, into the part's own. */
static void add_to_sums(const loss_job *job, int64_t first, int64_t rows, float *maxima, float *sums) {
    for (int64_t t = 0; t < job->stride; t += VF_WIDTH) {
        const float *logits = job->logits + first * job->stride + t;
        vf before = vf_load(maxima + t), highest = before, total = vf_zero();
        for (int64_t v = 0; v < rows; v++) {
            highest = vf_max(highest, vf_load(logits + v * job->stride));
        }
        for (int64_t v = 0; v < rows; v++) {
            total = vf_add(total, vf_exp(vf_sub(vf_load(logits + v * job->stride), highest)));
        }
        vf rescaled = vf_mul(vf_load(sums + t), vf_exp(vf_sub(before, highest)));
        vf_store(maxima + t, highest);
        vf_store(sums + t, vf_add(rescaled, total));
    }
}

/* Rows [v, v + rows) of the logits: W's rows are the A of the product, as they stand. */
static void logits_of_pairs(const loss_job *job, const uint16_t *weight, int64_t rows, int64_t v) {
    for (int64_t t = 0; t < job->stride; t += TILE_COLUMNS) {
        tile_job tile_of = {.num_segments = 1, .c_row = job->stride, .padded = true};
        tile_of.columns = (int)LK_MIN(job->stride - t, (int64_t)TILE_COLUMNS);
        tile_of.segments[0] =
            (tile_segment){NULL, job->width, 2, job->x + t * job->width, TILE_COLUMNS, job->width / 2};
        for (int64_t i = 0; i < rows; i += TILE_PAIR_ROWS) {
            tile_of.pairs[0] = weight + i * job->width;
            tile_of.c = job->logits + (v + i) * job->stride + t;
            tile((int)LK_MIN(rows - i, (int64_t)TILE_PAIR_ROWS), &tile_of);
        }
    }
}

static void logits_task(void *argument, int task, int worker) {
    const loss_job *job = argument;
    float *maxima = job->maxima + task * job->stride, *sums = job->sums + task * job->stride;
    for (int64_t t = 0; t < job->stride; t++) {
        maxima[t] = -FLT_MAX;
        sums[t] = 0.0f;
    }
    lk_range range = lk_split(job->vocab_size, TILE_ROWS, (int)job->parts, task);
    tile_begin();
    for (int64_t v = range.begin, rows; v < range.end; v += rows) {
        rows = LK_MIN(slice_rows(job), range.end - v);
        if (job->pairs) {
            const uint16_t *weight = (const uint16_t *)job->call->inputs[WEIGHT] + v * job->width;
            logits_of_pairs(job, weight, rows, v);
        } else {
            const float *weight = weight_rows(job, v, rows, lk_cpu_worker_memory(job->call, worker));
            for (int64_t t = 0; t < job->stride; t += TILE_COLUMNS) {
                tile_segment segment = {weight, job->width, 1, job->x + t * job->width, TILE_COLUMNS, job->width};
                tile_block(rows, LK_MIN(job->stride - t, (int64_t)TILE_COLUMNS), segment, true, false,
                           job->logits + v * job->stride + t, job->stride);
            }
        }
        add_to_sums(job, v, rows, maxima, sums);
    }
    tile_end();
}

/* Joins the parts' sums; returns the block's loss before scaling. */
static double join(const loss_job *job) {
    const int32_t *targets = job->call->inputs[TARGETS];
    double loss = 0.0;
    for (int64_t t = 0; t < job->count; t++) {
        float highest = -FLT_MAX;
        double total = 0.0;
        for (int64_t p = 0; p < job->parts; p++) {
            highest = LK_MAX(highest, job->maxima[p * job->stride + t]);
        }
        for (int64_t p = 0; p < job->parts; p++) {
            total += (double)job->sums[p * job->stride + t] *
                     exp((double)job->maxima[p * job->stride + t] - (double)highest);
        }
        double lse = (double)highest + log(total);
        job->lse[t] = (float)lse;
        loss += lse - (double)job->logits[targets[job->tokens[t]] * job->stride + t];
    }
    for (int64_t t = job->count; t < job->stride; t++) {
        job->lse[t] = 0.0f;
    }
    return loss;
}

/* logits := scale (softmax - one at the target), for some rows */
static void to_gradients(const loss_job *job, int64_t first, int64_t rows) {
    const int32_t *targets = job->call->inputs[TARGETS];
    vf scale = vf_set1(job->scale);
    for (int64_t v = first; v < first + rows; v++) {
        float *logits = job->logits + v * job->stride;
        for (int64_t t = 0; t < job->stride; t += VF_WIDTH) {
            vf_store(logits + t, vf_mul(scale, vf_exp(vf_sub(vf_load(logits + t), vf_load(job->lse + t)))));
        }
    }
    for (int64_t t = 0; t < job->count; t++) {
        int64_t target = targets[job->tokens[t]];
        if (target >= first && target < first + rows) {
            job->logits[target * job->stride + t] -= job->scale;
        }
    }
}

/* The part's share of dx: its gradients of logits, transposed, times its rows of W. */
static void gradient_task(void *argument, int task, int worker) {
    const loss_job *job = argument;
    float *share = job->shares + (int64_t)task * (int64_t)(lk_cpu_floats(job->stride * job->width) / sizeof(float));
    float *packed = lk_cpu_worker_memory(job->call, worker), *widened = packed + SLICE_FLOATS;
    memset(share, 0, (size_t)(job->stride * job->width) * sizeof *share);
    lk_range range = lk_split(job->vocab_size, TILE_ROWS, (int)job->parts, task);
    tile_begin();
    for (int64_t v = range.begin, rows; v < range.end; v += rows) {
        rows = LK_MIN(slice_rows(job), range.end - v);
#if VF_PAIRS
        if (job->pairs) {
            add_share_pairs(job, v, rows, (uint32_t *)(void *)packed, (uint32_t *)(void *)widened, share);
            continue;
        }
#endif
        to_gradients(job, v, rows);
        const float *weight = weight_rows(job, v, rows, widened);
        int64_t columns = job->width;
        bool fits = (columns + TILE_COLUMNS) * rows <= SLICE_FLOATS;
        for (int64_t h = 0; h < columns && fits; h += TILE_COLUMNS) { /* W in panels */
            for (int64_t i = 0; i < rows; i++) {
                VF_FOR(
                    j, lanes, LK_MIN(columns - h, (int64_t)TILE_COLUMNS),
                    vf_store(packed + h * rows + i * TILE_COLUMNS + j, vf_get(weight + i * columns + h + j, lanes)););
            }
        }
        for (int64_t t = 0; t < job->count; t += TILE_ROWS) {
            float gathered[SLICE * TILE_ROWS];
            for (int64_t i = 0; i < rows; i++) {
                memcpy(gathered + i * TILE_ROWS, job->logits + (v + i) * job->stride + t, sizeof(float) * TILE_ROWS);
            }
            for (int64_t h = 0; h < columns; h += TILE_COLUMNS) {
                tile_job tile_of = {.num_segments = 1, .c_row = columns, .addend_row = columns, .padded = fits};
                tile_of.columns = (int)LK_MIN(columns - h, (int64_t)TILE_COLUMNS);
                tile_of.segments[0] = (tile_segment){
                    gathered, 1, TILE_ROWS, fits ? packed + h * rows : weight + h, fits ? TILE_COLUMNS : columns, rows};
                tile_of.c = share + t * columns + h;
                tile_of.addend = tile_of.c;
                tile((int)LK_MIN(job->count - t, (int64_t)TILE_ROWS), &tile_of);
            }
        }
    }
    tile_end();
}

typedef struct sum_job {
    const loss_job *job;
    int tasks;
} sum_job;

/* dx of the block's tokens: the parts' shares in order. */
static void sum_task(void *argument, int task, int worker) {
    (void)worker;
    const sum_job *sum = argument;
    const loss_job *job = sum->job;
    lk_range range = lk_split(job->count, 1, sum->tasks, task);
    int64_t share = (int64_t)(lk_cpu_floats(job->stride * job->width) / sizeof(float));
    for (int64_t t = range.begin; t < range.end; t++) {
        float *dx = (float *)job->call->outputs[1] + job->tokens[t] * job->width;
        memcpy(dx, job->shares + t * job->width, (size_t)job->width * sizeof *dx);
        for (int64_t p = 1; p < job->parts; p++) {
            vf_axpy(dx, 1.0f, job->shares + p * share + t * job->width, job->width);
        }
    }
}

static float *take(char **cursor, int64_t count) {
    char *start = *cursor;
    *cursor += lk_cpu_floats(count);
    return (float *)(void *)start;
}

void LK_CPU(linear_cross_entropy)(const lk_cpu_call *call) {
    const lk_node *node = call->node;
    int64_t tokens = node->inputs[X]->shape[0], width = node->inputs[X]->shape[1];
    int64_t vocab_size = node->inputs[WEIGHT]->shape[0], block = lk_cpu_loss_block(tokens, vocab_size), counted = 0;
    char *cursor = call->scratch;
    int32_t *list = (int32_t *)(void *)take(&cursor, tokens);
    for (int64_t t = 0; t < tokens; t++) {
        if (lk_target_counts(((const int32_t *)call->inputs[TARGETS])[t], vocab_size)) {
            list[counted++] = (int32_t)t;
        } else if (call->outputs[1] != NULL) {
            memset((float *)call->outputs[1] + t * width, 0, (size_t)width * sizeof(float));
        }
    }
    loss_job job = {.call = call, .width = width, .vocab_size = vocab_size};
    job.parts = lk_cpu_loss_parts(call->threads, vocab_size);
    job.logits = take(&cursor, block * vocab_size);
    job.x = take(&cursor, block * width);
    job.maxima = take(&cursor, block * job.parts);
    job.sums = take(&cursor, block * job.parts);
    job.lse = take(&cursor, block);
    job.shares = (float *)(void *)cursor;
    job.scale = *(const float *)call->inputs[LOSS_SCALE];
#if VF_PAIRS
    job.pairs = can_pair(&job);
#endif
    double loss = 0.0;
    for (int64_t first = 0; first < counted; first += block) { /* whole panels but for the last: nothing is padded */
        job.tokens = list + first;
        job.count = LK_MIN(block, counted - first);
        job.stride = (job.count + VF_WIDTH - 1) / VF_WIDTH * VF_WIDTH;
        lk_pool_run(call->pool, pack_task, &job, (int)((job.stride + TILE_COLUMNS - 1) / TILE_COLUMNS));
        lk_pool_run(call->pool, logits_task, &job, (int)job.parts);
        loss += join(&job);
        if (call->outputs[1] != NULL) {
            lk_pool_run(call->pool, gradient_task, &job, (int)job.parts);
            sum_job sum = {&job, lk_cpu_tasks(call, job.count, (double)(job.count * width * job.parts) * 4.0)};
            lk_pool_run(call->pool, sum_task, &sum, sum.tasks);
        }
    }
    if (call->outputs[0] != NULL) {
        *(float *)call->outputs[0] = (float)(loss * (double)job.scale);
    }
}
