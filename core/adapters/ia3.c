/* (IA)^3 (Liu et al., arXiv 2205.05638): a layer's output, or the input of one of feedforward_modules, is scaled column
 * by column with a trained vector that starts as ones. As in PEFT the output is scaled with its bias. */
#include <string.h>

#include "core/adapters/lora.h"

enum { L };

/* The modules that PEFT's defaults for the model types count as feed-forward. */
static const char *const feedforward[] = {"down_proj", "output.dense", "mlp.c_proj", "ffn.lin2", "lin2", "fc2"};

/* Where targets are names, PEFT wants the feed-forward ones to be among them. */
static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    (void)options;
    lk_peft_config *config = &adapter->config;
    json_t *chosen = json_array();
    int failed = chosen == NULL;
    for (size_t i = 0; i < LK_COUNT(feedforward) && !failed; i++) {
        bool named = !json_is_array(config->target_modules);
        for (size_t j = 0; j < json_array_size(config->target_modules); j++) {
            const char *target = json_string_value(json_array_get(config->target_modules, j));
            size_t length = strlen(target), wanted = strlen(feedforward[i]);
            named = named || (length >= wanted && strcmp(target + length - wanted, feedforward[i]) == 0);
            if (named) {
                failed |= json_array_append_new(chosen, json_string(target));
                break;
            }
        }
        if (named && !json_is_array(config->target_modules)) {
            failed |= json_array_append_new(chosen, json_string(feedforward[i]));
        }
    }
    json_decref(config->feedforward_modules);
    config->feedforward_modules = chosen;
    return failed ? lk_out_of_memory(adapter->context, 0, "an adapter's configuration") : LK_OK;
}

static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    LK_TRY(lk_peft_is_feedforward(&adapter->config, site->site->path, &site->on_input));
    int64_t count = site->on_input ? site->site->in : site->site->out;
    float *ones = lk_calloc(adapter->context, (size_t)count, sizeof *ones);
    if (ones == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)count * sizeof *ones, "ia3_l");
    }
    for (int64_t i = 0; i < count; i++) {
        ones[i] = 1.0f;
    }
    lk_adapter_tensor *tensor;
    lk_adapter_tensor_spec spec = {.kind = LK_PEFT_KIND_IA3_L, .rows = count, .values = ones};
    lk_status status = lk_adapter_add_tensor(adapter, site, &spec, &tensor);
    lk_free(adapter->context, ones);
    if (status == LK_OK) {
        tensor->stored_rank = 2;
        tensor->stored_shape[0] = site->on_input ? 1 : count;
        tensor->stored_shape[1] = site->on_input ? count : 1;
    }
    return status;
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    lk_tensor *l = lk_graph_variable(graph, site->tensors[L]->value);
    lk_tensor *weight = lk_graph_variable(graph, site->site->weight);
    lk_tensor *bias = lk_forward_variable(forward, site->site->bias);
    if (site->on_input) {
        return lk_build_linear(graph, lk_build_mul_columns(graph, x, l), weight, bias);
    }
    return lk_build_mul_columns(graph, lk_build_linear(graph, x, weight, bias), l);
}

static lk_status merge(const lk_adapter_merge *job) {
    int64_t in = job->site->site->in, out = job->site->site->out;
    const float *l = job->values[L];
    for (int64_t n = 0; n < out && job->weight != NULL; n++) {
        for (int64_t k = 0; k < in; k++) {
            job->weight[n * in + k] *= l[job->site->on_input ? k : n];
        }
    }
    for (int64_t n = 0; n < out && job->bias != NULL && !job->site->on_input; n++) {
        job->bias[n] *= l[n];
    }
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_ia3 = {
    .name = "ia3", .type = LK_PEFT_IA3, .configure = configure, .declare = declare, .apply = apply, .merge = merge};
