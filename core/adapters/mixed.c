/* The parts' matrices A and B of a layer lie one after the other, so that there is one product with all of A, one with
 * all of B, and between them, row by row, zeros for the parts that are not the row's (and the scale for that one). */
#include "core/adapters/mixed.h"

#include <string.h>

#include "core/adapters/adapter_files.h"
#include "core/adapters/lora.h"

enum { A = LK_LORA_A, B = LK_LORA_B, MASK = 0 };

typedef struct mixed_parts {
    lk_adapter *const *adapters; /* while it is made */
    int32_t count;
    bool trained;
} mixed_parts;

static lk_tensor *apply(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x) {
    lk_graph *graph = forward->graph;
    const lk_linear_site *linear = site->site;
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
    lk_tensor *s = lk_build_linear(graph, kept, lk_graph_variable(graph, site->tensors[A]->value), NULL);
    s = lk_build_mul(graph, s, mask);
    return lk_build_add(graph, y, lk_build_linear(graph, s, lk_graph_variable(graph, site->tensors[B]->value), NULL));
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

static const lk_adapter_site *site_in(const mixed_parts *parts, int32_t part, const lk_linear_site *linear) {
    return lk_adapter_site_of(parts->adapters[part], linear);
}

/* Copies the parts' matrices into a [rank, in], b [out, rank] and their scales into mask [count + 1, rank]. */
static lk_status gather(const mixed_parts *parts, const lk_linear_site *linear, int64_t rank, float *a, float *b,
                        float *mask) {
    int64_t first = 0;
    for (int32_t i = 0; i < parts->count; i++) {
        const lk_adapter_site *site = site_in(parts, i, linear);
        float *values;
        if (site == NULL) {
            continue;
        }
        LK_TRY(lk_variable_download(site->tensors[A]->value, a + first * linear->in));
        LK_TRY(lk_adapter_download(parts->adapters[i], site->tensors[B]->value, &values));
        for (int64_t n = 0; n < linear->out; n++) {
            memcpy(b + n * rank + first, values + n * site->rank, (size_t)site->rank * sizeof *b);
        }
        lk_free(parts->adapters[i]->context, values);
        for (int64_t r = 0; r < site->rank; r++) {
            mask[i * rank + first + r] = site->scale;
        }
        first += site->rank;
    }
    return LK_OK;
}

static lk_status add_tensors(lk_adapter *self, lk_adapter_site *site, int64_t rank, const float *a, const float *b,
                             const float *mask) {
    const lk_linear_site *linear = site->site;
    bool frozen = !((const mixed_parts *)self->shared)->trained;
    const lk_adapter_tensor_spec specs[] = {
        {.kind = LK_PEFT_KIND_LORA_A, .rows = rank, .columns = linear->in, .frozen = frozen, .values = a},
        {.kind = LK_PEFT_KIND_LORA_B, .rows = linear->out, .columns = rank, .frozen = frozen, .values = b}};
    LK_TRY(lk_adapter_add_tensor(self, site, &specs[0], NULL));
    LK_TRY(lk_adapter_add_tensor(self, site, &specs[1], NULL));
    return lk_adapter_add_constant(self, lk_adapter_name(self, "mask", site), lk_adapter_num_parts(self) + 1, rank,
                                   mask, &site->constants[MASK]);
}

static lk_status add_site(lk_adapter *self, const mixed_parts *parts, const lk_linear_site *linear) {
    int64_t rank = 0;
    for (int32_t i = 0; i < parts->count; i++) {
        const lk_adapter_site *site = site_in(parts, i, linear);
        rank += site != NULL ? site->rank : 0;
    }
    if (rank == 0) {
        self->site_of[linear->index] = -1;
        return LK_OK;
    }
    if (linear->is_head || linear->is_embedding) {
        return lk_fail(self->context, LK_STATUS_UNSUPPORTED,
                       "%s: adapters of output heads and embeddings cannot be mixed", linear->path);
    }
    lk_adapter_site *site = &self->sites[self->num_sites];
    *site = (lk_adapter_site){.site = linear, .method = &method, .rank = (int32_t)rank, .scale = 1.0f};
    self->site_of[linear->index] = self->num_sites++;
    size_t a_count = (size_t)(rank * linear->in), b_count = (size_t)(linear->out * rank);
    float *a = lk_calloc(self->context, a_count, sizeof *a), *b = lk_calloc(self->context, b_count, sizeof *b);
    float *mask = lk_calloc(self->context, (size_t)((parts->count + 1) * rank), sizeof *mask);
    lk_status status =
        a && b && mask ? LK_OK : lk_out_of_memory(self->context, (a_count + b_count) * sizeof *a, "a mixed adapter");
    status = status == LK_OK ? gather(parts, linear, rank, a, b, mask) : status;
    status = status == LK_OK ? add_tensors(self, site, rank, a, b, mask) : status;
    lk_free(self->context, a);
    lk_free(self->context, b);
    lk_free(self->context, mask);
    return status;
}

static lk_status check_part(const lk_adapter *first, const lk_adapter *part, size_t index) {
    lk_context *context = first->context;
    if (part->model != first->model) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "adapter %zu is of another model than the first", index);
    }
    bool plain = part->num_replacements == 0;
    for (int32_t i = 0; i < part->num_sites; i++) {
        plain = plain && part->sites[i].method->apply == lk_lora_apply && part->sites[i].start[A] == NULL;
    }
    return plain ? LK_OK
                 : lk_fail(context, LK_STATUS_UNSUPPORTED,
                           "adapter %zu (%s) cannot be mixed: only lora and rslora, without trained biases or layers "
                           "stored in full",
                           index, part->method->name);
}

/* Dropout is that of the layer's input, which the parts share. */
static lk_status check_dropout(const mixed_parts *parts) {
    for (int32_t i = 1; i < parts->count && parts->trained; i++) {
        if (parts->adapters[i]->dropout != parts->adapters[0]->dropout) {
            return lk_fail(parts->adapters[0]->context, LK_STATUS_UNSUPPORTED,
                           "adapter %d has dropout %g and adapter 0 %g: mixed they are trained with one", i,
                           (double)parts->adapters[i]->dropout, (double)parts->adapters[0]->dropout);
        }
    }
    return LK_OK;
}

static lk_status mix(lk_adapter *self, const mixed_parts *parts) {
    lk_model *model = self->model;
    LK_TRY(check_dropout(parts));
    self->dropout = parts->adapters[0]->dropout;
    for (int32_t i = 0; i < parts->count; i++) {
        LK_TRY(check_part(parts->adapters[0], parts->adapters[i], (size_t)i));
    }
    mixed_parts *shared = lk_arena_alloc(&self->arena, sizeof *shared);
    self->sites = lk_calloc(self->context, (size_t)model->num_sites + 1, sizeof *self->sites);
    self->site_of = lk_calloc(self->context, (size_t)model->num_sites + 1, sizeof *self->site_of);
    if (shared == NULL || self->sites == NULL || self->site_of == NULL) {
        return lk_out_of_memory(self->context, (size_t)model->num_sites * sizeof *self->sites, "a mixed adapter");
    }
    *shared = (mixed_parts){NULL, parts->count, parts->trained}; /* the parts may go away */
    self->shared = shared;
    self->method = &method;
    LK_TRY(lk_variables_create(self->context, lk_session_main_device(model->session), &self->variables));
    for (int32_t i = 0; i < model->num_sites; i++) {
        LK_TRY(add_site(self, parts, &model->sites[i]));
    }
    return LK_OK;
}

static lk_status make(lk_adapter *const *adapters, size_t count, bool trained, lk_adapter **out) {
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
    lk_status status = mix(*out, &(mixed_parts){adapters, (int32_t)count, trained});
    if (status != LK_OK) {
        lk_adapter_destroy(*out);
        *out = NULL;
    }
    return status;
}

lk_status lk_adapter_mix(lk_adapter *const *adapters, size_t count, lk_adapter **out) {
    return make(adapters, count, false, out);
}

lk_status lk_adapter_mix_for_training(lk_adapter *const *adapters, size_t count, lk_adapter **out) {
    return make(adapters, count, true, out);
}

/* ---- taking apart ---- */

/* The first of a part's rows of A within a site: the mask has the scale there, and zeros before. */
static int64_t first_of(const lk_adapter_site *site, const float *mask, size_t index) {
    int64_t first = 0;
    while (first < site->rank && mask[(int64_t)index * site->rank + first] == 0.0f) {
        first++;
    }
    return first;
}

static lk_status extract(lk_adapter *mixed, const lk_adapter_site *site, size_t index, const lk_adapter_site *to) {
    float *values[3] = {NULL}; /* A, B, the mask */
    lk_status status = lk_adapter_download(mixed, site->tensors[A]->value, &values[0]);
    status = status == LK_OK ? lk_adapter_download(mixed, site->tensors[B]->value, &values[1]) : status;
    status = status == LK_OK ? lk_adapter_download(mixed, site->constants[MASK], &values[2]) : status;
    if (status == LK_OK) {
        int64_t first = first_of(site, values[2], index), rank = to->rank;
        for (int64_t n = 0; n < site->site->out; n++) { /* moves up, never onto what is still to be read */
            memmove(values[1] + n * rank, values[1] + n * site->rank + first, (size_t)rank * sizeof(float));
        }
        status = lk_variable_upload(to->tensors[A]->value, values[0] + first * site->site->in);
        status = status == LK_OK ? lk_variable_upload(to->tensors[B]->value, values[1]) : status;
    }
    for (size_t i = 0; i < LK_COUNT(values); i++) {
        lk_free(mixed->context, values[i]);
    }
    return status;
}

lk_status lk_adapter_unmix(lk_adapter *mixed, size_t index, lk_adapter *part) {
    if (!lk_adapter_is_mixed(mixed) || index >= (size_t)lk_adapter_num_parts(mixed)) {
        return lk_fail(mixed->context, LK_STATUS_INVALID_ARGUMENT, "the adapter has no part %zu", index);
    }
    LK_TRY(check_part(mixed, part, index));
    for (int32_t i = 0; i < part->num_sites; i++) {
        const lk_adapter_site *to = &part->sites[i], *site = lk_adapter_site_of(mixed, to->site);
        if (site == NULL || site->rank < to->rank) {
            return lk_fail(mixed->context, LK_STATUS_INVALID_ARGUMENT, "%s: adapter %zu is not what was mixed",
                           to->site->path, index);
        }
        LK_TRY(extract(mixed, site, index, to));
    }
    return LK_OK;
}
