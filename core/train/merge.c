/* Base plus adapter as a Hugging Face folder or as a GGUF file. Tensors are merged and converted one at a time while
 * the file is written, so that no second copy of the model is held. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/adapters/adapter.h"
#include "core/formats/dequantize.h"
#include "core/formats/safetensors.h"
#include "core/train/merge_gguf.h"

typedef struct merge_entry {
    lk_variable *base;
    const lk_linear_site *linear; /* that it belongs to, or NULL */
    const lk_adapter_site *site;  /* NULL: written as it is */
    int64_t permuted_heads;       /* GGUF: whose rows are interleaved; 0: none */
} merge_entry;

typedef struct merge_job {
    lk_model *model;
    lk_adapter *adapter;
    lk_dtype dtype;
    lk_progress_function progress;
    void *user;
    merge_entry *entries;
    lk_stored_tensor *tensors;
    size_t count, done;
    bool untied; /* the head became a weight of its own */
    char *full;  /* one tensor in fp32 */
    char *converted;
    float *values[LK_MAX_SITE_TENSORS];
} merge_job;

/* A Conv1D's weight, which the files have as [in, out]. */
static bool is_transposed(const merge_entry *entry) {
    return entry->linear != NULL && entry->linear->is_transposed && entry->base == entry->linear->weight;
}

static void add_entry(merge_job *job, const char *name, lk_variable *base, const lk_linear_site *linear,
                      const lk_adapter_site *site) {
    merge_entry *entry = &job->entries[job->count];
    *entry = (merge_entry){base, linear, site, 0};
    lk_stored_tensor *tensor = &job->tensors[job->count++];
    *tensor = (lk_stored_tensor){.name = name, .dtype = job->dtype, .rank = base->rank};
    memcpy(tensor->shape, base->shape, sizeof tensor->shape);
    if (is_transposed(entry)) {
        tensor->shape[0] = base->shape[1];
        tensor->shape[1] = base->shape[0];
    }
}

/* Of a language model, which may share its weight with the embedding. */
static bool is_output_head(const lk_model *model, const lk_linear_site *site) {
    return site->is_head && model->task == LK_TASK_CAUSAL_LM;
}

/* The layer that a weight or bias belongs to; output heads are listed by themselves. */
static const lk_linear_site *linear_of(const lk_model *model, const lk_variable *variable) {
    for (int32_t i = 0; i < model->num_sites; i++) {
        const lk_linear_site *site = &model->sites[i];
        if ((site->weight == variable || site->bias == variable) && !is_output_head(model, site)) {
            return site;
        }
    }
    return NULL;
}

static bool is_adapted(const merge_job *job, const lk_linear_site *linear) {
    return job->adapter != NULL && lk_adapter_site_of(job->adapter, linear) != NULL;
}

/* A head and an embedding that share a weight of which one is adapted cannot share it any longer. */
static void untie(merge_job *job) {
    const lk_linear_site *head = NULL, *table = NULL;
    for (int32_t i = 0; i < job->model->num_sites; i++) {
        const lk_linear_site *site = &job->model->sites[i];
        head = is_output_head(job->model, site) ? site : head;
    }
    for (int32_t i = 0; i < job->model->num_sites && head != NULL; i++) {
        const lk_linear_site *site = &job->model->sites[i];
        table = site->is_embedding && site->weight == head->weight ? site : table;
    }
    if (table != NULL && (is_adapted(job, head) || is_adapted(job, table))) {
        const lk_adapter_site *site = is_adapted(job, head) ? lk_adapter_site_of(job->adapter, head) : NULL;
        add_entry(job, "lm_head.weight", head->weight, head, site);
        job->untied = true;
    }
}

static void list_entries(merge_job *job) {
    for (int32_t i = 0; i < lk_variables_count(job->model->variables); i++) {
        lk_variable *weight = lk_variables_at(job->model->variables, i);
        const lk_linear_site *linear = linear_of(job->model, weight);
        if (linear != NULL || lk_pretrained_lookup(job->model->pretrained, weight->name) != NULL) { /* no constant */
            bool adapted = linear != NULL && job->adapter != NULL;
            add_entry(job, weight->name, weight, linear, adapted ? lk_adapter_site_of(job->adapter, linear) : NULL);
        }
    }
    for (int32_t i = 0; job->adapter != NULL && i < job->adapter->num_sites; i++) {
        const lk_adapter_site *site = &job->adapter->sites[i];
        for (size_t e = 0; e < job->count && is_output_head(job->model, site->site); e++) {
            bool own = job->entries[e].base == site->site->weight && job->entries[e].linear == NULL;
            job->entries[e].site = own ? site : job->entries[e].site;
        }
    }
    untie(job);
}

static lk_status merge_site(merge_job *job, const merge_entry *entry) {
    const lk_adapter_site *site = entry->site;
    for (int32_t i = 0; i < site->num_tensors; i++) {
        LK_TRY(lk_variable_download(site->tensors[i]->value, job->values[i]));
    }
    float *values = (float *)(void *)job->full;
    bool is_bias = entry->base == site->site->bias;
    LK_TRY(site->method->merge(&(lk_adapter_merge){.adapter = job->adapter,
                                                   .site = site,
                                                   .values = job->values,
                                                   .weight = is_bias ? NULL : values,
                                                   .bias = is_bias ? values : NULL}));
    for (size_t i = 0; i < entry->base->bytes / sizeof(float); i++) {
        if (!isfinite(values[i])) {
            return lk_fail(job->model->context, LK_STATUS_NUMERIC,
                           "%s: element %zu is %g with the adapter merged; nothing was written", entry->base->name, i,
                           (double)values[i]);
        }
    }
    return LK_OK;
}

/* [out, in] into the files' [in, out], by way of the other block. */
static void transpose(merge_job *job, const lk_variable *weight) {
    int64_t out = weight->shape[0], in = weight->shape[1];
    const float *from = (const float *)(const void *)job->full;
    float *to = (float *)(void *)job->converted;
    for (int64_t n = 0; n < out; n++) {
        for (int64_t k = 0; k < in; k++) {
            to[k * out + n] = from[n * in + k];
        }
    }
    memcpy(job->full, job->converted, weight->bytes);
}

static lk_status source(void *user, size_t index, const void **data) {
    merge_job *job = user;
    const merge_entry *entry = &job->entries[index];
    int64_t elements = (int64_t)(entry->base->bytes / sizeof(float));
    LK_TRY(lk_variable_download(lk_adapter_variable(job->adapter, entry->base), job->full));
    if (entry->site != NULL) {
        LK_TRY(merge_site(job, entry));
    }
    if (is_transposed(entry)) {
        transpose(job, entry->base);
    }
    if (entry->permuted_heads > 0) {
        LK_TRY(lk_merge_permute(job->model->context, &job->tensors[index], entry->permuted_heads,
                                (float *)(void *)job->full, (float *)(void *)job->converted));
    }
    lk_dtype dtype = job->tensors[index].dtype;
    LK_TRY(lk_convert(job->model->context, LK_DTYPE_F32, job->full, dtype, job->converted, elements));
    *data = job->converted;
    job->done++;
    if (job->progress != NULL) {
        job->progress(job->user, (int64_t)job->done, (int64_t)job->count);
    }
    return LK_OK;
}

static lk_status allocate(merge_job *job) {
    lk_context *context = job->model->context;
    size_t largest = 0, largest_value = 0;
    for (int32_t i = 0; i < lk_variables_count(job->model->variables); i++) {
        largest = LK_MAX(largest, lk_variables_at(job->model->variables, i)->bytes);
    }
    for (int32_t i = 0; job->adapter != NULL && i < lk_adapter_num_tensors(job->adapter); i++) {
        largest_value = LK_MAX(largest_value, lk_adapter_tensor_at(job->adapter, i)->value->bytes);
    }
    size_t slots = (size_t)lk_variables_count(job->model->variables) + 1;
    job->entries = lk_calloc(context, slots, sizeof *job->entries);
    job->tensors = lk_calloc(context, slots, sizeof *job->tensors);
    job->full = lk_alloc_aligned(context, largest);
    job->converted = lk_alloc_aligned(context, largest);
    bool complete = job->entries && job->tensors && job->full && job->converted;
    for (int i = 0; i < LK_MAX_SITE_TENSORS; i++) {
        job->values[i] = lk_alloc_aligned(context, largest_value);
        complete = complete && job->values[i] != NULL;
    }
    return complete ? LK_OK : lk_out_of_memory(context, largest, "merging");
}

static lk_status write_folder(merge_job *job, const char *folder) {
    lk_context *context = job->model->context;
    LK_TRY(lk_make_directories(context, folder));
    char *weights = lk_path_join(context, folder, "model.safetensors");
    char *config = lk_path_join(context, folder, "config.json");
    lk_status status = weights && config ? LK_OK : lk_out_of_memory(context, strlen(folder), "a path");
    if (status == LK_OK) {
        status = lk_safetensors_write(context, weights, job->tensors, job->count, NULL, source, job);
    }
    if (status == LK_OK && job->model->tokenizer != NULL) {
        status = lk_tokenizer_save(context, job->model->tokenizer, folder);
    }
    if (status == LK_OK) {
        lk_model_config merged = *job->model->config;
        merged.tie_word_embeddings = merged.tie_word_embeddings && !job->untied;
        if (job->model->task == LK_TASK_CLASSIFY) {
            merged.num_labels = job->model->num_labels;
            snprintf(merged.architecture, sizeof merged.architecture, "%s", merged.type->classify_class);
        }
        status = lk_model_config_save(context, &merged, job->dtype, config);
    }
    lk_free(context, weights);
    lk_free(context, config);
    return status;
}

static bool is_gguf(const char *path) {
    size_t length = strlen(path);
    return length > 5 && strcmp(path + length - 5, ".gguf") == 0;
}

static lk_status write_gguf(merge_job *job, const char *path) {
    for (size_t i = 0; i < job->count; i++) {
        LK_TRY(lk_merge_gguf_tensor(job->model, job->dtype, &job->tensors[i], &job->entries[i].permuted_heads));
    }
    return lk_merge_write_gguf(job->model, job->dtype, path, job->tensors, job->count, source, job);
}

lk_status lk_merge(lk_model *model, lk_adapter *adapter, lk_dtype dtype, const char *folder,
                   lk_progress_function progress, void *user) {
    bool gguf = is_gguf(folder);
    if (dtype != LK_DTYPE_F32 && dtype != LK_DTYPE_BF16 && dtype != LK_DTYPE_F16 && !(gguf && dtype == LK_DTYPE_Q8_0)) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT,
                       "dtype %s: merged models are written in f32, bf16 or f16, GGUF files also in q8_0",
                       lk_dtype_name(dtype));
    }
    if (lk_path_is_same(lk_pretrained_path(model->pretrained), folder)) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT,
                       "%s: the base model lies there and would be overwritten; give another folder", folder);
    }
    merge_job job = {.model = model, .adapter = adapter, .dtype = dtype, .progress = progress, .user = user};
    lk_status status = allocate(&job);
    if (status == LK_OK) {
        list_entries(&job);
        status = gguf ? write_gguf(&job, folder) : write_folder(&job, folder);
    }
    for (int i = 0; i < LK_MAX_SITE_TENSORS; i++) {
        lk_free_aligned(model->context, job.values[i]);
    }
    lk_free_aligned(model->context, job.full);
    lk_free_aligned(model->context, job.converted);
    lk_free(model->context, job.entries);
    lk_free(model->context, job.tensors);
    return status;
}
