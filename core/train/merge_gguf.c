#include "core/train/merge_gguf.h"

#include <stdio.h>
#include <string.h>

#include "core/formats/gguf_names.h"
#include "core/formats/gguf_write.h"
#include "core/text/tokenizer_to_gguf.h"

enum { NAME_SIZE = 256 };

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

lk_status lk_merge_gguf_tensor(lk_model *model, lk_dtype dtype, lk_stored_tensor *tensor, int64_t *permuted_heads) {
    const lk_model_config *config = model->config;
    const char *hf = tensor->name;
    char name[NAME_SIZE];
    if (config->type->gguf_architecture == NULL || model->task != LK_TASK_CAUSAL_LM) {
        return lk_fail(model->context, LK_STATUS_UNSUPPORTED, "%s: %s models are not written as GGUF",
                       lk_pretrained_path(model->pretrained), config->type->name);
    }
    if (!lk_gguf_name_from_hf(hf, name, sizeof name)) {
        return lk_fail(model->context, LK_STATUS_UNSUPPORTED, "%s has no name in GGUF", hf);
    }
    if (config->type->gguf_permutes_qk) {
        bool q = ends_with(hf, ".q_proj.weight") || ends_with(hf, ".q_proj.bias");
        bool k = ends_with(hf, ".k_proj.weight") || ends_with(hf, ".k_proj.bias");
        *permuted_heads = q ? config->num_attention_heads : k ? config->num_key_value_heads : 0;
    }
    int64_t row = tensor->shape[tensor->rank - 1];
    bool whole = row % lk_dtype_block_size(dtype) == 0;
    tensor->dtype = tensor->rank < 2 ? LK_DTYPE_F32 : whole ? dtype : LK_DTYPE_F16;
    tensor->name = lk_arena_printf(&model->arena, "%s", name);
    return tensor->name != NULL ? LK_OK : lk_out_of_memory(model->context, strlen(name), "a tensor's name");
}

/* Row half * (rows of a head / 2) + j goes to row 2 j + half of its head. */
lk_status lk_merge_permute(lk_context *context, const lk_stored_tensor *tensor, int64_t heads, float *values,
                           float *other) {
    int64_t rows = tensor->shape[0], columns = tensor->rank > 1 ? tensor->shape[1] : 1, head_rows = rows / heads;
    if (rows % (2 * heads) != 0) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: %lld rows do not divide into %lld heads of even size",
                       tensor->name, (long long)rows, (long long)heads);
    }
    for (int64_t row = 0; row < rows; row++) {
        int64_t within = row % head_rows, half = within / (head_rows / 2), j = within % (head_rows / 2);
        int64_t target = row - within + 2 * j + half;
        memcpy(other + target * columns, values + row * columns, (size_t)columns * sizeof *values);
    }
    memcpy(values, other, (size_t)(rows * columns) * sizeof *values);
    return LK_OK;
}

/* ---- metadata ---- */

static uint32_t file_type(lk_dtype dtype) {
    return dtype == LK_DTYPE_F32 ? 0 : dtype == LK_DTYPE_F16 ? 1 : dtype == LK_DTYPE_Q8_0 ? 7 : 32;
}

static void put_number(lk_gguf_writer *writer, const lk_model_config *config, const char *name, int64_t value) {
    char key[NAME_SIZE];
    snprintf(key, sizeof key, "%s.%s", config->type->gguf_architecture, name);
    lk_gguf_put_u32(writer, key, (uint32_t)value);
}

static void put_real(lk_gguf_writer *writer, const lk_model_config *config, const char *name, double value) {
    char key[NAME_SIZE];
    snprintf(key, sizeof key, "%s.%s", config->type->gguf_architecture, name);
    lk_gguf_put_f32(writer, key, (float)value);
}

static void put_config(lk_gguf_writer *writer, const lk_model_config *config, lk_dtype dtype) {
    lk_gguf_put_text(writer, "general.architecture", config->type->gguf_architecture);
    lk_gguf_put_text(writer, "general.type", "model");
    lk_gguf_put_u32(writer, "general.quantization_version", 2);
    lk_gguf_put_u32(writer, "general.file_type", file_type(dtype));
    put_number(writer, config, "context_length", config->max_position_embeddings);
    put_number(writer, config, "embedding_length", config->hidden_size);
    put_number(writer, config, "block_count", config->num_hidden_layers);
    put_number(writer, config, "feed_forward_length", config->intermediate_size);
    put_number(writer, config, "attention.head_count", config->num_attention_heads);
    put_number(writer, config, "attention.head_count_kv", config->num_key_value_heads);
    put_number(writer, config, "attention.key_length", config->head_dim);
    put_number(writer, config, "attention.value_length", config->head_dim);
    put_number(writer, config, "rope.dimension_count", config->head_dim);
    put_number(writer, config, "vocab_size", config->vocab_size);
    put_real(writer, config, "attention.layer_norm_rms_epsilon", config->norm_eps);
    put_real(writer, config, "rope.freq_base", config->rope.theta);
    if (config->sliding_window > 0) {
        put_number(writer, config, "attention.sliding_window", config->sliding_window);
    }
    if (config->rope.type == LK_ROPE_LINEAR) {
        char key[NAME_SIZE];
        snprintf(key, sizeof key, "%s.rope.scaling.type", config->type->gguf_architecture);
        lk_gguf_put_text(writer, key, "linear");
        put_real(writer, config, "rope.scaling.factor", config->rope.factor);
    }
}

/* ---- the file ---- */

/* The tensors, and behind them the divisors of llama3's RoPE where there are any. */
typedef struct gguf_job {
    lk_safetensors_source source;
    void *user;
    size_t count;
    float *divisors;
} gguf_job;

static lk_status source_of(void *user, size_t index, const void **data) {
    gguf_job *job = user;
    if (index < job->count) {
        return job->source(job->user, index, data);
    }
    *data = job->divisors;
    return LK_OK;
}

static lk_status make_divisors(lk_context *context, const lk_model_config *config, float **out) {
    size_t half = (size_t)config->head_dim / 2;
    double *frequencies = lk_calloc(context, 2 * half, sizeof *frequencies);
    *out = lk_calloc(context, half, sizeof **out);
    if (frequencies == NULL || *out == NULL) {
        lk_free(context, frequencies);
        return lk_out_of_memory(context, 2 * half * sizeof *frequencies, "rope_freqs.weight");
    }
    lk_rope_config plain = config->rope;
    plain.type = LK_ROPE_DEFAULT;
    lk_rope_inverse_frequencies(&plain, config->head_dim, frequencies);
    lk_rope_inverse_frequencies(&config->rope, config->head_dim, frequencies + half);
    for (size_t i = 0; i < half; i++) {
        (*out)[i] = (float)(frequencies[i] / frequencies[half + i]);
    }
    lk_free(context, frequencies);
    return LK_OK;
}

static lk_status write(lk_model *model, const char *path, const lk_stored_tensor *tensors, gguf_job *job,
                       lk_gguf_writer *writer) {
    lk_context *context = model->context;
    const lk_model_config *config = model->config;
    bool scaled = config->rope.type == LK_ROPE_LLAMA3;
    if (model->tokenizer != NULL) {
        LK_TRY(lk_tokenizer_to_gguf(context, model->tokenizer, lk_pretrained_gguf(model->pretrained),
                                    config->vocab_size, writer));
    }
    if (scaled) {
        LK_TRY(make_divisors(context, config, &job->divisors));
    }
    lk_stored_tensor *all = lk_calloc(context, job->count + 1, sizeof *all);
    if (all == NULL) {
        return lk_out_of_memory(context, job->count * sizeof *all, path);
    }
    memcpy(all, tensors, job->count * sizeof *all);
    all[job->count] = (lk_stored_tensor){
        .name = "rope_freqs.weight", .dtype = LK_DTYPE_F32, .rank = 1, .shape = {config->head_dim / 2}};
    lk_status status = lk_gguf_write(writer, path, all, job->count + scaled, source_of, job);
    lk_free(context, all);
    return status;
}

lk_status lk_merge_write_gguf(lk_model *model, lk_dtype dtype, const char *path, const lk_stored_tensor *tensors,
                              size_t count, lk_safetensors_source source, void *user) {
    gguf_job job = {.source = source, .user = user, .count = count};
    lk_gguf_writer writer;
    lk_gguf_writer_init(&writer, model->context);
    put_config(&writer, model->config, dtype);
    lk_status status = write(model, path, tensors, &job, &writer);
    lk_gguf_writer_free(&writer);
    lk_free(model->context, job.divisors);
    return status;
}
