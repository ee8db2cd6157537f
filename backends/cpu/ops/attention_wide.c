/* Attention whose heads are too wide, or too few, for blocks that stay in one core's caches: per head and block of
 * queries, the scores of all keys as one matrix, and everything else as products on all threads. dv is made only if it
 * is asked for. */
#include "backends/cpu/attention.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/simd/simd.h"

/* A block of queries of one head, and the keys [first_key, first_key + keys) that any of them sees. */
typedef struct wide_block {
    const lk_cpu_call *call;
    const lk_attention_attributes *attributes;
    lk_cpu_sequence sequence;
    int64_t query, queries, first_key, keys;
    int64_t q_at, k_at, lse_at; /* where the block starts in q, k and lse */
    int64_t q_width, k_width;
    float *p, *dp; /* [queries][stride] */
    int64_t stride;
    const float *lse_in;
    float *lse_out;
    int tasks;
} wide_block;

/* The keys that query i sees, counted from first_key. */
static lk_range seen(const wide_block *block, int64_t i) {
    int64_t first, last;
    lk_attention_range(block->attributes, block->query + i, block->sequence.queries, block->sequence.keys, &first,
                       &last);
    first = lk_cpu_clamp(first - block->first_key, 0, block->keys);
    return (lk_range){first, lk_cpu_clamp(last - block->first_key, first, block->keys)};
}

static void hide(float *row, lk_range range, int64_t keys) {
    memset(row, 0, (size_t)range.begin * sizeof *row);
    memset(row + range.end, 0, (size_t)(keys - range.end) * sizeof *row);
}

static void soften_task(void *argument, int task, int worker) {
    (void)worker;
    const wide_block *block = argument;
    lk_range rows = lk_split(block->queries, 1, block->tasks, task);
    for (int64_t i = rows.begin; i < rows.end; i++) {
        lk_range range = seen(block, i);
        float *row = block->p + i * block->stride, *x = row + range.begin;
        int64_t count = range.end - range.begin;
        float maximum = -INFINITY;
        VF_FOR(j, lanes, count, {
            vf part = lanes == VF_WIDTH ? vf_load(x + j) : vf_set1(-INFINITY);
            for (int l = 0; l < lanes && lanes < VF_WIDTH; l++) {
                maximum = x[j + l] > maximum ? x[j + l] : maximum;
            }
            float found = vf_maximum(part);
            maximum = found > maximum ? found : maximum;
        });
        vf total = vf_zero(), base = vf_set1(maximum);
        float rest = 0.0f;
        VF_FOR(j, lanes, count, {
            vf weight = vf_exp(vf_sub(vf_get(x + j, lanes), base));
            vf_put(x + j, weight, lanes);
            for (int l = 0; l < lanes && lanes < VF_WIDTH; l++) {
                rest += x[j + l];
            }
            total = lanes == VF_WIDTH ? vf_add(total, weight) : total;
        });
        float sum = vf_sum(total) + rest;
        vf scale = vf_set1(sum > 0.0f ? 1.0f / sum : 0.0f);
        VF_FOR(j, lanes, count, vf_put(x + j, vf_mul(vf_get(x + j, lanes), scale), lanes););
        hide(row, range, block->keys);
        if (block->lse_out != NULL) {
            block->lse_out[block->lse_at + i * block->attributes->num_attention_heads] =
                sum > 0.0f ? maximum + logf(sum) : 0.0f;
        }
    }
}

/* P = exp(S - lse), dS = scale P (dP - rowsum(P dP)) */
static void differentiate_task(void *argument, int task, int worker) {
    (void)worker;
    const wide_block *block = argument;
    lk_range rows = lk_split(block->queries, 1, block->tasks, task);
    vf scale = vf_set1(block->attributes->scale);
    for (int64_t i = rows.begin; i < rows.end; i++) {
        lk_range range = seen(block, i);
        float *p = block->p + i * block->stride + range.begin, *dp = block->dp + i * block->stride + range.begin;
        int64_t count = range.end - range.begin;
        vf lse = vf_set1(block->lse_in[block->lse_at + i * block->attributes->num_attention_heads]);
        VF_FOR(j, lanes, count, vf_put(p + j, vf_exp(vf_sub(vf_get(p + j, lanes), lse)), lanes););
        vf delta = vf_set1(vf_dot(p, dp, count));
        VF_FOR(j, lanes, count, {
            vf weight = vf_mul(scale, vf_get(p + j, lanes));
            vf_put(dp + j, vf_mul(weight, vf_sub(vf_get(dp + j, lanes), delta)), lanes);
        });
        hide(block->p + i * block->stride, range, block->keys);
        hide(block->dp + i * block->stride, range, block->keys);
    }
}

/* c[m, n] = scale a b + c, or without c; of b, `from` says where it begins, in elements. */
static void product(const wide_block *block, int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row,
                    int64_t a_k, const void *b, int64_t from, lk_dtype b_dtype, int64_t b_k, int64_t b_column,
                    float scale, bool add, void *c, lk_dtype c_dtype, int64_t c_row) {
    lk_cpu_gemm gemm = {
        .m = m, .n = n, .num_terms = 1, .addend = add ? c : NULL, .c = c, .c_dtype = c_dtype, .c_row = c_row};
    gemm.terms[0] = (lk_cpu_term){.a = a,
                                  .a_row = a_row,
                                  .a_k = a_k,
                                  .b = (const char *)b + from * (int64_t)lk_dtype_block_bytes(b_dtype),
                                  .b_dtype = b_dtype,
                                  .b_k = b_k,
                                  .b_column = b_column,
                                  .scale = scale,
                                  .k = k};
    LK_CPU(gemm)(block->call, &gemm);
}

/* scale a k' of the block's rows of a (q or do) and of k or v */
static void scores(const wide_block *block, const float *a, const void *k, lk_dtype dtype, float scale, float *to) {
    product(block, block->queries, block->keys, block->attributes->head_dim, a + block->q_at, block->q_width, 1, k,
            block->k_at, dtype, 1, block->k_width, scale, false, to, LK_DTYPE_F32, block->stride);
}

static void forward_block(wide_block *block) {
    enum { Q, K, V };
    const lk_cpu_call *call = block->call;
    const lk_tensor *o = call->node->outputs[0];
    block->lse_out = call->outputs[1];
    scores(block, call->inputs[Q], call->inputs[K], LK_DTYPE_F32, block->attributes->scale, block->p);
    lk_pool_run(call->pool, soften_task, block, block->tasks);
    if (o != NULL) {
        product(block, block->queries, block->attributes->head_dim, block->keys, block->p, block->stride, 1,
                call->inputs[V], block->k_at, call->node->inputs[V]->dtype, block->k_width, 1, 1.0f, false,
                (char *)call->outputs[0] + block->q_at * (int64_t)lk_dtype_block_bytes(o->dtype), o->dtype,
                block->q_width);
    }
}

static void backward_block(wide_block *block) {
    enum { DO, Q, K, V, O, LSE };
    const lk_cpu_call *call = block->call;
    const float *d_o = call->inputs[DO], *q = call->inputs[Q], *k = call->inputs[K];
    float *dq = call->outputs[0], *dk = call->outputs[1], *dv = call->outputs[2];
    int64_t width = block->attributes->head_dim;
    block->lse_in = call->inputs[LSE];
    scores(block, q, k, LK_DTYPE_F32, block->attributes->scale, block->p);
    scores(block, d_o, call->inputs[V], call->node->inputs[V]->dtype, 1.0f, block->dp);
    lk_pool_run(call->pool, differentiate_task, block, block->tasks);
    if (dq != NULL) {
        product(block, block->queries, width, block->keys, block->dp, block->stride, 1, k, block->k_at, LK_DTYPE_F32,
                block->k_width, 1, 1.0f, false, dq + block->q_at, LK_DTYPE_F32, block->q_width);
    }
    if (dk != NULL) {
        product(block, block->keys, width, block->queries, block->dp, 1, block->stride, q, block->q_at, LK_DTYPE_F32,
                block->q_width, 1, 1.0f, true, dk + block->k_at, LK_DTYPE_F32, block->k_width);
    }
    if (dv != NULL) {
        product(block, block->keys, width, block->queries, block->p, 1, block->stride, d_o, block->q_at, LK_DTYPE_F32,
                block->q_width, 1, 1.0f, true, dv + block->k_at, LK_DTYPE_F32, block->k_width);
    }
}

/* Sums of gradients start at zero. */
static void clear(float *to, const lk_cpu_sequence *sequence, int64_t width) {
    if (to != NULL) {
        memset(to + sequence->k_start * width, 0, (size_t)(sequence->keys * width) * sizeof *to);
    }
}

void LK_CPU(attention_wide)(const lk_cpu_call *call, const lk_cpu_sequence *sequence, bool backward) {
    const lk_node *node = call->node;
    const lk_tensor *q = node->inputs[backward ? 1 : 0], *k = node->inputs[backward ? 2 : 1];
    wide_block block = {.call = call,
                        .attributes = &node->attributes.attention,
                        .sequence = *sequence,
                        .q_width = q->shape[1],
                        .k_width = k->shape[1],
                        .p = call->scratch,
                        .stride = (k->shape[0] + 15) / 16 * 16};
    int64_t heads = block.attributes->num_attention_heads, group = heads / block.attributes->num_key_value_heads;
    int64_t width = block.attributes->head_dim, rows = lk_cpu_wide_rows(q->shape[0]);
    block.dp = block.p + rows * block.stride;
    if (backward) {
        clear(call->outputs[1], sequence, block.k_width);
        clear(call->outputs[2], sequence, block.k_width);
    }
    for (int64_t head = 0; head < heads; head++) {
        for (block.query = 0; block.query < sequence->queries; block.query += rows) {
            int64_t unused, last;
            block.queries = LK_MIN(rows, sequence->queries - block.query);
            lk_attention_range(block.attributes, block.query, sequence->queries, sequence->keys, &block.first_key,
                               &unused);
            lk_attention_range(block.attributes, block.query + block.queries - 1, sequence->queries, sequence->keys,
                               &unused, &last);
            block.keys = LK_MAX(last - block.first_key, (int64_t)0);
            block.q_at = (sequence->q_start + block.query) * block.q_width + head * width;
            block.k_at = (sequence->k_start + block.first_key) * block.k_width + head / group * width;
            block.lse_at = (sequence->q_start + block.query) * heads + head;
            block.tasks = lk_cpu_tasks(call, block.queries, 16.0 * (double)(block.queries * block.keys));
            if (backward) {
                backward_block(&block);
            } else {
                forward_block(&block);
            }
        }
    }
}
