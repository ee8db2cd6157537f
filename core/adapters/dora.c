/* DoRA (Liu et al., arXiv 2402.09353): W becomes m (W + sBA) / |W + sBA|, row by row, with a trained magnitude m that
 * starts as |W|. As in the paper's section 4.3 (and PEFT) the norm is a constant to the gradient. It is computed from
 * products with A, so that no matrix of W's size is made, and from the squares of W's rows, which never change. */
#include <math.h>

#include "core/adapters/lora.h"
#include "core/formats/dequantize.h"

enum { A = LK_LORA_A, B = LK_LORA_B, MAGNITUDE };
enum { SQUARES };

static void row_squares(const float *weight, int64_t out, int64_t in, float *squares, float *norms) {
    for (int64_t n = 0; n < out; n++) {
        double sum = 0.0;
        for (int64_t k = 0; k < in; k++) {
            sum += (double)weight[n * in + k] * (double)weight[n * in + k];
        }
        squares[n] = (float)sum;
        norms[n] = (float)sqrt(sum);
    }
}

/* Where the weight lies in the host's memory, row by row: no copy of it is made. */
static lk_status weight_norms(lk_adapter *adapter, const lk_linear_site *linear, float *squares, float *norms) {
    lk_context *context = adapter->context;
    lk_variable *weight = linear->weight;
    const char *mapped = lk_variable_map(weight);
    float *values;
    if (mapped == NULL) {
        LK_TRY(lk_adapter_download(adapter, weight, &values));
        row_squares(values, linear->out, linear->in, squares, norms);
        lk_free(context, values);
        return LK_OK;
    }
    values = lk_calloc(context, (size_t)linear->in, sizeof *values);
    if (values == NULL) {
        return lk_out_of_memory(context, (size_t)linear->in * sizeof *values, "the norms of a weight");
    }
    size_t row_bytes = weight->bytes / (size_t)linear->out;
    lk_status status = LK_OK;
    for (int64_t n = 0; n < linear->out && status == LK_OK; n++) {
        status = lk_convert(context, weight->dtype, mapped + (size_t)n * row_bytes, LK_DTYPE_F32, values, linear->in);
        row_squares(values, 1, linear->in, squares + n, norms + n);
    }
    lk_free(context, values);
    return status;
}

static lk_status add_magnitude(lk_adapter *adapter, lk_adapter_site *site, const float *squares, const float *norms) {
    int64_t out = site->site->out;
    lk_adapter_tensor_spec spec = {.kind = LK_PEFT_KIND_LORA_MAGNITUDE, .rows = out, .values = norms};
    LK_TRY(lk_adapter_add_tensor(adapter, site, &spec, NULL));
    return lk_adapter_add_constant(adapter, lk_adapter_name(adapter, "weight_squares", site), out, 0, squares,
                                   &site->constants[SQUARES]);
}

static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    lk_context *context = adapter->context;
    int64_t out = site->site->out;
    LK_TRY(lk_lora_declare(adapter, site));
    if (adapter->model->plan_only) {
        return add_magnitude(adapter, site, NULL, NULL);
    }
    float *squares = lk_calloc(context, 2 * (size_t)out, sizeof *squares);
    if (squares == NULL) {
        return lk_out_of_memory(context, 2 * (size_t)out * sizeof *squares, "the norms of a weight");
    }
    lk_status status = weight_norms(adapter, site->site, squares, squares + out);
    if (status == LK_OK) {
        status = add_magnitude(adapter, site, squares, squares + out);
    }
    lk_free(context, squares);
    return status;
}

static lk_tensor *column_scale(lk_graph *graph, const lk_adapter_site *site) {
    lk_tensor *a = lk_graph_variable(graph, site->tensors[A]->value);
    lk_tensor *a_weight =
        lk_build_matmul(graph, a, false, lk_graph_variable(graph, site->site->weight), true, 1.0f, NULL);
    lk_tensor *gram = lk_build_matmul(graph, a, false, a, true, 1.0f, NULL);
    lk_tensor *rnorm = lk_build_dora_norm(graph, lk_graph_variable(graph, site->constants[SQUARES]), a_weight, gram,
                                          lk_graph_variable(graph, site->tensors[B]->value), site->scale);
    return lk_build_mul(graph, lk_graph_variable(graph, site->tensors[MAGNITUDE]->value), rnorm);
}

/* Dropout acts as in PEFT: y = (x - d) W' + g (d W' + s (d A') B') + bias with d = dropout(x) and g = m / norm, so the
 * part of x that was dropped still passes the plain layer. */
static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    lk_tensor *scale = column_scale(graph, site);
    lk_tensor *bias = lk_forward_variable(forward, site->site->bias);
    uint32_t stream;
    float dropout = lk_lora_dropout(forward, &stream);
    if (dropout > 0.0f) {
        lk_tensor *kept = lk_build_dropout(graph, x, forward->rng, dropout, stream);
        lk_tensor *rest = lk_build_add(graph, x, lk_build_scale(graph, kept, -1.0f));
        lk_tensor *plain = lk_build_linear(graph, rest, lk_graph_variable(graph, site->site->weight), bias);
        return lk_build_add(graph, plain, lk_build_mul_columns(graph, lk_lora_build(graph, site, kept), scale));
    }
    lk_tensor *y = lk_build_mul_columns(graph, lk_lora_build(graph, site, x), scale);
    return bias != NULL ? lk_build_add_bias(graph, y, bias) : y;
}

static lk_status merge(const lk_adapter_merge *job) {
    int64_t out = job->site->site->out, in = job->site->site->in;
    LK_TRY(lk_lora_merge(job));
    for (int64_t n = 0; n < out && job->weight != NULL; n++) {
        float *row = job->weight + n * in;
        double sum = 0.0;
        for (int64_t k = 0; k < in; k++) {
            sum += (double)row[k] * (double)row[k];
        }
        double factor = sum > 0.0 ? (double)job->values[MAGNITUDE][n] / sqrt(sum) : 0.0;
        for (int64_t k = 0; k < in; k++) {
            row[k] = (float)(factor * (double)row[k]);
        }
    }
    return LK_OK;
}

static bool accepts(const lk_peft_config *config) {
    return config->use_dora && lk_lora_method_of(config) == NULL;
}

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    adapter->config.use_dora = true;
    return lk_lora_configure(adapter, options);
}

const lk_adapter_method lk_adapter_method_dora = {.name = "dora",
                                                  .type = LK_PEFT_LORA,
                                                  .accepts = accepts,
                                                  .configure = configure,
                                                  .declare = declare,
                                                  .apply = apply,
                                                  .merge = merge};
