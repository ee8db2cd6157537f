#include "core/formats/pretrained.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/formats/dequantize.h"
#include "core/formats/gguf_names.h"
#include "core/formats/safetensors.h"

enum { NAME_SIZE = 512 };

struct lk_pretrained {
    lk_context *context;
    char *path, *folder;
    lk_model_config config;
    lk_safetensors *safetensors; /* one of the two */
    lk_gguf *gguf;
    lk_arena names;
    lk_tensor_table renamed; /* the GGUF's tensors under Hugging Face names */
};

/* ---- opening ---- */

static lk_status open_safetensors(lk_pretrained *model, const char *config_path) {
    LK_TRY(lk_model_config_load(model->context, config_path, &model->config));
    lk_status status = lk_safetensors_open_folder(model->context, model->path, &model->safetensors);
    if (status == LK_STATUS_NOT_FOUND) {
        char *pickle = lk_path_join(model->context, model->path, "pytorch_model.bin");
        if (pickle != NULL && lk_path_is_file(pickle)) {
            status = lk_fail(model->context, LK_STATUS_UNSUPPORTED,
                             "%s: pickled weights are not read; save the model as safetensors", pickle);
        }
        lk_free(model->context, pickle);
    }
    return status;
}

static lk_status rename_tensors(lk_pretrained *model) {
    for (size_t i = 0; i < lk_gguf_count(model->gguf); i++) {
        lk_stored_tensor tensor = *lk_gguf_at(model->gguf, i);
        char name[NAME_SIZE];
        if (lk_gguf_name_to_hf(tensor.name, name, sizeof name)) {
            tensor.name = lk_arena_printf(&model->names, "%s", name);
            if (tensor.name == NULL) {
                return lk_out_of_memory(model->context, strlen(name), "a tensor's name");
            }
        }
        LK_TRY(lk_tensor_table_add(&model->renamed, &tensor));
    }
    return lk_tensor_table_seal(&model->renamed);
}

static lk_status open_gguf(lk_pretrained *model, const char *path) {
    int64_t parts = 1;
    LK_TRY(lk_gguf_open(model->context, path, &model->gguf));
    LK_TRY(lk_gguf_get_int(model->gguf, "split.count", false, 0, UINT16_MAX, &parts));
    if (parts > 1) {
        return lk_fail(model->context, LK_STATUS_UNSUPPORTED,
                       "%s: one of %" PRId64 " parts: merge them into one file first (gguf-split --merge)", path,
                       parts);
    }
    LK_TRY(lk_model_config_from_gguf(model->context, model->gguf, &model->config));
    return rename_tensors(model);
}

typedef struct gguf_search {
    int found;
    char name[256];
} gguf_search;

static void note_gguf(void *user, const char *name) {
    gguf_search *search = user;
    size_t length = strlen(name);
    if (length > 5 && length < sizeof search->name && strcmp(name + length - 5, ".gguf") == 0) {
        search->found++;
        memcpy(search->name, name, length + 1);
    }
}

static lk_status open_folder(lk_pretrained *model) {
    gguf_search search = {0};
    char *config_path = lk_path_join(model->context, model->path, "config.json"), *gguf_path = NULL;
    lk_status status;
    if (config_path == NULL) {
        return lk_out_of_memory(model->context, strlen(model->path), "a path");
    }
    LK_TRY_GOTO(lk_directory_each(model->context, model->path, note_gguf, &search), done);
    bool has_config = lk_path_is_file(config_path);
    if (!has_config && search.found == 1) {
        gguf_path = lk_path_join(model->context, model->path, search.name);
        status =
            gguf_path ? open_gguf(model, gguf_path) : lk_out_of_memory(model->context, strlen(search.name), "a path");
    } else if (!has_config) {
        status =
            lk_fail(model->context, LK_STATUS_NOT_FOUND, "%s: there is no config.json, and there are %d .gguf files%s",
                    model->path, search.found, search.found ? ": name one of them" : "");
    } else {
        status = open_safetensors(model, config_path);
        if (status == LK_STATUS_NOT_FOUND && search.found == 1) { /* GGUF repositories often keep the config.json */
            lk_model_config_free(&model->config);
            gguf_path = lk_path_join(model->context, model->path, search.name);
            status = gguf_path ? open_gguf(model, gguf_path)
                               : lk_out_of_memory(model->context, strlen(search.name), "a path");
        }
    }
done:
    lk_free(model->context, config_path);
    lk_free(model->context, gguf_path);
    return status;
}

/* The folder itself, or that of a file. */
static char *folder_of(lk_context *context, const char *path) {
    char *copy = lk_strdup(context, path);
    if (copy != NULL && !lk_path_is_directory(path)) {
        char *slash = strrchr(copy, '/');
        if (slash == NULL) {
            lk_free(context, copy);
            return lk_strdup(context, ".");
        }
        slash[slash == copy] = '\0';
    }
    return copy;
}

lk_status lk_pretrained_open(lk_context *context, const char *path, lk_pretrained **out) {
    *out = NULL;
    lk_pretrained *model = lk_calloc(context, 1, sizeof *model);
    if (model == NULL) {
        return lk_out_of_memory(context, sizeof *model, path);
    }
    model->context = context;
    lk_arena_init(&model->names, context);
    lk_tensor_table_init(&model->renamed, context);
    model->path = lk_strdup(context, path);
    model->folder = folder_of(context, path);
    lk_status status;
    if (model->path == NULL || model->folder == NULL) {
        status = lk_out_of_memory(context, strlen(path), "a path");
    } else {
        status = lk_path_is_directory(path) ? open_folder(model) : open_gguf(model, path);
    }
    if (status != LK_OK) {
        lk_pretrained_destroy(model);
        return status;
    }
    *out = model;
    return LK_OK;
}

void lk_pretrained_destroy(lk_pretrained *model) {
    if (model == NULL) {
        return;
    }
    lk_tensor_table_free(&model->renamed);
    lk_arena_free(&model->names);
    lk_gguf_destroy(model->gguf);
    lk_safetensors_destroy(model->safetensors);
    lk_model_config_free(&model->config);
    lk_free(model->context, model->path);
    lk_free(model->context, model->folder);
    lk_free(model->context, model);
}

const lk_model_config *lk_pretrained_config(const lk_pretrained *model) {
    return &model->config;
}

const lk_gguf *lk_pretrained_gguf(const lk_pretrained *model) {
    return model->gguf;
}

const char *lk_pretrained_path(const lk_pretrained *model) {
    return model->path;
}

const char *lk_pretrained_folder(const lk_pretrained *model) {
    return model->folder;
}

/* ---- finding ---- */

size_t lk_pretrained_count(const lk_pretrained *model) {
    return model->gguf ? model->renamed.count : lk_safetensors_count(model->safetensors);
}

const lk_stored_tensor *lk_pretrained_at(const lk_pretrained *model, size_t index) {
    return model->gguf ? &model->renamed.tensors[index] : lk_safetensors_at(model->safetensors, index);
}

static const lk_stored_tensor *lookup_exactly(const lk_pretrained *model, const char *name) {
    return model->gguf ? lk_tensor_table_lookup(&model->renamed, name)
                       : lk_safetensors_lookup(model->safetensors, name);
}

const lk_stored_tensor *lk_pretrained_lookup(const lk_pretrained *model, const char *name) {
    const lk_stored_tensor *tensor = lookup_exactly(model, name);
    const char *prefix = model->config.type->base_model_prefix;
    size_t length = strlen(prefix);
    if (tensor != NULL || model->gguf != NULL) {
        return tensor;
    }
    if (strncmp(name, prefix, length) == 0) {
        return lookup_exactly(model, name + length);
    }
    char longer[NAME_SIZE];
    int written = snprintf(longer, sizeof longer, "%s%s", prefix, name);
    return written > 0 && (size_t)written < sizeof longer ? lookup_exactly(model, longer) : NULL;
}

lk_status lk_pretrained_find(const lk_pretrained *model, const char *name, const lk_stored_tensor **out) {
    const lk_stored_tensor *tensor = lk_pretrained_lookup(model, name);
    const char *stored = tensor ? tensor->name : name;
    return model->gguf ? lk_tensor_table_find(&model->renamed, model->path, stored, out)
                       : lk_safetensors_find(model->safetensors, stored, out);
}

/* ---- reading ---- */

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

int64_t lk_pretrained_permuted_heads(const lk_pretrained *model, const lk_stored_tensor *tensor) {
    if (model->gguf == NULL || !model->config.type->gguf_permutes_qk) {
        return 0;
    }
    if (ends_with(tensor->name, ".q_proj.weight") || ends_with(tensor->name, ".q_proj.bias")) {
        return model->config.num_attention_heads;
    }
    if (ends_with(tensor->name, ".k_proj.weight") || ends_with(tensor->name, ".k_proj.bias")) {
        return model->config.num_key_value_heads;
    }
    return 0;
}

/* Row 2 j + half of a head in the file is row half * (rows of a head / 2) + j here. */
static lk_status read_permuted(const lk_pretrained *model, const lk_stored_tensor *tensor, int64_t heads,
                               lk_dtype dtype, uint8_t *destination) {
    int64_t rows = tensor->shape[0], columns = 1, head_rows = rows / heads;
    size_t from_bytes, to_bytes;
    for (int i = 1; i < tensor->rank; i++) {
        columns *= tensor->shape[i];
    }
    if (rows % (2 * heads) != 0) {
        return lk_fail(model->context, LK_STATUS_FORMAT,
                       "%" PRId64 " rows do not divide into %" PRId64 " heads of even size", rows, heads);
    }
    if (!lk_dtype_size(tensor->dtype, columns, &from_bytes) || !lk_dtype_size(dtype, columns, &to_bytes)) {
        return lk_fail(model->context, LK_STATUS_UNSUPPORTED, "rows of %" PRId64 " do not fill blocks of %s", columns,
                       lk_dtype_name(dtype));
    }
    for (int64_t row = 0; row < rows; row++) {
        int64_t head = row / head_rows, half = row % head_rows / (head_rows / 2), j = row % (head_rows / 2);
        const uint8_t *from = (const uint8_t *)tensor->data + (size_t)(head * head_rows + 2 * j + half) * from_bytes;
        LK_TRY(lk_convert(model->context, tensor->dtype, from, dtype, destination + (size_t)row * to_bytes, columns));
    }
    return LK_OK;
}

lk_status lk_pretrained_read(const lk_pretrained *model, const char *name, int rank, const int64_t *shape,
                             lk_dtype dtype, void *destination) {
    const lk_stored_tensor *tensor;
    int64_t elements;
    LK_TRY(lk_pretrained_find(model, name, &tensor));
    LK_TRY(lk_stored_tensor_expect_shape(model->context, tensor, rank, shape));
    int64_t heads = lk_pretrained_permuted_heads(model, tensor);
    lk_status status;
    if (heads > 0 && rank > 0) {
        status = read_permuted(model, tensor, heads, dtype, destination);
    } else if (!lk_shape_elements(shape, rank, &elements)) {
        status = lk_fail(model->context, LK_STATUS_INTERNAL, "impossible shape"); /* refused when the file was opened */
    } else {
        status = lk_convert(model->context, tensor->dtype, tensor->data, dtype, destination, elements);
    }
    return status == LK_OK ? LK_OK : lk_fail_within(model->context, status, "%s: tensor %s", tensor->file, name);
}

lk_status lk_pretrained_read_f32(const lk_pretrained *model, const char *name, int rank, const int64_t *shape,
                                 float *destination) {
    return lk_pretrained_read(model, name, rank, shape, LK_DTYPE_F32, destination);
}
