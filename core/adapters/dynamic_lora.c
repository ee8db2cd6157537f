/* LoRA whose rank grows where it is used up: every layer starts with init_r of its r ranks, and every deltaT steps
 * those layers get one more whose update B A has no small singular value yet. Each growth is reported, with the
 * smallest singular value over the largest. The other rows of A and columns of B wait behind a mask of zeros: their
 * gradients are zero. The scale stays alpha / r, so growing changes no output. The file is a LoRA adapter with PEFT's
 * rank_pattern and alpha_pattern. */
#include <math.h>
#include <string.h>

#include "core/adapters/lora.h"
#include "core/formats/lora_combine.h"

enum { A = LK_LORA_A, B = LK_LORA_B };
enum { MASK };

static const char name[] = "dynamic-lora";

typedef struct growth {
    double threshold;
    int64_t first_rank, tinit, tfinal, every;
    bool trained;
} growth;

static bool accepts(const lk_peft_config *config) {
    const char *method = lk_lora_method_of(config);
    return !config->use_dora && method != NULL && strcmp(method, name) == 0;
}

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    growth *self = lk_arena_alloc(&adapter->arena, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(adapter->context, sizeof *self, "an adapter");
    }
    *self = (growth){.threshold = options->growth_threshold,
                     .first_rank = options->init_r > 0 ? options->init_r : LK_MAX(1, options->rank / 4),
                     .tinit = options->tinit,
                     .tfinal = options->tfinal,
                     .every = options->delta_t};
    if (self->first_rank > options->rank || self->tinit < 0 || self->tfinal < 0 || self->every < 1 ||
        !(self->threshold >= 0.0)) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "init_r is %lld (1 to the rank, %d), tinit %lld, tfinal %lld (0 or more), delta_t %lld (1 or "
                       "more), growth_threshold %g (0 or more)",
                       (long long)self->first_rank, options->rank, (long long)self->tinit, (long long)self->tfinal,
                       (long long)self->every, self->threshold);
    }
    adapter->shared = self;
    LK_TRY(lk_lora_set_method(adapter, name));
    return lk_lora_configure(adapter, options);
}

/* The mask of the first `rank` ranks. */
static lk_status set_rank(lk_adapter *adapter, const lk_adapter_site *site, int64_t rank) {
    float *mask = lk_calloc(adapter->context, (size_t)site->rank, sizeof *mask);
    if (mask == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)site->rank * sizeof *mask, "the ranks of a layer");
    }
    for (int64_t r = 0; r < rank; r++) {
        mask[r] = 1.0f;
    }
    lk_status status = lk_variable_upload(site->constants[MASK], mask);
    lk_free(adapter->context, mask);
    return status;
}

static lk_status get_rank(lk_adapter *adapter, const lk_adapter_site *site, int64_t *rank) {
    float *mask;
    *rank = 0;
    LK_TRY(lk_adapter_download(adapter, site->constants[MASK], &mask));
    for (int32_t r = 0; r < site->rank; r++) {
        *rank += mask[r] > 0.0f;
    }
    lk_free(adapter->context, mask);
    return LK_OK;
}

static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    const int64_t rank = site->rank;
    LK_TRY(lk_lora_declare(adapter, site));
    LK_TRY(lk_adapter_add_state(adapter, lk_adapter_name(adapter, "mask", site), 1, &rank, &site->constants[MASK]));
    return adapter->model->plan_only ? LK_OK : set_rank(adapter, site, rank);
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    uint32_t stream;
    float dropout = lk_lora_dropout(forward, &stream);
    lk_tensor *y = lk_build_linear(graph, x, lk_graph_variable(graph, site->site->weight),
                                   lk_forward_variable(forward, site->site->bias));
    lk_tensor *kept = dropout > 0.0f ? lk_build_dropout(graph, x, forward->rng, dropout, stream) : x;
    lk_tensor *s =
        lk_build_matmul(graph, kept, false, lk_graph_variable(graph, site->tensors[A]->value), true, 1.0f, NULL);
    s = lk_build_mul_columns(graph, s, lk_graph_variable(graph, site->constants[MASK]));
    return lk_build_matmul(graph, s, false, lk_graph_variable(graph, site->tensors[B]->value), true, site->scale, y);
}

/* An adapter that was read from files keeps the ranks that it has. */
static lk_status prepare(lk_adapter *adapter) {
    growth *self = adapter->shared;
    if (self == NULL || self->trained || adapter->model->plan_only) {
        return LK_OK;
    }
    self->trained = true;
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        const lk_adapter_site *site = &adapter->sites[i];
        LK_TRY(site->method == adapter->method ? set_rank(adapter, site, self->first_rank) : LK_OK);
    }
    return LK_OK;
}

/* The singular values of B A with k ranks, by those of the factors: B = U S V', and S V' A has those of B A. */
static double smallest_over_largest(const lk_adapter_site *site, int64_t k, const float *a, const float *b,
                                    double *memory) {
    int64_t in = site->site->in, out = site->site->out, rank = site->rank;
    double *left = memory, *right = left + out * k, *s = right + in * k, *v = s + k;
    for (int64_t i = 0; i < out * k; i++) {
        left[i] = (double)b[i / k * rank + i % k];
    }
    lk_svd_jacobi(left, out, k, s, v);
    for (int64_t i = 0; i < in * k; i++) {
        int64_t column = i / k, p = i % k;
        right[i] = 0.0;
        for (int64_t q = 0; q < k; q++) {
            right[i] += s[p] * v[q * k + p] * (double)a[q * in + column];
        }
    }
    lk_svd_jacobi(right, in, k, s, v);
    return s[0] > 0.0 ? s[k - 1] / s[0] : 0.0;
}

static lk_status measure(lk_adapter *adapter, const lk_adapter_site *site, int64_t k, double *ratio) {
    lk_context *context = adapter->context;
    size_t elements = (size_t)(k * (site->site->in + site->site->out + k + 1));
    double *memory = lk_calloc(context, elements, sizeof *memory);
    float *a = NULL, *b = NULL;
    lk_status status = memory ? LK_OK : lk_out_of_memory(context, elements * sizeof *memory, "singular values");
    status = status == LK_OK ? lk_adapter_download(adapter, site->tensors[A]->value, &a) : status;
    status = status == LK_OK ? lk_adapter_download(adapter, site->tensors[B]->value, &b) : status;
    if (status == LK_OK) {
        *ratio = smallest_over_largest(site, k, a, b, memory);
    }
    lk_free(context, a);
    lk_free(context, b);
    lk_free(context, memory);
    return status;
}

static lk_status grow(lk_adapter *adapter, const growth *self, lk_text *report, int64_t *total) {
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        const lk_adapter_site *site = &adapter->sites[i];
        int64_t rank;
        double ratio;
        if (site->method != adapter->method) {
            continue;
        }
        LK_TRY(get_rank(adapter, site, &rank));
        LK_TRY(measure(adapter, site, rank, &ratio));
        if (rank < site->rank && ratio >= self->threshold) {
            LK_TRY(set_rank(adapter, site, ++rank));
        }
        lk_text_printf(report, "%s%s %lld (%.2g)", i > 0 ? ", " : "", site->site->path, (long long)rank, ratio);
        *total += rank;
    }
    return LK_OK;
}

static lk_status after_update(lk_adapter *adapter, int64_t step) {
    const growth *self = adapter->shared;
    int64_t done = step + 1, total = 0;
    if (self == NULL || done <= self->tinit || done > adapter->run.total_steps - self->tfinal ||
        done % self->every != 0) {
        return LK_OK;
    }
    lk_text report;
    lk_text_init(&report, adapter->context);
    lk_status status = grow(adapter, self, &report, &total);
    if (status == LK_OK) {
        lk_log(adapter->context, LK_LOG_INFO, "step %lld: %lld ranks (smallest over largest singular value): %s",
               (long long)done, (long long)total, report.data ? report.data : "");
    }
    lk_text_free(&report);
    return status;
}

/* Each layer with its rank, and with the alpha that leaves its scale. */
static lk_status pack(lk_adapter *adapter) {
    const growth *self = adapter->shared;
    if (self == NULL || !self->trained) {
        return LK_OK;
    }
    json_t *ranks = json_object(), *alphas = json_object();
    int failed = ranks == NULL || alphas == NULL;
    for (int32_t i = 0; i < adapter->num_sites && !failed; i++) {
        lk_adapter_site *site = &adapter->sites[i];
        int64_t rank = 0;
        bool *kept = lk_arena_alloc(&adapter->arena, (size_t)site->rank + 1);
        lk_status status = site->method == adapter->method ? get_rank(adapter, site, &rank) : LK_OK;
        if (status != LK_OK) {
            json_decref(ranks);
            json_decref(alphas);
            return status;
        }
        double root = adapter->config.use_rslora ? 0.5 : 1.0;
        double alpha = adapter->config.lora_alpha * pow((double)rank / (double)site->rank, root);
        failed = kept == NULL;
        if (!failed && site->method == adapter->method) {
            memset(kept, 1, (size_t)rank);
            site->kept = kept;
            failed |= json_object_set_new(ranks, site->site->path, json_integer(rank));
            failed |= json_object_set_new(alphas, site->site->path, json_real(alpha));
        }
    }
    if (failed) {
        json_decref(ranks);
        json_decref(alphas);
        return lk_out_of_memory(adapter->context, 0, "an adapter's configuration");
    }
    json_decref(adapter->config.rank_pattern);
    json_decref(adapter->config.alpha_pattern);
    adapter->config.rank_pattern = ranks;
    adapter->config.alpha_pattern = alphas;
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_dynamic_lora = {.name = name,
                                                          .type = LK_PEFT_LORA,
                                                          .accepts = accepts,
                                                          .configure = configure,
                                                          .declare = declare,
                                                          .apply = apply,
                                                          .prepare = prepare,
                                                          .after_update = after_update,
                                                          .pack = pack,
                                                          .merge = lk_lora_merge};
