/* LoRA (Hu et al., arXiv 2106.09685): y = x W' + scale (dropout(x) A') B', scale = alpha / r. */
#include "core/adapters/lora.h"

#include "core/adapters/lora_init.h"

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

/* Of a start that is made of W, its A and B are kept to subtract their product. */
static lk_status add_start(lk_adapter *adapter, lk_adapter_site *site, const float *a, const float *b) {
    int64_t in = site->site->in, out = site->site->out;
    LK_TRY(lk_adapter_add_constant(adapter, lk_adapter_name(adapter, "lora_A_start", site), site->rank, in, a,
                                   &site->start[A]));
    return lk_adapter_add_constant(adapter, lk_adapter_name(adapter, "lora_B_start", site), out, site->rank, b,
                                   &site->start[B]);
}

/* The first values, in one block that the caller frees: A, then B. */
static lk_status make_start(lk_adapter *adapter, const lk_adapter_site *site, const lk_lora_init *init, float **out) {
    lk_context *context = adapter->context;
    size_t elements = (size_t)site->rank * (size_t)(site->site->in + site->site->out);
    float *weight = NULL, *values = lk_calloc(context, elements, sizeof *values);
    if (values == NULL) {
        return lk_out_of_memory(context, elements * sizeof *values, "the start of an adapter");
    }
    lk_status status = init->from_weight ? lk_adapter_download(adapter, site->site->weight, &weight) : LK_OK;
    if (status == LK_OK) {
        float *b = values + site->rank * site->site->in;
        status = init->make(&(lk_lora_init_job){adapter, site, weight, values, b});
    }
    lk_free(context, weight);
    if (status != LK_OK) {
        lk_free(context, values);
        return status;
    }
    *out = values;
    return LK_OK;
}

lk_status lk_lora_declare_pair(lk_adapter *adapter, lk_adapter_site *site, bool freeze_a) {
    int64_t in = site->site->in, out = site->site->out;
    lk_adapter_tensor_spec a = {.kind = LK_PEFT_KIND_LORA_A, .rows = site->rank, .columns = in, .frozen = freeze_a};
    lk_adapter_tensor_spec b = {.kind = LK_PEFT_KIND_LORA_B, .rows = out, .columns = site->rank};
    const lk_lora_init *init;
    float *values = NULL;
    LK_TRY(lk_lora_init_of(adapter, &init));
    if (init->from_weight && site->rank > LK_MIN(in, out)) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "init %s: rank %d at %s, whose weight has only %lld singular values", init->name, site->rank,
                       site->site->path, (long long)LK_MIN(in, out));
    }
    if (!adapter->model->plan_only && (adapter->options != NULL || init->from_weight)) {
        LK_TRY(make_start(adapter, site, init, &values));
        a.values = values;
        b.values = values + site->rank * in;
    }
    lk_status status = lk_adapter_add_tensor(adapter, site, &a, NULL);
    status = status == LK_OK ? lk_adapter_add_tensor(adapter, site, &b, NULL) : status;
    if (status == LK_OK && init->from_weight) {
        status = add_start(adapter, site, a.values, b.values);
    }
    lk_free(adapter->context, values);
    return status;
}

/* Of a table: A' [rows, r], zeros, of which ids choose rows, and B [size, r], normal. */
static lk_status declare_embedding(lk_adapter *adapter, lk_adapter_site *site) {
    int64_t rows = site->site->in, size = site->site->out, rank = site->rank;
    lk_adapter_tensor_spec a = {
        .kind = LK_PEFT_KIND_LORA_EMBEDDING_A, .rows = rows, .columns = rank, .stored_transposed = true};
    lk_adapter_tensor_spec b = {.kind = LK_PEFT_KIND_LORA_EMBEDDING_B, .rows = size, .columns = rank};
    const lk_lora_init *init;
    LK_TRY(lk_lora_init_of(adapter, &init));
    if (init->from_weight) {
        return lk_fail(adapter->context, LK_STATUS_UNSUPPORTED, "init %s: %s is a table of embeddings", init->name,
                       site->site->path);
    }
    float *values = lk_calloc(adapter->context, (size_t)(size * rank), sizeof *values);
    if (values == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)(size * rank) * sizeof *values, "lora_embedding_B");
    }
    for (int64_t i = 0; i < size * rank; i++) {
        values[i] = (float)lk_lora_normal(adapter, site, 0, i);
    }
    b.values = values;
    lk_status status = lk_adapter_add_tensor(adapter, site, &a, NULL);
    status = status == LK_OK ? lk_adapter_add_tensor(adapter, site, &b, NULL) : status;
    lk_free(adapter->context, values);
    return status;
}

lk_status lk_lora_declare(lk_adapter *adapter, lk_adapter_site *site) {
    if (site->site->is_embedding) {
        return declare_embedding(adapter, site);
    }
    return lk_lora_declare_pair(adapter, site, false);
}

float lk_lora_dropout(lk_forward *forward, uint32_t *stream) {
    *stream = forward->next_stream++;
    return forward->rng != NULL ? forward->adapter->dropout : 0.0f;
}

/* y - scale (x A0') B0' */
static lk_tensor *subtract_start(lk_graph *graph, const lk_adapter_site *site, lk_tensor *x, lk_tensor *y) {
    lk_tensor *s = lk_build_matmul(graph, x, false, lk_graph_variable(graph, site->start[A]), true, 1.0f, NULL);
    return lk_build_matmul(graph, s, false, lk_graph_variable(graph, site->start[B]), true, -site->scale, y);
}

lk_tensor *lk_lora_apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    const lk_linear_site *linear = site->site;
    lk_lora_attributes attributes = {.scale = site->scale, .order = LK_LORA_FACTORED};
    attributes.dropout = lk_lora_dropout(forward, &attributes.stream);
    lk_tensor *y = lk_build_lora_linear(
        graph, x, lk_graph_variable(graph, linear->weight), lk_forward_variable(forward, linear->bias),
        lk_graph_variable(graph, site->tensors[A]->value), lk_graph_variable(graph, site->tensors[B]->value),
        attributes.dropout > 0.0f ? forward->rng : NULL, &attributes);
    return site->start[A] != NULL ? subtract_start(graph, site, x, y) : y;
}

/* As in PEFT without dropout. */
lk_tensor *lk_lora_embed(lk_forward *forward, const lk_adapter_site *site, lk_tensor *ids) {
    lk_graph *graph = forward->graph;
    lk_tensor *rows = lk_forward_rows(forward, ids, site->site->weight);
    lk_tensor *s = lk_build_embedding(graph, ids, lk_graph_variable(graph, site->tensors[A]->value));
    return lk_build_matmul(graph, s, false, lk_graph_variable(graph, site->tensors[B]->value), true, site->scale, rows);
}

lk_tensor *lk_lora_build(lk_graph *graph, const lk_adapter_site *site, lk_tensor *x) {
    lk_lora_attributes attributes = {.scale = site->scale, .order = LK_LORA_FACTORED};
    return lk_build_lora_linear(graph, x, lk_graph_variable(graph, site->site->weight), NULL,
                                lk_graph_variable(graph, site->tensors[A]->value),
                                lk_graph_variable(graph, site->tensors[B]->value), NULL, &attributes);
}

/* W += scale B A; a table [in, out] += scale A' B' with A' as it is kept, [in, r] */
static void add_product(const lk_adapter_site *site, double scale, const float *a, const float *b, float *to) {
    bool table = site->site->is_embedding;
    int64_t in = site->site->in, out = site->site->out, rank = site->rank;
    for (int64_t n = 0; n < out; n++) {
        for (int64_t k = 0; k < in; k++) {
            double sum = 0.0;
            for (int64_t r = 0; r < rank; r++) {
                sum += (double)b[n * rank + r] * (double)a[table ? k * rank + r : r * in + k];
            }
            float *weight = &to[table ? k * out + n : n * in + k];
            *weight = (float)((double)*weight + scale * sum);
        }
    }
}

lk_status lk_lora_merge(const lk_adapter_merge *merge) {
    const lk_adapter_site *site = merge->site;
    if (merge->weight == NULL) {
        return LK_OK;
    }
    add_product(site, (double)site->scale, merge->values[A], merge->values[B], merge->weight);
    if (site->start[A] == NULL) {
        return LK_OK;
    }
    lk_context *context = merge->adapter->context;
    float *values = lk_alloc_aligned(context, site->start[A]->bytes + site->start[B]->bytes);
    if (values == NULL) {
        return lk_out_of_memory(context, site->start[A]->bytes + site->start[B]->bytes, "the start of an adapter");
    }
    float *b = values + site->rank * site->site->in;
    lk_status status = lk_variable_download(site->start[A], values);
    status = status == LK_OK ? lk_variable_download(site->start[B], b) : status;
    if (status == LK_OK) {
        add_product(site, -(double)site->scale, values, b, merge->weight);
    }
    lk_free_aligned(context, values);
    return status;
}

bool lk_lora_is_plain(const lk_adapter_method *method) {
    return method->apply == lk_lora_apply && method->project == NULL;
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
                                                  .embed = lk_lora_embed,
                                                  .merge = lk_lora_merge};
