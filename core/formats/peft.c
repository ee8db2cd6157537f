#include "core/formats/peft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/formats/dequantize.h"

static const char prefix[] = "base_model.model.", short_prefix[] = "base_model.";
static const char config_name[] = "adapter_config.json", weights_name[] = "adapter_model.safetensors";

static const struct {
    const char *name, *suffix;
} kinds[] = {
#define LK_PEFT_KIND(NAME, text, suffix) {text, suffix},
    LK_PEFT_KINDS(LK_PEFT_KIND)
#undef LK_PEFT_KIND
};

struct lk_peft_adapter {
    lk_context *context;
    lk_peft_config config;
    lk_safetensors *file;
    lk_arena names;
    lk_peft_tensor *tensors;
    size_t count;
};

/* ---- names ---- */

/* The kind whose name is the segment [begin, end). */
static lk_peft_kind kind_of(const char *begin, size_t length) {
    for (size_t i = 0; i < LK_COUNT(kinds); i++) {
        if (strlen(kinds[i].name) == length && memcmp(kinds[i].name, begin, length) == 0) {
            return (lk_peft_kind)i;
        }
    }
    return LK_PEFT_KIND_OTHER;
}

/* After the kind comes nothing, ".weight", ".<adapter name>" or both. */
static bool is_tail(const char *tail) {
    size_t length = strlen(tail), weight = strlen(".weight");
    if (length >= weight && strcmp(tail + length - weight, ".weight") == 0) {
        length -= weight;
    }
    return length == 0 || (tail[0] == '.' && memchr(tail + 1, '.', length - 1) == NULL);
}

static lk_status parse_name(lk_peft_adapter *adapter, const lk_stored_tensor *tensor, lk_peft_tensor *out) {
    const char *path = tensor->name;
    if (strncmp(path, prefix, strlen(prefix)) == 0) {
        path += strlen(prefix);
    } else if (strncmp(path, short_prefix, strlen(short_prefix)) == 0) {
        path += strlen(short_prefix);
    }
    *out = (lk_peft_tensor){.tensor = tensor, .kind = LK_PEFT_KIND_OTHER, .parameter = ""};
    size_t module_length = 0;
    for (const char *segment = path; *segment != '\0';) {
        size_t length = strcspn(segment, ".");
        lk_peft_kind kind = kind_of(segment, length);
        if (kind != LK_PEFT_KIND_OTHER && is_tail(segment + length)) {
            out->kind = kind;
            module_length = segment > path ? (size_t)(segment - path) - 1 : 0;
            break;
        }
        segment += length + (segment[length] == '.');
    }
    const char *parameter = "";
    if (out->kind == LK_PEFT_KIND_OTHER) {
        const char *dot = strrchr(path, '.');
        module_length = dot ? (size_t)(dot - path) : 0;
        parameter = dot ? dot + 1 : path;
    }
    out->module = lk_arena_printf(&adapter->names, "%.*s", (int)module_length, path);
    out->parameter = lk_arena_printf(&adapter->names, "%s", parameter);
    if (out->module == NULL || out->parameter == NULL) {
        return lk_out_of_memory(adapter->context, strlen(path), "a tensor's name");
    }
    if (out->kind == LK_PEFT_KIND_OTHER && lk_peft_saves_module(&adapter->config, out->module)) {
        out->kind = LK_PEFT_KIND_SAVED;
    }
    return LK_OK;
}

void lk_peft_name(lk_text *text, lk_peft_type type, const char *module, lk_peft_kind kind, const char *parameter) {
    bool shared = kind == LK_PEFT_KIND_VERA_A || kind == LK_PEFT_KIND_VERA_B;
    if (kind < LK_PEFT_KIND_SAVED) {
        lk_text_printf(text, "%s%s%s%s%s", shared ? short_prefix : prefix, shared ? "" : module, shared ? "" : ".",
                       kinds[kind].name, type == LK_PEFT_ADALORA ? "" : kinds[kind].suffix);
    } else {
        lk_text_printf(text, "%s%s.%s", prefix, module, parameter);
    }
}

/* ---- opening ---- */

static int compare(const void *left, const void *right) {
    const lk_peft_tensor *a = left, *b = right;
    int order = strcmp(a->module, b->module);
    if (order == 0) {
        order = (a->kind > b->kind) - (a->kind < b->kind);
    }
    return order != 0 ? order : strcmp(a->parameter, b->parameter);
}

static lk_status read_tensors(lk_peft_adapter *adapter) {
    size_t count = lk_safetensors_count(adapter->file);
    adapter->tensors = lk_calloc(adapter->context, count, sizeof *adapter->tensors);
    if (adapter->tensors == NULL) {
        return lk_out_of_memory(adapter->context, count * sizeof *adapter->tensors, "a list of tensors");
    }
    for (size_t i = 0; i < count; i++) {
        LK_TRY(parse_name(adapter, lk_safetensors_at(adapter->file, i), &adapter->tensors[i]));
        adapter->count++;
    }
    if (count > 0) {
        qsort(adapter->tensors, count, sizeof *adapter->tensors, compare);
    }
    for (size_t i = 1; i < count; i++) {
        const lk_stored_tensor *first = adapter->tensors[i - 1].tensor, *second = adapter->tensors[i].tensor;
        if (compare(&adapter->tensors[i - 1], &adapter->tensors[i]) == 0) {
            return lk_fail(adapter->context, LK_STATUS_FORMAT,
                           "%s: tensors %s and %s stand for the same (two adapters?)", second->file, first->name,
                           second->name);
        }
    }
    return LK_OK;
}

static lk_status open_folder(lk_peft_adapter *adapter, const char *folder) {
    lk_context *context = adapter->context;
    char *config = lk_path_join(context, folder, config_name), *weights = lk_path_join(context, folder, weights_name);
    char *pickle = lk_path_join(context, folder, "adapter_model.bin");
    lk_status status;
    if (config == NULL || weights == NULL || pickle == NULL) {
        status = lk_out_of_memory(context, strlen(folder), "a path");
        goto done;
    }
    LK_TRY_GOTO(lk_peft_config_load(context, config, &adapter->config), done);
    if (!lk_path_is_file(weights) && lk_path_is_file(pickle)) {
        status = lk_fail(context, LK_STATUS_UNSUPPORTED,
                         "%s: pickled adapters are not read; save the adapter with safe_serialization=True", pickle);
        goto done;
    }
    LK_TRY_GOTO(lk_safetensors_open(context, weights, &adapter->file), done);
    status = read_tensors(adapter);
done:
    lk_free(context, config);
    lk_free(context, weights);
    lk_free(context, pickle);
    return status;
}

lk_status lk_peft_open(lk_context *context, const char *folder, lk_peft_adapter **out) {
    *out = NULL;
    lk_peft_adapter *adapter = lk_calloc(context, 1, sizeof *adapter);
    if (adapter == NULL) {
        return lk_out_of_memory(context, sizeof *adapter, folder);
    }
    adapter->context = context;
    lk_arena_init(&adapter->names, context);
    lk_status status = open_folder(adapter, folder);
    if (status != LK_OK) {
        lk_peft_destroy(adapter);
        return status;
    }
    *out = adapter;
    return LK_OK;
}

void lk_peft_destroy(lk_peft_adapter *adapter) {
    if (adapter == NULL) {
        return;
    }
    lk_peft_config_free(&adapter->config);
    lk_safetensors_destroy(adapter->file);
    lk_arena_free(&adapter->names);
    lk_free(adapter->context, adapter->tensors);
    lk_free(adapter->context, adapter);
}

/* ---- looking up and reading ---- */

const lk_peft_config *lk_peft_get_config(const lk_peft_adapter *adapter) {
    return &adapter->config;
}

size_t lk_peft_count(const lk_peft_adapter *adapter) {
    return adapter->count;
}

const lk_peft_tensor *lk_peft_at(const lk_peft_adapter *adapter, size_t index) {
    return &adapter->tensors[index];
}

const lk_peft_tensor *lk_peft_lookup(const lk_peft_adapter *adapter, const char *module, lk_peft_kind kind,
                                     const char *parameter) {
    lk_peft_tensor wanted = {.module = module, .kind = kind, .parameter = parameter};
    return adapter->count == 0 ? NULL : bsearch(&wanted, adapter->tensors, adapter->count, sizeof wanted, compare);
}

lk_status lk_peft_read_f32(const lk_peft_adapter *adapter, const lk_peft_tensor *tensor, int rank, const int64_t *shape,
                           float *destination) {
    const lk_stored_tensor *stored;
    LK_TRY(lk_safetensors_find(adapter->file, tensor->tensor->name, &stored));
    LK_TRY(lk_stored_tensor_expect_shape(adapter->context, stored, rank, shape));
    int64_t elements;
    if (!lk_shape_elements(shape, rank, &elements)) {
        return lk_fail(adapter->context, LK_STATUS_INTERNAL, "impossible shape"); /* refused when the file was opened */
    }
    lk_status status = lk_convert(adapter->context, stored->dtype, stored->data, LK_DTYPE_F32, destination, elements);
    return status == LK_OK ? LK_OK
                           : lk_fail_within(adapter->context, status, "%s: tensor %s", stored->file, stored->name);
}

/* ---- saving ---- */

lk_status lk_peft_save(const lk_peft_config *config, const char *folder, const lk_stored_tensor *tensors, size_t count,
                       lk_safetensors_source source, void *user) {
    lk_context *context = config->context;
    char *config_path = lk_path_join(context, folder, config_name);
    char *weights_path = lk_path_join(context, folder, weights_name);
    lk_status status;
    if (config_path == NULL || weights_path == NULL) {
        status = lk_out_of_memory(context, strlen(folder), "a path");
        goto done;
    }
    LK_TRY_GOTO(lk_make_directories(context, folder), done);
    LK_TRY_GOTO(lk_safetensors_write(context, weights_path, tensors, count, NULL, source, user), done);
    status = lk_peft_config_save(config, config_path);
done:
    lk_free(context, config_path);
    lk_free(context, weights_path);
    return status;
}
