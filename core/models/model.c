#include "core/models/model.h"

#include <stdio.h>
#include <string.h>

#include "core/adapters/adapter.h"
#include "core/formats/dequantize.h"

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

/* How a weight comes to be. */
typedef enum weight_source {
    STORED,
    STORED_TRANSPOSED,
    NORMAL_IF_MISSING, /* a new head's weight */
    ZERO_IF_MISSING    /* its bias */
} weight_source;

/* Vectors (norms, biases) are small and stay fp32. */
static lk_dtype dtype_in_memory(const lk_model *model, int rank) {
    return rank < 2 ? LK_DTYPE_F32 : model->dtype;
}

/* A mapped tensor of the right type is used where it lies. */
static bool can_wrap(const lk_model *model, const lk_stored_tensor *stored, lk_dtype dtype, weight_source from) {
    bool aligned = (uintptr_t)stored->data % lk_dtype_block_bytes(dtype) == 0;
    return stored->dtype == dtype && aligned && from != STORED_TRANSPOSED &&
           lk_pretrained_permuted_heads(model->pretrained, stored) == 0;
}

static lk_status read_transposed(lk_model *model, const char *name, const int64_t *shape, float *values) {
    int64_t out = shape[0], in = shape[1], elements;
    if (!lk_shape_elements(shape, 2, &elements)) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "%s is too large", name);
    }
    float *stored = lk_calloc(model->context, (size_t)elements, sizeof *stored);
    if (stored == NULL) {
        return lk_out_of_memory(model->context, (size_t)elements * sizeof *stored, name);
    }
    lk_status status = lk_pretrained_read_f32(model->pretrained, name, 2, (const int64_t[]){in, out}, stored);
    for (int64_t n = 0; n < out && status == LK_OK; n++) {
        for (int64_t k = 0; k < in; k++) {
            values[n * in + k] = stored[k * out + n];
        }
    }
    lk_free(model->context, stored);
    return status;
}

static void initialise(const lk_model *model, const char *name, weight_source from, int64_t elements, float *values) {
    uint64_t stream = lk_hash64(name, strlen(name), 0);
    for (int64_t i = 0; i < elements; i++) {
        uint32_t words[4];
        double pair[2];
        lk_philox4x32(model->seed, stream, (uint64_t)(i / 2), words);
        lk_normal_pair_from_bits(words[0], words[1], pair);
        values[i] = from == NORMAL_IF_MISSING ? (float)(0.02 * pair[i % 2]) : 0.0f;
    }
}

/* Whether the files have a weight of a head; one for another number of classes than was asked for counts as missing. */
static bool is_stored(const lk_model *model, const char *name, int rank, const int64_t *shape) {
    const lk_stored_tensor *stored = lk_pretrained_lookup(model->pretrained, name);
    bool other = stored != NULL && (stored->rank != rank || stored->shape[0] != shape[0]);
    return stored != NULL && !(other && model->resizes_head);
}

/* What is not simply read is made in fp32 first. */
static lk_status make_weight(lk_model *model, const char *name, const int64_t *shape, weight_source from, bool stored,
                             int64_t elements, float *values) {
    if (stored) {
        return read_transposed(model, name, shape, values);
    }
    lk_log(model->context, LK_LOG_INFO, "%s: %s is not stored: it is new", lk_pretrained_path(model->pretrained), name);
    initialise(model, name, from, elements, values);
    return LK_OK;
}

static lk_status fill_weight(lk_model *model, const char *name, int rank, const int64_t *shape, weight_source from,
                             bool stored, void *values) {
    lk_dtype dtype = dtype_in_memory(model, rank);
    int64_t elements;
    if (stored && from != STORED_TRANSPOSED) {
        return lk_pretrained_read(model->pretrained, name, rank, shape, dtype, values);
    }
    if (!lk_shape_elements(shape, rank, &elements)) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "%s is too large", name);
    }
    if (dtype == LK_DTYPE_F32) {
        return make_weight(model, name, shape, from, stored, elements, values);
    }
    float *wide = lk_calloc(model->context, (size_t)elements, sizeof *wide);
    if (wide == NULL) {
        return lk_out_of_memory(model->context, (size_t)elements * sizeof *wide, name);
    }
    lk_status status = make_weight(model, name, shape, from, stored, elements, wide);
    if (status == LK_OK) {
        status = lk_convert(model->context, LK_DTYPE_F32, wide, dtype, values, elements);
    }
    lk_free(model->context, wide);
    return status;
}

static lk_status load_weight(lk_model *model, const char *name, int rank, const int64_t *shape, weight_source from,
                             lk_variable **out) {
    lk_dtype dtype = dtype_in_memory(model, rank);
    bool stored = from <= STORED_TRANSPOSED || is_stored(model, name, rank, shape);
    const lk_stored_tensor *tensor = NULL;
    if (stored) {
        const int64_t turned[] = {shape[rank - 1], shape[0]};
        LK_TRY(lk_pretrained_find(model->pretrained, name, &tensor));
        LK_TRY(lk_stored_tensor_expect_shape(model->context, tensor, rank, from == STORED_TRANSPOSED ? turned : shape));
        if (can_wrap(model, tensor, dtype, from)) {
            return lk_variables_wrap(model->variables, name, LK_ROLE_WEIGHT, "weights", dtype, rank, shape,
                                     tensor->data, out);
        }
    }
    LK_TRY(lk_variables_add(model->variables, name, LK_ROLE_WEIGHT, "weights", dtype, rank, shape, out));
    void *mapped = lk_variable_map(*out), *staging = NULL;
    if (mapped == NULL && (staging = lk_alloc_aligned(model->context, (*out)->bytes)) == NULL) {
        return lk_out_of_memory(model->context, (*out)->bytes, name);
    }
    lk_status status = fill_weight(model, name, rank, shape, from, stored, mapped != NULL ? mapped : staging);
    if (status == LK_OK && staging != NULL) {
        status = lk_variable_upload(*out, staging);
    }
    lk_free_aligned(model->context, staging);
    if (tensor != NULL) { /* what was copied is not held twice */
        lk_mapping_forget(tensor->data, tensor->bytes);
    }
    return status;
}

static lk_status add_weight(lk_model *model, const char *name, int rank, const int64_t *shape, weight_source from,
                            lk_variable **out) {
    lk_variable *variable;
    if (model->plan_only) {
        LK_TRY(lk_variables_add(model->variables, name, LK_ROLE_WEIGHT, "weights", dtype_in_memory(model, rank), rank,
                                shape, &variable));
    } else {
        LK_TRY(load_weight(model, name, rank, shape, from, &variable));
    }
    int64_t elements;
    lk_shape_elements(shape, rank, &elements);
    model->num_parameters += elements;
    if (out != NULL) {
        *out = variable;
    }
    return LK_OK;
}

lk_status lk_model_weight(lk_model *model, const char *name, int rank, const int64_t *shape, lk_variable **out) {
    return add_weight(model, name, rank, shape, STORED, out);
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

/* weight_from and bias_from say where the two come from; has_bias false: there is only a weight. */
static lk_status add_linear(lk_model *model, lk_linear_site *site, weight_source weight_from, bool has_bias,
                            weight_source bias_from) {
    char name[256];
    const int64_t shape[] = {site->out, site->in};
    snprintf(name, sizeof name, "%s.weight", site->path);
    LK_TRY(add_weight(model, name, 2, shape, weight_from, &site->weight));
    if (has_bias) {
        snprintf(name, sizeof name, "%s.bias", site->path);
        LK_TRY(add_weight(model, name, 1, &site->out, bias_from, &site->bias));
    }
    return add_site(model, site);
}

lk_status lk_model_linear(lk_model *model, const char *path, int64_t in, int64_t out, bool has_bias) {
    lk_linear_site site = {.path = path, .in = in, .out = out};
    return add_linear(model, &site, STORED, has_bias, STORED);
}

lk_status lk_model_conv1d(lk_model *model, const char *path, int64_t in, int64_t out) {
    lk_linear_site site = {.path = path, .in = in, .out = out, .is_transposed = true};
    return add_linear(model, &site, STORED_TRANSPOSED, true, STORED);
}

lk_status lk_model_new_linear(lk_model *model, const char *path, int64_t in, int64_t out, bool is_head) {
    lk_linear_site site = {.path = path, .in = in, .out = out, .is_head = is_head};
    return add_linear(model, &site, NORMAL_IF_MISSING, true, ZERO_IF_MISSING);
}

lk_status lk_model_head(lk_model *model, const char *path, lk_variable *weight) {
    lk_linear_site site = {
        .path = path, .weight = weight, .in = weight->shape[1], .out = weight->shape[0], .is_head = true};
    return add_site(model, &site);
}

lk_status lk_model_embedding(lk_model *model, const char *path) {
    char name[256];
    snprintf(name, sizeof name, "%s.weight", path);
    lk_variable *weight = lk_variables_find(model->variables, name);
    if (weight == NULL) {
        return lk_fail(model->context, LK_STATUS_INTERNAL, "no weight %s", name);
    }
    lk_linear_site site = {
        .path = path, .weight = weight, .in = weight->shape[0], .out = weight->shape[1], .is_embedding = true};
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
    return lk_forward_variable(forward, variable);
}

lk_tensor *lk_forward_variable(lk_forward *forward, lk_variable *variable) {
    return lk_graph_variable(forward->graph, lk_adapter_variable(forward->adapter, variable));
}

lk_tensor *lk_forward_rows(lk_forward *forward, lk_tensor *ids, lk_variable *table) {
    lk_tensor *rows = lk_build_embedding(forward->graph, ids, lk_graph_variable(forward->graph, table));
    return rows != NULL && rows->dtype != LK_DTYPE_F32 ? lk_build_cast(forward->graph, rows, LK_DTYPE_F32) : rows;
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
            return adapted->method->apply(forward, adapted, x);
        }
    }
    return lk_build_linear(forward->graph, x, lk_forward_variable(forward, site->weight),
                           lk_forward_variable(forward, site->bias));
}

/* The layer at a path, which becomes the scope; NULL once the graph has failed. */
static const lk_linear_site *enter_site(lk_forward *forward, const char *path) {
    const lk_linear_site *site = lk_model_find_site(forward->model, path);
    if (site == NULL) {
        lk_graph_fail(forward->graph, lk_fail(forward->model->context, LK_STATUS_INTERNAL, "no layer %s", path));
        return NULL;
    }
    lk_graph_set_scope(forward->graph, path);
    return site;
}

lk_tensor *lk_forward_linear(lk_forward *forward, lk_tensor *x, const char *format, ...) {
    char path[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof path, format, arguments);
    va_end(arguments);
    const lk_linear_site *site = enter_site(forward, path);
    return site != NULL ? apply_site(forward, site, x) : NULL;
}

lk_tensor *lk_forward_embedding(lk_forward *forward, lk_tensor *ids, const char *format, ...) {
    char path[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof path, format, arguments);
    va_end(arguments);
    const lk_linear_site *site = enter_site(forward, path);
    if (site == NULL) {
        return NULL;
    }
    const lk_adapter_site *adapted = forward->adapter != NULL ? lk_adapter_site_of(forward->adapter, site) : NULL;
    return adapted != NULL ? adapted->method->embed(forward, adapted, ids)
                           : lk_forward_rows(forward, ids, site->weight);
}

lk_tensor *lk_forward_activation(lk_forward *forward, lk_tensor *x) {
    lk_hidden_act act = forward->model->config->hidden_act;
    return act == LK_HIDDEN_ACT_RELU ? lk_build_relu(forward->graph, x)
                                     : lk_build_gelu(forward->graph, x, act == LK_HIDDEN_ACT_GELU_NEW);
}

lk_tensor *lk_forward_attention(lk_forward *forward, int32_t layer, lk_tensor *q, lk_tensor *k, lk_tensor *v,
                                const lk_attention_attributes *attention) {
    lk_graph *graph = forward->graph;
    lk_attention_attributes attributes = *attention;
    attributes.allow_bf16 = forward->model->dtype == LK_DTYPE_BF16;
    attention = &attributes;
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
    if (forward->model->task == LK_TASK_CLASSIFY) {
        return forward->model->family->classify(forward, hidden);
    }
    const lk_linear_site *head = head_of(forward->model);
    lk_graph_set_scope(forward->graph, head->path);
    return apply_site(forward, head, hidden);
}

lk_tensor *lk_forward_loss(lk_forward *forward, lk_tensor *hidden, lk_tensor *targets, lk_tensor *loss_scale) {
    if (forward->model->task == LK_TASK_CLASSIFY) {
        lk_tensor *logits = lk_forward_logits(forward, hidden);
        return lk_build_cross_entropy(forward->graph, logits, targets, loss_scale);
    }
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

static lk_status choose_task(lk_model *model, const lk_model_options *options) {
    const char *path = lk_pretrained_path(model->pretrained), *type = model->config->type->name;
    model->task = options->task;
    model->seed = options->seed;
    if (options->task == LK_TASK_CAUSAL_LM && model->family->cache_width == NULL) {
        return lk_fail(model->context, LK_STATUS_UNSUPPORTED,
                       "%s: %s models do not predict the next token; they are trained to classify", path, type);
    }
    if (options->task != LK_TASK_CLASSIFY) {
        return LK_OK;
    }
    if (model->family->classify == NULL) {
        return lk_fail(model->context, LK_STATUS_UNSUPPORTED, "%s: classifying is not supported for %s models", path,
                       type);
    }
    if (options->num_labels < 0 || options->num_labels == 1 || options->num_labels > 1 << 16) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "num_labels is %lld, expected 2 to 65536, or 0",
                       (long long)options->num_labels);
    }
    model->resizes_head = options->num_labels > 0;
    model->num_labels = options->num_labels > 0         ? options->num_labels
                        : model->config->num_labels > 0 ? model->config->num_labels
                                                        : 2;
    return LK_OK;
}

/* A model without a tokenizer can still be trained on ids. */
static lk_status load_tokenizer(lk_model *model) {
    const lk_gguf *gguf = lk_pretrained_gguf(model->pretrained);
    if (gguf != NULL) {
        bool has_one = lk_gguf_has(gguf, "tokenizer.ggml.model");
        return has_one ? lk_tokenizer_load(model->context, NULL, gguf, &model->tokenizer) : LK_OK;
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

static lk_status load(lk_model *model, const char *path, const lk_model_options *options) {
    LK_TRY(lk_pretrained_open(model->context, path, &model->pretrained));
    model->config = lk_pretrained_config(model->pretrained);
    LK_TRY(choose_family(model));
    LK_TRY(choose_task(model, options));
    model->max_length = model->config->max_position_embeddings;
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
    if (chosen.dtype != LK_DTYPE_F32 && chosen.dtype != LK_DTYPE_BF16 && chosen.dtype != LK_DTYPE_F16) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "dtype %s: weights are kept in f32, bf16 or f16",
                       lk_dtype_name(chosen.dtype));
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
    lk_status status = load(model, path, &chosen);
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
                            .max_position_embeddings = model->max_length,
                            .has_tokenizer = model->tokenizer != NULL,
                            .task = model->task,
                            .num_labels = model->num_labels};
}

lk_tokenizer *lk_model_tokenizer(const lk_model *model) {
    return model->tokenizer;
}

const char *lk_model_label(const lk_model *model, int64_t index) {
    const lk_model_config *config = model->config;
    char key[24];
    if (model->task != LK_TASK_CLASSIFY || model->num_labels != config->num_labels || config->source == NULL) {
        return NULL;
    }
    snprintf(key, sizeof key, "%lld", (long long)index);
    return json_string_value(json_object_get(json_object_get(config->source, "id2label"), key));
}
