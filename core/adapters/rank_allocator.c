#include "core/adapters/rank_allocator.h"

#include <stdlib.h>
#include <string.h>

typedef struct rank_entry {
    lk_adapter_site *site;
    lk_variable *mask; /* [r]: 0 where the rank was given up; a variable, so that checkpoints hold it */
    lk_variable *sensitivity[LK_RANK_TENSORS], *uncertainty[LK_RANK_TENSORS];
    bool *kept; /* [r], of the file */
} rank_entry;

typedef struct rank_allocator {
    rank_entry *entries; /* the layers that have ranks */
    int32_t count;
    int64_t total;      /* of their ranks */
    lk_variable *hyper; /* of the op importance */
} rank_allocator;

/* ---- the schedule ---- */

int64_t lk_rank_budget(const lk_peft_config *config, int64_t total, int64_t layers, int64_t step, bool *allocates) {
    int64_t target = config->target_r * layers, end = config->total_step - config->tfinal;
    if (step <= config->tinit) {
        *allocates = false;
        return total;
    }
    if (step > end) {
        *allocates = true;
        return target;
    }
    double left = 1.0 - (double)(step - config->tinit) / (double)(end - config->tinit);
    *allocates = step == end || step % config->deltaT == 0;
    return (int64_t)((double)(total - target) * (left * left * left) + (double)target);
}

/* ---- state ---- */

static lk_status add_entry(lk_adapter *adapter, lk_adapter_site *site, rank_entry *entry) {
    static const char *const prefixes[2][LK_RANK_TENSORS] = {{"sensitivity.A", "sensitivity.B", "sensitivity.E"},
                                                             {"uncertainty.A", "uncertainty.B", "uncertainty.E"}};
    const int64_t rank = site->rank;
    entry->site = site;
    entry->kept = lk_arena_alloc(&adapter->arena, (size_t)rank * sizeof *entry->kept);
    if (entry->kept == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)rank, "the ranks of a layer");
    }
    LK_TRY(lk_adapter_add_state(adapter, lk_adapter_name(adapter, "mask", site), 1, &rank, &entry->mask));
    for (int i = 0; i < LK_RANK_TENSORS; i++) {
        const lk_variable *value = site->tensors[i]->value;
        LK_TRY(lk_adapter_add_state(adapter, lk_adapter_name(adapter, prefixes[0][i], site), value->rank, value->shape,
                                    &entry->sensitivity[i]));
        LK_TRY(lk_adapter_add_state(adapter, lk_adapter_name(adapter, prefixes[1][i], site), value->rank, value->shape,
                                    &entry->uncertainty[i]));
    }
    return LK_OK;
}

static lk_status create(lk_adapter *adapter) {
    static const int64_t hyper = LK_IMPORTANCE_HYPER_COUNT;
    rank_allocator *self = lk_arena_alloc(&adapter->arena, sizeof *self);
    size_t bytes = ((size_t)adapter->num_sites + 1) * sizeof(rank_entry);
    if (self == NULL || (self->entries = lk_arena_alloc(&adapter->arena, bytes)) == NULL) {
        return lk_out_of_memory(adapter->context, bytes, "the allocation of ranks");
    }
    LK_TRY(lk_variables_add(adapter->variables, "importance.hyper", LK_ROLE_INPUT, "inputs", LK_DTYPE_F32, 1, &hyper,
                            &self->hyper));
    for (int32_t i = 0; i < adapter->num_sites; i++) {
        lk_adapter_site *site = &adapter->sites[i];
        if (site->method == adapter->method && site->rank > 0) {
            LK_TRY(add_entry(adapter, site, &self->entries[self->count]));
            self->total += site->rank;
            self->count++;
        }
    }
    adapter->shared = self;
    return LK_OK;
}

static lk_status fill(lk_adapter *adapter, lk_variable *variable, float value) {
    float *values = lk_calloc(adapter->context, variable->bytes / sizeof *values, sizeof *values);
    if (values == NULL) {
        return lk_out_of_memory(adapter->context, variable->bytes, variable->name);
    }
    for (size_t i = 0; i < variable->bytes / sizeof *values; i++) {
        values[i] = value;
    }
    lk_status status = lk_variable_upload(variable, values);
    lk_free(adapter->context, values);
    return status;
}

lk_status lk_rank_allocator_prepare(lk_adapter *adapter) {
    lk_peft_config *config = &adapter->config;
    config->total_step = adapter->run.total_steps;
    if (config->tinit >= config->total_step - config->tfinal) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "tinit is %lld and tfinal %lld, which leaves none of %lld steps to allocate ranks in",
                       (long long)config->tinit, (long long)config->tfinal, (long long)config->total_step);
    }
    if (adapter->shared == NULL) {
        LK_TRY(create(adapter));
    }
    const rank_allocator *self = adapter->shared;
    for (int32_t i = 0; i < self->count && !adapter->model->plan_only; i++) {
        LK_TRY(fill(adapter, self->entries[i].mask, 1.0f));
        for (int t = 0; t < LK_RANK_TENSORS; t++) {
            LK_TRY(fill(adapter, self->entries[i].sensitivity[t], 0.0f));
            LK_TRY(fill(adapter, self->entries[i].uncertainty[t], 0.0f));
        }
    }
    return LK_OK;
}

void lk_rank_allocator_observe(lk_graph *graph, const lk_adapter *adapter, lk_tensor *norm) {
    const rank_allocator *self = adapter->shared;
    lk_tensor *hyper = lk_graph_variable(graph, self->hyper);
    for (int32_t i = 0; i < self->count; i++) {
        const rank_entry *entry = &self->entries[i];
        for (int t = 0; t < LK_RANK_TENSORS; t++) {
            const lk_adapter_tensor *tensor = entry->site->tensors[t];
            lk_build_importance(
                graph, hyper, norm, lk_graph_variable(graph, tensor->value), lk_graph_variable(graph, tensor->gradient),
                lk_graph_variable(graph, entry->sensitivity[t]), lk_graph_variable(graph, entry->uncertainty[t]));
        }
    }
}

/* From the last allocation on importance does not change any more. */
lk_status lk_rank_allocator_before_update(lk_adapter *adapter, int64_t step) {
    const lk_peft_config *config = &adapter->config;
    bool counts = step < config->total_step - config->tfinal;
    const float hyper[LK_IMPORTANCE_HYPER_COUNT] = {
        [LK_IMPORTANCE_BETA1] = counts ? (float)config->beta1 : 1.0f,
        [LK_IMPORTANCE_BETA2] = counts ? (float)config->beta2 : 1.0f,
        [LK_IMPORTANCE_MAX_NORM] = (float)adapter->run.max_grad_norm,
    };
    return lk_variable_upload(((const rank_allocator *)adapter->shared)->hyper, hyper);
}

/* ---- allocation ---- */

/* scores [r] += the mean, over what belongs to a rank, of sensitivity times uncertainty. */
static lk_status add_scores(lk_adapter *adapter, const rank_entry *entry, int which, double *scores) {
    int64_t rank = entry->site->rank, count = (int64_t)(entry->sensitivity[which]->bytes / sizeof(float));
    float *sensitivity, *uncertainty = NULL;
    LK_TRY(lk_adapter_download(adapter, entry->sensitivity[which], &sensitivity));
    lk_status status = lk_adapter_download(adapter, entry->uncertainty[which], &uncertainty);
    for (int64_t i = 0; i < count && status == LK_OK; i++) {
        int64_t r = which == LK_RANK_B ? i % rank : i / (count / rank);
        scores[r] += (double)sensitivity[i] * (double)uncertainty[i] * (double)rank / (double)count;
    }
    lk_free(adapter->context, sensitivity);
    lk_free(adapter->context, uncertainty);
    return status;
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The largest score of those that are given up. */
static lk_status threshold_of(lk_adapter *adapter, const double *scores, int64_t total, int64_t given_up, double *out) {
    double *sorted = lk_calloc(adapter->context, (size_t)total, sizeof *sorted);
    if (sorted == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)total * sizeof *sorted, "the allocation of ranks");
    }
    memcpy(sorted, scores, (size_t)total * sizeof *sorted);
    qsort(sorted, (size_t)total, sizeof *sorted, compare);
    *out = sorted[given_up - 1];
    lk_free(adapter->context, sorted);
    return LK_OK;
}

/* Sets the lambdas to 0 that the mask says. */
static lk_status apply_mask(lk_adapter *adapter, const rank_entry *entry) {
    float *mask, *lambda = NULL;
    lk_variable *value = entry->site->tensors[LK_RANK_E]->value;
    LK_TRY(lk_adapter_download(adapter, entry->mask, &mask));
    lk_status status = lk_adapter_download(adapter, value, &lambda);
    for (int32_t r = 0; r < entry->site->rank && status == LK_OK; r++) {
        lambda[r] = mask[r] > 0.0f ? lambda[r] : 0.0f;
    }
    status = status == LK_OK ? lk_variable_upload(value, lambda) : status;
    lk_free(adapter->context, mask);
    lk_free(adapter->context, lambda);
    return status;
}

/* "step 12: 40 of 56 ranks: model.layers.0.self_attn.q_proj 5, ..." */
static void report(lk_adapter *adapter, int64_t step, const double *scores, double threshold) {
    const rank_allocator *self = adapter->shared;
    int64_t all = 0;
    lk_text text;
    lk_text_init(&text, adapter->context);
    for (int32_t i = 0; i < self->count; i++) {
        int32_t left = 0;
        for (int32_t r = 0; r < self->entries[i].site->rank; r++) {
            left += *scores++ > threshold;
        }
        lk_text_printf(&text, "%s%s %d", i > 0 ? ", " : "", self->entries[i].site->site->path, (int)left);
        all += left;
    }
    lk_log(adapter->context, LK_LOG_INFO, "step %lld: %lld of %lld ranks: %s", (long long)step + 1, (long long)all,
           (long long)self->total, text.data ? text.data : "");
    lk_text_free(&text);
}

static lk_status allocate_by(lk_adapter *adapter, int64_t step, int64_t budget, double *scores) {
    const rank_allocator *self = adapter->shared;
    double threshold, *next = scores;
    for (int32_t i = 0; i < self->count; i++) {
        for (int t = 0; t < LK_RANK_TENSORS; t++) {
            LK_TRY(add_scores(adapter, &self->entries[i], t, next));
        }
        next += self->entries[i].site->rank;
    }
    LK_TRY(threshold_of(adapter, scores, self->total, self->total - budget, &threshold));
    next = scores;
    for (int32_t i = 0; i < self->count; i++) {
        const rank_entry *entry = &self->entries[i];
        float *mask;
        LK_TRY(lk_adapter_download(adapter, entry->mask, &mask));
        for (int32_t r = 0; r < entry->site->rank; r++) {
            mask[r] = *next++ > threshold ? 1.0f : 0.0f;
        }
        lk_status status = lk_variable_upload(entry->mask, mask);
        lk_free(adapter->context, mask);
        LK_TRY(status);
        LK_TRY(apply_mask(adapter, entry));
    }
    report(adapter, step, scores, threshold);
    return LK_OK;
}

lk_status lk_rank_allocator_after_update(lk_adapter *adapter, int64_t step) {
    const rank_allocator *self = adapter->shared;
    const lk_peft_config *config = &adapter->config;
    bool allocates;
    int64_t budget = lk_rank_budget(config, self->total, self->count, step, &allocates);
    if (step > config->total_step - config->tfinal) {
        for (int32_t i = 0; i < self->count; i++) {
            LK_TRY(apply_mask(adapter, &self->entries[i]));
        }
        return LK_OK;
    }
    if (!allocates || budget >= self->total) {
        return LK_OK;
    }
    double *scores = lk_calloc(adapter->context, (size_t)self->total, sizeof *scores);
    if (scores == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)self->total * sizeof *scores, "the allocation of ranks");
    }
    lk_status status = allocate_by(adapter, step, budget, scores);
    lk_free(adapter->context, scores);
    return status;
}

/* ---- the file ---- */

/* A layer's list of what is kept, seen from init_r ranks: those that were given up before stay so. */
static json_t *pattern_of(const json_t *before, const bool *kept, int32_t rank) {
    json_t *list = json_array();
    size_t length = before != NULL ? json_array_size(before) : (size_t)rank;
    for (size_t i = 0, r = 0; i < length; i++) {
        bool was = before == NULL || json_is_true(json_array_get(before, i));
        json_array_append_new(list, json_boolean(was && r < (size_t)rank && kept[r]));
        r += was;
    }
    if (json_array_size(list) != length) { /* out of memory */
        json_decref(list);
        return NULL;
    }
    return list;
}

static lk_status find_kept(lk_adapter *adapter, rank_entry *entry, bool *any) {
    float *mask, *lambda = NULL;
    LK_TRY(lk_adapter_download(adapter, entry->mask, &mask));
    lk_status status = lk_adapter_download(adapter, entry->site->tensors[LK_RANK_E]->value, &lambda);
    for (int32_t r = 0; r < entry->site->rank && status == LK_OK; r++) {
        entry->kept[r] = mask[r] > 0.0f || lambda[r] != 0.0f;
        *any = *any || !entry->kept[r];
    }
    lk_free(adapter->context, mask);
    lk_free(adapter->context, lambda);
    return status;
}

/* Ranks that were given up and are still zero are left out of the file, as PEFT does. */
lk_status lk_rank_allocator_pack(lk_adapter *adapter) {
    const rank_allocator *self = adapter->shared;
    const json_t *before = json_object_get(adapter->config.source, "rank_pattern"); /* as it was read */
    bool any = false;
    if (self == NULL) { /* it was not trained */
        return LK_OK;
    }
    for (int32_t i = 0; i < self->count; i++) {
        LK_TRY(find_kept(adapter, &self->entries[i], &any));
    }
    bool has_before = json_is_object(before);
    json_t *patterns = has_before ? json_deep_copy(before) : any ? json_object() : NULL;
    int failed = patterns == NULL && (has_before || any);
    for (int32_t i = 0; i < self->count && !failed; i++) {
        const rank_entry *entry = &self->entries[i];
        entry->site->kept = any ? entry->kept : NULL;
        const char *key = any ? lk_arena_printf(&adapter->arena, "%s.lora_E", entry->site->site->path) : NULL;
        failed = any && (key == NULL || json_object_set_new(patterns, key,
                                                            pattern_of(json_object_get(before, key), entry->kept,
                                                                       entry->site->rank)) != 0);
    }
    if (failed) {
        json_decref(patterns);
        return lk_out_of_memory(adapter->context, 0, "an adapter's configuration");
    }
    json_decref(adapter->config.rank_pattern);
    adapter->config.rank_pattern = patterns;
    return LK_OK;
}
