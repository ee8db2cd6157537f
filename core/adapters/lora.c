/* LoRA (Hu et al., arXiv 2106.09685): y = x W' + scale (dropout(x) A') B', scale = alpha / r. */
#include "core/adapters/lora.h"

#include <math.h>

enum { A = LK_LORA_A, B = LK_LORA_B };
static const char method_key[] = "lorikeet_method";

const char *lk_lora_method_of(const lk_peft_config *config) {
    return config->source ? json_string_value(json_object_get(config->source, method_key)) : NULL;
}

lk_status lk_lora_set_method(lk_adapter *adapter, const char *name) {
    lk_peft_config *config = &adapter->config;
    config->source = config->source ? config->source : json_object();
    return json_object_set_new(config->source, method_key, json_string(name)) == 0
               ? LK_OK
               : lk_out_of_memory(adapter->context, 0, "an adapter's configuration");
}

/* PEFT's default: A is Kaiming-uniform with a = sqrt(5), which is uniform in +-1/sqrt(in); B is zero. */
static void draw_a(const lk_adapter *adapter, const lk_adapter_site *site, float *values) {
    int64_t in = site->site->in, count = site->rank * in;
    double bound = 1.0 / sqrt((double)in);
    for (int64_t i = 0; i < count; i += 4) {
        uint32_t words[4];
        lk_philox4x32(adapter->seed, (uint64_t)site->site->index, (uint64_t)(i / 4), words);
        for (int64_t j = i; j < LK_MIN(i + 4, count); j++) {
            values[j] = (float)((2.0 * (double)lk_uniform_from_bits(words[j % 4]) - 1.0) * bound);
        }
    }
}

lk_status lk_lora_declare_pair(lk_adapter *adapter, lk_adapter_site *site, bool freeze_a) {
    int64_t in = site->site->in, out = site->site->out;
    lk_adapter_tensor_spec a = {.kind = LK_PEFT_KIND_LORA_A, .rows = site->rank, .columns = in, .frozen = freeze_a};
    lk_adapter_tensor_spec b = {.kind = LK_PEFT_KIND_LORA_B, .rows = out, .columns = site->rank};
    float *values = NULL;
    if (adapter->options != NULL && !adapter->model->plan_only) {
        values = lk_calloc(adapter->context, (size_t)(site->rank * in), sizeof *values);
        if (values == NULL) {
            return lk_out_of_memory(adapter->context, (size_t)(site->rank * in) * sizeof *values, "lora_A");
        }
        draw_a(adapter, site, values);
        a.values = values;
    }
    lk_status status = lk_adapter_add_tensor(adapter, site, &a, NULL);
    lk_free(adapter->context, values);
    return status == LK_OK ? lk_adapter_add_tensor(adapter, site, &b, NULL) : status;
}

lk_status lk_lora_declare(lk_adapter *adapter, lk_adapter_site *site) {
    return lk_lora_declare_pair(adapter, site, false);
}

float lk_lora_dropout(lk_forward *forward, uint32_t *stream) {
    *stream = forward->next_stream++;
    return forward->rng != NULL ? forward->adapter->dropout : 0.0f;
}

lk_tensor *lk_lora_apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    const lk_linear_site *linear = site->site;
    lk_lora_attributes attributes = {.scale = site->scale, .order = LK_LORA_FACTORED};
    attributes.dropout = lk_lora_dropout(forward, &attributes.stream);
    return lk_build_lora_linear(
        graph, x, lk_graph_variable(graph, linear->weight), lk_forward_variable(forward, linear->bias),
        lk_graph_variable(graph, site->tensors[A]->value), lk_graph_variable(graph, site->tensors[B]->value),
        attributes.dropout > 0.0f ? forward->rng : NULL, &attributes);
}

lk_tensor *lk_lora_build(lk_graph *graph, const lk_adapter_site *site, lk_tensor *x) {
    lk_lora_attributes attributes = {.scale = site->scale, .order = LK_LORA_FACTORED};
    return lk_build_lora_linear(graph, x, lk_graph_variable(graph, site->site->weight), NULL,
                                lk_graph_variable(graph, site->tensors[A]->value),
                                lk_graph_variable(graph, site->tensors[B]->value), NULL, &attributes);
}

lk_status lk_lora_merge(const lk_adapter_merge *merge) {
    const lk_adapter_site *site = merge->site;
    int64_t in = site->site->in, out = site->site->out, rank = site->rank;
    const float *a = merge->values[A], *b = merge->values[B];
    for (int64_t n = 0; n < out && merge->weight != NULL; n++) {
        for (int64_t k = 0; k < in; k++) {
            double sum = 0.0;
            for (int64_t r = 0; r < rank; r++) {
                sum += (double)b[n * rank + r] * (double)a[r * in + k];
            }
            float *weight = &merge->weight[n * in + k];
            *weight = (float)((double)*weight + (double)site->scale * sum);
        }
    }
    return LK_OK;
}

static bool accepts(const lk_peft_config *config) {
    return !config->use_rslora && !config->use_dora && lk_lora_method_of(config) == NULL;
}

lk_status lk_lora_configure(lk_adapter *adapter, const lk_adapter_options *options) {
    adapter->config.use_rslora = options->use_rslora;
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_lora = {.name = "lora",
                                                  .type = LK_PEFT_LORA,
                                                  .accepts = accepts,
                                                  .configure = lk_lora_configure,
                                                  .declare = lk_lora_declare,
                                                  .apply = lk_lora_apply,
                                                  .merge = lk_lora_merge};
