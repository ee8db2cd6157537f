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
    if (status == LK_OK) {
        status = lk_variable_upload(tensor->value, values);
    }
    lk_free(context, values);
    return status;
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
        if (!empty && !is_used(adapter, stored)) {
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
    void *bytes; /* of the tensor being written */
} save_job;

static lk_status source(void *user, size_t index, const void **data) {
    save_job *job = user;
    lk_adapter_tensor *tensor = lk_adapter_tensor_at(job->adapter, (int32_t)index);
    *data = job->bytes;
    LK_TRY(lk_variable_download(tensor->value, job->bytes));
    if (kept_of(tensor) != NULL) {
        gather_kept(tensor, job->bytes);
    }
    return LK_OK;
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
        largest = LK_MAX(largest, tensor->value->bytes);
    }
    save_job job = {adapter, lk_alloc_aligned(context, largest)};
    lk_status status = job.bytes ? lk_peft_save(&adapter->config, folder, tensors, count, source, &job)
                                 : lk_out_of_memory(context, largest, "saving an adapter");
    lk_free_aligned(context, job.bytes);
    lk_free(context, tensors);
    return status;
}
