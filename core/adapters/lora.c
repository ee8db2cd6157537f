/* LoRA (Hu et al., arXiv 2106.09685): y = x W' + scale (dropout(x) A') B', scale = alpha / r. */
#include "core/adapters/lora.h"

#include <math.h>

enum { A, B };

/* PEFT's default: A is Kaiming-uniform with a = sqrt(5), which is uniform in +-1/sqrt(in); B is zero. */
lk_status lk_lora_declare(lk_adapter *adapter, lk_adapter_site *site) {
    int64_t in = site->site->in, out = site->site->out, count = site->rank * in;
    if (adapter->model->plan_only) {
        LK_TRY(lk_adapter_add_tensor(adapter, site, LK_PEFT_KIND_LORA_A, site->rank, in, NULL));
        return lk_adapter_add_tensor(adapter, site, LK_PEFT_KIND_LORA_B, out, site->rank, NULL);
    }
    float *values = lk_calloc(adapter->context, (size_t)count, sizeof *values);
    if (values == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)count * sizeof *values, "lora_A");
    }
    double bound = 1.0 / sqrt((double)in);
    for (int64_t i = 0; i < count; i += 4) {
        uint32_t words[4];
        lk_philox4x32(adapter->seed, (uint64_t)site->site->index, (uint64_t)(i / 4), words);
        for (int64_t j = i; j < LK_MIN(i + 4, count); j++) {
            values[j] = (float)((2.0 * (double)lk_uniform_from_bits(words[j % 4]) - 1.0) * bound);
        }
    }
    lk_status status = lk_adapter_add_tensor(adapter, site, LK_PEFT_KIND_LORA_A, site->rank, in, values);
    lk_free(adapter->context, values);
    return status == LK_OK ? lk_adapter_add_tensor(adapter, site, LK_PEFT_KIND_LORA_B, out, site->rank, NULL) : status;
}

lk_tensor *lk_lora_apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    const lk_linear_site *linear = site->site;
    bool dropout = forward->rng != NULL && forward->adapter->dropout > 0.0f;
    lk_lora_attributes attributes = {.scale = site->scale,
                                     .dropout = dropout ? forward->adapter->dropout : 0.0f,
                                     .stream = forward->next_stream++,
                                     .order = LK_LORA_FACTORED};
    return lk_build_lora_linear(graph, x, lk_graph_variable(graph, linear->weight),
                                linear->bias ? lk_graph_variable(graph, linear->bias) : NULL,
                                lk_graph_variable(graph, site->tensors[A].value),
                                lk_graph_variable(graph, site->tensors[B].value), dropout ? forward->rng : NULL,
                                &attributes);
}

void lk_lora_merge(const lk_adapter_site *site, float *const *values, float *weight) {
    int64_t in = site->site->in, out = site->site->out, rank = site->rank;
    for (int64_t n = 0; n < out; n++) {
        for (int64_t k = 0; k < in; k++) {
            double sum = 0.0;
            for (int64_t r = 0; r < rank; r++) {
                sum += (double)values[B][n * rank + r] * (double)values[A][r * in + k];
            }
            weight[n * in + k] = (float)((double)weight[n * in + k] + (double)site->scale * sum);
        }
    }
}

static bool accepts(const lk_peft_config *config) {
    return config->peft_type == LK_PEFT_LORA && !config->use_rslora && !config->use_dora;
}

static void configure(lk_peft_config *config) {
    config->use_rslora = false;
}

const lk_adapter_method lk_adapter_method_lora = {
    "lora", accepts, configure, lk_lora_declare, lk_lora_apply, lk_lora_merge};
