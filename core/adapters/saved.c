/* A layer that modules_to_save names: a copy of the base's weight and bias, trained in full and stored with the
 * adapter. A classification head is one. */
#include <string.h>

#include "core/adapters/adapter.h"

enum { WEIGHT, BIAS };

static lk_status add_copy(lk_adapter *adapter, lk_adapter_site *site, const char *parameter, lk_variable *base) {
    float *values = NULL;
    if (!adapter->model->plan_only) {
        LK_TRY(lk_adapter_download(adapter, base, &values));
    }
    lk_adapter_tensor_spec spec = {.kind = LK_PEFT_KIND_SAVED,
                                   .parameter = parameter,
                                   .rows = base->shape[0],
                                   .columns = base->rank > 1 ? base->shape[1] : 0,
                                   .values = values};
    lk_status status = lk_adapter_add_tensor(adapter, site, &spec, NULL);
    lk_free(adapter->context, values);
    return status;
}

static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    LK_TRY(add_copy(adapter, site, "weight", site->site->weight));
    return site->site->bias != NULL ? add_copy(adapter, site, "bias", site->site->bias) : LK_OK;
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    lk_tensor *bias = site->num_tensors > BIAS ? lk_graph_variable(graph, site->tensors[BIAS]->value) : NULL;
    return lk_build_linear(graph, x, lk_graph_variable(graph, site->tensors[WEIGHT]->value), bias);
}

static lk_tensor *embed(lk_forward *forward, const lk_adapter_site *site, lk_tensor *ids) {
    return lk_forward_rows(forward, ids, site->tensors[WEIGHT]->value);
}

static lk_status merge(const lk_adapter_merge *job) {
    const lk_linear_site *linear = job->site->site;
    if (job->weight != NULL) {
        memcpy(job->weight, job->values[WEIGHT], (size_t)(linear->out * linear->in) * sizeof(float));
    }
    if (job->bias != NULL) {
        memcpy(job->bias, job->values[BIAS], (size_t)linear->out * sizeof(float));
    }
    return LK_OK;
}

/* Not a row of adapters.def: no adapter is of this method as a whole. */
const lk_adapter_method lk_adapter_method_saved = {
    .name = "saved", .declare = declare, .apply = apply, .embed = embed, .merge = merge};
