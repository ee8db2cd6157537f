#include "core/formats/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"

enum { HEADER_MAX = 100000000 }; /* the limit of the format's own implementation */

typedef struct shard {
    char *path;
    lk_mapping mapping;
} shard;

struct lk_safetensors {
    lk_context *context;
    char *source; /* the path as opened, for messages */
    shard *shards;
    size_t shard_count;
    json_t *metadata; /* of the first shard; may be NULL */
    lk_arena names;
    lk_tensor_table table;
};

/* ---- one file ---- */

static lk_status read_header(lk_context *context, const shard *file, json_t **header, size_t *data_start) {
    *header = NULL;
    const lk_mapping *mapping = &file->mapping;
    if (mapping->size < 8) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: not a safetensors file: %zu bytes are too few", file->path,
                       mapping->size);
    }
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) {
        length = length << 8 | mapping->data[i];
    }
    if (length > HEADER_MAX || length > mapping->size - 8) {
        return lk_fail(context, LK_STATUS_FORMAT,
                       "%s: not a safetensors file, or cut short: the header takes %" PRIu64 " bytes, the file has %zu",
                       file->path, length, mapping->size);
    }
    *data_start = 8 + (size_t)length;
    LK_TRY(lk_json_parse(context, file->path, mapping->data + 8, (size_t)length, header));
    if (!json_is_object(*header)) {
        json_decref(*header);
        *header = NULL;
        return lk_fail(context, LK_STATUS_FORMAT, "%s: the header is not a JSON object", file->path);
    }
    return LK_OK;
}

static lk_status read_offsets(lk_context *context, const char *path, const char *name, const json_t *entry,
                              size_t data_size, size_t *begin, size_t *end) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *second = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second)) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: tensor %s: \"data_offsets\" is not a pair of integers", path,
                       name);
    }
    int64_t from = json_integer_value(first), to = json_integer_value(second);
    if (from < 0 || to < from || (uint64_t)to > data_size) {
        return lk_fail(context, LK_STATUS_FORMAT,
                       "%s: tensor %s: data_offsets [%" PRId64 ", %" PRId64 "] do not lie in the file's %zu data bytes"
                       " (is it cut short?)",
                       path, name, from, to, data_size);
    }
    *begin = (size_t)from;
    *end = (size_t)to;
    return LK_OK;
}

/* A dtype or rank that is not supported is noted, not refused: the tensor may never be asked for. */
static lk_status read_type(lk_safetensors *file, const char *path, const json_t *entry, lk_stored_tensor *tensor) {
    lk_context *context = file->context;
    const json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape");
    if (!json_is_string(dtype)) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: tensor %s: \"dtype\" is not a string", path, tensor->name);
    }
    if (!json_is_array(shape)) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: tensor %s: \"shape\" is not an array", path, tensor->name);
    }
    size_t rank = json_array_size(shape);
    for (size_t i = 0; i < rank; i++) {
        const json_t *extent = json_array_get(shape, i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0) {
            return lk_fail(context, LK_STATUS_FORMAT, "%s: tensor %s: \"shape\" is not a list of sizes", path,
                           tensor->name);
        }
        if (i < LK_STORED_RANK_MAX) {
            tensor->shape[i] = json_integer_value(extent);
        }
    }
    if (!lk_dtype_from_safetensors_name(json_string_value(dtype), &tensor->dtype)) {
        tensor->unsupported = lk_arena_printf(&file->names, "dtype %s", json_string_value(dtype));
    } else if (rank > LK_STORED_RANK_MAX) {
        tensor->unsupported = lk_arena_printf(&file->names, "%zu dimensions", rank);
    } else {
        tensor->rank = (int)rank;
        return LK_OK;
    }
    return tensor->unsupported ? LK_OK : lk_out_of_memory(context, 32, "a tensor's description");
}

static lk_status read_entry(lk_safetensors *file, const shard *from, const char *key, const json_t *entry,
                            size_t data_start) {
    lk_context *context = file->context;
    lk_stored_tensor tensor = {.name = lk_arena_printf(&file->names, "%s", key), .file = from->path};
    if (tensor.name == NULL) {
        return lk_out_of_memory(context, strlen(key), "a tensor's name");
    }
    if (!json_is_object(entry)) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: the entry of tensor %s is not an object", from->path, key);
    }
    size_t begin, end, expected;
    LK_TRY(read_type(file, from->path, entry, &tensor));
    LK_TRY(read_offsets(context, from->path, key, entry, from->mapping.size - data_start, &begin, &end));
    tensor.data = from->mapping.data + data_start + begin;
    tensor.bytes = end - begin;
    int64_t elements;
    if (tensor.unsupported == NULL && (!lk_shape_elements(tensor.shape, tensor.rank, &elements) ||
                                       !lk_dtype_size(tensor.dtype, elements, &expected) || expected != tensor.bytes)) {
        char shape[LK_SHAPE_TEXT];
        return lk_fail(context, LK_STATUS_FORMAT, "%s: tensor %s: shape %s of %s does not take the %zu bytes it has",
                       from->path, key, lk_shape_format(tensor.shape, tensor.rank, shape, sizeof shape),
                       lk_dtype_name(tensor.dtype), tensor.bytes);
    }
    return lk_tensor_table_add(&file->table, &tensor);
}

static int compare_position(const void *left, const void *right) {
    const lk_stored_tensor *a = left, *b = right;
    if (a->data != b->data) {
        return (const uint8_t *)a->data < (const uint8_t *)b->data ? -1 : 1;
    }
    if (a->bytes != b->bytes) {
        return a->bytes < b->bytes ? -1 : 1;
    }
    return strcmp(a->name, b->name);
}

/* The format demands that the tensors cover the data exactly: no overlap, no gap, nothing after the last. */
static lk_status check_coverage(lk_safetensors *file, const shard *from, size_t first, size_t data_start) {
    lk_stored_tensor *tensors = file->table.tensors;
    size_t count = file->table.count;
    if (count > first) {
        qsort(tensors + first, count - first, sizeof *tensors, compare_position);
    }
    const uint8_t *data = from->mapping.data + data_start, *position = data;
    for (size_t i = first; i < count; i++) {
        const uint8_t *start = tensors[i].data;
        if (start != position) {
            return lk_fail(file->context, LK_STATUS_FORMAT, "%s: tensor %s begins at data byte %zu, expected %zu: %s",
                           from->path, tensors[i].name, (size_t)(start - data), (size_t)(position - data),
                           start < position ? "it overlaps the tensor before it" : "there is a gap before it");
        }
        position += tensors[i].bytes;
    }
    size_t used = (size_t)(position - from->mapping.data);
    if (used != from->mapping.size) {
        return lk_fail(file->context, LK_STATUS_FORMAT, "%s: %zu bytes after the last tensor belong to none",
                       from->path, from->mapping.size - used);
    }
    return LK_OK;
}

static lk_status check_metadata(lk_context *context, const char *path, const json_t *metadata) {
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"__metadata__\" is not an object", path);
    }
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
        if (!json_is_string(value)) {
            return lk_fail(context, LK_STATUS_FORMAT, "%s: \"__metadata__\": \"%s\" is not a string", path, key);
        }
    }
    return LK_OK;
}

static lk_status read_shard(lk_safetensors *file, shard *from) {
    json_t *header;
    size_t data_start, first = file->table.count;
    LK_TRY(lk_mapping_open(file->context, from->path, &from->mapping));
    LK_TRY(read_header(file->context, from, &header, &data_start));
    lk_status status = LK_OK;
    const char *key;
    json_t *entry;
    json_object_foreach(header, key, entry) {
        if (strcmp(key, "__metadata__") == 0) {
            LK_TRY_GOTO(check_metadata(file->context, from->path, entry), done);
            if (file->metadata == NULL) {
                file->metadata = json_incref(entry);
            }
        } else {
            LK_TRY_GOTO(read_entry(file, from, key, entry, data_start), done);
        }
    }
    status = check_coverage(file, from, first, data_start);
done:
    json_decref(header);
    return status;
}

/* ---- sharded models ---- */

/* Shards stand beside the index, so a name with a path in it is malformed or hostile. */
static lk_status check_shard_name(lk_context *context, const char *index, const char *tensor, const json_t *name) {
    const char *text = json_string_value(name);
    if (text == NULL || text[0] == '\0' || text[0] == '.' || strpbrk(text, "/\\") != NULL) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"weight_map\": \"%s\" is %s%s, expected a file name", index,
                       tensor, text ? "" : "not a string", text ? text : "");
    }
    return LK_OK;
}

static lk_status add_shard(lk_safetensors *file, const char *folder, const char *name) {
    shard *grown = lk_realloc(file->context, file->shards, file->shard_count + 1, sizeof *grown);
    if (grown == NULL) {
        return lk_out_of_memory(file->context, sizeof *grown, "a list of files");
    }
    file->shards = grown;
    char *path = folder ? lk_path_join(file->context, folder, name) : lk_strdup(file->context, name);
    if (path == NULL) {
        return lk_out_of_memory(file->context, strlen(name), "a path");
    }
    grown[file->shard_count++] = (shard){.path = path};
    return LK_OK;
}

/* The shards' names once each, in order of name. */
static lk_status list_shards(lk_safetensors *file, const char *index, const json_t *weight_map, json_t *seen) {
    const char *tensor, *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)weight_map, tensor, value) {
        LK_TRY(check_shard_name(file->context, index, tensor, value));
        if (json_object_set_new(seen, json_string_value(value), json_true()) != 0) {
            return lk_out_of_memory(file->context, 0, "a list of files");
        }
    }
    char *folder = lk_strdup(file->context, index);
    if (folder == NULL) {
        return lk_out_of_memory(file->context, strlen(index), "a path");
    }
    char *slash = strrchr(folder, '/');
    if (slash != NULL) {
        slash[1] = '\0';
    }
    lk_status status = LK_OK;
    json_object_foreach(seen, name, value) {
        LK_TRY_GOTO(add_shard(file, slash ? folder : NULL, name), done);
    }
done:
    lk_free(file->context, folder);
    return status;
}

static lk_status read_index(lk_safetensors *file, const char *path) {
    json_t *root, *weight_map, *seen = NULL;
    LK_TRY(lk_json_load(file->context, path, &root));
    lk_status status = LK_OK;
    LK_TRY_GOTO(lk_json_get_object(file->context, path, root, "weight_map", true, &weight_map), done);
    seen = json_object();
    if (seen == NULL) {
        status = lk_out_of_memory(file->context, 0, "a list of files");
        goto done;
    }
    LK_TRY_GOTO(list_shards(file, path, weight_map, seen), done);
    for (size_t i = 0; i < file->shard_count; i++) {
        LK_TRY_GOTO(read_shard(file, &file->shards[i]), done);
    }
    LK_TRY_GOTO(lk_tensor_table_seal(&file->table), done);
    const char *tensor;
    json_t *name;
    json_object_foreach(weight_map, tensor, name) {
        const lk_stored_tensor *found = lk_tensor_table_lookup(&file->table, tensor);
        const char *slash = found ? strrchr(found->file, '/') : NULL;
        const char *where = found ? slash ? slash + 1 : found->file : NULL;
        if (where == NULL || strcmp(where, json_string_value(name)) != 0) {
            status = lk_fail(file->context, LK_STATUS_FORMAT, "%s: tensor %s is not in %s", path, tensor,
                             json_string_value(name));
            goto done;
        }
    }
done:
    json_decref(seen);
    json_decref(root);
    return status;
}

/* ---- opening, closing, looking up ---- */

static lk_status open_path(lk_safetensors *file, const char *path) {
    size_t length = strlen(path);
    if (length > 5 && strcmp(path + length - 5, ".json") == 0) {
        return read_index(file, path);
    }
    LK_TRY(add_shard(file, NULL, path));
    LK_TRY(read_shard(file, &file->shards[0]));
    return lk_tensor_table_seal(&file->table);
}

lk_status lk_safetensors_open(lk_context *context, const char *path, lk_safetensors **out) {
    *out = NULL;
    lk_safetensors *file = lk_calloc(context, 1, sizeof *file);
    if (file == NULL) {
        return lk_out_of_memory(context, sizeof *file, path);
    }
    file->context = context;
    lk_arena_init(&file->names, context);
    lk_tensor_table_init(&file->table, context);
    file->source = lk_strdup(context, path);
    lk_status status = file->source ? open_path(file, path) : lk_out_of_memory(context, strlen(path), "a path");
    if (status != LK_OK) {
        lk_safetensors_destroy(file);
        return status;
    }
    *out = file;
    return LK_OK;
}

lk_status lk_safetensors_open_folder(lk_context *context, const char *folder, lk_safetensors **out) {
    *out = NULL;
    char *single = lk_path_join(context, folder, "model.safetensors");
    char *index = lk_path_join(context, folder, "model.safetensors.index.json");
    lk_status status;
    if (single == NULL || index == NULL) {
        status = lk_out_of_memory(context, strlen(folder), "a path");
    } else if (lk_path_is_file(single)) {
        status = lk_safetensors_open(context, single, out);
    } else if (lk_path_is_file(index)) {
        status = lk_safetensors_open(context, index, out);
    } else {
        status = lk_fail(context, LK_STATUS_NOT_FOUND,
                         "%s: there is neither model.safetensors nor model.safetensors.index.json", folder);
    }
    lk_free(context, single);
    lk_free(context, index);
    return status;
}

void lk_safetensors_destroy(lk_safetensors *file) {
    if (file == NULL) {
        return;
    }
    for (size_t i = 0; i < file->shard_count; i++) {
        lk_mapping_close(&file->shards[i].mapping);
        lk_free(file->context, file->shards[i].path);
    }
    lk_free(file->context, file->shards);
    lk_free(file->context, file->source);
    json_decref(file->metadata);
    lk_tensor_table_free(&file->table);
    lk_arena_free(&file->names);
    lk_free(file->context, file);
}

size_t lk_safetensors_count(const lk_safetensors *file) {
    return file->table.count;
}

const lk_stored_tensor *lk_safetensors_at(const lk_safetensors *file, size_t index) {
    return &file->table.tensors[index];
}

const lk_stored_tensor *lk_safetensors_lookup(const lk_safetensors *file, const char *name) {
    return lk_tensor_table_lookup(&file->table, name);
}

lk_status lk_safetensors_find(const lk_safetensors *file, const char *name, const lk_stored_tensor **out) {
    return lk_tensor_table_find(&file->table, file->source, name, out);
}

const char *lk_safetensors_metadata(const lk_safetensors *file, const char *key) {
    return json_string_value(json_object_get(file->metadata, key));
}
