/* An adapter as a PEFT folder. */
#include <string.h>

#include "core/adapters/adapter_files.h"

static lk_status read_tensor(lk_adapter *adapter, const lk_peft_adapter *files, const char *folder,
                             const lk_adapter_tensor *tensor) {
    lk_context *context = adapter->context;
    const lk_peft_tensor *stored = lk_peft_lookup(files, tensor->module, tensor->kind, tensor->parameter);
    if (stored == NULL) {
        return lk_fail(context, LK_STATUS_NOT_FOUND, "%s: adapter_model.safetensors lacks %s", folder, tensor->name);
    }
    float *values = lk_alloc(context, tensor->value->bytes);
    if (values == NULL) {
        return lk_out_of_memory(context, tensor->value->bytes, tensor->name);
    }
    lk_status status = lk_peft_read_f32(files, stored, tensor->stored_rank, tensor->stored_shape, values);
    status = status == LK_OK ? lk_adapter_transpose(adapter, tensor, true, values) : status;
    if (status == LK_OK) {
        status = lk_variable_upload(tensor->value, values);
    }
    lk_free(context, values);
    return status;
}

/* Beside the adapter of a table, or of the head, PEFT stores the model's own weight. */
static bool is_base_table(const lk_adapter *adapter, const lk_peft_tensor *stored) {
    static const char suffix[] = ".base_layer";
    size_t length = strlen(stored->module), ending = strlen(suffix);
    if (length <= ending || strcmp(stored->module + length - ending, suffix) != 0 ||
        strcmp(stored->parameter, "weight") != 0) {
        return false;
    }
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        const lk_linear_site *linear = adapter->sites[i].site;
        if ((linear->is_embedding || linear->is_head) && strlen(linear->path) == length - ending &&
            memcmp(linear->path, stored->module, length - ending) == 0) {
            const lk_stored_tensor *tensor = stored->tensor;
            return tensor->rank == 2 && tensor->shape[0] == linear->weight->shape[0] &&
                   tensor->shape[1] == linear->weight->shape[1];
        }
    }
    return false;
}

static bool is_used(const lk_adapter *adapter, const lk_peft_tensor *stored) {
    for (int32_t i = 0; i < adapter->num_tensors; i++) {
        const lk_adapter_tensor *tensor = adapter->tensors[i];
        if (tensor->kind == stored->kind && strcmp(tensor->module, stored->module) == 0 &&
            strcmp(tensor->parameter, stored->parameter) == 0) {
            return true;
        }
    }
    return false;
}

/* Each tensor of the adapter must be in the file, and each of the file's must have been asked for. */
static lk_status read_tensors(lk_adapter *adapter, const lk_peft_adapter *files, const char *folder) {
    for (int32_t i = 0; i < adapter->num_tensors; i++) {
        LK_TRY(read_tensor(adapter, files, folder, adapter->tensors[i]));
    }
    for (size_t i = 0; i < lk_peft_count(files); i++) {
        const lk_peft_tensor *stored = lk_peft_at(files, i);
        bool empty = stored->tensor->bytes == 0; /* of a layer that AdaLoRA left no rank */
        if (!empty && !is_used(adapter, stored) && !is_base_table(adapter, stored)) {
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
    LK_TRY(lk_adapter_choose(adapter, folder));
    lk_peft_adapter *files;
    LK_TRY(lk_peft_open(context, folder, &files));
    status = lk_adapter_declare(adapter);
    status = status == LK_OK ? read_tensors(adapter, files, folder) : status;
    status = status == LK_OK ? lk_adapter_finish(adapter) : status;
    lk_peft_destroy(files);
    return status;
}

lk_status lk_adapter_load(lk_model *model, const char *folder, lk_adapter **out) {
    LK_TRY(lk_adapter_new(model, out));
    lk_status status = load(*out, folder);
    if (status != LK_OK) {
        lk_adapter_destroy(*out);
        *out = NULL;
    }
    return status;
}

/* The axis of ranks in a tensor with ranks. */
static int rank_axis(const lk_adapter_tensor *tensor) {
    return tensor->kind == LK_PEFT_KIND_LORA_B ? 1 : 0;
}

static const bool *kept_of(const lk_adapter_tensor *tensor) {
    return tensor->site != NULL ? tensor->site->kept : NULL;
}

static int64_t count_kept(const lk_adapter_tensor *tensor) {
    int64_t count = 0;
    for (int32_t r = 0; r < tensor->site->rank; r++) {
        count += kept_of(tensor)[r];
    }
    return count;
}

/* Moves what is kept together. */
static void gather_kept(const lk_adapter_tensor *tensor, float *values) {
    int64_t rows = tensor->stored_shape[0], columns = tensor->stored_shape[1];
    float *to = values;
    for (int64_t i = 0; i < rows * columns; i++) {
        if (kept_of(tensor)[rank_axis(tensor) == 0 ? i / columns : i % columns]) {
            *to++ = values[i];
        }
    }
}

typedef struct save_job {
    const lk_adapter *adapter;
    float *values, *start; /* of the tensor being written */
} save_job;

/* The variable whose values follow the tensor's own in the file, negated for B; NULL: none. A LoRA that starts from the
 * weight is stored as a plain one of twice the rank, [A; A0] and [B, -B0], which is right on the base as it is. */
static lk_variable *start_of(const lk_adapter_tensor *tensor) {
    return tensor->site != NULL && tensor->index < 2 ? tensor->site->start[tensor->index] : NULL;
}

static lk_status source(void *user, size_t index, const void **data) {
    save_job *job = user;
    lk_adapter_tensor *tensor = lk_adapter_tensor_at(job->adapter, (int32_t)index);
    lk_variable *start = start_of(tensor);
    *data = job->values;
    LK_TRY(lk_adapter_download_stored(job->adapter, tensor, tensor->value, job->values));
    if (kept_of(tensor) != NULL) {
        gather_kept(tensor, job->values);
    }
    if (start == NULL) {
        return LK_OK;
    }
    LK_TRY(lk_variable_download(start, job->start));
    size_t rows = (size_t)tensor->stored_shape[0], columns = (size_t)tensor->stored_shape[1];
    if (tensor->kind == LK_PEFT_KIND_LORA_A) {
        memcpy(job->values + rows * columns, job->start, rows * columns * sizeof(float));
        return LK_OK;
    }
    for (size_t n = rows; n-- > 0;) { /* from the end: the rows move apart */
        memmove(job->values + 2 * n * columns, job->values + n * columns, columns * sizeof(float));
        for (size_t r = 0; r < columns; r++) {
            job->values[(2 * n + 1) * columns + r] = -job->start[n * columns + r];
        }
    }
    return LK_OK;
}

static lk_status write(const save_job *job, const char *folder, const lk_stored_tensor *tensors, size_t count) {
    const lk_peft_config *config = &job->adapter->config;
    if (!lk_peft_changes_base(config)) {
        return lk_peft_save(config, folder, tensors, count, source, (void *)(uintptr_t)job);
    }
    lk_peft_config doubled;
    LK_TRY(lk_peft_config_double_rank(config, &doubled));
    lk_status status = lk_peft_save(&doubled, folder, tensors, count, source, (void *)(uintptr_t)job);
    lk_peft_config_free_doubled(&doubled);
    return status;
}

lk_status lk_adapter_save(lk_adapter *adapter, const char *folder) {
    lk_context *context = adapter->context;
    size_t count = (size_t)lk_adapter_num_tensors(adapter), largest = 0;
    if (adapter->method->declare == NULL) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: %s adapters cannot be saved", folder,
                       adapter->method->name);
    }
    LK_TRY(adapter->method->pack != NULL ? adapter->method->pack(adapter) : LK_OK);
    LK_TRY(lk_make_directories(context, folder));
    lk_stored_tensor *tensors = lk_calloc(context, count + 1, sizeof *tensors);
    if (tensors == NULL) {
        return lk_out_of_memory(context, count * sizeof *tensors, "saving an adapter");
    }
    for (size_t i = 0; i < count; i++) {
        const lk_adapter_tensor *tensor = lk_adapter_tensor_at(adapter, (int32_t)i);
        tensors[i] = (lk_stored_tensor){.name = tensor->name, .dtype = LK_DTYPE_F32, .rank = tensor->stored_rank};
        memcpy(tensors[i].shape, tensor->stored_shape, sizeof tensor->stored_shape);
        if (kept_of(tensor) != NULL) {
            tensors[i].shape[rank_axis(tensor)] = count_kept(tensor);
        }
        if (start_of(tensor) != NULL) {
            tensors[i].shape[tensor->index] *= 2;
        }
        largest = LK_MAX(largest, tensor->value->bytes);
    }
    save_job job = {adapter, lk_alloc_aligned(context, 2 * largest), lk_alloc_aligned(context, largest)};
    lk_status status = job.values && job.start ? write(&job, folder, tensors, count)
                                               : lk_out_of_memory(context, 3 * largest, "saving an adapter");
    lk_free_aligned(context, job.values);
    lk_free_aligned(context, job.start);
    lk_free(context, tensors);
    return status;
}
