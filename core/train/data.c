#include "core/train/data.h"

#include <string.h>

enum { DEFAULT_SEQ = 256 };

void lk_data_options_init(lk_data_options *options) {
    *options = (lk_data_options){.struct_size = sizeof *options, .batch = 4, .shuffle = true};
}

lk_data_options lk_data_options_for(const lk_model *model, const lk_data_options *given) {
    lk_data_options options;
    lk_data_options_init(&options);
    if (given != NULL) {
        memcpy(&options, given, LK_MIN(given->struct_size, sizeof options));
    }
    if (options.seq == 0) {
        options.seq = LK_MIN((int64_t)DEFAULT_SEQ, model->max_length);
    }
    return options;
}

lk_status lk_data_options_check(const lk_model *model, const lk_data_options *options) {
    int64_t limit = model->max_length;
    if (options->batch < 1 || options->batch > 1 << 20) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT, "batch is %lld, expected 1 to %d",
                       (long long)options->batch, 1 << 20);
    }
    if (options->seq < 2 || options->seq > limit) {
        return lk_fail(model->context, LK_STATUS_INVALID_ARGUMENT,
                       "seq is %lld, expected 2 to %lld (the model's max_position_embeddings)", (long long)options->seq,
                       (long long)limit);
    }
    return LK_OK;
}

static lk_status load(lk_data *data, lk_model *model, const char *path) {
    LK_TRY(lk_data_options_check(model, &data->options));
    lk_dataset_options options;
    lk_dataset_options_init(&options);
    options.tokenizer = model->tokenizer;
    options.seq = data->options.seq;
    options.max_length = data->options.seq;
    options.vocab_size = model->config->vocab_size;
    options.classify = model->task == LK_TASK_CLASSIFY;
    options.class_count = model->num_labels;
    options.cache_directory = data->options.cache_directory;
    LK_TRY(lk_dataset_load(data->context, path, &options, &data->dataset));
    lk_batch_options_init(&data->batch);
    data->batch.batch = data->options.batch;
    data->batch.seq = data->options.seq;
    data->batch.pack = data->options.pack;
    data->batch.shuffle = data->options.shuffle;
    data->batch.seed = data->options.seed;
    data->batch.first_position = model->first_position;
    lk_batch_iterator *iterator; /* for the sizes that are the same in every micro-batch */
    LK_TRY(lk_batch_iterator_create(data->context, data->dataset, &data->batch, &iterator));
    const lk_batch *batch;
    lk_batch_iterator_next(iterator, &batch);
    data->tokens = batch->tokens;
    data->max_sequences = batch->max_sequences;
    lk_batch_iterator_destroy(iterator);
    return LK_OK;
}

lk_status lk_data_load(lk_model *model, const char *path, const lk_data_options *options, lk_data **out) {
    *out = NULL;
    lk_data *data = lk_calloc(model->context, 1, sizeof *data);
    if (data == NULL) {
        return lk_out_of_memory(model->context, sizeof *data, "data");
    }
    data->context = model->context;
    data->options = lk_data_options_for(model, options);
    lk_status status = load(data, model, path);
    if (status != LK_OK) {
        lk_data_destroy(data);
        return status;
    }
    *out = data;
    return LK_OK;
}

void lk_data_destroy(lk_data *data) {
    if (data != NULL) {
        lk_dataset_destroy(data->dataset);
        lk_free(data->context, data);
    }
}

lk_status lk_data_iterate(const lk_data *data, bool in_order, lk_batch_iterator **out) {
    lk_batch_options options = data->batch;
    options.shuffle = options.shuffle && !in_order;
    return lk_batch_iterator_create(data->context, data->dataset, &options, out);
}

void lk_data_get_info(const lk_data *data, lk_data_info *info) {
    lk_dataset_info of = lk_dataset_get_info(data->dataset);
    *info = (lk_data_info){of.samples, of.tokens, of.targets, of.longest, 0};
    lk_batch_iterator *iterator;
    if (lk_data_iterate(data, false, &iterator) == LK_OK) {
        (void)lk_batch_iterator_count(iterator, 0, &info->batches_per_epoch);
        lk_batch_iterator_destroy(iterator);
    }
}
