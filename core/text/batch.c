#include "core/text/batch.h"

#include <string.h>

struct lk_batch_iterator {
    lk_context *context;
    const lk_dataset *dataset;
    lk_batch_options options;
    int64_t max_samples; /* per micro-batch */
    bool classify;
    uint32_t *order; /* of the samples in `state.epoch` */
    int64_t count;
    lk_batch_state state;
    lk_batch batch;
};

/* Tells the draws for the order of samples from all others that are made from the same seed. */
static const uint64_t ORDER_STREAM = (uint64_t)0x6f726465 << 32;

void lk_batch_options_init(lk_batch_options *options) {
    *options = (lk_batch_options){.batch = 1, .shuffle = true};
}

/* Fisher-Yates. */
static void fill_order(const lk_batch_iterator *iterator, uint64_t epoch, uint32_t *order) {
    for (int64_t i = 0; i < iterator->count; i++) {
        order[i] = (uint32_t)i;
    }
    for (int64_t i = iterator->count - 1; iterator->options.shuffle && i > 0; i--) {
        uint32_t words[4];
        lk_philox4x32(iterator->options.seed, ORDER_STREAM ^ epoch, (uint64_t)i, words);
        uint32_t other = (uint32_t)(((uint64_t)words[0] * (uint64_t)(i + 1)) >> 32);
        uint32_t kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

static lk_status check(lk_context *context, const lk_dataset_info *info, const lk_batch_options *options) {
    if (options->batch < 1 || options->seq < 1 || options->batch > INT32_MAX / options->seq) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "a micro-batch of %lld sequences of %lld tokens is not possible", (long long)options->batch,
                       (long long)options->seq);
    }
    if (options->max_packed < 0) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "at most %lld samples a micro-batch",
                       (long long)options->max_packed);
    }
    if (info->longest > options->seq) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "a sample has %lld tokens, but sequences have %lld at most",
                       (long long)info->longest, (long long)options->seq);
    }
    if (info->samples < 1 || info->samples > INT32_MAX) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "%lld samples cannot be batched", (long long)info->samples);
    }
    return LK_OK;
}

lk_status lk_batch_iterator_create(lk_context *context, const lk_dataset *dataset, const lk_batch_options *options,
                                   lk_batch_iterator **out) {
    *out = NULL;
    lk_dataset_info info = lk_dataset_get_info(dataset);
    LK_TRY(check(context, &info, options));
    lk_batch_iterator *iterator = lk_calloc(context, 1, sizeof *iterator);
    if (iterator == NULL) {
        return lk_out_of_memory(context, sizeof *iterator, "an iterator over micro-batches");
    }
    iterator->context = context;
    iterator->dataset = dataset;
    iterator->options = *options;
    iterator->classify = info.classify;
    iterator->count = info.samples;
    int64_t tokens = options->batch * options->seq;
    int64_t packed = options->max_packed > 0 ? options->max_packed : options->batch * 16;
    iterator->max_samples = options->pack ? LK_MIN(packed, tokens) : options->batch;
    lk_batch *batch = &iterator->batch;
    batch->tokens = tokens;
    batch->max_sequences = iterator->max_samples + options->batch;
    batch->input_ids = lk_calloc(context, (size_t)tokens, sizeof *batch->input_ids);
    batch->targets = lk_calloc(context, (size_t)tokens, sizeof *batch->targets);
    batch->positions = lk_calloc(context, (size_t)tokens, sizeof *batch->positions);
    batch->cu_seqlens = lk_calloc(context, (size_t)batch->max_sequences + 1, sizeof *batch->cu_seqlens);
    batch->class_labels = lk_calloc(context, (size_t)batch->max_sequences, sizeof *batch->class_labels);
    iterator->order = lk_calloc(context, (size_t)iterator->count, sizeof *iterator->order);
    if (batch->input_ids == NULL || batch->targets == NULL || batch->positions == NULL || batch->cu_seqlens == NULL ||
        batch->class_labels == NULL || iterator->order == NULL) {
        lk_batch_iterator_destroy(iterator);
        return lk_out_of_memory(context, (size_t)tokens * 3 * sizeof(int32_t), "micro-batches");
    }
    fill_order(iterator, 0, iterator->order);
    *out = iterator;
    return LK_OK;
}

void lk_batch_iterator_destroy(lk_batch_iterator *iterator) {
    if (iterator == NULL) {
        return;
    }
    lk_context *context = iterator->context;
    lk_free(context, iterator->batch.input_ids);
    lk_free(context, iterator->batch.targets);
    lk_free(context, iterator->batch.positions);
    lk_free(context, iterator->batch.cu_seqlens);
    lk_free(context, iterator->batch.class_labels);
    lk_free(context, iterator->order);
    lk_free(context, iterator);
}

/* The position after the micro-batch that begins at `position` of an order. */
static int64_t batch_end(const lk_batch_iterator *iterator, const uint32_t *order, int64_t position) {
    int64_t end = position, tokens = 0;
    while (end < iterator->count && end - position < iterator->max_samples) {
        tokens += lk_dataset_sample(iterator->dataset, order[end]).length;
        if (tokens > iterator->batch.tokens) {
            break;
        }
        end++;
    }
    return end;
}

static void put_sample(lk_batch_iterator *iterator, const lk_sample *sample) {
    lk_batch *batch = &iterator->batch;
    int64_t at = batch->num_tokens, length = sample->length;
    memcpy(batch->input_ids + at, sample->ids, (size_t)length * sizeof *sample->ids);
    for (int64_t i = 0; i < length; i++) {
        batch->positions[at + i] = (int32_t)(iterator->options.first_position + i);
        int32_t target = iterator->classify || i + 1 == length ? LK_IGNORE_LABEL : sample->labels[i + 1];
        batch->targets[at + i] = target;
        batch->num_targets += target != LK_IGNORE_LABEL;
    }
    batch->class_labels[batch->num_sequences] = sample->class_label;
    batch->num_targets += iterator->classify;
    batch->num_tokens += length;
    batch->cu_seqlens[++batch->num_sequences] = (int32_t)batch->num_tokens;
}

/* Fills the rest of the budget with sequences that count for nothing. */
static void put_padding(lk_batch_iterator *iterator) {
    lk_batch *batch = &iterator->batch;
    int64_t sequence = batch->num_sequences;
    for (int64_t at = batch->num_tokens; at < batch->tokens;) {
        int64_t length = LK_MIN(iterator->options.seq, batch->tokens - at);
        for (int64_t i = 0; i < length; i++) {
            batch->input_ids[at + i] = 0;
            batch->targets[at + i] = LK_IGNORE_LABEL;
            batch->positions[at + i] = (int32_t)(iterator->options.first_position + i);
        }
        at += length;
        batch->cu_seqlens[++sequence] = (int32_t)at;
    }
    while (sequence < batch->max_sequences) {
        batch->cu_seqlens[++sequence] = (int32_t)batch->tokens;
    }
    for (int64_t i = batch->num_sequences; i < batch->max_sequences; i++) {
        batch->class_labels[i] = LK_IGNORE_LABEL;
    }
}

void lk_batch_iterator_next(lk_batch_iterator *iterator, const lk_batch **out) {
    lk_batch *batch = &iterator->batch;
    lk_batch_state *state = &iterator->state;
    batch->num_sequences = batch->num_tokens = batch->num_targets = 0;
    batch->cu_seqlens[0] = 0;
    batch->epoch = state->epoch;
    int64_t end = batch_end(iterator, iterator->order, state->position);
    for (int64_t i = state->position; i < end; i++) {
        lk_sample sample = lk_dataset_sample(iterator->dataset, iterator->order[i]);
        put_sample(iterator, &sample);
    }
    put_padding(iterator);
    state->position = end;
    batch->last_in_epoch = end == iterator->count;
    if (batch->last_in_epoch) {
        *state = (lk_batch_state){state->epoch + 1, 0};
        fill_order(iterator, state->epoch, iterator->order);
    }
    *out = batch;
}

lk_status lk_batch_iterator_count(lk_batch_iterator *iterator, uint64_t epoch, int64_t *out) {
    *out = 0;
    if (!iterator->options.pack) {
        *out = (iterator->count + iterator->options.batch - 1) / iterator->options.batch;
        return LK_OK;
    }
    uint32_t *order = lk_calloc(iterator->context, (size_t)iterator->count, sizeof *order);
    if (order == NULL) {
        return lk_out_of_memory(iterator->context, (size_t)iterator->count * sizeof *order, "counting micro-batches");
    }
    fill_order(iterator, epoch, order);
    for (int64_t at = 0; at < iterator->count; at = batch_end(iterator, order, at)) {
        ++*out;
    }
    lk_free(iterator->context, order);
    return LK_OK;
}

lk_batch_state lk_batch_iterator_state(const lk_batch_iterator *iterator) {
    return iterator->state;
}

lk_status lk_batch_iterator_restore(lk_batch_iterator *iterator, const lk_batch_state *state) {
    if (state->position < 0 || state->position >= iterator->count) {
        return lk_fail(iterator->context, LK_STATUS_INVALID_ARGUMENT,
                       "the data has %lld samples: it cannot be continued at sample %lld", (long long)iterator->count,
                       (long long)state->position);
    }
    iterator->state = *state;
    fill_order(iterator, state->epoch, iterator->order);
    return LK_OK;
}
