/* lk_lora_file from and to llama.cpp's adapters: general.type "adapter", adapter.type "lora", adapter.lora.alpha, and
 * per layer "blk.0.attn_q.weight.lora_a" [rank, in] and ".lora_b" [out, rank] (row-major). llama.cpp applies
 * alpha / rank, whatever the adapter was trained as. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/formats/gguf_names.h"
#include "core/formats/gguf_write.h"
#include "core/formats/lora_file.h"

enum { NAME_SIZE = 256 };

static lk_status check_base(lk_context *context, const char *path, const lk_model_config *config) {
    if (config == NULL) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "%s: a GGUF adapter needs its base model, whose architecture and heads it depends on", path);
    }
    if (config->type->gguf_architecture == NULL) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: %s models have no GGUF adapters here", path,
                       config->type->name);
    }
    return LK_OK;
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* Heads of a projection whose rows llama.cpp keeps interleaved; 0: in order. */
static int64_t permuted_heads(const lk_model_config *config, const char *path) {
    if (!config->type->gguf_permutes_qk) {
        return 0;
    }
    return ends_with(path, ".q_proj")   ? config->num_attention_heads
           : ends_with(path, ".k_proj") ? config->num_key_value_heads
                                        : 0;
}

/* Row 2 j + half of a head in GGUF is row half * (rows of a head / 2) + j in Hugging Face's order. */
static lk_status permute_rows(lk_context *context, const char *path, int64_t heads, bool to_gguf, int64_t rows,
                              int64_t columns, const float *from, float *to) {
    if (heads <= 0 || rows % (2 * heads) != 0) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: %lld rows do not divide into %lld heads of even size", path,
                       (long long)rows, (long long)heads);
    }
    int64_t head_rows = rows / heads, half_rows = head_rows / 2;
    for (int64_t row = 0; row < rows; row++) {
        int64_t head = row / head_rows, within = row % head_rows;
        int64_t other = head * head_rows + 2 * (within % half_rows) + within / half_rows;
        const float *source = from + (to_gguf ? row : other) * columns;
        memcpy(to + (to_gguf ? other : row) * columns, source, (size_t)columns * sizeof *to);
    }
    return LK_OK;
}

/* ---- reading ---- */

static lk_status read_tensor(lk_lora_file *file, const lk_stored_tensor *stored, const lk_model_config *config) {
    char name[NAME_SIZE], hf[NAME_SIZE];
    bool is_a = ends_with(stored->name, ".lora_a"), is_b = ends_with(stored->name, ".lora_b");
    snprintf(name, sizeof name, "%.*s", (int)LK_MIN(strlen(stored->name) - 7, (size_t)NAME_SIZE - 1), stored->name);
    if ((!is_a && !is_b) || !lk_gguf_name_to_hf(name, hf, sizeof hf) || !ends_with(hf, ".weight") ||
        strcmp(hf, "model.embed_tokens.weight") == 0) {
        return lk_fail(file->context, LK_STATUS_UNSUPPORTED, "%s: tensor %s is no LoRA matrix of a linear layer",
                       stored->file, stored->name);
    }
    hf[strlen(hf) - strlen(".weight")] = '\0';
    lk_lora_module *module;
    LK_TRY(lk_lora_file_module(file, hf, &module));
    int64_t rank = module->rank > 0 ? module->rank : -1;
    if (is_a) {
        module->in = -1;
        LK_TRY(lk_lora_file_read(file, stored, false, &rank, &module->in, &module->a));
    } else {
        float *rows;
        module->out = -1;
        LK_TRY(lk_lora_file_read(file, stored, false, &module->out, &rank, &rows));
        module->b = rows;
        int64_t heads = permuted_heads(config, module->path);
        if (heads > 0) {
            LK_TRY(lk_lora_file_alloc(file, module->out, rank, &module->b));
            LK_TRY(permute_rows(file->context, stored->name, heads, false, module->out, rank, rows, module->b));
        }
    }
    module->rank = rank;
    return LK_OK;
}

static lk_status expect_text(const lk_gguf *gguf, lk_context *context, const char *key, const char *expected) {
    lk_gguf_string found;
    LK_TRY(lk_gguf_get_string(gguf, key, true, &found));
    if (lk_gguf_string_equals(found, expected)) {
        return LK_OK;
    }
    return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: metadata %s is \"%.*s\", expected \"%s\"", lk_gguf_path(gguf),
                   key, (int)LK_MIN(found.length, (size_t)100), found.data, expected);
}

static lk_status read_all(lk_lora_file *file, const lk_gguf *gguf, const lk_model_config *config) {
    double alpha = 0.0;
    LK_TRY(expect_text(gguf, file->context, "general.type", "adapter"));
    LK_TRY(expect_text(gguf, file->context, "adapter.type", "lora"));
    LK_TRY(expect_text(gguf, file->context, "general.architecture", config->type->gguf_architecture));
    LK_TRY(lk_gguf_get_double(gguf, "adapter.lora.alpha", false, &alpha));
    for (size_t i = 0; i < lk_gguf_count(gguf); i++) {
        LK_TRY(read_tensor(file, lk_gguf_at(gguf, i), config));
    }
    for (size_t i = 0; i < file->count; i++) { /* alpha 0 stands for a scale of 1 */
        file->modules[i].scale = alpha != 0.0 ? alpha / (double)LK_MAX(file->modules[i].rank, (int64_t)1) : 1.0;
    }
    return lk_lora_file_finish(file, lk_gguf_path(gguf));
}

lk_status lk_lora_read_gguf(lk_lora_file *file, const char *path, const lk_model_config *config) {
    lk_gguf *gguf;
    LK_TRY(check_base(file->context, path, config));
    LK_TRY(lk_gguf_open(file->context, path, &gguf));
    lk_status status = read_all(file, gguf, config);
    lk_gguf_destroy(gguf);
    return status;
}

/* ---- writing ---- */

static lk_status add(lk_lora_file *own, lk_stored_tensor *to, const char *path, const char *suffix, int64_t rows,
                     int64_t columns, const float *values) {
    char hf[NAME_SIZE], gguf[NAME_SIZE];
    snprintf(hf, sizeof hf, "%.200s.weight", path);
    if (!lk_gguf_name_from_hf(hf, gguf, sizeof gguf)) {
        return lk_fail(own->context, LK_STATUS_UNSUPPORTED, "%s has no name in GGUF", path);
    }
    const char *name = lk_arena_printf(&own->arena, "%s%s", gguf, suffix);
    *to = (lk_stored_tensor){.name = name, .dtype = LK_DTYPE_F32, .rank = 2, .shape = {rows, columns}, .data = values};
    return name != NULL ? LK_OK : lk_out_of_memory(own->context, 0, "an adapter");
}

static lk_status add_module(lk_lora_file *own, const lk_lora_module *module, const lk_model_config *config,
                            double alpha, lk_stored_tensor *tensors) {
    double factor = module->scale * (double)module->rank / alpha;
    int64_t elements = module->out * module->rank, heads = permuted_heads(config, module->path);
    float *b = module->b;
    if (fabs(factor - 1.0) > 1e-7) {
        LK_TRY(lk_lora_file_alloc(own, module->out, module->rank, &b));
        for (int64_t i = 0; i < elements; i++) {
            b[i] = (float)((double)module->b[i] * factor);
        }
    }
    if (heads > 0) {
        float *rows;
        LK_TRY(lk_lora_file_alloc(own, module->out, module->rank, &rows));
        LK_TRY(permute_rows(own->context, module->path, heads, true, module->out, module->rank, b, rows));
        b = rows;
    }
    LK_TRY(add(own, &tensors[0], module->path, ".lora_a", module->rank, module->in, module->a));
    return add(own, &tensors[1], module->path, ".lora_b", module->out, module->rank, b);
}

static lk_status write(const lk_lora_file *file, lk_lora_file *own, const char *path, const lk_model_config *config,
                       lk_stored_tensor *tensors) {
    /* the alpha that is right without a factor for as many modules as possible */
    double alpha = lk_lora_file_common_scale(file) * (double)lk_lora_file_common_rank(file);
    alpha = (double)(float)alpha;
    alpha = alpha != 0.0 ? alpha : 1.0;
    for (size_t i = 0; i < file->count; i++) {
        LK_TRY(add_module(own, &file->modules[i], config, alpha, &tensors[2 * i]));
    }
    lk_gguf_writer writer;
    lk_gguf_writer_init(&writer, file->context);
    lk_gguf_put_text(&writer, "general.type", "adapter");
    lk_gguf_put_text(&writer, "general.architecture", config->type->gguf_architecture);
    lk_gguf_put_text(&writer, "adapter.type", "lora");
    lk_gguf_put_f32(&writer, "adapter.lora.alpha", (float)alpha);
    lk_status status = lk_gguf_write(&writer, path, tensors, 2 * file->count, NULL, NULL);
    lk_gguf_writer_free(&writer);
    return status;
}

lk_status lk_lora_write_gguf(const lk_lora_file *file, const char *path, const lk_model_config *config) {
    lk_context *context = file->context;
    LK_TRY(check_base(context, path, config));
    if (lk_lora_file_has_magnitudes(file)) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED,
                       "%s: GGUF adapters have no DoRA; merge the adapter and convert the model", path);
    }
    lk_lora_file own;
    lk_lora_file_init(&own, context);
    lk_stored_tensor *tensors = lk_calloc(context, 2 * file->count, sizeof *tensors);
    lk_status status = tensors != NULL ? write(file, &own, path, config, tensors)
                                       : lk_out_of_memory(context, 2 * file->count * sizeof *tensors, path);
    lk_free(context, tensors);
    lk_lora_file_free(&own);
    return status;
}
