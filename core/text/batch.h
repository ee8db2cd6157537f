/* Micro-batches of fixed size from a dataset: a budget of batch * seq tokens, sequences one after the other.
 *
 * Without packing a micro-batch holds `batch` samples; with it, as many whole samples as fit, in order. What is left of
 * the budget is padding, as sequences of their own (of at most seq tokens), so that kernels need no mask. The order is
 * a pure function of (seed, epoch). A micro-batch never crosses the end of an epoch: as in Hugging Face's Trainer, the
 * last one of an epoch is kept and may hold fewer samples. */
#ifndef LK_CORE_TEXT_BATCH_H
#define LK_CORE_TEXT_BATCH_H

#include "core/text/dataset.h"

typedef struct lk_batch_options {
    int64_t batch; /* >= 1 */
    int64_t seq;   /* >= the longest sample */
    bool pack;
    bool shuffle;
    uint64_t seed;
    int64_t first_position; /* of each sequence */
    int64_t max_packed;     /* with packing: at most so many samples a micro-batch; 0: 16 * batch */
} lk_batch_options;
void lk_batch_options_init(lk_batch_options *options);

/* One micro-batch; the arrays belong to the iterator and are overwritten by the next call. All sizes but the counts
 * are constant over the iterator's life. */
typedef struct lk_batch {
    int64_t tokens;        /* the budget T = batch * seq */
    int64_t max_sequences; /* samples a micro-batch can hold (batch, or max_packed) + batch for padding */
    int32_t *input_ids;    /* [T]; 0 in padding */
    int32_t *targets;      /* [T]: the label of the next position of the same sequence, i.e. what the logits of this
                              position are scored against; -100 at a sequence's end, in padding, when classifying */
    int32_t *positions;    /* [T]: from first_position in each sequence */
    int32_t *cu_seqlens;   /* [max_sequences + 1]: where sequences begin, padding included; unused entries are T */
    int32_t *class_labels; /* [max_sequences]: -100 for padding and unless classifying */
    int64_t num_sequences; /* samples, which come first; without padding sequences */
    int64_t num_tokens;    /* in samples */
    int64_t num_targets;   /* targets that are not -100; samples when classifying */
    uint64_t epoch;        /* from 0 */
    bool last_in_epoch;
} lk_batch;

typedef struct lk_batch_iterator lk_batch_iterator;

/* The dataset is borrowed for the iterator's life. */
lk_status lk_batch_iterator_create(lk_context *context, const lk_dataset *dataset, const lk_batch_options *options,
                                   lk_batch_iterator **out);
void lk_batch_iterator_destroy(lk_batch_iterator *iterator);
/* Fills the next micro-batch, without end: after last_in_epoch comes the first of the next epoch. Allocates nothing.
 * *out is borrowed. */
void lk_batch_iterator_next(lk_batch_iterator *iterator, const lk_batch **out);
/* How many micro-batches an epoch has (with packing it depends on the order). */
lk_status lk_batch_iterator_count(lk_batch_iterator *iterator, uint64_t epoch, int64_t *out);

/* Where an iterator stands; restoring it into an iterator over the same data with the same options continues
 * identically. Restoring a position that the dataset does not have is INVALID_ARGUMENT. */
typedef struct lk_batch_state {
    uint64_t epoch;
    int64_t position; /* samples of the epoch already given out */
} lk_batch_state;
lk_batch_state lk_batch_iterator_state(const lk_batch_iterator *iterator);
lk_status lk_batch_iterator_restore(lk_batch_iterator *iterator, const lk_batch_state *state);

#endif
