#include "core/models/model.h"

#include <stdio.h>
#include <string.h>

#include "core/adapters/adapter.h"

#define LK_MODEL(NAME, name) extern const lk_model_family lk_model_family_##name;
#include "core/models/models.def"
#undef LK_MODEL

static const lk_model_family *const families[] = {
#define LK_MODEL(NAME, name) &lk_model_family_##name,
#include "core/models/models.def"
#undef LK_MODEL
};

void lk_model_options_init(lk_model_options *options) {
    *options = (lk_model_options){.struct_size = sizeof *options, .dtype = LK_DTYPE_F32};
}

/* ---- declaring ---- */

/* A mapped fp32 tensor is used where it lies; everything else is converted into memory of the device. */
static lk_status load_weight(lk_model *model, const char *name, int rank, const int64_t *shape, lk_variable **out) {
    const lk_stored_tensor *stored;
    LK_TRY(lk_pretrained_find(model->pretrained, name, &stored));
    LK_TRY(lk_stored_tensor_expect_shape(model->context, stored, rank, shape));
    bool aligned = (uintptr_t)stored->data % sizeof(float) == 0;
    if (stored->dtype == model->dtype && aligned && lk_pretrained_permuted_heads(model->pretrained, stored) == 0) {
        return lk_variables_wrap(model->variables, name, LK_ROLE_WEIGHT, "weights", model->dtype, rank, shape,
                                 stored->data, out);
    }
    LK_TRY(lk_variables_add(model->variables, name, LK_ROLE_WEIGHT, "weights", model->dtype, rank, shape, out));
    void *mapped = lk_variable_map(*out);
    if (mapped != NULL) {
        return lk_pretrained_read(model->pretrained, name, rank, shape, model->dtype, mapped);
    }
    void *staging = lk_alloc_aligned(model->context, (*out)->bytes);
    if (staging == NULL) {
        return lk_out_of_memory(model->context, (*out)->bytes, name);
    }
    lk_status status = lk_pretrained_read(model->pretrained, name, rank, shape, model->dtype, staging);
    if (status == LK_OK) {
        status = lk_variable_upload(*out, staging);
    }
    lk_free_aligned(model->context, staging);
    return status;
}

lk_status lk_model_weight(lk_model *model, const char *name, int rank, const int64_t *shape, lk_variable **out) {
    lk_variable *variable;
    if (model->plan_only) {
        LK_TRY(lk_variables_add(model->variables, name, LK_ROLE_WEIGHT, "weights", model->dtype, rank, shape,
                                &variable));
    } else {
        LK_TRY(load_weight(model, name, rank, shape, &variable));
    }
    int64_t elements;
    lk_shape_elements(shape, rank, &elements);
    model->num_parameters += elements;
    if (out != NULL) {
        *out = variable;
    }
    return LK_OK;
}

static lk_status add_site(lk_model *model, const lk_linear_site *site) {
    if (model->num_sites == model->capacity_sites) {
        int32_t capacity = LK_MAX(64, 2 * model->capacity_sites);
        lk_linear_site *sites = lk_realloc(model->context, model->sites, (size_t)capacity, sizeof *sites);
        if (sites == NULL) {
            return lk_out_of_memory(model->context, (size_t)capacity * sizeof *sites, "a model");
        }
        model->sites = sites;
        model->capacity_sites = capacity;
    }
    lk_linear_site *added = &model->sites[model->num_sites];
    *added = *site;
    added->index = model->num_sites;
    added->path = lk_arena_printf(&model->arena, "%s", site->path);
    if (added->path == NULL) {
        return lk_out_of_memory(model->context, strlen(site->path), "a model");
    }
    model->num_sites++;
    return LK_OK;
}

lk_status lk_model_linear(lk_model *model, const char *path, int64_t in, int64_t out, bool has_bias) {
    char name[256];
    lk_linear_site site = {.path = path, .in = in, .out = out};
    snprintf(name, sizeof name, "%s.weight", path);
    LK_TRY(lk_model_weight(model, name, 2, (const int64_t[]){out, in}, &site.weight));
    if (has_bias) {
        snprintf(name, sizeof name, "%s.bias", path);
        LK_TRY(lk_model_weight(model, name, 1, &out, &site.bias));
    }
    return add_site(model, &site);
}

lk_status lk_model_head(lk_model *model, const char *path, lk_variable *weight) {
    lk_linear_site site = {
        .path = path, .weight = weight, .in = weight->shape[1], .out = weight->shape[0], .is_head = true};
    return add_site(model, &site);
}

lk_status lk_model_constant(lk_model *model, const char *name, int64_t count, const float *values) {
    lk_variable *variable;
    LK_TRY(lk_variables_add(model->variables, name, LK_ROLE_WEIGHT, "weights", LK_DTYPE_F32, 1, &count, &variable));
    return model->plan_only ? LK_OK : lk_variable_upload(variable, values);
}

/* ---- building ---- */

lk_tensor *lk_forward_weight(lk_forward *forward, const char *format, ...) {
    char name[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    lk_variable *variable = lk_variables_find(forward->model->variables, name);
    if (variable == NULL) {
        lk_graph_fail(forward->graph, lk_fail(forward->model->context, LK_STATUS_INTERNAL, "no weight %s", name));
        return NULL;
    }
    return lk_graph_variable(forward->graph, variable);
}

const lk_linear_site *lk_model_find_site(const lk_model *model, const char *path) {
    for (int32_t i = 0; i < model->num_sites; i++) {
        if (strcmp(model->sites[i].path, path) == 0) {
            return &model->sites[i];
        }
    }
    return NULL;
}

static lk_tensor *apply_site(lk_forward *forward, const lk_linear_site *site, lk_tensor *x) {
    if (forward->adapter != NULL) {
        const lk_adapter_site *adapted = lk_adapter_site_of(forward->adapter, site);
        if (adapted != NULL) {
            return forward->adapter->method->apply(forward, adapted, x);
        }
    }
    lk_tensor *bias = site->bias ? lk_graph_variable(forward->graph, site->bias) : NULL;
    return lk_build_linear(forward->graph, x, lk_graph_variable(forward->graph, site->weight), bias);
}

lk_tensor *lk_forward_linear(lk_forward *forward, lk_tensor *x, const char *format, ...) {
    char path[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof path, format, arguments);
    va_end(arguments);
    const lk_linear_site *site = lk_model_find_site(forward->model, path);
    if (site == NULL) {
        lk_graph_fail(forward->graph, lk_fail(forward->model->context, LK_STATUS_INTERNAL, "no linear layer %s", path));
        return NULL;
    }
    lk_graph_set_scope(forward->graph, path);
    return apply_site(forward, site, x);
}

lk_tensor *lk_forward_attention(lk_forward *forward, int32_t layer, lk_tensor *q, lk_tensor *k, lk_tensor *v,
                                const lk_attention_attributes *attention) {
    lk_graph *graph = forward->graph;
    if (forward->key_caches == NULL) {
        return lk_build_attention(graph, q, k, v, forward->cu_seqlens, NULL, NULL, attention);
    }
    lk_tensor *keys = lk_graph_variable(graph, forward->key_caches[layer]);
    lk_tensor *values = lk_graph_variable(graph, forward->value_caches[layer]);
    lk_build_kv_cache_write(graph, keys, k, forward->slots);
    lk_build_kv_cache_write(graph, values, v, forward->slots);
    return lk_build_attention(graph, q, keys, values, forward->cu_seqlens, forward->cu_seqlens_k, forward->seqlens_k,
                              attention);
}

static const lk_linear_site *head_of(const lk_model *model) {
    for (int32_t i = 0; i < model->num_sites; i++) {
        if (model->sites[i].is_head) {
            return &model->sites[i];
        }
    }
    return NULL;
}

lk_tensor *lk_forward_logits(lk_forward *forward, lk_tensor *hidden) {
    const lk_linear_site *head = head_of(forward->model);
    lk_graph_set_scope(forward->graph, head->path);
    return apply_site(forward, head, hidden);
}

lk_tensor *lk_forward_loss(lk_forward *forward, lk_tensor *hidden, lk_tensor *targets, lk_tensor *loss_scale) {
    const lk_linear_site *head = head_of(forward->model);
    bool adapted = forward->adapter != NULL && lk_adapter_site_of(forward->adapter, head) != NULL;
    lk_graph_set_scope(forward->graph, head->path);
    if (adapted || head->bias != NULL) {
        return lk_build_cross_entropy(forward->graph, apply_site(forward, head, hidden), targets, loss_scale);
    }
    lk_tensor *weight = lk_graph_variable(forward->graph, head->weight);
    return lk_build_linear_cross_entropy(forward->graph, hidden, weight, targets, loss_scale);
}

/* ---- loading ---- */

static lk_status choose_family(lk_model *model) {
    for (size_t i = 0; i < LK_COUNT(families); i++) {
        if (families[i]->accepts(model->config)) {
            model->family = families[i];
            return LK_OK;
        }
    }
    return lk_fail(model->context, LK_STATUS_UNSUPPORTED, "%s: no model family for model_type \"%s\"",
                   lk_pretrained_path(model->pretrained), model->config->type->name);
}

/* A model without a tokenizer can still be trained on ids. */
static lk_status load_tokenizer(lk_model *model) {
    const lk_gguf *gguf = lk_pretrained_gguf(model->pretrained);
    if (gguf != NULL) {
        return lk_tokenizer_load(model->context, NULL, gguf, &model->tokenizer);
    }
    const char *folder = lk_pretrained_folder(model->pretrained);
    char *path = lk_path_join(model->context, folder, "tokenizer.json");
    if (path == NULL) {
        return lk_out_of_memory(model->context, strlen(folder), "a path");
    }
    bool present = lk_path_is_file(path);
    lk_free(model->context, path);
    return present ? lk_tokenizer_load(model->context, folder, NULL, &model->tokenizer) : LK_OK;
}

static lk_status load(lk_model *model, const char *path) {
    LK_TRY(lk_pretrained_open(model->context, path, &model->pretrained));
    model->config = lk_pretrained_config(model->pretrained);
    LK_TRY(choose_family(model));
    lk_device *home = model->plan_only ? NULL : lk_session_main_device(model->session);
    LK_TRY(lk_variables_create(model->context, home, &model->variables));
    LK_TRY(model->family->declare(model));
    return load_tokenizer(model);
}

lk_status lk_model_load(lk_session *session, const char *path, const lk_model_options *options, lk_model **out) {
    *out = NULL;
    lk_context *context = session->context;
    lk_model_options chosen;
    lk_model_options_init(&chosen);
    if (options != NULL) {
        memcpy(&chosen, options, LK_MIN(options->struct_size, sizeof chosen));
    }
    if (chosen.dtype != LK_DTYPE_F32) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "dtype %s: weights are kept in f32", lk_dtype_name(chosen.dtype));
    }
    lk_model *model = lk_calloc(context, 1, sizeof *model);
    if (model == NULL) {
        return lk_out_of_memory(context, sizeof *model, "a model");
    }
    model->context = context;
    model->session = session;
    model->dtype = chosen.dtype;
    model->plan_only = chosen.plan_only;
    lk_arena_init(&model->arena, context);
    lk_status status = load(model, path);
    if (status != LK_OK) {
        lk_model_destroy(model);
        return status;
    }
    *out = model;
    return LK_OK;
}

void lk_model_destroy(lk_model *model) {
    if (model != NULL) {
        lk_variables_destroy(model->variables);
        lk_tokenizer_destroy(model->tokenizer);
        lk_pretrained_destroy(model->pretrained);
        lk_free(model->context, model->sites);
        lk_arena_free(&model->arena);
        lk_free(model->context, model);
    }
}

void lk_model_get_info(const lk_model *model, lk_model_info *info) {
    const lk_model_config *config = model->config;
    *info = (lk_model_info){.path = lk_pretrained_path(model->pretrained),
                            .model_type = config->type->name,
                            .num_parameters = model->num_parameters,
                            .hidden_size = config->hidden_size,
                            .num_hidden_layers = config->num_hidden_layers,
                            .num_attention_heads = config->num_attention_heads,
                            .num_key_value_heads = config->num_key_value_heads,
                            .head_dim = config->head_dim,
                            .intermediate_size = config->intermediate_size,
                            .vocab_size = config->vocab_size,
                            .max_position_embeddings = config->max_position_embeddings,
                            .has_tokenizer = model->tokenizer != NULL};
}

lk_tokenizer *lk_model_tokenizer(const lk_model *model) {
    return model->tokenizer;
}
