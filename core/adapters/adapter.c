#include "core/adapters/adapter_files.h"
#include "core/formats/dequantize.h"

#include <string.h>

#define LK_ADAPTER(NAME, name, text) extern const lk_adapter_method lk_adapter_method_##name;
#include "core/adapters/adapters.def"
#undef LK_ADAPTER

static const lk_adapter_method *const methods[] = {
#define LK_ADAPTER(NAME, name, text) &lk_adapter_method_##name,
#include "core/adapters/adapters.def"
#undef LK_ADAPTER
};

static const char *const method_names[] = {
#define LK_ADAPTER(NAME, name, text) text,
#include "core/adapters/adapters.def"
#undef LK_ADAPTER
    NULL,
};

/* As in PEFT a rank may be larger than the sides of a weight, which is of no use there but harmless: one rank serves
 * layers of all sizes. */
enum { MAX_RANK = 65536 };

const char *const *lk_adapter_methods(void) {
    return method_names;
}

const lk_adapter_method *lk_adapter_method_find(const char *name) {
    for (size_t i = 0; i < LK_COUNT(methods); i++) {
        if (strcmp(methods[i]->name, name) == 0) {
            return methods[i];
        }
    }
    return NULL;
}

/* ---- sites and tensors ---- */

const lk_adapter_site *lk_adapter_site_of(const lk_adapter *adapter, const lk_linear_site *site) {
    int32_t index = adapter->site_of[site->index];
    return index < 0 ? NULL : &adapter->sites[index];
}

int32_t lk_adapter_num_tensors(const lk_adapter *adapter) {
    return adapter->num_tensors;
}

lk_adapter_tensor *lk_adapter_tensor_at(const lk_adapter *adapter, int32_t index) {
    return index >= 0 && index < adapter->num_tensors ? adapter->tensors[index] : NULL;
}

int32_t lk_adapter_num_trained(const lk_adapter *adapter) {
    return adapter->num_trained;
}

lk_adapter_tensor *lk_adapter_trained_at(const lk_adapter *adapter, int32_t index) {
    return index >= 0 && index < adapter->num_trained ? adapter->trained[index] : NULL;
}

lk_tensor *lk_adapter_project(const lk_adapter *adapter, int32_t index, lk_graph *graph, lk_tensor *gradient) {
    const lk_adapter_tensor *tensor = adapter->trained[index];
    if (tensor->site == NULL || tensor->site->method->project == NULL) {
        return gradient;
    }
    return tensor->site->method->project(graph, tensor->site, tensor->index, gradient);
}

lk_status lk_adapter_prepare(lk_adapter *adapter, const lk_adapter_run *run) {
    adapter->run = *run;
    return adapter->method->prepare != NULL ? adapter->method->prepare(adapter) : LK_OK;
}

/* Makes room in both lists. */
static lk_status keep_tensor(lk_adapter *adapter, lk_adapter_tensor *tensor) {
    if (adapter->num_tensors == adapter->capacity_tensors) {
        int32_t capacity = LK_MAX(64, 2 * adapter->capacity_tensors);
        lk_adapter_tensor ***lists[] = {&adapter->tensors, &adapter->trained};
        for (size_t i = 0; i < LK_COUNT(lists); i++) {
            lk_adapter_tensor **grown =
                lk_realloc(adapter->context, *lists[i], (size_t)capacity, sizeof(lk_adapter_tensor *));
            if (grown == NULL) {
                return lk_out_of_memory(adapter->context, (size_t)capacity * sizeof(void *), "an adapter");
            }
            *lists[i] = grown;
        }
        adapter->capacity_tensors = capacity;
    }
    adapter->tensors[adapter->num_tensors++] = tensor;
    if (tensor->gradient != NULL) {
        adapter->trained[adapter->num_trained++] = tensor;
    }
    return LK_OK;
}

static lk_status name_tensor(lk_adapter *adapter, lk_adapter_tensor *tensor) {
    lk_text name;
    lk_text_init(&name, adapter->context);
    lk_peft_name(&name, adapter->config.peft_type, tensor->module, tensor->kind, tensor->parameter);
    lk_status status = lk_text_status(&name);
    tensor->name = status == LK_OK ? lk_arena_printf(&adapter->arena, "%s", name.data) : NULL;
    lk_text_free(&name);
    return tensor->name != NULL ? LK_OK : lk_out_of_memory(adapter->context, 0, "an adapter");
}

static lk_status add_tensor(lk_adapter *adapter, lk_adapter_site *site, const char *module,
                            const lk_adapter_tensor_spec *spec, lk_adapter_tensor **out) {
    const int64_t shape[] = {spec->rows, LK_MAX((int64_t)1, spec->columns)};
    const int rank = spec->columns > 0 ? 2 : 1;
    lk_adapter_tensor *tensor = lk_arena_alloc(&adapter->arena, sizeof *tensor);
    if (tensor == NULL) {
        return lk_out_of_memory(adapter->context, sizeof *tensor, "an adapter");
    }
    *tensor = (lk_adapter_tensor){.module = module,
                                  .kind = spec->kind,
                                  .parameter = spec->parameter ? spec->parameter : "",
                                  .stored_rank = rank,
                                  .stored_shape = {shape[spec->stored_transposed], shape[!spec->stored_transposed]},
                                  .is_transposed = spec->stored_transposed,
                                  .site = site,
                                  .index = site ? site->num_tensors : 0};
    LK_TRY(name_tensor(adapter, tensor));
    LK_TRY(lk_variables_add(adapter->variables, tensor->name, spec->frozen ? LK_ROLE_WEIGHT : LK_ROLE_STATE, "adapter",
                            LK_DTYPE_F32, rank, shape, &tensor->value));
    if (!spec->frozen && !spec->is_state) {
        const char *gradient = lk_arena_printf(&adapter->arena, "gradient.%s", tensor->name);
        if (gradient == NULL) {
            return lk_out_of_memory(adapter->context, sizeof *tensor, "an adapter");
        }
        LK_TRY(lk_variables_add(adapter->variables, gradient, LK_ROLE_STATE, "optimizer", LK_DTYPE_F32, rank, shape,
                                &tensor->gradient));
    }
    LK_TRY(keep_tensor(adapter, tensor));
    LK_TRY(spec->frozen ? lk_adapter_keep_state(adapter, tensor->value) : LK_OK); /* another seed may go on */
    if (site != NULL) {
        site->tensors[site->num_tensors++] = tensor;
    }
    if (out != NULL) {
        *out = tensor;
    }
    return spec->values != NULL && !adapter->model->plan_only ? lk_variable_upload(tensor->value, spec->values) : LK_OK;
}

lk_status lk_adapter_add_tensor(lk_adapter *adapter, lk_adapter_site *site, const lk_adapter_tensor_spec *spec,
                                lk_adapter_tensor **out) {
    return add_tensor(adapter, site, site != NULL ? site->site->path : "", spec, out);
}

lk_status lk_adapter_add_constant(lk_adapter *adapter, const char *name, int64_t rows, int64_t columns,
                                  const float *values, lk_variable **out) {
    const int64_t shape[] = {rows, LK_MAX((int64_t)1, columns)};
    if (name == NULL) {
        return lk_out_of_memory(adapter->context, 0, "an adapter");
    }
    *out = lk_variables_find(adapter->variables, name); /* when a checkpoint's tensors take the place of the first */
    if (*out == NULL) {
        LK_TRY(lk_variables_add(adapter->variables, name, LK_ROLE_WEIGHT, "adapter", LK_DTYPE_F32, columns > 0 ? 2 : 1,
                                shape, out));
    }
    return values != NULL ? lk_variable_upload(*out, values) : LK_OK;
}

lk_status lk_adapter_keep_state(lk_adapter *adapter, lk_variable *variable) {
    if (adapter->num_states == adapter->capacity_states) {
        int32_t capacity = LK_MAX(64, 2 * adapter->capacity_states);
        lk_variable **grown = lk_realloc(adapter->context, adapter->states, (size_t)capacity, sizeof(lk_variable *));
        if (grown == NULL) {
            return lk_out_of_memory(adapter->context, (size_t)capacity * sizeof(void *), "an adapter");
        }
        adapter->states = grown;
        adapter->capacity_states = capacity;
    }
    adapter->states[adapter->num_states++] = variable;
    return LK_OK;
}

lk_status lk_adapter_add_state(lk_adapter *adapter, const char *name, int rank, const int64_t *shape,
                               lk_variable **out) {
    if (name == NULL) {
        return lk_out_of_memory(adapter->context, 0, "an adapter");
    }
    LK_TRY(lk_variables_add(adapter->variables, name, LK_ROLE_STATE, "optimizer", LK_DTYPE_F32, rank, shape, out));
    return lk_adapter_keep_state(adapter, *out);
}

const char *lk_adapter_name(lk_adapter *adapter, const char *name, const lk_adapter_site *site) {
    return lk_arena_printf(&adapter->arena, "%s.%s", name, site->site->path);
}

lk_status lk_adapter_transpose(const lk_adapter *adapter, const lk_adapter_tensor *tensor, bool from_stored,
                               float *values) {
    int64_t rows = tensor->stored_shape[!from_stored], columns = tensor->stored_shape[from_stored];
    if (!tensor->is_transposed) {
        return LK_OK;
    }
    float *copy = lk_alloc(adapter->context, tensor->value->bytes);
    if (copy == NULL) {
        return lk_out_of_memory(adapter->context, tensor->value->bytes, tensor->name);
    }
    memcpy(copy, values, tensor->value->bytes);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            values[j * rows + i] = copy[i * columns + j];
        }
    }
    lk_free(adapter->context, copy);
    return LK_OK;
}

lk_status lk_adapter_download_stored(const lk_adapter *adapter, const lk_adapter_tensor *tensor, lk_variable *variable,
                                     float *values) {
    LK_TRY(lk_variable_download(variable, values));
    return lk_adapter_transpose(adapter, tensor, false, values);
}

lk_status lk_adapter_download(lk_adapter *adapter, lk_variable *variable, float **out) {
    int64_t elements;
    lk_context *context = adapter->context;
    *out = NULL;
    if (!lk_shape_elements(variable->shape, LK_MAX_RANK, &elements)) {
        return lk_fail(context, LK_STATUS_INTERNAL, "impossible shape");
    }
    void *raw = lk_alloc(context, variable->bytes);
    float *values = lk_calloc(context, (size_t)elements, sizeof *values);
    lk_status status = raw && values ? LK_OK : lk_out_of_memory(context, variable->bytes, variable->name);
    status = status == LK_OK ? lk_variable_download(variable, raw) : status;
    status = status == LK_OK ? lk_convert(context, variable->dtype, raw, LK_DTYPE_F32, values, elements) : status;
    lk_free(context, raw);
    if (status != LK_OK) {
        lk_free(context, values);
        return status;
    }
    *out = values;
    return LK_OK;
}

/* ---- declaring ---- */

lk_status lk_adapter_no_match(lk_adapter *adapter, const char *name) {
    const lk_model *model = adapter->model;
    const char *first = model->num_sites > 0 ? model->sites[0].path : "";
    return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                   "target_modules: no linear layer of the model matches \"%s\" (they are called %s and so on)", name,
                   first);
}

lk_status lk_adapter_targets(const lk_adapter *adapter, const lk_linear_site *site, bool *out) {
    return lk_peft_targets_module(&adapter->config, site->path, !site->is_head && !site->is_embedding, out);
}

static lk_status add_site_of(lk_adapter *adapter, const lk_linear_site *linear, const lk_adapter_method *method,
                             const lk_peft_scaling *scaling) {
    lk_adapter_site *site = &adapter->sites[adapter->num_sites];
    *site = (lk_adapter_site){
        .site = linear, .method = method, .rank = (int32_t)scaling->rank, .scale = (float)scaling->scale};
    adapter->site_of[linear->index] = adapter->num_sites++;
    return method->declare(adapter, site);
}

static lk_status add_site(lk_adapter *adapter, const lk_linear_site *linear) {
    lk_peft_scaling scaling;
    LK_TRY(lk_peft_scaling_of(&adapter->config, linear->path, &scaling));
    if (linear->is_embedding && adapter->method->embed == NULL) {
        return lk_fail(adapter->context, LK_STATUS_UNSUPPORTED, "%s: %s adapts linear layers only, not embeddings",
                       linear->path, adapter->method->name);
    }
    bool limited = adapter->config.peft_type == LK_PEFT_LORA || adapter->config.peft_type == LK_PEFT_DELTA_LORA;
    if (limited && (scaling.rank < 1 || scaling.rank > MAX_RANK)) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT, "rank %lld at %s: expected 1 to %d",
                       (long long)scaling.rank, linear->path, MAX_RANK);
    }
    return add_site_of(adapter, linear, adapter->method, &scaling);
}

static lk_status train_biases(lk_adapter *adapter);

lk_status lk_adapter_declare(lk_adapter *adapter) {
    lk_model *model = adapter->model;
    lk_device *home = model->plan_only ? NULL : lk_session_main_device(model->session);
    adapter->dropout = (float)adapter->config.lora_dropout;
    adapter->sites = lk_calloc(adapter->context, (size_t)model->num_sites + 1, sizeof *adapter->sites);
    adapter->site_of = lk_calloc(adapter->context, (size_t)model->num_sites + 1, sizeof *adapter->site_of);
    if (adapter->sites == NULL || adapter->site_of == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)model->num_sites * sizeof *adapter->sites, "an adapter");
    }
    LK_TRY(lk_variables_create(adapter->context, home, &adapter->variables));
    if (adapter->method->share != NULL) {
        LK_TRY(adapter->method->share(adapter));
    }
    int32_t adapted = 0;
    for (int32_t i = 0; i < model->num_sites; i++) {
        const lk_linear_site *linear = &model->sites[i];
        bool targeted;
        adapter->site_of[i] = -1;
        LK_TRY(lk_adapter_targets(adapter, linear, &targeted));
        if (lk_peft_saves_module(&adapter->config, linear->path)) {
            LK_TRY(add_site_of(adapter, linear, &lk_adapter_method_saved, &(lk_peft_scaling){0}));
        } else if (targeted) {
            LK_TRY(add_site(adapter, linear));
            adapted++;
        }
    }
    LK_TRY(train_biases(adapter));
    if (adapted > 0) {
        return LK_OK;
    }
    if (adapter->config.layers_to_transform != NULL) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "layers: none of the targets is in the layers that are asked for; the model has %lld of them",
                       (long long)model->config->num_hidden_layers);
    }
    return lk_adapter_no_match(adapter, "any of the targets");
}

/* ---- trained copies of the model's tensors ---- */

lk_variable *lk_adapter_variable(const lk_adapter *adapter, lk_variable *base) {
    for (int32_t i = 0; adapter != NULL && i < adapter->num_replacements; i++) {
        if (adapter->replacements[i].base == base) {
            return adapter->replacements[i].tensor->value;
        }
    }
    return base;
}

static lk_status replace(lk_adapter *adapter, lk_variable *base, const char *module, const char *parameter) {
    lk_adapter_tensor *tensor;
    lk_adapter_tensor_spec spec = {.kind = LK_PEFT_KIND_OTHER, .rows = base->shape[0], .parameter = parameter};
    spec.columns = base->rank > 1 ? base->shape[1] : 0;
    float *values = NULL;
    if (module == NULL) {
        return lk_out_of_memory(adapter->context, 0, "an adapter");
    }
    if (!adapter->model->plan_only) {
        LK_TRY(lk_adapter_download(adapter, base, &values));
        spec.values = values;
    }
    lk_status status = add_tensor(adapter, NULL, module, &spec, &tensor);
    lk_free(adapter->context, values);
    LK_TRY(status);
    adapter->replacements[adapter->num_replacements++] = (lk_adapter_replacement){base, tensor};
    return LK_OK;
}

/* PEFT wraps an adapted layer, whose bias is then that of its base_layer. */
static lk_status train_biases(lk_adapter *adapter) {
    static const char suffix[] = ".bias";
    bool all = strcmp(adapter->config.bias, "all") == 0, any = strcmp(adapter->config.bias, "none") != 0;
    const lk_variables *variables = adapter->model->variables;
    adapter->replacements =
        lk_calloc(adapter->context, (size_t)lk_variables_count(variables) + 1, sizeof *adapter->replacements);
    if (adapter->replacements == NULL) {
        return lk_out_of_memory(adapter->context, sizeof *adapter->replacements, "an adapter");
    }
    for (int32_t i = 0; i < lk_variables_count(variables) && any; i++) {
        lk_variable *variable = lk_variables_at(variables, i);
        size_t length = strlen(variable->name), ending = strlen(suffix);
        if (length <= ending || strcmp(variable->name + length - ending, suffix) != 0) {
            continue;
        }
        const char *path = lk_arena_printf(&adapter->arena, "%.*s", (int)(length - ending), variable->name);
        if (path == NULL) {
            return lk_out_of_memory(adapter->context, length, "an adapter");
        }
        const lk_linear_site *linear = lk_model_find_site(adapter->model, path);
        const lk_adapter_site *site = linear != NULL ? lk_adapter_site_of(adapter, linear) : NULL;
        bool saved = lk_peft_saves_module(&adapter->config, path); /* with its bias */
        if (site != NULL && !saved) {
            LK_TRY(replace(adapter, variable, lk_arena_printf(&adapter->arena, "%s.base_layer", path), "bias"));
        } else if (all && !saved) {
            LK_TRY(replace(adapter, variable, path, "bias"));
        }
    }
    return LK_OK;
}

lk_status lk_adapter_finish(lk_adapter *adapter) {
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        lk_adapter_site *site = &adapter->sites[i];
        LK_TRY(site->method->finish != NULL ? site->method->finish(adapter, site) : LK_OK);
    }
    return LK_OK;
}

/* ---- making ---- */

lk_status lk_adapter_new(lk_model *model, lk_adapter **out) {
    *out = lk_calloc(model->context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(model->context, sizeof **out, "an adapter");
    }
    (*out)->context = model->context;
    (*out)->model = model;
    lk_arena_init(&(*out)->arena, model->context);
    return LK_OK;
}

static lk_status create(lk_adapter *adapter, const lk_adapter_options *options) {
    LK_TRY(lk_adapter_configure(adapter, options));
    adapter->options = options;
    LK_TRY(lk_adapter_declare(adapter));
    adapter->options = NULL;
    return lk_adapter_finish(adapter);
}

lk_status lk_adapter_create(lk_model *model, const lk_adapter_options *options, lk_adapter **out) {
    lk_adapter_options chosen;
    lk_adapter_options_init(&chosen);
    if (options != NULL) {
        memcpy(&chosen, options, LK_MIN(options->struct_size, sizeof chosen));
    }
    LK_TRY(lk_adapter_new(model, out));
    lk_status status = create(*out, &chosen);
    if (status != LK_OK) {
        lk_adapter_destroy(*out);
        *out = NULL;
    }
    return status;
}

void lk_adapter_destroy(lk_adapter *adapter) {
    if (adapter != NULL) {
        lk_variables_destroy(adapter->variables);
        lk_peft_config_free(&adapter->config);
        lk_free(adapter->context, adapter->sites);
        lk_free(adapter->context, adapter->site_of);
        lk_free(adapter->context, adapter->tensors);
        lk_free(adapter->context, adapter->trained);
        lk_free(adapter->context, adapter->replacements);
        lk_free(adapter->context, adapter->states);
        lk_arena_free(&adapter->arena);
        lk_free(adapter->context, adapter);
    }
}

lk_status lk_adapter_choose(lk_adapter *adapter, const char *folder) {
    for (size_t i = 0; i < LK_COUNT(methods); i++) {
        const lk_adapter_method *method = methods[i];
        if (method->type == adapter->config.peft_type &&
            (method->accepts == NULL || method->accepts(&adapter->config))) {
            adapter->method = method;
            return LK_OK;
        }
    }
    return lk_fail(adapter->context, LK_STATUS_UNSUPPORTED, "%s: no method of this build trains such an adapter",
                   folder);
}

/* ---- looking at it ---- */

void lk_adapter_get_info(const lk_adapter *adapter, lk_adapter_info *info) {
    *info = (lk_adapter_info){
        .method = adapter->method->name, .num_tensors = adapter->num_trained, .num_modules = adapter->num_sites};
    for (int32_t i = 0; i < adapter->num_trained; i++) {
        info->num_parameters += (int64_t)(adapter->trained[i]->value->bytes / sizeof(float));
    }
}

lk_status lk_adapter_get_tensor(lk_adapter *adapter, int64_t index, const char **name, int64_t shape[2], float *values,
                                float *gradients) {
    lk_adapter_tensor *tensor =
        index >= 0 && index <= INT32_MAX ? lk_adapter_trained_at(adapter, (int32_t)index) : NULL;
    if (tensor == NULL) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT, "the adapter has no tensor %lld",
                       (long long)index);
    }
    *name = tensor->name;
    shape[0] = tensor->stored_shape[0];
    shape[1] = tensor->stored_shape[1];
    if (values != NULL) {
        LK_TRY(lk_adapter_download_stored(adapter, tensor, tensor->value, values));
    }
    return gradients != NULL ? lk_adapter_download_stored(adapter, tensor, tensor->gradient, gradients) : LK_OK;
}
