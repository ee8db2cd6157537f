/* lk_lora_file from and to a PEFT folder. */
#include <math.h>
#include <string.h>

#include "core/formats/lora_file.h"
#include "core/formats/peft.h"

/* ---- reading ---- */

static lk_status read_tensor(lk_lora_file *file, const lk_peft_config *config, const char *folder,
                             const lk_peft_tensor *tensor) {
    lk_lora_module *module;
    lk_peft_scaling scaling;
    if (tensor->kind != LK_PEFT_KIND_LORA_A && tensor->kind != LK_PEFT_KIND_LORA_B &&
        tensor->kind != LK_PEFT_KIND_LORA_MAGNITUDE) {
        return lk_fail(
            file->context, LK_STATUS_UNSUPPORTED,
            "%s: tensor %s: only LoRA pairs of linear layers can be converted; merge such an adapter instead", folder,
            tensor->tensor->name);
    }
    LK_TRY(lk_lora_file_module(file, tensor->module, &module));
    LK_TRY(lk_peft_scaling_of(config, tensor->module, &scaling));
    module->scale = scaling.scale;
    module->rank = scaling.rank;
    int64_t rank = scaling.rank, one = 1, any = -1;
    switch (tensor->kind) {
    case LK_PEFT_KIND_LORA_A:
        module->in = -1;
        return lk_lora_file_read(file, tensor->tensor, false, &rank, &module->in, &module->a);
    case LK_PEFT_KIND_LORA_B:
        module->out = -1;
        return lk_lora_file_read(file, tensor->tensor, false, &module->out, &rank, &module->b);
    default:
        return lk_lora_file_read(file, tensor->tensor, false, &any, &one, &module->magnitude);
    }
}

static lk_status read_all(lk_lora_file *file, const lk_peft_adapter *adapter, const char *folder) {
    const lk_peft_config *config = lk_peft_get_config(adapter);
    if (config->peft_type != LK_PEFT_LORA) {
        return lk_fail(file->context, LK_STATUS_UNSUPPORTED,
                       "%s: peft_type is not LORA: only LoRA adapters can be converted", folder);
    }
    if (lk_peft_changes_base(config)) {
        return lk_fail(file->context, LK_STATUS_UNSUPPORTED,
                       "%s: \"init_lora_weights\": \"%s\" has changed the base; save it as a plain LoRA first (PEFT: "
                       "path_initial_model_for_weight_conversion; here: train --init-adapter saves so)",
                       folder, json_string_value(config->init_lora_weights));
    }
    for (size_t i = 0; i < lk_peft_count(adapter); i++) {
        LK_TRY(read_tensor(file, config, folder, lk_peft_at(adapter, i)));
    }
    file->dropout = config->lora_dropout;
    if (config->base_model_name_or_path != NULL) {
        file->base_model = lk_arena_printf(&file->arena, "%s", config->base_model_name_or_path);
    }
    if (config->task_type != NULL) {
        file->task_type = lk_arena_printf(&file->arena, "%s", config->task_type);
    }
    return lk_lora_file_finish(file, folder);
}

lk_status lk_lora_read_peft(lk_lora_file *file, const char *folder) {
    lk_peft_adapter *adapter;
    LK_TRY(lk_peft_open(file->context, folder, &adapter));
    lk_status status = read_all(file, adapter, folder);
    lk_peft_destroy(adapter);
    return status;
}

/* ---- writing ---- */

/* alpha, as exact as a whole number where it nearly is one. */
static double alpha_of(const lk_lora_module *module) {
    double alpha = module->scale * (double)module->rank, whole = round(alpha);
    return fabs(alpha - whole) < 1e-6 * fabs(whole) ? whole : alpha;
}

/* PEFT's rsLoRA where that makes alpha a whole number of every module, and plain alpha does not. */
static bool looks_stabilised(const lk_lora_file *file) {
    bool plain = true, stabilised = true;
    for (size_t i = 0; i < file->count; i++) {
        const lk_lora_module *module = &file->modules[i];
        double alpha = module->scale * (double)module->rank, other = module->scale * sqrt((double)module->rank);
        plain = plain && fabs(alpha - round(alpha)) < 1e-5 * fabs(alpha);
        stabilised = stabilised && round(other) != 0.0 && fabs(other - round(other)) < 1e-5 * fabs(other);
    }
    return stabilised && !plain;
}

/* target_modules names every module in full: which layers have one needs no pattern then. */
static lk_status fill_config(const lk_lora_file *file, lk_peft_config *config) {
    lk_context *context = file->context;
    config->target_modules = json_array();
    config->rank_pattern = json_object();
    config->alpha_pattern = json_object();
    config->use_dora = lk_lora_file_has_magnitudes(file);
    config->use_rslora = looks_stabilised(file);
    config->r = lk_lora_file_common_rank(file);
    config->lora_dropout = file->dropout;
    lk_lora_module common = {.rank = config->r, .scale = lk_lora_file_common_scale(file)};
    int failed = 0;
    for (size_t pass = 0; pass <= file->count; pass++) {
        const lk_lora_module *module = pass == 0 ? &common : &file->modules[pass - 1];
        double alpha = config->use_rslora ? round(module->scale * sqrt((double)module->rank)) : alpha_of(module);
        if (pass == 0) {
            config->lora_alpha = alpha;
            continue;
        }
        failed |= json_array_append_new(config->target_modules, json_string(module->path));
        if (module->rank != config->r) {
            failed |= json_object_set_new(config->rank_pattern, module->path, json_integer(module->rank));
        }
        if (alpha != config->lora_alpha) {
            bool whole = alpha == round(alpha) && fabs(alpha) < 1e9;
            failed |= json_object_set_new(config->alpha_pattern, module->path,
                                          whole ? json_integer((json_int_t)alpha) : json_real(alpha));
        }
    }
    if (failed) {
        return lk_out_of_memory(context, 0, "an adapter's configuration");
    }
    LK_TRY(lk_peft_config_set_text(config, &config->task_type, file->task_type ? file->task_type : "CAUSAL_LM"));
    return lk_peft_config_set_text(config, &config->base_model_name_or_path, file->base_model);
}

static lk_status add(lk_lora_file *names, lk_stored_tensor *to, const char *path, lk_peft_kind kind, int64_t rows,
                     int64_t columns, const float *values) {
    lk_text name;
    lk_text_init(&name, names->context);
    lk_peft_name(&name, LK_PEFT_LORA, path, kind, "");
    const char *copy = name.failed ? NULL : lk_arena_printf(&names->arena, "%s", name.data);
    lk_text_free(&name);
    *to = (lk_stored_tensor){
        .name = copy, .dtype = LK_DTYPE_F32, .rank = columns > 0 ? 2 : 1, .shape = {rows, columns}, .data = values};
    return copy != NULL ? LK_OK : lk_out_of_memory(names->context, 0, "an adapter");
}

static lk_status list_tensors(const lk_lora_file *file, lk_lora_file *names, lk_stored_tensor *tensors, size_t *count) {
    for (size_t i = 0; i < file->count; i++) {
        const lk_lora_module *module = &file->modules[i];
        const char *path = module->path;
        LK_TRY(add(names, &tensors[(*count)++], path, LK_PEFT_KIND_LORA_A, module->rank, module->in, module->a));
        LK_TRY(add(names, &tensors[(*count)++], path, LK_PEFT_KIND_LORA_B, module->out, module->rank, module->b));
        if (module->magnitude != NULL) {
            LK_TRY(
                add(names, &tensors[(*count)++], path, LK_PEFT_KIND_LORA_MAGNITUDE, module->out, 0, module->magnitude));
        }
    }
    return LK_OK;
}

lk_status lk_lora_write_peft(const lk_lora_file *file, const char *folder) {
    lk_context *context = file->context;
    lk_lora_file names; /* for its arena */
    lk_peft_config config;
    size_t count = 0;
    LK_TRY(lk_peft_config_init(context, LK_PEFT_LORA, &config));
    lk_lora_file_init(&names, context);
    lk_stored_tensor *tensors = lk_calloc(context, 3 * file->count, sizeof *tensors);
    lk_status status =
        tensors != NULL ? LK_OK : lk_out_of_memory(context, 3 * file->count * sizeof *tensors, "an adapter");
    status = status == LK_OK ? list_tensors(file, &names, tensors, &count) : status;
    status = status == LK_OK ? fill_config(file, &config) : status;
    status = status == LK_OK ? lk_peft_save(&config, folder, tensors, count, NULL, NULL) : status;
    lk_free(context, tensors);
    lk_lora_file_free(&names);
    lk_peft_config_free(&config);
    return status;
}
