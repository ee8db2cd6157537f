/* VeRA (Kopiczko et al., arXiv 2310.11454): y = x W' + b . ((d . (dropout(x) A')) B'). A and B are one frozen random
 * pair for all layers, large enough for the largest; a layer takes A's first columns and B's first rows. Trained are
 * the vectors d [r] and b [out]. The pair is that of PEFT: it follows from projection_prng_key and need not be stored.
 */
#include <math.h>
#include <string.h>

#include "core/adapters/lora.h"
#include "core/adapters/torch_random.h"

enum { LAMBDA_D, LAMBDA_B };
enum { A, B };

typedef struct vera_pair {
    int64_t in, out, rank;         /* A [rank, in], B [out, rank] */
    float *values[2];              /* NULL in a plan */
    lk_adapter_tensor *tensors[2]; /* where they are kept in the file */
    bool read;
} vera_pair;

/* PEFT's Kaiming-uniform: +-sqrt(6 / columns), A first. */
static lk_status draw_pair(lk_adapter *adapter, vera_pair *pair) {
    size_t elements[] = {(size_t)(pair->rank * pair->in), (size_t)(pair->out * pair->rank)};
    const int64_t columns[] = {pair->in, pair->rank};
    lk_torch_random random;
    lk_torch_random_seed(&random, (uint64_t)adapter->config.projection_prng_key);
    for (int i = 0; i < 2; i++) {
        pair->values[i] = lk_arena_alloc(&adapter->arena, elements[i] * sizeof(float));
        if (pair->values[i] == NULL) {
            return lk_out_of_memory(adapter->context, elements[i] * sizeof(float), "VeRA's projections");
        }
        float bound = (float)(sqrt(3.0) * (sqrt(2.0) / sqrt((double)columns[i])));
        lk_torch_random_uniform(&random, bound, (int64_t)elements[i], pair->values[i]);
    }
    return LK_OK;
}

static lk_status share(lk_adapter *adapter) {
    const lk_model *model = adapter->model;
    vera_pair *pair = lk_arena_alloc(&adapter->arena, sizeof *pair);
    if (pair == NULL) {
        return lk_out_of_memory(adapter->context, sizeof *pair, "an adapter");
    }
    adapter->shared = pair;
    pair->rank = adapter->config.r;
    for (int32_t i = 0; i < model->num_sites; i++) {
        bool targeted;
        LK_TRY(lk_adapter_targets(adapter, &model->sites[i], &targeted));
        pair->in = targeted ? LK_MAX(pair->in, model->sites[i].in) : pair->in;
        pair->out = targeted ? LK_MAX(pair->out, model->sites[i].out) : pair->out;
    }
    if (!model->plan_only) {
        LK_TRY(draw_pair(adapter, pair));
    }
    if (!adapter->config.save_projection || pair->in == 0) {
        return LK_OK;
    }
    lk_adapter_tensor_spec specs[] = {
        {.kind = LK_PEFT_KIND_VERA_A,
         .rows = pair->rank,
         .columns = pair->in,
         .frozen = true,
         .values = pair->values[A]},
        {.kind = LK_PEFT_KIND_VERA_B,
         .rows = pair->out,
         .columns = pair->rank,
         .frozen = true,
         .values = pair->values[B]},
    };
    LK_TRY(lk_adapter_add_tensor(adapter, NULL, &specs[A], &pair->tensors[A]));
    return lk_adapter_add_tensor(adapter, NULL, &specs[B], &pair->tensors[B]);
}

static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    int64_t out = site->site->out, rank = adapter->config.r;
    float *d = lk_calloc(adapter->context, (size_t)rank, sizeof *d);
    if (d == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)rank * sizeof *d, "vera_lambda_d");
    }
    for (int64_t i = 0; i < rank; i++) {
        d[i] = (float)adapter->config.d_initial;
    }
    lk_adapter_tensor_spec spec_d = {.kind = LK_PEFT_KIND_VERA_LAMBDA_D, .rows = rank, .values = d};
    lk_adapter_tensor_spec spec_b = {.kind = LK_PEFT_KIND_VERA_LAMBDA_B, .rows = out};
    lk_status status = lk_adapter_add_tensor(adapter, site, &spec_d, NULL);
    lk_free(adapter->context, d);
    return status == LK_OK ? lk_adapter_add_tensor(adapter, site, &spec_b, NULL) : status;
}

/* One copy of A's first columns for each width that occurs, and the same of B. */
static lk_status slice(lk_adapter *adapter, const vera_pair *pair, int which, int64_t size, lk_variable **out) {
    const char *name = lk_arena_printf(&adapter->arena, "vera_%c.%lld", which == A ? 'A' : 'B', (long long)size);
    *out = name != NULL ? lk_variables_find(adapter->variables, name) : NULL;
    if (*out != NULL) {
        return LK_OK;
    }
    int64_t rows = which == A ? pair->rank : size, columns = which == A ? size : pair->rank;
    int64_t stride = which == A ? pair->in : pair->rank;
    if (pair->values[which] == NULL) {
        return lk_adapter_add_constant(adapter, name, rows, columns, NULL, out);
    }
    float *values = lk_calloc(adapter->context, (size_t)(rows * columns), sizeof *values);
    if (values == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)(rows * columns) * sizeof *values, "VeRA's projections");
    }
    for (int64_t i = 0; i < rows; i++) {
        memcpy(values + i * columns, pair->values[which] + i * stride, (size_t)columns * sizeof *values);
    }
    lk_status status = lk_adapter_add_constant(adapter, name, rows, columns, values, out);
    lk_free(adapter->context, values);
    return status;
}

static lk_status finish(lk_adapter *adapter, lk_adapter_site *site) {
    vera_pair *pair = adapter->shared;
    for (int i = 0; i < 2 && pair->tensors[i] != NULL && pair->values[i] != NULL && !pair->read; i++) {
        LK_TRY(lk_variable_download(pair->tensors[i]->value, pair->values[i])); /* what the file says */
    }
    pair->read = true;
    LK_TRY(slice(adapter, pair, A, site->site->in, &site->constants[A]));
    return slice(adapter, pair, B, site->site->out, &site->constants[B]);
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    uint32_t stream;
    float dropout = lk_lora_dropout(forward, &stream);
    lk_tensor *bias = lk_forward_variable(forward, site->site->bias);
    lk_tensor *y = lk_build_linear(graph, x, lk_graph_variable(graph, site->site->weight), bias);
    lk_tensor *kept = dropout > 0.0f ? lk_build_dropout(graph, x, forward->rng, dropout, stream) : x;
    lk_tensor *s = lk_build_matmul(graph, kept, false, lk_graph_variable(graph, site->constants[A]), true, 1.0f, NULL);
    s = lk_build_mul_columns(graph, s, lk_graph_variable(graph, site->tensors[LAMBDA_D]->value));
    s = lk_build_matmul(graph, s, false, lk_graph_variable(graph, site->constants[B]), true, 1.0f, NULL);
    s = lk_build_mul_columns(graph, s, lk_graph_variable(graph, site->tensors[LAMBDA_B]->value));
    return lk_build_add(graph, y, s);
}

static lk_status merge(const lk_adapter_merge *job) {
    const vera_pair *pair = job->adapter->shared;
    int64_t in = job->site->site->in, out = job->site->site->out;
    for (int64_t n = 0; n < out && job->weight != NULL; n++) {
        for (int64_t k = 0; k < in; k++) {
            double sum = 0.0;
            for (int64_t r = 0; r < pair->rank; r++) {
                sum += (double)pair->values[B][n * pair->rank + r] * (double)job->values[LAMBDA_D][r] *
                       (double)pair->values[A][r * pair->in + k];
            }
            float *weight = &job->weight[n * in + k];
            *weight = (float)((double)*weight + (double)job->values[LAMBDA_B][n] * sum);
        }
    }
    return LK_OK;
}

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    adapter->config.projection_prng_key = (int64_t)(options->seed & INT64_MAX);
    adapter->config.save_projection = options->save_projection;
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_vera = {.name = "vera",
                                                  .type = LK_PEFT_VERA,
                                                  .configure = configure,
                                                  .share = share,
                                                  .declare = declare,
                                                  .finish = finish,
                                                  .apply = apply,
                                                  .merge = merge};
