/* LoKr (Yeh et al., LyCORIS, arXiv 2309.14859): W + s W1 (x) W2, a Kronecker product, s = alpha / r. With out = ac and
 * in = bd, W1 is [a, b] and W2 [c, d]; either may be a product of two factors of rank r.
 *
 * A token's input, seen as X [b, d], becomes W1 X W2', so the product itself is never made: W2 is applied to all rows
 * of d, and W1 to all rows of b of what comes out, transposed. */
#include "core/adapters/drop.h"
#include "core/adapters/initial.h"
#include "core/adapters/lora.h"

#include <string.h>

typedef struct lokr_shape {
    int64_t a, b, c, d;
    bool whole[2]; /* W1 and W2 are not factored */
} lokr_shape;

/* PEFT's: two factors, the smaller first, near the root of the number or with the smaller at most `factor`. */
static void factorize(int64_t number, int64_t factor, int64_t *small, int64_t *large) {
    if (factor > 0 && number % factor == 0) {
        *small = factor;
        *large = number / factor;
        return;
    }
    factor = factor == -1 ? number : factor;
    *small = 1;
    *large = number;
    int64_t least_sum = number + 1;
    while (*small < *large) {
        int64_t next = *small + 1;
        while (number % next != 0) {
            next++;
        }
        if (next + number / next > least_sum || next > factor) {
            break;
        }
        *small = next;
        *large = number / next;
    }
    if (*small > *large) {
        int64_t kept = *small;
        *small = *large;
        *large = kept;
    }
}

static lokr_shape shape_of(const lk_peft_config *config, const lk_adapter_site *site) {
    lokr_shape shape;
    factorize(site->site->out, config->decompose_factor, &shape.a, &shape.c);
    factorize(site->site->in, config->decompose_factor, &shape.b, &shape.d);
    shape.whole[0] = !(config->decompose_both && 2 * site->rank < LK_MAX(shape.a, shape.b));
    shape.whole[1] = !(2 * site->rank < LK_MAX(shape.c, shape.d));
    return shape;
}

/* W1 or its first factor starts at zero, all others at random; LyCORIS's way W2 or its second factor does. */
static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    static const lk_peft_kind kinds[2][3] = {{LK_PEFT_KIND_LOKR_W1, LK_PEFT_KIND_LOKR_W1_A, LK_PEFT_KIND_LOKR_W1_B},
                                             {LK_PEFT_KIND_LOKR_W2, LK_PEFT_KIND_LOKR_W2_A, LK_PEFT_KIND_LOKR_W2_B}};
    lokr_shape shape = shape_of(&adapter->config, site);
    const int64_t rows[] = {shape.a, shape.c}, columns[] = {shape.b, shape.d};
    bool lycoris =
        adapter->options != NULL && adapter->options->init != NULL && strcmp(adapter->options->init, "lycoris") == 0;
    for (int i = 0; i < 2; i++) {
        bool zero_first = lycoris ? i == 1 && shape.whole[i] : i == 0;
        lk_initial first = zero_first ? LK_INITIAL_ZEROS : LK_INITIAL_UNIFORM;
        lk_initial second = lycoris && i == 1 ? LK_INITIAL_ZEROS : LK_INITIAL_UNIFORM;
        if (shape.whole[i]) {
            LK_TRY(lk_adapter_add_matrix(adapter, site, kinds[i][0], rows[i], columns[i], first));
        } else {
            LK_TRY(lk_adapter_add_matrix(adapter, site, kinds[i][1], rows[i], site->rank, first));
            LK_TRY(lk_adapter_add_matrix(adapter, site, kinds[i][2], site->rank, columns[i], second));
        }
    }
    return LK_OK;
}

/* Layers with the same input share its view, and what the backward pass keeps of it. */
static lk_tensor *rows_of(lk_graph *graph, lk_tensor *x, int64_t width) {
    enum { NEAR = 32 };
    int32_t last = x != NULL ? lk_graph_num_nodes(graph) : 0;
    for (int32_t i = last - 1; i >= 0 && i >= last - NEAR; i--) {
        const lk_node *node = lk_graph_node(graph, i);
        if (node->op == LK_OP_TRANSPOSE && node->inputs[0] == x && node->outputs[0]->shape[1] == width &&
            node->attributes.transpose.rows == 1) {
            return node->outputs[0];
        }
    }
    return lk_build_reshape(graph, x, x != NULL ? x->shape[0] * x->shape[1] / width : 0, width);
}

/* x W' with W whole or factored, from the site's tensor `first` on. */
static lk_tensor *multiply(lk_graph *graph, const lk_adapter_site *site, int first, bool whole, lk_tensor *x,
                           float scale) {
    lk_tensor *w = lk_graph_variable(graph, site->tensors[first]->value);
    if (!whole) {
        x = lk_build_matmul(graph, x, false, lk_graph_variable(graph, site->tensors[first + 1]->value), true, 1.0f,
                            NULL);
    }
    return lk_build_matmul(graph, x, false, w, true, scale, NULL);
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    lokr_shape shape = shape_of(&forward->adapter->config, site);
    int64_t tokens = x != NULL ? x->shape[0] : 0;
    const lk_transpose_attributes inner = {tokens, shape.b, shape.c, 1, {tokens * shape.c, shape.b}};
    const lk_transpose_attributes outer = {tokens, shape.c, shape.a, 1, {tokens, shape.a * shape.c}};
    lk_tensor *z = rows_of(graph, x, shape.d);
    z = multiply(graph, site, shape.whole[0] ? 1 : 2, shape.whole[1], z, 1.0f);
    z = lk_build_transpose(graph, z, &inner);
    z = multiply(graph, site, 0, shape.whole[0], z, site->scale);
    z = lk_build_transpose(graph, z, &outer);
    const lk_peft_config *config = &forward->adapter->config;
    z = lk_adapter_drop_columns(forward, z, config->rank_dropout, config->rank_dropout_scale);
    z = lk_adapter_drop_whole(forward, z, config->module_dropout);
    lk_tensor *y = lk_build_linear(graph, x, lk_graph_variable(graph, site->site->weight),
                                   lk_forward_variable(forward, site->site->bias));
    return lk_build_add(graph, y, z);
}

/* W1 or W2 in double precision. */
static void make(const lk_adapter_merge *job, int first, bool whole, int64_t rows, int64_t columns, double *out) {
    int64_t rank = job->site->rank;
    const float *left = job->values[first];
    for (int64_t i = 0; i < rows * columns; i++) {
        out[i] = whole ? (double)left[i] : 0.0;
        for (int64_t r = 0; r < rank && !whole; r++) {
            out[i] += (double)left[i / columns * rank + r] * (double)job->values[first + 1][r * columns + i % columns];
        }
    }
}

static lk_status merge(const lk_adapter_merge *job) {
    lk_context *context = job->adapter->context;
    lokr_shape shape = shape_of(&job->adapter->config, job->site);
    int64_t in = job->site->site->in, out = job->site->site->out;
    if (job->weight == NULL) {
        return LK_OK;
    }
    size_t count = (size_t)(shape.a * shape.b + shape.c * shape.d);
    double *w1 = lk_calloc(context, count, sizeof *w1), *w2 = w1 + shape.a * shape.b;
    if (w1 == NULL) {
        return lk_out_of_memory(context, count * sizeof *w1, "merging");
    }
    make(job, 0, shape.whole[0], shape.a, shape.b, w1);
    make(job, shape.whole[0] ? 1 : 2, shape.whole[1], shape.c, shape.d, w2);
    for (int64_t n = 0; n < out; n++) {
        for (int64_t k = 0; k < in; k++) {
            double product = w1[n / shape.c * shape.b + k / shape.d] * w2[n % shape.c * shape.d + k % shape.d];
            float *weight = &job->weight[n * in + k];
            *weight = (float)((double)*weight + (double)job->site->scale * product);
        }
    }
    lk_free(context, w1);
    return LK_OK;
}

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    adapter->config.decompose_both = options->decompose_both;
    adapter->config.decompose_factor = options->decompose_factor;
    adapter->config.rank_dropout = options->rank_dropout;
    adapter->config.module_dropout = options->module_dropout;
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_lokr = {.name = "lokr",
                                                  .type = LK_PEFT_LOKR,
                                                  .no_dropout = true,
                                                  .no_bias = true,
                                                  .configure = configure,
                                                  .declare = declare,
                                                  .apply = apply,
                                                  .merge = merge};
