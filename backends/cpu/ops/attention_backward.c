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
    lk_dtype v_dtype;
    bool pairs; /* all products but the scores are made in bf16 */
} backward_job;

typedef struct backward_space {
    float *keys, *values; /* transposed: [head_dim][LK_CPU_KEYS]; values in pairs along head_dim where those are used */
    float *dk, *dv;       /* [LK_CPU_KEYS][head_dim] */
    float *p, *ds;        /* [LK_CPU_QUERIES][LK_CPU_KEYS] */
    /* in bf16: pairs of rows, rows as long as whole vectors, and rows as they are */
    uint32_t *p_pairs, *ds_pairs, *q_pairs, *do_pairs, *k_pairs;
    uint16_t *ds_rows, *do_rows;
    int64_t row; /* head_dim in whole vectors */
} backward_space;

_Static_assert((4 * 512 * LK_CPU_KEYS + 2 * LK_CPU_QUERIES * LK_CPU_KEYS) * sizeof(float) <= LK_CPU_WORKER_BYTES,
               "a worker's memory holds the blocks of the largest head");
_Static_assert((5 * 256 * LK_CPU_KEYS + 4 * LK_CPU_QUERIES * LK_CPU_KEYS + 2 * LK_CPU_QUERIES * 256) * sizeof(float) <=
                   LK_CPU_WORKER_BYTES,
               "and those of the largest that is multiplied in bf16");

static backward_space divide(void *memory, int64_t head_dim) {
    float *at = memory;
    int64_t block = head_dim * LK_CPU_KEYS, scores = LK_CPU_QUERIES * LK_CPU_KEYS;
    int64_t row = (head_dim + VF_WIDTH - 1) / VF_WIDTH * VF_WIDTH;
    backward_space space = {.keys = at, .values = at + block, .dk = at + 2 * block, .dv = at + 3 * block, .row = row};
    space.p = at + 4 * block;
    space.ds = space.p + scores;
    space.p_pairs = (uint32_t *)(void *)(space.ds + scores);
    space.ds_pairs = space.p_pairs + scores / 2;
    space.ds_rows = (uint16_t *)(void *)(space.ds_pairs + scores / 2);
    space.q_pairs = (uint32_t *)(void *)(space.ds_rows + scores);
    space.do_pairs = space.q_pairs + LK_CPU_QUERIES / 2 * row;
    space.k_pairs = space.do_pairs + LK_CPU_QUERIES / 2 * row;
    space.do_rows = (uint16_t *)(void *)(space.k_pairs + LK_CPU_KEYS / 2 * row);
    return space;
}

/* P and dS of a block of queries and a block of keys, from scores and do v'; zeros where a key is hidden. */
static void soften(const backward_job *job, const lk_cpu_sequence *sequence, int64_t head, int64_t query,
                   int64_t queries, int64_t key, int64_t keys, const backward_space *space) {
    int64_t heads = job->attributes->num_attention_heads;
    int64_t whole = (keys + VF_WIDTH - 1) / VF_WIDTH * VF_WIDTH;
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
        memset(p + last, 0, (size_t)(whole - last) * sizeof *p);
        memset(ds + last, 0, (size_t)(whole - last) * sizeof *ds);
    }
}

/* How many of the keys, from the first on, the last of the queries sees; 0 if none sees any. */
static int64_t seen_keys(const backward_job *job, const lk_cpu_sequence *sequence, int64_t query, int64_t queries,
                         int64_t key, int64_t keys) {
    int64_t first, last, unused;
    lk_attention_range(job->attributes, query, sequence->queries, sequence->keys, &first, &unused);
    lk_attention_range(job->attributes, query + queries - 1, sequence->queries, sequence->keys, &unused, &last);
    return first < key + keys ? lk_cpu_clamp(last - key, 0, keys) : 0;
}

typedef void block_function(const backward_job *job, const lk_cpu_sequence *sequence, int64_t head, int64_t query,
                            int64_t queries, int64_t key, int64_t keys, bool dq, bool dkv, const backward_space *space);

/* P and dS in bf16, as the products take them. */
#if VF_PAIRS
static void round_scores(int64_t queries, int64_t keys, bool dq, bool dkv, const backward_space *space) {
    if (dkv) {
        tile_pair_rows(space->p, LK_DTYPE_F32, LK_CPU_KEYS, queries, keys, space->p_pairs, LK_CPU_KEYS);
        tile_pair_rows(space->ds, LK_DTYPE_F32, LK_CPU_KEYS, queries, keys, space->ds_pairs, LK_CPU_KEYS);
    }
    for (int64_t i = 0; i < queries && dq; i++) {
        for (int64_t j = 0; j < keys; j += VF_WIDTH) {
            vf_store_bf16(space->ds_rows + i * LK_CPU_KEYS + j, vf_load(space->ds + i * LK_CPU_KEYS + j));
        }
    }
}

static void add_block_pairs(const backward_job *job, const lk_cpu_sequence *sequence, int64_t head, int64_t query,
                            int64_t queries, int64_t key, int64_t keys, bool dq, bool dkv,
                            const backward_space *space) {
    int64_t q_at = (sequence->q_start + query) * job->q_width + head * job->head_dim, width = job->head_dim;
    const float *q = (const float *)job->call->inputs[Q] + q_at, *d_o = (const float *)job->call->inputs[DO] + q_at;
    for (int64_t i = 0; i < queries; i++) {
        LK_CPU(narrow)(space->do_rows + i * width, d_o + i * job->q_width, LK_DTYPE_BF16, width);
    }
    tile_segment qk = {q, job->q_width, 1, space->keys, LK_CPU_KEYS, width};
    tile_block(queries, keys, qk, true, false, space->p, LK_CPU_KEYS);
    tile_pairs dp = {space->do_rows, width, 2, (const uint32_t *)(const void *)space->values, LK_CPU_KEYS, width / 2};
    tile_block_pairs(queries, keys, dp, false, space->ds, LK_CPU_KEYS);
    soften(job, sequence, head, query, queries, key, keys, space);
    round_scores(queries, keys, dq, dkv, space);
    int64_t pairs = (queries + 1) / 2;
    if (dkv) {
        tile_pair_rows(d_o, LK_DTYPE_F32, job->q_width, queries, width, space->do_pairs, space->row);
        tile_pair_rows(q, LK_DTYPE_F32, job->q_width, queries, width, space->q_pairs, space->row);
        const uint16_t *p = (const uint16_t *)(const void *)space->p_pairs;
        const uint16_t *ds = (const uint16_t *)(const void *)space->ds_pairs;
        tile_pairs dv = {p, 2, 2 * LK_CPU_KEYS, space->do_pairs, space->row, pairs};
        tile_block_pairs(keys, width, dv, true, space->dv, width);
        tile_pairs dk = {ds, 2, 2 * LK_CPU_KEYS, space->q_pairs, space->row, pairs};
        tile_block_pairs(keys, width, dk, true, space->dk, width);
    }
    if (dq) {
        tile_pairs sum = {space->ds_rows, LK_CPU_KEYS, 2, space->k_pairs, space->row, (keys + 1) / 2};
        tile_block_pairs(queries, width, sum, true, (float *)job->call->outputs[0] + q_at, job->q_width);
    }
}
#endif

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

/* Keys and values as the products with a block of them take them. */
static void pack_keys(const backward_job *job, int64_t at, int64_t keys, const backward_space *space) {
    int64_t width = job->head_dim;
    const float *k = (const float *)job->call->inputs[K] + at;
    const void *v = vf_at(job->call->inputs[V], job->v_dtype, at);
    tile_transpose(k, job->k_width, keys, width, space->keys, LK_CPU_KEYS);
#if VF_PAIRS
    if (job->pairs) { /* whole pairs of values are moved */
        tile_transpose((const float *)v, job->k_width / 2, keys, width / 2, space->values, LK_CPU_KEYS);
        tile_pair_rows(k, LK_DTYPE_F32, job->k_width, keys, width, space->k_pairs, space->row);
        return;
    }
#endif
    if (job->v_dtype == LK_DTYPE_F32) {
        tile_transpose((const float *)v, job->k_width, keys, width, space->values, LK_CPU_KEYS);
        return;
    }
    for (int64_t i = 0; i < keys; i++) { /* dv is not in use yet */
        VF_FOR(d, lanes, width,
               vf_put(space->dv + i * width + d, vf_read(v, job->v_dtype, i * job->k_width + d, lanes), lanes););
    }
    tile_transpose(space->dv, width, keys, width, space->values, LK_CPU_KEYS);
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
    block_function *add = add_block;
#if VF_PAIRS
    add = job->pairs ? add_block_pairs : add_block;
#endif
    int64_t width = job->head_dim, head = kv_head * job->group;
    tile_begin();
    for (int64_t i = query_range.begin; i < query_range.end && dq; i++) {
        float *row = (float *)job->call->outputs[0] + (sequence->q_start + i) * job->q_width + head * width;
        memset(row, 0, (size_t)(job->group * width) * sizeof *row);
    }
    for (int64_t key = key_range.begin; key < key_range.end; key += LK_CPU_KEYS) {
        int64_t keys = LK_MIN(key_range.end - key, (int64_t)LK_CPU_KEYS);
        int64_t at = (sequence->k_start + key) * job->k_width + kv_head * width;
        pack_keys(job, at, keys, &space);
        if (dkv) {
            memset(space.dk, 0, (size_t)(keys * width) * sizeof(float));
            memset(space.dv, 0, (size_t)(keys * width) * sizeof(float));
        }
        for (int64_t h = 0; h < job->group; h++) {
            for (int64_t query = query_range.begin; query < query_range.end; query += LK_CPU_QUERIES) {
                int64_t queries = LK_MIN(query_range.end - query, (int64_t)LK_CPU_QUERIES);
                int64_t seen = seen_keys(job, sequence, query, queries, key, keys);
                if (seen > 0) {
                    add(job, sequence, head + h, query, queries, key, seen, dq, dkv, &space);
                }
            }
        }
        if (dkv) {
            float *dk = job->call->outputs[1], *dv = job->call->outputs[2];
            copy_rows(space.dk, keys, width, dk != NULL ? dk + at : NULL, job->k_width);
            copy_rows(space.dv, keys, width, dv != NULL ? dv + at : NULL, job->k_width);
        }
    }
    tile_end();
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

/* delta of each token and head: from do as the product with v takes it, since the two cancel. */
static void part_delta(const lk_cpu_call *call, lk_range range, void *memory) {
    bool pairs =
        lk_cpu_attends_in_bf16(VF_PAIRS, call->node->inputs[V]->dtype, call->node->attributes.attention.head_dim);
    uint16_t *rounded = memory;
    int64_t width = call->node->attributes.attention.head_dim;
    lk_dtype dtype = call->node->inputs[O]->dtype;
    float *delta = call->scratch;
    for (int64_t i = range.begin; i < range.end; i++) {
        const float *d_o = (const float *)call->inputs[DO] + i * width;
        vf sum = vf_zero();
        if (pairs) {
            LK_CPU(narrow)(rounded, d_o, LK_DTYPE_BF16, width);
        }
        VF_FOR(d, lanes, width, {
            vf x = pairs ? vf_read(rounded, LK_DTYPE_BF16, d, lanes) : vf_get(d_o + d, lanes);
            sum = vf_fma(x, vf_read(call->inputs[O], dtype, i * width + d, lanes), sum);
        });
        delta[i] = vf_sum(sum);
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
                        .want_dkv = call->outputs[1] != NULL || call->outputs[2] != NULL,
                        .v_dtype = node->inputs[V]->dtype,
                        .pairs = lk_cpu_attends_in_bf16(VF_PAIRS, node->inputs[V]->dtype, attributes->head_dim)};
    int64_t heads = attributes->num_key_value_heads, covered = 0, query_blocks = 0, key_blocks = 0;
    double work = 0.0, largest = 0.0;
    for (int64_t s = 0; s < job.sequences; s++) {
        lk_cpu_sequence sequence = sequence_at(&job, s);
        clear_rows(&job, covered, sequence.q_start);
        covered = sequence.q_start + sequence.queries;
        if (lk_cpu_is_wide(attributes)) {
            LK_CPU(attention_wide)(call, &sequence, true);
            continue;
        }
        query_blocks += lk_cpu_blocks(sequence.queries, LK_CPU_QUERIES);
        key_blocks += lk_cpu_blocks(sequence.queries, LK_CPU_KEYS);
        double pairs = (double)sequence.queries * (double)sequence.queries;
        work += pairs;
        largest = LK_MAX(largest, pairs);
    }
    clear_rows(&job, covered, job.tokens);
    if (lk_cpu_is_wide(attributes)) {
        return;
    }
    lk_cpu_run_rows(call, job.tokens * attributes->num_attention_heads, 1, 8.0 * (double)job.head_dim, part_delta);
    if (call->threads == 1 || work * (double)heads >= 2.0 * call->threads * largest) {
        lk_pool_run(call->pool, whole_task, &job, (int)(job.sequences * heads));
    } else {
        lk_pool_run(call->pool, split_task, &job, (int)(2 * LK_MAX(query_blocks, key_blocks) * heads));
    }
}
