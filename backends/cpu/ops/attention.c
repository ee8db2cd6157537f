/* Softmax attention without a matrix of scores: keys and values are taken in blocks, and the sums so far are rescaled
 * when a block holds a larger score (Dao, arXiv 2307.08691). One task: a block of queries of one sequence, for the
 * query heads that share a key-value head, so that each block of keys is transposed once for all of them. */
#include "backends/cpu/attention.h"

#include "backends/cpu/simd/tile.h"

enum { Q, K, V, CU_SEQLENS_Q, CU_SEQLENS_K, SEQLENS_K };

typedef struct attention_job {
    const lk_cpu_call *call;
    const lk_attention_attributes *attributes;
    const int32_t *cu_q, *cu_k, *seqlens_k;
    int64_t tokens_q, tokens_k, sequences, head_dim, q_width, k_width, group;
    int64_t blocks; /* of queries, over all sequences */
    lk_dtype v_dtype, o_dtype;
    bool pairs; /* weights and values are multiplied in bf16 */
} attention_job;

/* A worker's memory; o, maxima and sums are kept for `heads` query heads at a time. */
typedef struct forward_space {
    float *keys;       /* transposed: [head_dim][LK_CPU_KEYS] */
    float *values;     /* [LK_CPU_KEYS][head_dim], or pairs of rows, where they are not used in place */
    float *scores;     /* [LK_CPU_QUERIES][LK_CPU_KEYS] */
    uint16_t *weights; /* the same in bf16 */
    float *o;          /* [heads][LK_CPU_QUERIES][head_dim] */
    float *maxima, *sums;
    int64_t heads;
} forward_space;

static forward_space divide(void *memory, int64_t head_dim, int64_t group) {
    float *at = memory;
    int64_t row = (head_dim + VF_WIDTH - 1) / VF_WIDTH * VF_WIDTH, scores = LK_CPU_QUERIES * LK_CPU_KEYS;
    forward_space space = {.keys = at, .values = at + head_dim * LK_CPU_KEYS};
    space.scores = space.values + row * LK_CPU_KEYS;
    space.weights = (uint16_t *)(void *)(space.scores + scores);
    float *rest = space.scores + scores + scores / 2;
    int64_t room = (int64_t)(LK_CPU_WORKER_BYTES / sizeof(float)) - (rest - at);
    space.heads = LK_MIN(group, room / (LK_CPU_QUERIES * (head_dim + 2)));
    space.o = rest;
    space.maxima = rest + space.heads * LK_CPU_QUERIES * head_dim;
    space.sums = space.maxima + space.heads * LK_CPU_QUERIES;
    return space;
}

/* Turns a row of scores into weights exp(scale score - maximum), of the given type, and rescales what was summed
 * before. Columns outside [first, last) are hidden. */
static void soften(float *scores, void *weights, lk_dtype dtype, int64_t count, int64_t first, int64_t last,
                   float scale, float *maximum, float *sum, float *o, int64_t head_dim) {
    int64_t padded = (count + VF_WIDTH - 1) / VF_WIDTH * VF_WIDTH;
    if (first >= last) {
        memset(weights, 0, (size_t)padded * (dtype == LK_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t)));
        return;
    }
    for (int64_t j = 0; j < first; j++) {
        scores[j] = -INFINITY;
    }
    for (int64_t j = last; j < padded; j++) {
        scores[j] = -INFINITY;
    }
    vf highest = vf_set1(-INFINITY), factor = vf_set1(scale);
    for (int64_t j = 0; j < padded; j += VF_WIDTH) {
        vf x = vf_mul(vf_load(scores + j), factor);
        vf_store(scores + j, x);
        highest = vf_max(highest, x);
    }
    float found = vf_maximum(highest), before = *maximum;
    float now = found > before ? found : before;
    vf base = vf_set1(now), total = vf_zero();
    for (int64_t j = 0; j < padded; j += VF_WIDTH) {
        vf x = vf_exp(vf_sub(vf_load(scores + j), base));
        vf_write(weights, dtype, j, x, VF_WIDTH);
        total = vf_add(total, x);
    }
    if (now != before) {
        float rescale = expf(before - now);
        *sum *= rescale;
        vf rescales = vf_set1(rescale);
        VF_FOR(d, lanes, head_dim, vf_put(o + d, vf_mul(vf_get(o + d, lanes), rescales), lanes););
    }
    *maximum = now;
    *sum += vf_sum(total);
}

/* The values of a block as the product with the weights takes them. */
static tile_segment pack_values(const attention_job *job, int64_t at, int64_t keys, const forward_space *space) {
    const void *v = vf_at(job->call->inputs[V], job->v_dtype, at);
    int64_t row = (job->head_dim + VF_WIDTH - 1) / VF_WIDTH * VF_WIDTH;
#if VF_PAIRS
    if (job->pairs) {
        tile_pair_rows(v, job->v_dtype, job->k_width, keys, job->head_dim, (uint32_t *)(void *)space->values, row);
        return (tile_segment){NULL, LK_CPU_KEYS, 2, space->values, row, (keys + 1) / 2};
    }
#endif
    if (job->v_dtype == LK_DTYPE_F32) {
        return (tile_segment){space->scores, LK_CPU_KEYS, 1, v, job->k_width, keys};
    }
    for (int64_t i = 0; i < keys; i++) {
        VF_FOR(d, lanes, job->head_dim,
               vf_put(space->values + i * row + d, vf_read(v, job->v_dtype, i * job->k_width + d, lanes), lanes););
    }
    return (tile_segment){space->scores, LK_CPU_KEYS, 1, space->values, row, keys};
}

/* One block of queries of one head against one block of keys. */
static void attend_block(const attention_job *job, const lk_cpu_sequence *sequence, int64_t query, int64_t queries,
                         int64_t key, int64_t keys, const float *q, tile_segment values, const forward_space *space,
                         int64_t head) {
    float *o = space->o + head * LK_CPU_QUERIES * job->head_dim;
    float *maxima = space->maxima + head * LK_CPU_QUERIES, *sums = space->sums + head * LK_CPU_QUERIES;
    tile_segment qk = {q, job->q_width, 1, space->keys, LK_CPU_KEYS, job->head_dim};
    tile_block(queries, keys, qk, true, false, space->scores, LK_CPU_KEYS);
    for (int64_t i = 0; i < queries; i++) {
        int64_t first, last;
        lk_attention_range(job->attributes, query + i, sequence->queries, sequence->keys, &first, &last);
        float *row = space->scores + i * LK_CPU_KEYS;
        void *weights = job->pairs ? (void *)(space->weights + i * LK_CPU_KEYS) : row;
        soften(row, weights, job->pairs ? LK_DTYPE_BF16 : LK_DTYPE_F32, keys, lk_cpu_clamp(first - key, 0, keys),
               lk_cpu_clamp(last - key, 0, keys), job->attributes->scale, &maxima[i], &sums[i], o + i * job->head_dim,
               job->head_dim);
    }
#if VF_PAIRS
    if (job->pairs) {
        tile_pairs pv = {space->weights, LK_CPU_KEYS, 2, (const uint32_t *)(const void *)values.b,
                         values.b_k,     values.k};
        tile_block_pairs(queries, job->head_dim, pv, true, o, job->head_dim);
        return;
    }
#endif
    tile_block(queries, job->head_dim, values, false, true, o, job->head_dim);
}

static void finish(const attention_job *job, int64_t row, int64_t head, int64_t queries, const float *o,
                   const float *maxima, const float *sums) {
    void *out = job->call->outputs[0];
    float *lse = job->call->outputs[1];
    for (int64_t i = 0; i < queries; i++) {
        if (out != NULL) {
            int64_t to = (row + i) * job->q_width + head * job->head_dim;
            vf scale = vf_set1(sums[i] > 0.0f ? 1.0f / sums[i] : 0.0f);
            VF_FOR(
                d, lanes, job->head_dim,
                vf_write(out, job->o_dtype, to + d, vf_mul(vf_get(o + i * job->head_dim + d, lanes), scale), lanes););
        }
        if (lse != NULL) {
            lse[(row + i) * job->attributes->num_attention_heads + head] =
                sums[i] > 0.0f ? maxima[i] + logf(sums[i]) : 0.0f;
        }
    }
}

static void attend(const attention_job *job, const lk_cpu_sequence *sequence, int64_t query, int64_t kv_head,
                   void *memory) {
    forward_space space = divide(memory, job->head_dim, job->group);
    int64_t queries = LK_MIN(sequence->queries - query, (int64_t)LK_CPU_QUERIES);
    int64_t first, last, unused;
    lk_attention_range(job->attributes, query, sequence->queries, sequence->keys, &first, &unused);
    lk_attention_range(job->attributes, query + queries - 1, sequence->queries, sequence->keys, &unused, &last);
    int64_t row = sequence->q_start + query;
    for (int64_t h = 0; h < job->group; h += space.heads) {
        int64_t heads = LK_MIN(space.heads, job->group - h);
        memset(space.o, 0, (size_t)(heads * LK_CPU_QUERIES * job->head_dim) * sizeof(float));
        for (int64_t i = 0; i < heads * LK_CPU_QUERIES; i++) {
            space.maxima[i] = -INFINITY;
            space.sums[i] = 0.0f;
        }
        for (int64_t key = first; key < last; key += LK_CPU_KEYS) {
            int64_t keys = LK_MIN(last - key, (int64_t)LK_CPU_KEYS);
            int64_t at = (sequence->k_start + key) * job->k_width + kv_head * job->head_dim;
            tile_transpose((const float *)job->call->inputs[K] + at, job->k_width, keys, job->head_dim, space.keys,
                           LK_CPU_KEYS);
            tile_segment values = pack_values(job, at, keys, &space);
            for (int64_t i = 0; i < heads; i++) {
                const float *q = (const float *)job->call->inputs[Q] + row * job->q_width +
                                 (kv_head * job->group + h + i) * job->head_dim;
                attend_block(job, sequence, query, queries, key, keys, q, values, &space, i);
            }
        }
        for (int64_t i = 0; i < heads; i++) {
            finish(job, row, kv_head * job->group + h + i, queries, space.o + i * LK_CPU_QUERIES * job->head_dim,
                   space.maxima + i * LK_CPU_QUERIES, space.sums + i * LK_CPU_QUERIES);
        }
    }
}

/* Tasks count blocks of queries, sequence after sequence; later ones see more keys and are handed out first. */
static void attention_task(void *argument, int task, int worker) {
    const attention_job *job = argument;
    int64_t block = task / job->attributes->num_key_value_heads, kv_head = task % job->attributes->num_key_value_heads;
    for (int64_t s = 0; s < job->sequences; s++) {
        lk_cpu_sequence sequence =
            lk_cpu_sequence_of(job->cu_q, job->cu_k, job->seqlens_k, s, job->tokens_q, job->tokens_k);
        int64_t blocks = lk_cpu_blocks(sequence.queries, LK_CPU_QUERIES);
        if (block < blocks) {
            tile_begin();
            attend(job, &sequence, block * LK_CPU_QUERIES, kv_head, lk_cpu_worker_memory(job->call, worker));
            tile_end();
            return;
        }
        block -= blocks;
    }
}

/* Rows that belong to no sequence are zeros. */
static void clear_rows(const attention_job *job, int64_t first, int64_t last) {
    int64_t heads = job->attributes->num_attention_heads, count = LK_MAX(last - first, (int64_t)0);
    if (job->call->outputs[0] != NULL) {
        size_t size = job->o_dtype == LK_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
        memset((char *)job->call->outputs[0] + (size_t)(first * job->q_width) * size, 0,
               (size_t)(count * job->q_width) * size);
    }
    if (job->call->outputs[1] != NULL) {
        memset((float *)job->call->outputs[1] + first * heads, 0, (size_t)(count * heads) * sizeof(float));
    }
}

void LK_CPU(attention)(const lk_cpu_call *call) {
    const lk_node *node = call->node;
    const lk_attention_attributes *attributes = &node->attributes.attention;
    attention_job job = {.call = call, .attributes = attributes};
    job.cu_q = call->inputs[CU_SEQLENS_Q];
    job.cu_k = lk_has_input(node, CU_SEQLENS_K) ? call->inputs[CU_SEQLENS_K] : job.cu_q;
    job.seqlens_k = lk_has_input(node, SEQLENS_K) ? call->inputs[SEQLENS_K] : NULL;
    job.tokens_q = node->inputs[Q]->shape[0];
    job.tokens_k = node->inputs[K]->shape[0];
    job.sequences = node->inputs[CU_SEQLENS_Q]->shape[0] - 1;
    job.head_dim = attributes->head_dim;
    job.q_width = node->inputs[Q]->shape[1];
    job.k_width = node->inputs[K]->shape[1];
    job.group = attributes->num_attention_heads / attributes->num_key_value_heads;
    job.v_dtype = node->inputs[V]->dtype;
    job.o_dtype = node->outputs[0] != NULL ? node->outputs[0]->dtype : LK_DTYPE_F32;
    job.pairs = lk_cpu_attends_in_bf16(VF_PAIRS, job.v_dtype, job.head_dim);
    int64_t covered = 0;
    for (int64_t s = 0; s < job.sequences; s++) {
        lk_cpu_sequence sequence = lk_cpu_sequence_of(job.cu_q, job.cu_k, job.seqlens_k, s, job.tokens_q, job.tokens_k);
        clear_rows(&job, covered, sequence.q_start);
        covered = sequence.q_start + sequence.queries;
        if (lk_cpu_is_wide(attributes)) {
            LK_CPU(attention_wide)(call, &sequence, false);
            continue;
        }
        job.blocks += lk_cpu_blocks(sequence.queries, LK_CPU_QUERIES);
    }
    clear_rows(&job, covered, job.tokens_q);
    lk_pool_run(call->pool, attention_task, &job, (int)(job.blocks * attributes->num_key_value_heads));
}
