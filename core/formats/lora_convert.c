/* Adapters from one format into another, and several into one. */
#include <string.h>

#include "core/formats/lora_combine.h"
#include "core/formats/pretrained.h"

void lk_convert_options_init(lk_convert_options *options) {
    *options = (lk_convert_options){.struct_size = sizeof *options, .how = LK_COMBINE_SVD};
}

static bool has_file(lk_context *context, const char *folder, const char *name) {
    char *path = lk_path_join(context, folder, name);
    bool there = path != NULL && lk_path_is_file(path);
    lk_free(context, path);
    return there;
}

/* What lies there decides the format. */
static lk_status read(lk_lora_file *file, const char *path, const lk_model_config *config) {
    lk_context *context = file->context;
    if (has_file(context, path, "adapter_model.safetensors")) {
        return lk_lora_read_peft(file, path);
    }
    if (has_file(context, path, "adapters.safetensors")) {
        return lk_lora_read_mlx(file, path);
    }
    if (lk_path_is_file(path)) {
        return lk_lora_read_gguf(file, path, config);
    }
    return lk_fail(context, LK_STATUS_NOT_FOUND,
                   "%s: no adapter there: expected a folder with adapter_model.safetensors (PEFT) or "
                   "adapters.safetensors (MLX), or a .gguf file",
                   path);
}

static lk_status write(const lk_lora_file *file, lk_adapter_format format, const char *to,
                       const lk_model_config *config) {
    switch (format) {
    case LK_ADAPTER_PEFT:
        return lk_lora_write_peft(file, to);
    case LK_ADAPTER_GGUF:
        return lk_lora_write_gguf(file, to, config);
    case LK_ADAPTER_MLX:
        return lk_lora_write_mlx(file, to);
    }
    return lk_fail(file->context, LK_STATUS_INVALID_ARGUMENT, "there is no adapter format %d", (int)format);
}

static lk_status convert(lk_context *context, lk_lora_file *files, const lk_convert_options *options,
                         const char *const *from, const double *weights, size_t count, const char *to,
                         const lk_model_config *config) {
    for (size_t i = 0; i < count; i++) {
        if (lk_path_is_same(from[i], to)) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s would be written over itself; give another path",
                           to);
        }
        LK_TRY(read(&files[i], from[i], config));
    }
    if (count == 1 && (weights == NULL || weights[0] == 1.0)) {
        return write(&files[0], options->format, to, config);
    }
    double ones[] = {1.0};
    lk_lora_file combined;
    lk_lora_file_init(&combined, context);
    lk_status status = LK_OK;
    if (weights == NULL && count > 1) {
        status = lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%zu adapters and no weights", count);
    }
    if (status == LK_OK) {
        status = lk_lora_combine(files, weights ? weights : ones, count, options->how, options->rank, &combined);
    }
    status = status == LK_OK ? write(&combined, options->format, to, config) : status;
    lk_lora_file_free(&combined);
    return status;
}

lk_status lk_convert_adapter(lk_context *context, const char *const *from, const double *weights, size_t count,
                             const lk_convert_options *given, const char *to) {
    lk_convert_options options;
    lk_convert_options_init(&options);
    if (given != NULL) {
        memcpy(&options, given, LK_MIN(given->struct_size, sizeof options));
    }
    if (count == 0 || options.rank < 0) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%zu adapters, rank %lld: expected at least 1 and 0", count,
                       (long long)options.rank);
    }
    lk_pretrained *base = NULL;
    if (options.base_model != NULL) {
        LK_TRY(lk_pretrained_open(context, options.base_model, &base));
    }
    lk_lora_file *files = lk_calloc(context, count, sizeof *files);
    lk_status status = files != NULL ? LK_OK : lk_out_of_memory(context, count * sizeof *files, "adapters");
    for (size_t i = 0; i < count && files != NULL; i++) {
        lk_lora_file_init(&files[i], context);
    }
    if (status == LK_OK) {
        const lk_model_config *config = base != NULL ? lk_pretrained_config(base) : NULL;
        status = convert(context, files, &options, from, weights, count, to, config);
    }
    for (size_t i = 0; i < count && files != NULL; i++) {
        lk_lora_file_free(&files[i]);
    }
    lk_free(context, files);
    lk_pretrained_destroy(base);
    return status;
}
