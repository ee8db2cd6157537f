/* lk_lora_file from and to MLX-LM's adapters: adapters.safetensors with <path>.lora_a [in, rank], <path>.lora_b
 * [rank, out] and, of DoRA, <path>.m [out]; adapter_config.json with "fine_tune_type", "num_layers" and
 * "lora_parameters": rank, scale (of the product), dropout, keys (paths within a layer). */
#include <math.h>
#include <string.h>

#include "core/base/json.h"
#include "core/formats/lora_file.h"
#include "core/formats/safetensors.h"

static const char config_name[] = "adapter_config.json", weights_name[] = "adapters.safetensors";

/* ---- reading ---- */

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), end_length = strlen(end);
    return length > end_length && strcmp(text + length - end_length, end) == 0;
}

static lk_status read_tensor(lk_lora_file *file, const lk_stored_tensor *stored, double scale) {
    bool is_a = ends_with(stored->name, ".lora_a"), is_b = ends_with(stored->name, ".lora_b");
    if (!is_a && !is_b && !ends_with(stored->name, ".m")) {
        return lk_fail(file->context, LK_STATUS_UNSUPPORTED, "%s: tensor %s is no LoRA matrix of a linear layer",
                       stored->file, stored->name);
    }
    const char *path =
        lk_arena_printf(&file->arena, "%.*s", (int)(strrchr(stored->name, '.') - stored->name), stored->name);
    if (path == NULL) {
        return lk_out_of_memory(file->context, strlen(stored->name), "an adapter");
    }
    lk_lora_module *module;
    LK_TRY(lk_lora_file_module(file, path, &module));
    module->scale = scale;
    int64_t rank = module->rank > 0 ? module->rank : -1, one = 1, any = -1;
    if (is_a) {
        module->in = -1;
        LK_TRY(lk_lora_file_read(file, stored, true, &rank, &module->in, &module->a));
    } else if (is_b) {
        module->out = -1;
        LK_TRY(lk_lora_file_read(file, stored, true, &module->out, &rank, &module->b));
    } else {
        return lk_lora_file_read(file, stored, false, &any, &one, &module->magnitude);
    }
    module->rank = rank;
    return LK_OK;
}

/* Whether row r of A and column r of B are zero: the rank was filled up. */
static bool is_filler(const lk_lora_module *module, int64_t r) {
    bool zero = true;
    for (int64_t i = 0; i < module->in && zero; i++) {
        zero = module->a[r * module->in + i] == 0.0f;
    }
    for (int64_t i = 0; i < module->out && zero; i++) {
        zero = module->b[i * module->rank + r] == 0.0f;
    }
    return zero;
}

/* A and B lose their last rows and columns while these are zero. */
static void take_filler_away(lk_lora_module *module) {
    int64_t rank = module->rank;
    while (rank > 1 && is_filler(module, rank - 1)) {
        rank--;
    }
    for (int64_t i = 0; i < module->out && rank < module->rank; i++) {
        memmove(module->b + i * rank, module->b + i * module->rank, (size_t)rank * sizeof *module->b);
    }
    module->rank = rank;
}

static lk_status read_all(lk_lora_file *file, const lk_safetensors *tensors, const json_t *config, const char *source) {
    const char *type = "lora", *base = NULL;
    json_t *parameters = NULL;
    double scale = 1.0;
    LK_TRY(lk_json_get_string(file->context, source, config, "fine_tune_type", false, &type));
    if (strcmp(type, "lora") != 0 && strcmp(type, "dora") != 0) {
        return lk_fail(file->context, LK_STATUS_UNSUPPORTED, "%s: \"fine_tune_type\" is \"%s\", expected lora or dora",
                       source, type);
    }
    LK_TRY(lk_json_get_object(file->context, source, config, "lora_parameters", true, &parameters));
    LK_TRY(lk_json_get_double(file->context, source, parameters, "scale", true, &scale));
    LK_TRY(lk_json_get_double(file->context, source, parameters, "dropout", false, &file->dropout));
    LK_TRY(lk_json_get_string(file->context, source, config, "model", false, &base));
    file->base_model = base != NULL ? lk_arena_printf(&file->arena, "%s", base) : NULL;
    for (size_t i = 0; i < lk_safetensors_count(tensors); i++) {
        LK_TRY(read_tensor(file, lk_safetensors_at(tensors, i), scale));
    }
    LK_TRY(lk_lora_file_finish(file, source));
    for (size_t i = 0; i < file->count; i++) {
        take_filler_away(&file->modules[i]);
    }
    return LK_OK;
}

lk_status lk_lora_read_mlx(lk_lora_file *file, const char *folder) {
    lk_context *context = file->context;
    char *config_path = lk_path_join(context, folder, config_name);
    char *weights_path = lk_path_join(context, folder, weights_name);
    json_t *config = NULL;
    lk_safetensors *tensors = NULL;
    lk_status status = config_path && weights_path ? LK_OK : lk_out_of_memory(context, strlen(folder), "a path");
    status = status == LK_OK ? lk_json_load(context, config_path, &config) : status;
    status = status == LK_OK ? lk_safetensors_open(context, weights_path, &tensors) : status;
    status = status == LK_OK ? read_all(file, tensors, config, config_path) : status;
    lk_safetensors_destroy(tensors);
    json_decref(config);
    lk_free(context, config_path);
    lk_free(context, weights_path);
    return status;
}

/* ---- writing ---- */

/* [columns of `width`, rows]: transposed, times a factor, filled up with zeros. */
static lk_status transpose(lk_lora_file *own, const float *from, int64_t rows, int64_t columns, int64_t out_rows,
                           int64_t out_columns, double factor, float **out) {
    LK_TRY(lk_lora_file_alloc(own, out_rows, out_columns, out));
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < columns; c++) {
            float value = from[r * columns + c];
            (*out)[c * out_columns + r] = factor == 1.0 ? value : (float)((double)value * factor);
        }
    }
    return LK_OK;
}

static lk_status add(lk_lora_file *own, lk_stored_tensor *to, const char *path, const char *suffix, int64_t rows,
                     int64_t columns, const float *values) {
    const char *name = lk_arena_printf(&own->arena, "%s%s", path, suffix);
    *to = (lk_stored_tensor){
        .name = name, .dtype = LK_DTYPE_F32, .rank = columns > 0 ? 2 : 1, .shape = {rows, columns}, .data = values};
    return name != NULL ? LK_OK : lk_out_of_memory(own->context, 0, "an adapter");
}

static lk_status list_tensors(const lk_lora_file *file, lk_lora_file *own, int64_t rank, double scale,
                              lk_stored_tensor *tensors, size_t *count) {
    for (size_t i = 0; i < file->count; i++) {
        const lk_lora_module *module = &file->modules[i];
        float *a, *b;
        LK_TRY(transpose(own, module->a, module->rank, module->in, module->in, rank, 1.0, &a));
        LK_TRY(transpose(own, module->b, module->out, module->rank, rank, module->out, module->scale / scale, &b));
        LK_TRY(add(own, &tensors[(*count)++], module->path, ".lora_a", module->in, rank, a));
        LK_TRY(add(own, &tensors[(*count)++], module->path, ".lora_b", rank, module->out, b));
        if (module->magnitude != NULL) {
            LK_TRY(add(own, &tensors[(*count)++], module->path, ".m", module->out, 0, module->magnitude));
        }
    }
    return LK_OK;
}

/* The path within its layer: "self_attn.q_proj"; the whole where there is none. */
static const char *key_of(const char *path) {
    const char *layers = strstr(path, "layers.");
    const char *number = layers != NULL ? layers + strlen("layers.") : path;
    size_t digits = strspn(number, "0123456789");
    return layers != NULL && digits > 0 && number[digits] == '.' ? number + digits + 1 : path;
}

static lk_status write_config(const lk_lora_file *file, int64_t rank, double scale, const char *path) {
    json_t *keys = json_array();
    for (size_t i = 0; i < file->count; i++) {
        bool known = false;
        for (size_t k = 0; k < json_array_size(keys) && !known; k++) {
            known = strcmp(json_string_value(json_array_get(keys, k)), key_of(file->modules[i].path)) == 0;
        }
        if (!known) {
            json_array_append_new(keys, json_string(key_of(file->modules[i].path)));
        }
    }
    /* num_layers -1: all of them; the matrices of those that have none stay zero */
    json_t *root = json_pack("{s:s,s:i,s:{s:I,s:f,s:f,s:o}}", "fine_tune_type",
                             lk_lora_file_has_magnitudes(file) ? "dora" : "lora", "num_layers", -1, "lora_parameters",
                             "rank", (json_int_t)rank, "scale", scale, "dropout", file->dropout, "keys", keys);
    int failed = root == NULL;
    if (!failed && file->base_model != NULL) {
        failed = json_object_set_new(root, "model", json_string(file->base_model));
    }
    lk_status status = failed ? lk_out_of_memory(file->context, 0, path) : lk_json_save(file->context, path, root);
    json_decref(root);
    return status;
}

static lk_status write(const lk_lora_file *file, lk_lora_file *own, const char *folder, lk_stored_tensor *tensors) {
    lk_context *context = file->context;
    const char *config_path = lk_arena_printf(&own->arena, "%s/%s", folder, config_name);
    const char *weights_path = lk_arena_printf(&own->arena, "%s/%s", folder, weights_name);
    double scale = lk_lora_file_common_scale(file);
    int64_t rank = 0;
    size_t count = 0;
    scale = scale != 0.0 ? scale : 1.0;
    for (size_t i = 0; i < file->count; i++) {
        rank = LK_MAX(rank, file->modules[i].rank);
    }
    if (config_path == NULL || weights_path == NULL) {
        return lk_out_of_memory(context, strlen(folder), "a path");
    }
    LK_TRY(list_tensors(file, own, rank, scale, tensors, &count));
    LK_TRY(lk_make_directories(context, folder));
    LK_TRY(lk_safetensors_write(context, weights_path, tensors, count, NULL, NULL, NULL));
    return write_config(file, rank, scale, config_path);
}

lk_status lk_lora_write_mlx(const lk_lora_file *file, const char *folder) {
    lk_lora_file own;
    lk_lora_file_init(&own, file->context);
    lk_stored_tensor *tensors = lk_calloc(file->context, 3 * file->count, sizeof *tensors);
    lk_status status = tensors != NULL ? write(file, &own, folder, tensors)
                                       : lk_out_of_memory(file->context, 3 * file->count * sizeof *tensors, folder);
    lk_free(file->context, tensors);
    lk_lora_file_free(&own);
    return status;
}
