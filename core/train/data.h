/* lk_data: samples of one model and how they are cut into micro-batches. */
#ifndef LK_CORE_TRAIN_DATA_H
#define LK_CORE_TRAIN_DATA_H

#include "core/models/model.h"
#include "core/text/batch.h"

struct lk_data {
    lk_context *context;
    lk_dataset *dataset;
    lk_data_options options;
    lk_batch_options batch;
    int64_t tokens, max_sequences; /* of a micro-batch */
};

/* The options a caller gave (NULL: none) with defaults for the rest; seq is never 0. */
lk_data_options lk_data_options_for(const lk_model *model, const lk_data_options *given);
lk_status lk_data_options_check(const lk_model *model, const lk_data_options *options);

/* An iterator over the data, in the options' order or (in_order) as the file has it. */
lk_status lk_data_iterate(const lk_data *data, bool in_order, lk_batch_iterator **out);

#endif
