/* Delta-LoRA (Zi et al., arXiv 2309.02411): with every step W moves, too, by what B A has moved, times a ratio l:
 * W <- W + l s (B' A' - B A), from the step K on that ends the warm-up. A's and B's gradients are those of s B A alone.
 *
 * The moves telescope: after any number of steps W is W0 + l s (B A - Bk Ak), with Bk and Ak as they were at the end of
 * the warm-up. So no copy of W is made and nothing is rounded, whatever W is stored as: the movement is computed from
 * A, B, Ak and Bk as a detached low-rank term, exact where additions to W in bf16 would have to be rounded at random.
 */
#include "core/adapters/lora.h"

enum { A = LK_LORA_A, B = LK_LORA_B, START_A, START_B };

typedef struct delta_state {
    bool is_new; /* the adapter has not moved W before: the warm-up is still to come */
} delta_state;

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    adapter->config.delta_ratio = options->delta_ratio;
    adapter->config.delta_warmup = options->delta_warmup;
    if (!(options->delta_ratio >= 0.0 && options->delta_ratio <= 1e6) || options->delta_warmup < 0) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "delta_ratio is %g and delta_warmup %lld, expected 0 to 1e6, and 0 or more",
                       options->delta_ratio, (long long)options->delta_warmup);
    }
    return lk_lora_configure(adapter, options);
}

static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    const lk_adapter_tensor_spec specs[] = {
        {.kind = LK_PEFT_KIND_DELTA_LORA_A, .rows = site->rank, .columns = site->site->in, .is_state = true},
        {.kind = LK_PEFT_KIND_DELTA_LORA_B, .rows = site->site->out, .columns = site->rank, .is_state = true}};
    LK_TRY(lk_lora_declare(adapter, site));
    LK_TRY(lk_adapter_add_tensor(adapter, site, &specs[0], NULL));
    return lk_adapter_add_tensor(adapter, site, &specs[1], NULL);
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    float scale = site->scale * (float)forward->adapter->config.delta_ratio;
    lk_tensor *y = lk_lora_apply(forward, site, x);
    for (int i = 0; i < 2; i++) {
        lk_tensor *a = lk_graph_constant(graph, site->tensors[i == 0 ? A : START_A]->value);
        lk_tensor *b = lk_graph_constant(graph, site->tensors[i == 0 ? B : START_B]->value);
        lk_tensor *s = lk_build_matmul(graph, x, false, a, true, 1.0f, NULL);
        y = lk_build_matmul(graph, s, false, b, true, i == 0 ? scale : -scale, y);
    }
    return y;
}

static lk_status copy(lk_adapter *adapter, const lk_adapter_tensor *from, const lk_adapter_tensor *to) {
    float *values;
    LK_TRY(lk_adapter_download(adapter, from->value, &values));
    lk_status status = lk_variable_upload(to->value, values);
    lk_free(adapter->context, values);
    return status;
}

/* Until the warm-up ends, W's movement starts from where A and B are. */
static lk_status start_here(lk_adapter *adapter) {
    for (int32_t i = 0; i < adapter->num_sites && !adapter->model->plan_only; i++) {
        const lk_adapter_site *site = &adapter->sites[i];
        if (site->method == adapter->method) {
            LK_TRY(copy(adapter, site->tensors[A], site->tensors[START_A]));
            LK_TRY(copy(adapter, site->tensors[B], site->tensors[START_B]));
        }
    }
    return LK_OK;
}

static lk_status is_zero(lk_adapter *adapter, const lk_adapter_tensor *tensor, bool *out) {
    float *values;
    LK_TRY(lk_adapter_download(adapter, tensor->value, &values));
    for (size_t i = 0; i < tensor->value->bytes / sizeof *values; i++) {
        *out = *out && values[i] == 0.0f;
    }
    lk_free(adapter->context, values);
    return LK_OK;
}

static lk_status prepare(lk_adapter *adapter) {
    delta_state *state = adapter->shared;
    bool first = state == NULL;
    if (first && (state = lk_arena_alloc(&adapter->arena, sizeof *state)) == NULL) {
        return lk_out_of_memory(adapter->context, sizeof *state, "an adapter");
    }
    adapter->shared = state;
    state->is_new = true;
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        const lk_adapter_site *site = &adapter->sites[i];
        for (int t = START_A; t <= START_B && site->method == adapter->method; t++) {
            LK_TRY(first ? lk_adapter_keep_state(adapter, site->tensors[t]->value) : LK_OK);
            LK_TRY(adapter->model->plan_only ? LK_OK : is_zero(adapter, site->tensors[t], &state->is_new));
        }
    }
    return state->is_new ? start_here(adapter) : LK_OK;
}

static lk_status after_update(lk_adapter *adapter, int64_t step) {
    bool waits = ((const delta_state *)adapter->shared)->is_new && step < adapter->config.delta_warmup;
    return waits ? start_here(adapter) : LK_OK;
}

static lk_status merge(const lk_adapter_merge *job) {
    int64_t in = job->site->site->in, out = job->site->site->out, rank = job->site->rank;
    double ratio = job->adapter->config.delta_ratio;
    for (int64_t n = 0; n < out && job->weight != NULL; n++) {
        for (int64_t k = 0; k < in; k++) {
            double now = 0.0, start = 0.0;
            for (int64_t r = 0; r < rank; r++) {
                now += (double)job->values[B][n * rank + r] * (double)job->values[A][r * in + k];
                start += (double)job->values[START_B][n * rank + r] * (double)job->values[START_A][r * in + k];
            }
            float *weight = &job->weight[n * in + k];
            *weight = (float)((double)*weight + (double)job->site->scale * (now + ratio * (now - start)));
        }
    }
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_delta_lora = {.name = "delta-lora",
                                                        .type = LK_PEFT_DELTA_LORA,
                                                        .configure = configure,
                                                        .declare = declare,
                                                        .apply = apply,
                                                        .prepare = prepare,
                                                        .after_update = after_update,
                                                        .merge = merge};
