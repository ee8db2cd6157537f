/* OFT (Qiu et al., arXiv 2306.07280; Liu et al., arXiv 2506.19847): the layer's input is rotated, block of columns by
 * block of columns, y = (x R) W' + bias. Each R is the Cayley transform of a skew-symmetric Q, of which the upper
 * triangle is trained and starts at zero, or PEFT's polynomial for it (use_cayley_neumann, the default). */
#include "core/adapters/drop.h"
#include "core/ops/cayley.h"

#include <math.h>

enum { R };

typedef struct oft_blocks {
    int64_t size, count; /* size * count = in */
    int32_t terms;       /* 0: the exact transform */
} oft_blocks;

/* The divisor of `width` that is nearest to `wanted`, as PEFT takes it. */
static int64_t nearest_divisor(int64_t width, int64_t wanted) {
    int64_t above = wanted, below = wanted;
    if (wanted >= width) {
        return width;
    }
    while (width % above != 0) {
        above++;
    }
    while (below > 1 && width % below != 0) {
        below--;
    }
    return wanted - below <= above - wanted ? below : above;
}

static oft_blocks blocks_of(const lk_peft_config *config, const lk_adapter_site *site) {
    int64_t in = site->site->in;
    oft_blocks blocks;
    if (config->r == 0) {
        blocks.size = nearest_divisor(in, config->oft_block_size);
        blocks.count = in / blocks.size;
    } else {
        blocks.count = nearest_divisor(in, config->r);
        blocks.size = in / blocks.count;
    }
    blocks.terms = config->use_cayley_neumann ? (int32_t)config->num_cayley_neumann_terms : 0;
    return blocks;
}

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    lk_peft_config *config = &adapter->config;
    config->r = 0;
    config->oft_block_size = options->oft_block_size;
    config->block_share = options->block_share;
    config->use_cayley_neumann = options->cayley_terms > 0;
    config->num_cayley_neumann_terms = LK_MAX(options->cayley_terms, 1);
    config->module_dropout = options->module_dropout;
    config->coft = options->coft;
    config->eps = options->coft_eps;
    return LK_OK;
}

static lk_status share(lk_adapter *adapter) {
    const lk_peft_config *config = &adapter->config;
    if ((config->r == 0) == (config->oft_block_size == 0)) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "r is %lld and oft_block_size %lld, expected one of them to be 0", (long long)config->r,
                       (long long)config->oft_block_size);
    }
    return LK_OK;
}

static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    oft_blocks blocks = blocks_of(&adapter->config, site);
    if (blocks.size < 2) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "%s: its %lld inputs make blocks of one column, which cannot be rotated", site->site->path,
                       (long long)site->site->in);
    }
    lk_adapter_tensor_spec spec = {.kind = LK_PEFT_KIND_OFT_R,
                                   .rows = adapter->config.block_share ? 1 : blocks.count,
                                   .columns = lk_cayley_triangle(blocks.size)};
    return lk_adapter_add_tensor(adapter, site, &spec, NULL);
}

/* COFT: no block's Q is longer than eps / sqrt(blocks). PEFT shortens the tensors themselves in every forward pass;
 * that is as good as after they were read and after every update. */
static lk_status constrain(lk_adapter *adapter, lk_adapter_site *site) {
    lk_adapter_tensor *tensor = site->tensors[R];
    int64_t rows = tensor->stored_shape[0], columns = tensor->stored_shape[1];
    double most = adapter->config.eps / sqrt((double)rows);
    float *values;
    bool changed = false;
    if (!adapter->config.coft || adapter->model->plan_only) {
        return LK_OK;
    }
    LK_TRY(lk_adapter_download(adapter, tensor->value, &values));
    for (int64_t g = 0; g < rows; g++) {
        float *q = values + g * columns;
        double squares = 0.0;
        for (int64_t i = 0; i < columns; i++) {
            squares += 2.0 * (double)q[i] * (double)q[i]; /* of the skew-symmetric matrix: both triangles */
        }
        bool is_long = sqrt(squares) > most;
        for (int64_t i = 0; i < columns && is_long; i++) {
            q[i] = (float)((double)q[i] * most / sqrt(squares));
        }
        changed = changed || is_long;
    }
    lk_status status = changed ? lk_variable_upload(tensor->value, values) : LK_OK;
    lk_free(adapter->context, values);
    return status;
}

static lk_status after_update(lk_adapter *adapter, int64_t step) {
    (void)step;
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        lk_adapter_site *site = &adapter->sites[i];
        LK_TRY(site->method->after_update == after_update ? constrain(adapter, site) : LK_OK);
    }
    return LK_OK;
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    const lk_peft_config *config = &forward->adapter->config;
    oft_blocks blocks = blocks_of(config, site);
    lk_tensor *q = lk_graph_variable(graph, site->tensors[R]->value);
    if (!config->block_share) { /* as in PEFT; a block whose Q is zero is not rotated */
        q = lk_adapter_drop_rows(forward, q, config->module_dropout, false);
    }
    lk_tensor *r = lk_build_cayley(graph, q, blocks.size, blocks.terms);
    if (config->block_share) { /* one rotation for all blocks: they are rows of one matrix */
        int64_t tokens = x != NULL ? x->shape[0] : 0;
        x = lk_build_reshape(graph, x, tokens * blocks.count, blocks.size);
        x = lk_build_reshape(graph, lk_build_matmul(graph, x, false, r, false, 1.0f, NULL), tokens, site->site->in);
    } else {
        x = lk_build_block_linear(graph, x, r, false);
    }
    return lk_build_linear(graph, x, lk_graph_variable(graph, site->site->weight),
                           lk_forward_variable(forward, site->site->bias));
}

static lk_status merge(const lk_adapter_merge *job) {
    lk_context *context = job->adapter->context;
    oft_blocks blocks = blocks_of(&job->adapter->config, job->site);
    int64_t size = blocks.size, area = size * size, in = job->site->site->in;
    if (job->weight == NULL) {
        return LK_OK;
    }
    size_t elements = (size_t)(4 * area + size);
    double *r = lk_calloc(context, elements, sizeof *r);
    if (r == NULL) {
        return lk_out_of_memory(context, elements * sizeof *r, "merging");
    }
    double *triangle = r + area, *row = r + 2 * area, *scratch = row + size;
    for (int64_t g = 0; g < blocks.count; g++) {
        const float *q = job->values[R] + (job->adapter->config.block_share ? 0 : g * lk_cayley_triangle(size));
        for (int64_t i = 0; i < lk_cayley_triangle(size); i++) {
            triangle[i] = (double)q[i];
        }
        lk_cayley_block(triangle, size, blocks.terms, scratch, r);
        for (int64_t n = 0; n < job->site->site->out; n++) {
            float *weight = job->weight + n * in + g * size;
            for (int64_t k = 0; k < size; k++) {
                row[k] = 0.0;
                for (int64_t c = 0; c < size; c++) {
                    row[k] += r[k * size + c] * (double)weight[c];
                }
            }
            for (int64_t k = 0; k < size; k++) {
                weight[k] = (float)row[k];
            }
        }
    }
    lk_free(context, r);
    return LK_OK;
}

const lk_adapter_method lk_adapter_method_oft = {.name = "oft",
                                                 .type = LK_PEFT_OFT,
                                                 .no_dropout = true,
                                                 .configure = configure,
                                                 .share = share,
                                                 .declare = declare,
                                                 .finish = constrain,
                                                 .apply = apply,
                                                 .after_update = after_update,
                                                 .merge = merge};
