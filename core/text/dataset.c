#include "core/text/dataset.h"

#include <stdio.h>
#include <string.h>

#include "core/text/dataset_internal.h"

struct lk_dataset {
    lk_context *context;
    lk_dataset_arrays arrays;
    int64_t block; /* samples are blocks of this many tokens of the only row; 0: samples are rows */
    bool classify;
    lk_mapping mapping; /* the cache, or nothing: then the arrays below are owned */
    uint64_t *offsets;
    lk_ids ids, labels, classes;
    lk_dataset_info info;
};

void lk_dataset_options_init(lk_dataset_options *options) {
    *options = (lk_dataset_options){.append_eos = true};
}

/* ---- building ---- */

static lk_status check_ids(lk_dataset_builder *builder, int64_t line) {
    for (size_t i = 0; i < builder->row_ids.count && builder->vocab_size > 0; i++) {
        int32_t id = builder->row_ids.data[i];
        if (id < 0 || id >= builder->vocab_size) {
            return lk_fail(builder->context, LK_STATUS_FORMAT,
                           "%s: line %lld: token id %d, but the model's vocabulary has %lld", builder->path,
                           (long long)line, (int)id, (long long)builder->vocab_size);
        }
    }
    return LK_OK;
}

static bool has_target(const lk_ids *labels) {
    for (size_t i = 1; i < labels->count; i++) { /* nothing predicts the first */
        if (labels->data[i] != LK_IGNORE_LABEL) {
            return true;
        }
    }
    return false;
}

static void cut_row(lk_ids *ids, size_t limit, size_t keep_tail) {
    if (ids->count > limit) {
        size_t tail = LK_MIN(keep_tail, limit);
        memmove(ids->data + limit - tail, ids->data + ids->count - tail, tail * sizeof *ids->data);
        ids->count = limit;
    }
}

lk_status lk_dataset_end_row(lk_dataset_builder *builder, int64_t line, int32_t class_label, size_t keep_tail,
                             bool droppable) {
    lk_context *context = builder->context;
    if (builder->row_ids.count == 0) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: line %lld: no tokens", builder->path, (long long)line);
    }
    LK_TRY(check_ids(builder, line));
    if (builder->limit > 0 && builder->row_ids.count > (size_t)builder->limit) {
        cut_row(&builder->row_ids, (size_t)builder->limit, keep_tail);
        cut_row(&builder->row_labels, (size_t)builder->limit, keep_tail);
        builder->cut++;
    }
    if (droppable && !has_target(&builder->row_labels)) {
        builder->dropped++;
        return LK_OK;
    }
    if (builder->rows + 1 >= builder->row_capacity) {
        size_t capacity = LK_MAX((size_t)256, builder->row_capacity * 2);
        uint64_t *offsets = lk_realloc(context, builder->offsets, capacity, sizeof *offsets);
        if (offsets == NULL) {
            return lk_out_of_memory(context, capacity * sizeof *offsets, builder->path);
        }
        offsets[0] = 0;
        builder->offsets = offsets;
        builder->row_capacity = capacity;
    }
    LK_TRY(lk_ids_append(&builder->ids, builder->row_ids.data, builder->row_ids.count));
    LK_TRY(lk_ids_append(&builder->labels, builder->row_labels.data, builder->row_labels.count));
    LK_TRY(lk_ids_push(&builder->classes, class_label));
    builder->offsets[++builder->rows] = builder->ids.count;
    return LK_OK;
}

static bool is_blank(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r') {
            return false;
        }
    }
    return true;
}

static lk_status read_lines(lk_dataset_builder *builder, const lk_dataset_format *format, const char *text,
                            size_t length) {
    int64_t line = 0;
    for (size_t at = 0; at < length;) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t size = newline == NULL ? length - at : (size_t)(newline - text) - at;
        size_t used = size > 0 && text[at + size - 1] == '\r' ? size - 1 : size;
        line++;
        if (!is_blank(text + at, used)) {
            builder->row_ids.count = builder->row_labels.count = 0;
            LK_TRY(format->read(builder, text + at, used, line));
        }
        at += size + (newline != NULL);
    }
    return LK_OK;
}

static void free_builder(lk_dataset_builder *builder) {
    lk_ids_free(&builder->ids);
    lk_ids_free(&builder->labels);
    lk_ids_free(&builder->classes);
    lk_ids_free(&builder->row_ids);
    lk_ids_free(&builder->row_labels);
    lk_free(builder->context, builder->offsets);
}

/* Reads the file into *dataset. */
static lk_status build(lk_dataset *dataset, lk_dataset_builder *builder, const lk_dataset_format *format,
                       const lk_mapping *file) {
    const char *text = (const char *)file->data;
    size_t length = file->size;
    if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark is no text */
        text += 3;
        length -= 3;
    }
    LK_TRY(format->blocks ? (length == 0 ? LK_OK : format->read(builder, text, length, 1))
                          : read_lines(builder, format, text, length));
    if (builder->rows == 0) {
        if (builder->dropped > 0) {
            return lk_fail(builder->context, LK_STATUS_FORMAT,
                           "%s: no row has a token to train on within the first %lld", builder->path,
                           (long long)builder->limit);
        }
        return lk_fail(builder->context, LK_STATUS_FORMAT, "%s: no samples in it", builder->path);
    }
    dataset->offsets = builder->offsets;
    dataset->ids = builder->ids;
    dataset->labels = builder->labels;
    dataset->classes = builder->classes;
    builder->offsets = NULL;
    lk_ids_init(&builder->ids, builder->context);
    lk_ids_init(&builder->labels, builder->context);
    lk_ids_init(&builder->classes, builder->context);
    dataset->arrays = (lk_dataset_arrays){.rows = builder->rows,
                                          .offsets = dataset->offsets,
                                          .ids = dataset->ids.data,
                                          .labels = dataset->labels.count > 0 ? dataset->labels.data : NULL,
                                          .classes = dataset->classify ? dataset->classes.data : NULL,
                                          .cut = builder->cut,
                                          .dropped = builder->dropped};
    return LK_OK;
}

/* ---- options, cache ---- */

static lk_status check_options(lk_context *context, const char *path, const lk_dataset_format *format,
                               const lk_dataset_options *options) {
    if (format->tokenizer && options->tokenizer == NULL) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: the model has no tokenizer, so only .ids can be read",
                       path);
    }
    if (format->classify == (options->classify ? -1 : 1)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: %s files are for %s", path, format->extension,
                       options->classify ? "language modelling, not classification"
                                         : "classification, not language modelling");
    }
    if (options->seq < 0 || options->max_length < 0 || (format->blocks && options->seq < 1)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%s: sequences of %lld tokens", path,
                       (long long)options->seq);
    }
    if (options->max_length > 0 && options->seq > options->max_length) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "sequences of %lld tokens, but the model takes %lld at most", (long long)options->seq,
                       (long long)options->max_length);
    }
    return LK_OK;
}

/* Everything that the tokenised data depends on. */
static uint64_t cache_key(const lk_dataset_builder *builder, const lk_dataset_format *format, const lk_mapping *file) {
    const lk_dataset_options *options = builder->options;
    const uint64_t parts[] = {lk_hash64(file->size > 0 ? (const void *)file->data : "", file->size, 0),
                              options->tokenizer != NULL ? lk_tokenizer_identity(options->tokenizer) : 0,
                              lk_hash64(format->extension, strlen(format->extension), 0),
                              options->classify,
                              options->append_eos,
                              (uint64_t)builder->limit,
                              (uint64_t)options->max_length,
                              (uint64_t)builder->vocab_size,
                              (uint64_t)options->class_count};
    return lk_hash64(parts, sizeof parts, 0);
}

static lk_status cache_path(lk_context *context, const char *directory, uint64_t key, char **out) {
    char name[40];
    snprintf(name, sizeof name, "%016llx.lkdata", (unsigned long long)key);
    *out = lk_path_join(context, directory, name);
    return *out == NULL ? lk_out_of_memory(context, sizeof name, "a path") : LK_OK;
}

/* From the cache when it is there, else from the file and then into the cache. Not being able to write the cache is a
 * warning only. */
static lk_status load_through_cache(lk_dataset *dataset, lk_dataset_builder *builder, const lk_dataset_format *format,
                                    const lk_mapping *file) {
    lk_context *context = dataset->context;
    const char *directory = builder->options->cache_directory;
    if (directory == NULL) {
        return build(dataset, builder, format, file);
    }
    uint64_t key = cache_key(builder, format, file);
    char *path;
    LK_TRY(cache_path(context, directory, key, &path));
    bool found;
    lk_dataset_cache_read(context, path, key, &dataset->mapping, &dataset->arrays, &found);
    lk_status status = LK_OK;
    dataset->info.from_cache = found;
    if (!found) {
        status = build(dataset, builder, format, file);
        if (status == LK_OK && (lk_make_directories(context, directory) != LK_OK ||
                                lk_dataset_cache_write(context, path, key, &dataset->arrays) != LK_OK)) {
            lk_log(context, LK_LOG_WARNING, "tokenised data is not kept: %s", lk_error_message(context));
        }
    }
    lk_free(context, path);
    return status;
}

/* ---- loading ---- */

static void count(lk_dataset *dataset) {
    lk_dataset_info *info = &dataset->info;
    const lk_dataset_arrays *arrays = &dataset->arrays;
    info->tokens = (int64_t)arrays->offsets[arrays->rows];
    info->samples = dataset->block > 0 ? (info->tokens + dataset->block - 1) / dataset->block : (int64_t)arrays->rows;
    info->cut = (int64_t)arrays->cut;
    info->dropped = (int64_t)arrays->dropped;
    info->classify = dataset->classify;
    for (int64_t i = 0; i < info->samples; i++) {
        lk_sample sample = lk_dataset_sample(dataset, i);
        info->longest = LK_MAX(info->longest, sample.length);
        if (dataset->classify) {
            info->classes = LK_MAX(info->classes, (int64_t)sample.class_label + 1);
            info->targets++;
            continue;
        }
        for (int64_t t = 1; t < sample.length; t++) {
            info->targets += sample.labels[t] != LK_IGNORE_LABEL;
        }
    }
}

static void warn(const lk_dataset *dataset, const char *path, int64_t limit) {
    const lk_dataset_info *info = &dataset->info;
    if (info->cut > 0) {
        lk_log(dataset->context, LK_LOG_WARNING, "%s: %lld of %lld rows have more than %lld tokens and are cut", path,
               (long long)info->cut, (long long)(info->samples + info->dropped), (long long)limit);
    }
    if (info->dropped > 0) {
        lk_log(dataset->context, LK_LOG_WARNING, "%s: %lld of %lld rows have no token to train on and are left out",
               path, (long long)info->dropped, (long long)(info->samples + info->dropped));
    }
}

lk_status lk_dataset_load(lk_context *context, const char *path, const lk_dataset_options *options, lk_dataset **out) {
    *out = NULL;
    const lk_dataset_format *format = NULL;
    LK_TRY(lk_dataset_find_format(context, path, &format));
    LK_TRY(check_options(context, path, format, options));
    lk_mapping file;
    LK_TRY(lk_mapping_open(context, path, &file));
    lk_dataset_builder builder = {.context = context, .options = options, .path = path};
    builder.limit = format->blocks ? 0 : options->seq > 0 ? options->seq : options->max_length;
    builder.vocab_size = options->vocab_size > 0      ? options->vocab_size
                         : options->tokenizer != NULL ? lk_tokenizer_vocab_size(options->tokenizer)
                                                      : 0;
    lk_ids *arrays[] = {&builder.ids, &builder.labels, &builder.classes, &builder.row_ids, &builder.row_labels};
    for (size_t i = 0; i < LK_COUNT(arrays); i++) {
        lk_ids_init(arrays[i], context);
    }
    lk_status status;
    lk_dataset *dataset = lk_calloc(context, 1, sizeof *dataset);
    if (dataset == NULL) {
        status = lk_out_of_memory(context, sizeof *dataset, "a data set");
    } else {
        dataset->context = context;
        dataset->classify = options->classify;
        dataset->block = format->blocks ? options->seq : 0;
        dataset->ids.context = dataset->labels.context = dataset->classes.context = context;
        status = load_through_cache(dataset, &builder, format, &file);
    }
    free_builder(&builder);
    lk_mapping_close(&file);
    if (status != LK_OK) {
        lk_dataset_destroy(dataset);
        return status;
    }
    count(dataset);
    warn(dataset, path, builder.limit);
    *out = dataset;
    return LK_OK;
}

void lk_dataset_destroy(lk_dataset *dataset) {
    if (dataset == NULL) {
        return;
    }
    lk_mapping_close(&dataset->mapping);
    lk_ids_free(&dataset->ids);
    lk_ids_free(&dataset->labels);
    lk_ids_free(&dataset->classes);
    lk_free(dataset->context, dataset->offsets);
    lk_free(dataset->context, dataset);
}

/* ---- samples ---- */

int64_t lk_dataset_size(const lk_dataset *dataset) {
    return dataset->info.samples;
}

lk_sample lk_dataset_sample(const lk_dataset *dataset, int64_t index) {
    const lk_dataset_arrays *arrays = &dataset->arrays;
    uint64_t begin, end;
    if (dataset->block > 0) {
        begin = (uint64_t)index * (uint64_t)dataset->block;
        end = LK_MIN(begin + (uint64_t)dataset->block, arrays->offsets[arrays->rows]);
    } else {
        begin = arrays->offsets[index];
        end = arrays->offsets[index + 1];
    }
    const int32_t *ids = arrays->ids + begin;
    return (lk_sample){.ids = ids,
                       .labels = dataset->classify        ? NULL
                                 : arrays->labels != NULL ? arrays->labels + begin
                                                          : ids,
                       .length = (int64_t)(end - begin),
                       .class_label = dataset->classify ? arrays->classes[index] : LK_IGNORE_LABEL};
}

lk_dataset_info lk_dataset_get_info(const lk_dataset *dataset) {
    return dataset->info;
}
