#include "core/adapters/adapter.h"

#include <string.h>

#define LK_ADAPTER(NAME, name) extern const lk_adapter_method lk_adapter_method_##name;
#include "core/adapters/adapters.def"
#undef LK_ADAPTER

static const lk_adapter_method *const methods[] = {
#define LK_ADAPTER(NAME, name) &lk_adapter_method_##name,
#include "core/adapters/adapters.def"
#undef LK_ADAPTER
};

static const char *const method_names[] = {
#define LK_ADAPTER(NAME, name) #name,
#include "core/adapters/adapters.def"
#undef LK_ADAPTER
    NULL,
};

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

void lk_adapter_options_init(lk_adapter_options *options) {
    *options = (lk_adapter_options){
        .struct_size = sizeof *options, .method = "lora", .rank = 8, .alpha = 16.0, .target_modules = "all-linear"};
}

/* ---- sites and tensors ---- */

const lk_adapter_site *lk_adapter_site_of(const lk_adapter *adapter, const lk_linear_site *site) {
    int32_t index = adapter->site_of[site->index];
    return index < 0 ? NULL : &adapter->sites[index];
}

int32_t lk_adapter_num_tensors(const lk_adapter *adapter) {
    int32_t count = 0;
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        count += adapter->sites[i].num_tensors;
    }
    return count;
}

lk_adapter_tensor *lk_adapter_tensor_at(const lk_adapter *adapter, int32_t index) {
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        if (index < adapter->sites[i].num_tensors) {
            return &adapter->sites[i].tensors[index];
        }
        index -= adapter->sites[i].num_tensors;
    }
    return NULL;
}

lk_status lk_adapter_add_tensor(lk_adapter *adapter, lk_adapter_site *site, lk_peft_kind kind, int64_t rows,
                                int64_t columns, const float *values) {
    lk_context *context = adapter->context;
    const int64_t shape[] = {rows, columns};
    lk_adapter_tensor *tensor = &site->tensors[site->num_tensors];
    lk_text name;
    lk_text_init(&name, context);
    lk_peft_name(&name, site->site->path, kind, "");
    lk_status status = lk_text_status(&name);
    char *gradient = status == LK_OK ? lk_arena_printf(&adapter->arena, "gradient.%s", name.data) : NULL;
    if (gradient == NULL) {
        lk_text_free(&name);
        return lk_out_of_memory(context, sizeof *tensor, "an adapter");
    }
    status = lk_variables_add(adapter->variables, name.data, LK_ROLE_STATE, "adapter", LK_DTYPE_F32, 2, shape,
                              &tensor->value);
    lk_text_free(&name);
    LK_TRY(status);
    LK_TRY(lk_variables_add(adapter->variables, gradient, LK_ROLE_STATE, "optimizer", LK_DTYPE_F32, 2, shape,
                            &tensor->gradient));
    tensor->name = tensor->value->name;
    tensor->kind = kind;
    site->num_tensors++;
    return values != NULL ? lk_variable_upload(tensor->value, values) : LK_OK;
}

static lk_status add_site(lk_adapter *adapter, const lk_linear_site *linear) {
    lk_peft_scaling scaling;
    LK_TRY(lk_peft_scaling_of(&adapter->config, linear->path, &scaling));
    if (scaling.rank < 1 || scaling.rank > LK_MIN(linear->in, linear->out)) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "rank %lld at %s: expected 1 to %lld, the smaller side of its weight", (long long)scaling.rank,
                       linear->path, (long long)LK_MIN(linear->in, linear->out));
    }
    lk_adapter_site *site = &adapter->sites[adapter->num_sites];
    *site = (lk_adapter_site){.site = linear, .rank = (int32_t)scaling.rank, .scale = (float)scaling.scale};
    adapter->site_of[linear->index] = adapter->num_sites++;
    return adapter->method->declare(adapter, site);
}

static lk_status no_match(lk_adapter *adapter, const char *name) {
    const lk_model *model = adapter->model;
    const char *first = model->num_sites > 0 ? model->sites[0].path : "";
    return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                   "target_modules: no linear layer of the model matches \"%s\" (they are called %s and so on)", name,
                   first);
}

/* Every name must match something: a misspelt one would be left out in silence. */
static lk_status check_names(lk_adapter *adapter) {
    const json_t *targets = adapter->config.target_modules;
    size_t i;
    const json_t *target;
    for (i = 0; i < json_array_size(targets); i++) {
        target = json_array_get(targets, i);
        const char *name = json_string_value(target);
        size_t length = strlen(name);
        bool found = false;
        for (int32_t s = 0; s < adapter->model->num_sites && !found; s++) {
            const char *path = adapter->model->sites[s].path;
            size_t path_length = strlen(path);
            found = path_length >= length && strcmp(path + path_length - length, name) == 0 &&
                    (path_length == length || path[path_length - length - 1] == '.');
        }
        if (!found) {
            return no_match(adapter, name);
        }
    }
    return LK_OK;
}

static lk_status declare(lk_adapter *adapter) {
    lk_model *model = adapter->model;
    lk_device *home = model->plan_only ? NULL : lk_session_main_device(model->session);
    adapter->dropout = (float)adapter->config.lora_dropout;
    adapter->sites = lk_calloc(adapter->context, (size_t)model->num_sites + 1, sizeof *adapter->sites);
    adapter->site_of = lk_calloc(adapter->context, (size_t)model->num_sites + 1, sizeof *adapter->site_of);
    if (adapter->sites == NULL || adapter->site_of == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)model->num_sites * sizeof *adapter->sites, "an adapter");
    }
    LK_TRY(lk_variables_create(adapter->context, home, &adapter->variables));
    for (int32_t i = 0; i < model->num_sites; i++) {
        bool targeted;
        adapter->site_of[i] = -1;
        LK_TRY(lk_peft_targets_module(&adapter->config, model->sites[i].path, !model->sites[i].is_head, &targeted));
        if (targeted) {
            LK_TRY(add_site(adapter, &model->sites[i]));
        }
    }
    return adapter->num_sites > 0 ? LK_OK : no_match(adapter, "any of the targets");
}

/* ---- making, reading, writing ---- */

static lk_status new_adapter(lk_model *model, lk_adapter **out) {
    *out = lk_calloc(model->context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(model->context, sizeof **out, "an adapter");
    }
    (*out)->context = model->context;
    (*out)->model = model;
    lk_arena_init(&(*out)->arena, model->context);
    return LK_OK;
}

static lk_status choose_method(lk_adapter *adapter, const char *name) {
    adapter->method = lk_adapter_method_find(name);
    if (adapter->method != NULL) {
        return LK_OK;
    }
    lk_text known;
    lk_text_init(&known, adapter->context);
    for (size_t i = 0; method_names[i] != NULL; i++) {
        lk_text_printf(&known, "%s%s", i ? ", " : "", method_names[i]);
    }
    lk_status status = lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT, "there is no method \"%s\"; known are %s",
                               name, known.data ? known.data : "");
    lk_text_free(&known);
    return status;
}

static lk_status create(lk_adapter *adapter, const lk_adapter_options *options) {
    lk_context *context = adapter->context;
    LK_TRY(choose_method(adapter, options->method));
    if (!(options->dropout >= 0.0 && options->dropout < 1.0)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "dropout is %g, expected 0 or more and less than 1",
                       options->dropout);
    }
    if (options->rank < 1) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "rank is %d, expected 1 or more", options->rank);
    }
    adapter->seed = options->seed;
    LK_TRY(lk_peft_config_init(context, LK_PEFT_LORA, &adapter->config));
    lk_peft_config *config = &adapter->config;
    config->r = options->rank;
    config->lora_alpha = options->alpha;
    config->lora_dropout = options->dropout;
    adapter->method->configure(config);
    LK_TRY(lk_peft_config_set_targets(config, options->target_modules));
    LK_TRY(lk_peft_config_set_text(config, &config->task_type, "CAUSAL_LM"));
    LK_TRY(lk_peft_config_set_text(config, &config->base_model_name_or_path,
                                   lk_pretrained_path(adapter->model->pretrained)));
    LK_TRY(check_names(adapter));
    return declare(adapter);
}

lk_status lk_adapter_create(lk_model *model, const lk_adapter_options *options, lk_adapter **out) {
    lk_adapter_options chosen;
    lk_adapter_options_init(&chosen);
    if (options != NULL) {
        memcpy(&chosen, options, LK_MIN(options->struct_size, sizeof chosen));
    }
    LK_TRY(new_adapter(model, out));
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
        lk_arena_free(&adapter->arena);
        lk_free(adapter->context, adapter);
    }
}

static lk_status choose_method_of(lk_adapter *adapter, const char *folder) {
    for (size_t i = 0; i < LK_COUNT(methods); i++) {
        if (methods[i]->accepts(&adapter->config)) {
            adapter->method = methods[i];
            return LK_OK;
        }
    }
    return lk_fail(adapter->context, LK_STATUS_UNSUPPORTED, "%s: no method of this build trains such an adapter", folder);
}

static lk_status read_tensor(lk_adapter *adapter, const lk_peft_adapter *files, const char *folder,
                             const lk_adapter_site *site, const lk_adapter_tensor *tensor) {
    lk_context *context = adapter->context;
    const lk_peft_tensor *stored = lk_peft_lookup(files, site->site->path, tensor->kind, "");
    if (stored == NULL) {
        return lk_fail(context, LK_STATUS_NOT_FOUND, "%s: adapter_model.safetensors lacks %s", folder, tensor->name);
    }
    float *values = lk_alloc(context, tensor->value->bytes);
    if (values == NULL) {
        return lk_out_of_memory(context, tensor->value->bytes, tensor->name);
    }
    lk_status status = lk_peft_read_f32(files, stored, tensor->value->rank, tensor->value->shape, values);
    if (status == LK_OK) {
        status = lk_variable_upload(tensor->value, values);
    }
    lk_free(context, values);
    return status;
}

static bool is_used(const lk_adapter *adapter, const lk_peft_tensor *stored) {
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        const lk_adapter_site *site = &adapter->sites[i];
        for (int32_t j = 0; j < site->num_tensors && strcmp(site->site->path, stored->module) == 0; j++) {
            if (site->tensors[j].kind == stored->kind) {
                return true;
            }
        }
    }
    return false;
}

/* Each tensor of the adapter must be in the file, and each of the file's must have been asked for. */
static lk_status read_tensors(lk_adapter *adapter, const lk_peft_adapter *files, const char *folder) {
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        for (int32_t j = 0; j < adapter->sites[i].num_tensors; j++) {
            LK_TRY(read_tensor(adapter, files, folder, &adapter->sites[i], &adapter->sites[i].tensors[j]));
        }
    }
    for (size_t i = 0; i < lk_peft_count(files); i++) {
        const lk_peft_tensor *stored = lk_peft_at(files, i);
        if (!is_used(adapter, stored)) {
            return lk_fail(adapter->context, LK_STATUS_FORMAT,
                           "%s: %s does not belong to any layer that adapter_config.json adapts in this model", folder,
                           stored->tensor->name);
        }
    }
    return LK_OK;
}

/* The adapter's own copy of a config: what save writes again, with the other keys it was read with. */
static lk_status load(lk_adapter *adapter, const char *folder) {
    lk_context *context = adapter->context;
    char *path = lk_path_join(context, folder, "adapter_config.json");
    if (path == NULL) {
        return lk_out_of_memory(context, strlen(folder), "a path");
    }
    lk_status status = lk_peft_config_load(context, path, &adapter->config);
    lk_free(context, path);
    LK_TRY(status);
    LK_TRY(choose_method_of(adapter, folder));
    lk_peft_adapter *files;
    LK_TRY(lk_peft_open(context, folder, &files));
    status = declare(adapter);
    if (status == LK_OK) {
        status = read_tensors(adapter, files, folder);
    }
    lk_peft_destroy(files);
    return status;
}

lk_status lk_adapter_load(lk_model *model, const char *folder, lk_adapter **out) {
    LK_TRY(new_adapter(model, out));
    lk_status status = load(*out, folder);
    if (status != LK_OK) {
        lk_adapter_destroy(*out);
        *out = NULL;
    }
    return status;
}

typedef struct save_job {
    const lk_adapter *adapter;
    void *bytes; /* of the tensor being written */
} save_job;

static lk_status source(void *user, size_t index, const void **data) {
    save_job *job = user;
    lk_adapter_tensor *tensor = lk_adapter_tensor_at(job->adapter, (int32_t)index);
    *data = job->bytes;
    return lk_variable_download(tensor->value, job->bytes);
}

lk_status lk_adapter_save(lk_adapter *adapter, const char *folder) {
    lk_context *context = adapter->context;
    size_t count = (size_t)lk_adapter_num_tensors(adapter), largest = 0;
    LK_TRY(lk_make_directories(context, folder));
    lk_stored_tensor *tensors = lk_calloc(context, count + 1, sizeof *tensors);
    if (tensors == NULL) {
        return lk_out_of_memory(context, count * sizeof *tensors, "saving an adapter");
    }
    for (size_t i = 0; i < count; i++) {
        const lk_adapter_tensor *tensor = lk_adapter_tensor_at(adapter, (int32_t)i);
        tensors[i] = (lk_stored_tensor){.name = tensor->name, .dtype = LK_DTYPE_F32, .rank = tensor->value->rank};
        memcpy(tensors[i].shape, tensor->value->shape, sizeof tensors[i].shape);
        largest = LK_MAX(largest, tensor->value->bytes);
    }
    save_job job = {adapter, lk_alloc_aligned(context, largest)};
    lk_status status = job.bytes ? lk_peft_save(&adapter->config, folder, tensors, count, source, &job)
                                 : lk_out_of_memory(context, largest, "saving an adapter");
    lk_free_aligned(context, job.bytes);
    lk_free(context, tensors);
    return status;
}

/* ---- looking at it ---- */

void lk_adapter_get_info(const lk_adapter *adapter, lk_adapter_info *info) {
    *info = (lk_adapter_info){.method = adapter->method->name,
                              .num_tensors = lk_adapter_num_tensors(adapter),
                              .num_modules = adapter->num_sites};
    for (int64_t i = 0; i < info->num_tensors; i++) {
        info->num_parameters += (int64_t)(lk_adapter_tensor_at(adapter, (int32_t)i)->value->bytes / sizeof(float));
    }
}

lk_status lk_adapter_get_tensor(lk_adapter *adapter, int64_t index, const char **name, int64_t shape[2], float *values,
                                float *gradients) {
    lk_adapter_tensor *tensor =
        index >= 0 && index <= INT32_MAX ? lk_adapter_tensor_at(adapter, (int32_t)index) : NULL;
    if (tensor == NULL) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT, "the adapter has no tensor %lld", (long long)index);
    }
    *name = tensor->name;
    shape[0] = tensor->value->shape[0];
    shape[1] = tensor->value->shape[1];
    if (values != NULL) {
        LK_TRY(lk_variable_download(tensor->value, values));
    }
    return gradients != NULL ? lk_variable_download(tensor->gradient, gradients) : LK_OK;
}
