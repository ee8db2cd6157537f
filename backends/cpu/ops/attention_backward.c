/* The gradients of attention, block by block, with the weights made again from the saved log-sum-exp:
 * P = exp(scale q k' - lse), dv = P' do, dS = scale P (do v' - delta), dq = dS k, dk = dS' q, delta = rowsum(do o).
 *
 * One task goes over all keys of a sequence and a key-value head and makes all three, each score once. Where that gives
 * too few tasks (one long sequence), dk and dv are made per block of keys and dq per block of queries instead: scores
 * are made twice, but every core has work. Sums run over blocks in rising order both ways. */
#include "backends/cpu/attention.h"

#include "backends/cpu/rows.h"
#include "backends/cpu/simd/tile.h"

enum { DO, Q, K, V, O, LSE, CU_SEQLENS };

typedef struct backward_job {
    const lk_cpu_call *call;
    const lk_attention_attributes *attributes;
    const int32_t *cu;
    const float *delta;
    int64_t tokens, sequences, head_dim, q_width, k_width, group;
    bool want_dq, want_dkv;
} backward_job;

typedef struct backward_space {
    float *keys, *values; /* transposed: [head_dim][LK_CPU_KEYS] */
    float *dk, *dv;       /* [LK_CPU_KEYS][head_dim] */
    float *p, *ds;        /* [LK_CPU_QUERIES][LK_CPU_KEYS] */
} backward_space;

_Static_assert((4 * 512 * LK_CPU_KEYS + 2 * LK_CPU_QUERIES * LK_CPU_KEYS) * sizeof(float) <= LK_CPU_WORKER_BYTES,
               "a worker's memory holds the blocks of the largest head");

static backward_space divide(void *memory, int64_t head_dim) {
    float *at = memory;
    int64_t block = head_dim * LK_CPU_KEYS, scores = LK_CPU_QUERIES * LK_CPU_KEYS;
    return (backward_space){at, at + block, at + 2 * block, at + 3 * block, at + 4 * block, at + 4 * block + scores};
}

/* P and dS of a block of queries and a block of keys, from scores and do v'; zeros where a key is hidden. */
static void soften(const backward_job *job, const lk_cpu_sequence *sequence, int64_t head, int64_t query,
                   int64_t queries, int64_t key, int64_t keys, const backward_space *space) {
    int64_t heads = job->attributes->num_attention_heads;
    vf scale = vf_set1(job->attributes->scale);
    for (int64_t i = 0; i < queries; i++) {
        int64_t first, last, row = (sequence->q_start + query + i) * heads + head;
        lk_attention_range(job->attributes, query + i, sequence->queries, sequence->keys, &first, &last);
        first = lk_cpu_clamp(first - key, 0, keys);
        last = lk_cpu_clamp(last - key, first, keys);
        float *p = space->p + i * LK_CPU_KEYS, *ds = space->ds + i * LK_CPU_KEYS;
        vf lse = vf_set1(((const float *)job->call->inputs[LSE])[row]), delta = vf_set1(job->delta[row]);
        for (int64_t j = 0; j < keys; j += VF_WIDTH) {
            vf weight = vf_exp(vf_sub(vf_mul(scale, vf_load(p + j)), lse));
            vf_store(p + j, weight);
            vf_store(ds + j, vf_mul(vf_mul(scale, weight), vf_sub(vf_load(ds + j), delta)));
        }
        memset(p, 0, (size_t)first * sizeof *p);
        memset(ds, 0, (size_t)first * sizeof *ds);
        memset(p + last, 0, (size_t)(keys - last) * sizeof *p);
        memset(ds + last, 0, (size_t)(keys - last) * sizeof *ds);
    }
}

static bool meets(const backward_job *job, const lk_cpu_sequence *sequence, int64_t query, int64_t queries, int64_t key,
                  int64_t keys) {
    int64_t first, last, unused;
    lk_attention_range(job->attributes, query, sequence->queries, sequence->keys, &first, &unused);
    lk_attention_range(job->attributes, query + queries - 1, sequence->queries, sequence->keys, &unused, &last);
    return first < key + keys && last > key;
}

/* One block of queries of one head against the block of keys in `space`. */
static void add_block(const backward_job *job, const lk_cpu_sequence *sequence, int64_t head, int64_t query,
                      int64_t queries, int64_t key, int64_t keys, bool dq, bool dkv, const backward_space *space) {
    int64_t q_at = (sequence->q_start + query) * job->q_width + head * job->head_dim;
    int64_t k_at = (sequence->k_start + key) * job->k_width + head / job->group * job->head_dim;
    const float *q = (const float *)job->call->inputs[Q] + q_at, *d_o = (const float *)job->call->inputs[DO] + q_at;
    tile_segment qk = {q, job->q_width, 1, space->keys, LK_CPU_KEYS, job->head_dim};
    tile_block(queries, keys, qk, true, false, space->p, LK_CPU_KEYS);
    tile_segment dp = {d_o, job->q_width, 1, space->values, LK_CPU_KEYS, job->head_dim};
    tile_block(queries, keys, dp, true, false, space->ds, LK_CPU_KEYS);
    soften(job, sequence, head, query, queries, key, keys, space);
    if (dkv) {
        tile_segment dv = {space->p, 1, LK_CPU_KEYS, d_o, job->q_width, queries};
        tile_block(keys, job->head_dim, dv, false, true, space->dv, job->head_dim);
        tile_segment dk = {space->ds, 1, LK_CPU_KEYS, q, job->q_width, queries};
        tile_block(keys, job->head_dim, dk, false, true, space->dk, job->head_dim);
    }
    if (dq) {
        tile_segment sum = {space->ds, LK_CPU_KEYS, 1, (const float *)job->call->inputs[K] + k_at, job->k_width, keys};
        tile_block(queries, job->head_dim, sum, false, true, (float *)job->call->outputs[0] + q_at, job->q_width);
    }
}

static void copy_rows(const float *from, int64_t rows, int64_t width, float *to, int64_t to_row) {
    for (int64_t i = 0; i < rows && to != NULL; i++) {
        memcpy(to + i * to_row, from + i * width, (size_t)width * sizeof *to);
    }
}

/* The part of the gradients that queries [query, query_end) and keys [key, key_end) of a sequence make together. */
static void backward(const backward_job *job, const lk_cpu_sequence *sequence, int64_t kv_head, lk_range query_range,
                     lk_range key_range, bool dq, bool dkv, void *memory) {
    backward_space space = divide(memory, job->head_dim);
    int64_t width = job->head_dim, head = kv_head * job->group;
    for (int64_t i = query_range.begin; i < query_range.end && dq; i++) {
        float *row = (float *)job->call->outputs[0] + (sequence->q_start + i) * job->q_width + head * width;
        memset(row, 0, (size_t)(job->group * width) * sizeof *row);
    }
    for (int64_t key = key_range.begin; key < key_range.end; key += LK_CPU_KEYS) {
        int64_t keys = LK_MIN(key_range.end - key, (int64_t)LK_CPU_KEYS);
        int64_t at = (sequence->k_start + key) * job->k_width + kv_head * width;
        tile_transpose((const float *)job->call->inputs[K] + at, job->k_width, keys, width, space.keys, LK_CPU_KEYS);
        tile_transpose((const float *)job->call->inputs[V] + at, job->k_width, keys, width, space.values, LK_CPU_KEYS);
        if (dkv) {
            memset(space.dk, 0, (size_t)(keys * width) * sizeof(float));
            memset(space.dv, 0, (size_t)(keys * width) * sizeof(float));
        }
        for (int64_t h = 0; h < job->group; h++) {
            for (int64_t query = query_range.begin; query < query_range.end; query += LK_CPU_QUERIES) {
                int64_t queries = LK_MIN(query_range.end - query, (int64_t)LK_CPU_QUERIES);
                if (meets(job, sequence, query, queries, key, keys)) {
                    add_block(job, sequence, head + h, query, queries, key, keys, dq, dkv, &space);
                }
            }
        }
        if (dkv) {
            float *dk = job->call->outputs[1], *dv = job->call->outputs[2];
            copy_rows(space.dk, keys, width, dk != NULL ? dk + at : NULL, job->k_width);
            copy_rows(space.dv, keys, width, dv != NULL ? dv + at : NULL, job->k_width);
        }
    }
}

static lk_cpu_sequence sequence_at(const backward_job *job, int64_t s) {
    return lk_cpu_sequence_of(job->cu, job->cu, NULL, s, job->tokens, job->tokens);
}

static void whole_task(void *argument, int task, int worker) {
    const backward_job *job = argument;
    lk_cpu_sequence sequence = sequence_at(job, task / job->attributes->num_key_value_heads);
    lk_range all = {0, sequence.queries};
    backward(job, &sequence, task % job->attributes->num_key_value_heads, all, all, job->want_dq, job->want_dkv,
             lk_cpu_worker_memory(job->call, worker));
}

/* The even tasks are blocks of queries, the odd ones blocks of keys, both numbered through all sequences. */
static void split_task(void *argument, int task, int worker) {
    const backward_job *job = argument;
    bool dkv = task % 2 != 0;
    int64_t size = dkv ? LK_CPU_KEYS : LK_CPU_QUERIES, heads = job->attributes->num_key_value_heads;
    int64_t block = task / 2 / heads, kv_head = task / 2 % heads;
    if (dkv ? !job->want_dkv : !job->want_dq) {
        return;
    }
    for (int64_t s = 0; s < job->sequences; s++) {
        lk_cpu_sequence sequence = sequence_at(job, s);
        int64_t blocks = lk_cpu_blocks(sequence.queries, size);
        if (block < blocks) {
            lk_range all = {0, sequence.queries};
            lk_range part = {block * size, LK_MIN((block + 1) * size, sequence.queries)};
            backward(job, &sequence, kv_head, dkv ? all : part, dkv ? part : all, !dkv, dkv,
                     lk_cpu_worker_memory(job->call, worker));
            return;
        }
        block -= blocks;
    }
}

/* delta of each token and head */
static void part_delta(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t width = call->node->attributes.attention.head_dim;
    float *delta = call->scratch;
    for (int64_t i = range.begin; i < range.end; i++) {
        delta[i] =
            vf_dot((const float *)call->inputs[DO] + i * width, (const float *)call->inputs[O] + i * width, width);
    }
}

static void clear_rows(const backward_job *job, int64_t first, int64_t last) {
    for (int i = 0; i < 3; i++) { /* rows that belong to no sequence */
        int64_t width = i == 0 ? job->q_width : job->k_width;
        if (job->call->outputs[i] != NULL && first < last) {
            memset((float *)job->call->outputs[i] + first * width, 0, (size_t)((last - first) * width) * sizeof(float));
        }
    }
}

void LK_CPU(attention_backward)(const lk_cpu_call *call) {
    const lk_node *node = call->node;
    const lk_attention_attributes *attributes = &node->attributes.attention;
    backward_job job = {.call = call,
                        .attributes = attributes,
                        .cu = call->inputs[CU_SEQLENS],
                        .delta = call->scratch,
                        .tokens = node->inputs[Q]->shape[0],
                        .sequences = node->inputs[CU_SEQLENS]->shape[0] - 1,
                        .head_dim = attributes->head_dim,
                        .q_width = node->inputs[Q]->shape[1],
                        .k_width = node->inputs[K]->shape[1],
                        .group = attributes->num_attention_heads / attributes->num_key_value_heads,
                        .want_dq = call->outputs[0] != NULL,
                        .want_dkv = call->outputs[1] != NULL || call->outputs[2] != NULL};
    int64_t heads = attributes->num_key_value_heads, covered = 0, query_blocks = 0, key_blocks = 0;
    double work = 0.0, largest = 0.0;
    for (int64_t s = 0; s < job.sequences; s++) {
        lk_cpu_sequence sequence = sequence_at(&job, s);
        clear_rows(&job, covered, sequence.q_start);
        covered = sequence.q_start + sequence.queries;
        query_blocks += lk_cpu_blocks(sequence.queries, LK_CPU_QUERIES);
        key_blocks += lk_cpu_blocks(sequence.queries, LK_CPU_KEYS);
        double pairs = (double)sequence.queries * (double)sequence.queries;
        work += pairs;
        largest = LK_MAX(largest, pairs);
    }
    clear_rows(&job, covered, job.tokens);
    lk_cpu_run_rows(call, job.tokens * attributes->num_attention_heads, 1, 8.0 * (double)job.head_dim, part_delta);
    if (call->threads == 1 || work * (double)heads >= 2.0 * call->threads * largest) {
        lk_pool_run(call->pool, whole_task, &job, (int)(job.sequences * heads));
    } else {
        lk_pool_run(call->pool, split_task, &job, (int)(2 * LK_MAX(query_blocks, key_blocks) * heads));
    }
}
