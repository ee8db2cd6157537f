/* LoHa (Hyeon-Woo, Ye-Bin and Oh, FedPara, arXiv 2108.06098): W + s (A1 B1) . (A2 B2), an elementwise product of two
 * low-rank updates, s = alpha / r, whose rank is up to r^2.
 *
 * It is an update B* A* of rank r^2 with A*[pr + q] = B1[p] . B2[q] (rows) and B*[, pr + q] = A1[, p] . A2[, q]
 * (columns), so it is used as LoRA of that rank: no matrix of W's size is made. Copies of rows are products with
 * matrices of zeros and ones, which every device can compute. Only where r^2 (in + out) is more than in * out is the
 * update itself made, which is then the smaller of the two. */
#include "core/adapters/drop.h"
#include "core/adapters/initial.h"
#include "core/adapters/lora.h"

enum { A1, B1, A2, B2 };
enum { FIRST, SECOND }; /* [r^2, r]: rows pr + q that select p, and q */

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    adapter->config.rank_dropout = options->rank_dropout;
    adapter->config.module_dropout = options->module_dropout;
    return LK_OK;
}

static bool is_factored(const lk_adapter_site *site) {
    int64_t in = site->site->in, out = site->site->out, rank = site->rank;
    return rank * rank * (in + out) <= in * out;
}

static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    int64_t in = site->site->in, out = site->site->out, rank = site->rank;
    LK_TRY(lk_adapter_add_matrix(adapter, site, LK_PEFT_KIND_HADA_W1_A, out, rank, LK_INITIAL_UNIFORM));
    LK_TRY(lk_adapter_add_matrix(adapter, site, LK_PEFT_KIND_HADA_W1_B, rank, in, LK_INITIAL_UNIFORM));
    LK_TRY(lk_adapter_add_matrix(adapter, site, LK_PEFT_KIND_HADA_W2_A, out, rank, LK_INITIAL_UNIFORM));
    return lk_adapter_add_matrix(adapter, site, LK_PEFT_KIND_HADA_W2_B, rank, in, LK_INITIAL_ZEROS);
}

/* One pair of selections for each rank that occurs. */
static lk_status select_rows(lk_adapter *adapter, int64_t rank, int which, lk_variable **out) {
    const char *name =
        lk_arena_printf(&adapter->arena, "selection.%s.%lld", which == FIRST ? "first" : "second", (long long)rank);
    *out = name != NULL ? lk_variables_find(adapter->variables, name) : NULL;
    if (*out != NULL) {
        return LK_OK;
    }
    if (adapter->model->plan_only) {
        return lk_adapter_add_constant(adapter, name, rank * rank, rank, NULL, out);
    }
    float *values = lk_calloc(adapter->context, (size_t)(rank * rank * rank), sizeof *values);
    if (values == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)(rank * rank * rank) * sizeof *values, "an adapter");
    }
    for (int64_t row = 0; row < rank * rank; row++) {
        values[row * rank + (which == FIRST ? row / rank : row % rank)] = 1.0f;
    }
    lk_status status = lk_adapter_add_constant(adapter, name, rank * rank, rank, values, out);
    lk_free(adapter->context, values);
    return status;
}

static lk_status finish(lk_adapter *adapter, lk_adapter_site *site) {
    if (!is_factored(site)) {
        return LK_OK;
    }
    LK_TRY(select_rows(adapter, site->rank, FIRST, &site->constants[FIRST]));
    return select_rows(adapter, site->rank, SECOND, &site->constants[SECOND]);
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    lk_tensor *weight = lk_graph_variable(graph, site->site->weight);
    lk_tensor *bias = lk_forward_variable(forward, site->site->bias), *t[4];
    for (int i = 0; i < 4; i++) {
        t[i] = lk_graph_variable(graph, site->tensors[i]->value);
    }
    /* a row of A1 is one of the update's, an output of the layer */
    t[A1] = lk_adapter_drop_rows(forward, t[A1], forward->adapter->config.rank_dropout, true);
    t[A1] = lk_adapter_drop_whole(forward, t[A1], forward->adapter->config.module_dropout);
    if (!is_factored(site)) {
        lk_tensor *update = lk_build_mul(graph, lk_build_matmul(graph, t[A1], false, t[B1], false, site->scale, NULL),
                                         lk_build_matmul(graph, t[A2], false, t[B2], false, 1.0f, NULL));
        return lk_build_matmul(graph, x, false, update, true, 1.0f, lk_build_linear(graph, x, weight, bias));
    }
    lk_tensor *first = lk_graph_variable(graph, site->constants[FIRST]);
    lk_tensor *second = lk_graph_variable(graph, site->constants[SECOND]);
    lk_tensor *down = lk_build_mul(graph, lk_build_matmul(graph, first, false, t[B1], false, 1.0f, NULL),
                                   lk_build_matmul(graph, second, false, t[B2], false, 1.0f, NULL));
    lk_tensor *up = lk_build_mul(graph, lk_build_matmul(graph, t[A1], false, first, true, 1.0f, NULL),
                                 lk_build_matmul(graph, t[A2], false, second, true, 1.0f, NULL));
    const lk_lora_attributes attributes = {.scale = site->scale, .order = LK_LORA_FACTORED};
    return lk_build_lora_linear(graph, x, weight, bias, down, up, NULL, &attributes);
}

static lk_status merge(const lk_adapter_merge *job) {
    int64_t in = job->site->site->in, out = job->site->site->out, rank = job->site->rank;
    for (int64_t n = 0; n < out && job->weight != NULL; n++) {
        for (int64_t k = 0; k < in; k++) {
            double sums[2] = {0.0, 0.0};
            for (int64_t r = 0; r < rank; r++) {
                sums[0] += (double)job->values[A1][n * rank + r] * (double)job->values[B1][r * in + k];
                sums[1] += (double)job->values[A2][n * rank + r] * (double)job->values[B2][r * in + k];
            }
            float *weight = &job->weight[n * in + k];
            *weight = (float)((double)*weight + (double)job->site->scale * sums[0] * sums[1]);
        }
    }
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_loha = {.name = "loha",
                                                  .type = LK_PEFT_LOHA,
                                                  .no_dropout = true,
                                                  .no_bias = true,
                                                  .configure = configure,
                                                  .declare = declare,
                                                  .finish = finish,
                                                  .apply = apply,
                                                  .merge = merge};
