/* AdaLoRA (Zhang et al., arXiv 2303.10512): y = x W' + s ((dropout(x) A') . e) B', an update in the form of a singular
 * value decomposition, B diag(e) A, whose factors a term of the loss keeps orthonormal, s = alpha / init_r. Singular
 * values of little importance are given up during training (rank_allocator.h). */
#include "core/adapters/initial.h"
#include "core/adapters/lora.h"
#include "core/adapters/rank_allocator.h"

enum { A = LK_RANK_A, B = LK_RANK_B, E = LK_RANK_E };

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    lk_peft_config *config = &adapter->config;
    config->r = 8; /* PEFT's default, which it does not use */
    config->target_r = options->rank;
    config->init_r = options->init_r > 0 ? options->init_r : (int64_t)options->rank + options->rank / 2;
    config->tinit = options->tinit;
    config->tfinal = options->tfinal;
    config->deltaT = options->delta_t;
    config->beta1 = options->importance_beta1;
    config->beta2 = options->importance_beta2;
    config->orth_reg_weight = options->orth_reg_weight;
    if (config->init_r < config->target_r || config->tinit < 0 || config->tfinal < 0 || config->deltaT < 1 ||
        !(config->beta1 > 0.0 && config->beta1 < 1.0 && config->beta2 > 0.0 && config->beta2 < 1.0) ||
        !(config->orth_reg_weight >= 0.0)) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "init_r is %lld (rank %lld or more), tinit %lld, tfinal %lld (0 or more), delta_t %lld (1 or "
                       "more), the betas of importance %g and %g (between 0 and 1), orth_reg_weight %g (0 or more)",
                       (long long)config->init_r, (long long)config->target_r, (long long)config->tinit,
                       (long long)config->tfinal, (long long)config->deltaT, config->beta1, config->beta2,
                       config->orth_reg_weight);
    }
    return LK_OK;
}

/* A layer whose ranks were all given up has no tensors. */
static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    int64_t in = site->site->in, out = site->site->out, rank = site->rank;
    lk_adapter_tensor *e;
    if (rank == 0) {
        return LK_OK;
    }
    LK_TRY(lk_adapter_add_matrix(adapter, site, LK_PEFT_KIND_LORA_A, rank, in, LK_INITIAL_NORMAL));
    LK_TRY(lk_adapter_add_matrix(adapter, site, LK_PEFT_KIND_LORA_B, out, rank, LK_INITIAL_NORMAL));
    LK_TRY(
        lk_adapter_add_tensor(adapter, site, &(lk_adapter_tensor_spec){.kind = LK_PEFT_KIND_LORA_E, .rows = rank}, &e));
    e->stored_rank = 2; /* [r, 1] */
    return LK_OK;
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    uint32_t stream;
    float dropout = lk_lora_dropout(forward, &stream);
    lk_tensor *bias = lk_forward_variable(forward, site->site->bias);
    lk_tensor *y = lk_build_linear(graph, x, lk_graph_variable(graph, site->site->weight), bias);
    if (site->rank == 0) {
        return y;
    }
    lk_tensor *kept = dropout > 0.0f ? lk_build_dropout(graph, x, forward->rng, dropout, stream) : x;
    lk_tensor *s =
        lk_build_matmul(graph, kept, false, lk_graph_variable(graph, site->tensors[A]->value), true, 1.0f, NULL);
    s = lk_build_mul_columns(graph, s, lk_graph_variable(graph, site->tensors[E]->value));
    return lk_build_matmul(graph, s, false, lk_graph_variable(graph, site->tensors[B]->value), true, site->scale, y);
}

/* The weight times the mean over all A and B of |A A' - I| and |B' B - I|. */
static lk_tensor *penalty(lk_graph *graph, const lk_adapter *adapter) {
    lk_tensor *sum = NULL;
    int32_t count = 0;
    for (int32_t i = 0; i < adapter->num_sites && adapter->config.orth_reg_weight > 0.0; i++) {
        const lk_adapter_site *site = &adapter->sites[i];
        if (site->method != adapter->method) {
            continue;
        }
        count += 2; /* PEFT counts layers without ranks, too */
        if (site->rank == 0) {
            continue;
        }
        lk_tensor *a = lk_graph_variable(graph, site->tensors[A]->value);
        lk_tensor *b = lk_graph_variable(graph, site->tensors[B]->value);
        lk_tensor *of_a = lk_build_orthogonality(graph, lk_build_matmul(graph, a, false, a, true, 1.0f, NULL));
        lk_tensor *of_b = lk_build_orthogonality(graph, lk_build_matmul(graph, b, true, b, false, 1.0f, NULL));
        lk_tensor *both = lk_build_add(graph, of_a, of_b);
        sum = sum != NULL ? lk_build_add(graph, sum, both) : both;
    }
    return sum != NULL ? lk_build_scale(graph, sum, (float)(adapter->config.orth_reg_weight / count)) : NULL;
}

static lk_status merge(const lk_adapter_merge *job) {
    int64_t in = job->site->site->in, out = job->site->site->out, rank = job->site->rank;
    for (int64_t n = 0; n < out && job->weight != NULL; n++) {
        for (int64_t k = 0; k < in; k++) {
            double sum = 0.0;
            for (int64_t r = 0; r < rank; r++) {
                sum += (double)job->values[B][n * rank + r] * (double)job->values[E][r] *
                       (double)job->values[A][r * in + k];
            }
            float *weight = &job->weight[n * in + k];
            *weight = (float)((double)*weight + (double)job->site->scale * sum);
        }
    }
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_adalora = {.name = "adalora",
                                                     .type = LK_PEFT_ADALORA,
                                                     .configure = configure,
                                                     .declare = declare,
                                                     .apply = apply,
                                                     .prepare = lk_rank_allocator_prepare,
                                                     .penalty = penalty,
                                                     .observe = lk_rank_allocator_observe,
                                                     .before_update = lk_rank_allocator_before_update,
                                                     .after_update = lk_rank_allocator_after_update,
                                                     .pack = lk_rank_allocator_pack,
                                                     .merge = merge};
