/* The parts' matrices A and B of a layer lie one after the other, so that there is one product with all of A, one with
 * all of B, and between them, row by row, zeros for the parts that are not the row's (and the scale for that one).
 * For generation the matrices are copied once; in training a step puts the parts' own side by side, so that each part
 * gets its gradients. */
#include "core/adapters/mixed.h"

#include <string.h>

#include "core/adapters/adapter_files.h"
#include "core/adapters/lora.h"

enum { A = LK_LORA_A, B = LK_LORA_B, MASK = 0 };

typedef struct mixed_parts {
    lk_adapter *const *adapters; /* NULL: copied */
    int32_t count;
} mixed_parts;

/* Goes through the pairs A [rank, in], B [out, rank] of a layer; {0} to begin with. A part whose start was made of the
 * weight (lora_init.h) has two. */
typedef struct pair {
    int32_t part;
    lk_variable *a, *b;
    int64_t first, rank; /* among the ranks of all pairs; after the last one, first is their number */
    float scale;
    int32_t turn;
} pair;

static bool next_pair(const mixed_parts *parts, const lk_linear_site *linear, pair *to) {
    to->first += to->rank;
    to->rank = 0;
    while (to->turn < 2 * parts->count) {
        bool start = to->turn % 2 != 0;
        to->part = to->turn++ / 2;
        const lk_adapter_site *site = lk_adapter_site_of(parts->adapters[to->part], linear);
        if (site != NULL && (!start || site->start[A] != NULL)) {
            to->a = start ? site->start[A] : site->tensors[A]->value;
            to->b = start ? site->start[B] : site->tensors[B]->value;
            to->rank = site->rank;
            to->scale = start ? -site->scale : site->scale;
            return true;
        }
    }
    return false;
}

/* ---- the layer ---- */

/* All of A [rank, in] and of B [out, rank] from the parts' own. */
static void put_side_by_side(lk_graph *graph, const mixed_parts *parts, const lk_adapter_site *site, lk_tensor **a,
                             lk_tensor **b) {
    const lk_linear_site *linear = site->site;
    lk_tensor *rows = NULL, *columns = NULL; /* rows in one line [1, rank * in] */
    for (pair p = {0}; next_pair(parts, linear, &p);) {
        lk_tensor *line = lk_build_reshape(graph, lk_graph_variable(graph, p.a), 1, p.rank * linear->in);
        rows = lk_build_place_columns(graph, line, p.first * linear->in, site->rank * linear->in, rows);
        columns = lk_build_place_columns(graph, lk_graph_variable(graph, p.b), p.first, site->rank, columns);
    }
    *a = lk_build_reshape(graph, rows, site->rank, linear->in);
    *b = columns;
}

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    const lk_linear_site *linear = site->site;
    const mixed_parts *parts = forward->adapter->shared;
    if (forward->adapter_rows == NULL) {
        lk_graph_fail(graph, lk_fail(forward->model->context, LK_STATUS_UNSUPPORTED,
                                     "a mixed adapter needs to know whose each token is: use one of the parts"));
        return NULL;
    }
    lk_tensor *y =
        lk_build_linear(graph, x, lk_graph_variable(graph, linear->weight), lk_forward_variable(forward, linear->bias));
    lk_tensor *mask = lk_build_embedding(graph, forward->adapter_rows, lk_graph_variable(graph, site->constants[MASK]));
    uint32_t stream;
    float dropout = lk_lora_dropout(forward, &stream);
    lk_tensor *kept = dropout > 0.0f ? lk_build_dropout(graph, x, forward->rng, dropout, stream) : x;
    lk_tensor *a, *b;
    if (parts->adapters != NULL) {
        put_side_by_side(graph, parts, site, &a, &b);
    } else {
        a = lk_graph_variable(graph, site->tensors[A]->value);
        b = lk_graph_variable(graph, site->tensors[B]->value);
    }
    lk_tensor *s = lk_build_mul(graph, lk_build_linear(graph, kept, a, NULL), mask);
    return lk_build_add(graph, y, lk_build_linear(graph, s, b, NULL));
}

static lk_status merge(const lk_adapter_merge *job) {
    return lk_fail(job->adapter->context, LK_STATUS_UNSUPPORTED, "mixed adapters cannot be merged: merge one part");
}

static const lk_adapter_method method = {.name = "mixed", .type = LK_PEFT_LORA, .apply = apply, .merge = merge};

bool lk_adapter_is_mixed(const lk_adapter *adapter) {
    return adapter != NULL && adapter->method == &method;
}

int32_t lk_adapter_num_parts(const lk_adapter *adapter) {
    return ((const mixed_parts *)adapter->shared)->count;
}

/* ---- making ---- */

/* Copies the parts' matrices into a [rank, in] and b [out, rank]. */
static lk_status gather(const mixed_parts *parts, const lk_linear_site *linear, int64_t rank, float *a, float *b) {
    for (pair p = {0}; next_pair(parts, linear, &p);) {
        float *values;
        LK_TRY(lk_variable_download(p.a, a + p.first * linear->in));
        LK_TRY(lk_adapter_download(parts->adapters[p.part], p.b, &values));
        for (int64_t n = 0; n < linear->out; n++) {
            memcpy(b + n * rank + p.first, values + n * p.rank, (size_t)p.rank * sizeof *b);
        }
        lk_free(parts->adapters[p.part]->context, values);
    }
    return LK_OK;
}

static lk_status add_copies(lk_adapter *self, lk_adapter_site *site, const mixed_parts *parts) {
    const lk_linear_site *linear = site->site;
    int64_t rank = site->rank;
    size_t a_count = (size_t)(rank * linear->in), b_count = (size_t)(linear->out * rank);
    float *a = lk_calloc(self->context, a_count, sizeof *a), *b = lk_calloc(self->context, b_count, sizeof *b);
    lk_status status = a && b ? gather(parts, linear, rank, a, b)
                              : lk_out_of_memory(self->context, (a_count + b_count) * sizeof *a, "a mixed adapter");
    const lk_adapter_tensor_spec specs[] = {
        {.kind = LK_PEFT_KIND_LORA_A, .rows = rank, .columns = linear->in, .frozen = true, .values = a},
        {.kind = LK_PEFT_KIND_LORA_B, .rows = linear->out, .columns = rank, .frozen = true, .values = b}};
    status = status == LK_OK ? lk_adapter_add_tensor(self, site, &specs[0], NULL) : status;
    status = status == LK_OK ? lk_adapter_add_tensor(self, site, &specs[1], NULL) : status;
    lk_free(self->context, a);
    lk_free(self->context, b);
    return status;
}

static lk_status add_mask(lk_adapter *self, lk_adapter_site *site, const mixed_parts *parts) {
    size_t count = (size_t)(parts->count + 1) * (size_t)site->rank; /* the last row is the base's: zeros */
    float *mask = lk_calloc(self->context, count, sizeof *mask);
    if (mask == NULL) {
        return lk_out_of_memory(self->context, count * sizeof *mask, "a mixed adapter");
    }
    for (pair p = {0}; next_pair(parts, site->site, &p);) {
        for (int64_t r = 0; r < p.rank; r++) {
            mask[p.part * site->rank + p.first + r] = p.scale;
        }
    }
    lk_status status = lk_adapter_add_constant(self, lk_adapter_name(self, "mask", site), parts->count + 1, site->rank,
                                               mask, &site->constants[MASK]);
    lk_free(self->context, mask);
    return status;
}

static lk_status add_site(lk_adapter *self, const mixed_parts *parts, const lk_linear_site *linear, bool copied) {
    pair all = {0};
    while (next_pair(parts, linear, &all)) {
    }
    if (all.first == 0) {
        self->site_of[linear->index] = -1;
        return LK_OK;
    }
    if (linear->is_head || linear->is_embedding) {
        return lk_fail(self->context, LK_STATUS_UNSUPPORTED,
                       "%s: adapters of output heads and embeddings cannot be mixed", linear->path);
    }
    lk_adapter_site *site = &self->sites[self->num_sites];
    *site = (lk_adapter_site){.site = linear, .method = &method, .rank = (int32_t)all.first, .scale = 1.0f};
    self->site_of[linear->index] = self->num_sites++;
    LK_TRY(add_mask(self, site, parts));
    return copied ? add_copies(self, site, parts) : LK_OK;
}

static lk_status check_part(const lk_adapter *first, const lk_adapter *part, int32_t index) {
    lk_context *context = first->context;
    if (part->model != first->model) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "adapter %d is of another model than the first", index);
    }
    bool plain = part->num_replacements == 0;
    for (int32_t i = 0; i < part->num_sites; i++) {
        plain = plain && part->sites[i].method->apply == lk_lora_apply;
    }
    return plain ? LK_OK
                 : lk_fail(context, LK_STATUS_UNSUPPORTED,
                           "adapter %d (%s) cannot be mixed: only lora, rslora and lora-fa, without trained biases or "
                           "layers stored in full",
                           index, part->method->name);
}

static lk_status mix(lk_adapter *self, const mixed_parts *parts, bool copied) {
    lk_model *model = self->model;
    for (int32_t i = 0; i < parts->count; i++) {
        LK_TRY(check_part(parts->adapters[0], parts->adapters[i], i));
    }
    mixed_parts *shared = lk_arena_alloc(&self->arena, sizeof *shared);
    lk_adapter **adapters = lk_arena_alloc(&self->arena, (size_t)parts->count * sizeof(lk_adapter *));
    self->sites = lk_calloc(self->context, (size_t)model->num_sites + 1, sizeof *self->sites);
    self->site_of = lk_calloc(self->context, (size_t)model->num_sites + 1, sizeof *self->site_of);
    if (shared == NULL || adapters == NULL || self->sites == NULL || self->site_of == NULL) {
        return lk_out_of_memory(self->context, (size_t)model->num_sites * sizeof *self->sites, "a mixed adapter");
    }
    memcpy(adapters, parts->adapters, (size_t)parts->count * sizeof(lk_adapter *));
    *shared = (mixed_parts){copied ? NULL : adapters, parts->count};
    self->shared = shared;
    self->method = &method;
    self->dropout = parts->adapters[0]->dropout;
    LK_TRY(lk_variables_create(self->context, lk_session_main_device(model->session), &self->variables));
    for (int32_t i = 0; i < model->num_sites; i++) {
        LK_TRY(add_site(self, parts, &model->sites[i], copied));
    }
    return LK_OK;
}

static lk_status make(lk_adapter *const *adapters, size_t count, bool copied, lk_adapter **out) {
    enum { MAX_PARTS = 1024 };
    *out = NULL;
    if (count == 0) {
        return LK_STATUS_INVALID_ARGUMENT; /* and nobody to tell */
    }
    if (count > MAX_PARTS) {
        return lk_fail(adapters[0]->context, LK_STATUS_INVALID_ARGUMENT, "%zu adapters, expected at most %d", count,
                       MAX_PARTS);
    }
    LK_TRY(lk_adapter_new(adapters[0]->model, out));
    lk_status status = mix(*out, &(mixed_parts){adapters, (int32_t)count}, copied);
    if (status != LK_OK) {
        lk_adapter_destroy(*out);
        *out = NULL;
    }
    return status;
}

lk_status lk_adapter_mix(lk_adapter *const *adapters, size_t count, lk_adapter **out) {
    return make(adapters, count, true, out);
}

/* Dropout is that of the layer's input, which the parts share. */
lk_status lk_adapter_mix_in_place(lk_adapter *const *adapters, size_t count, lk_adapter **out) {
    *out = NULL;
    for (size_t i = 1; i < count; i++) {
        if (adapters[i]->dropout != adapters[0]->dropout) {
            return lk_fail(adapters[0]->context, LK_STATUS_UNSUPPORTED,
                           "adapter %zu has dropout %g and adapter 0 %g: mixed they are trained with one", i,
                           (double)adapters[i]->dropout, (double)adapters[0]->dropout);
        }
    }
    return make(adapters, count, false, out);
}
