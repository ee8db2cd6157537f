/* Training a mixed adapter: a micro-batch is one of each part's, one after the other, each with its own loss. As the
 * parts share nothing but the base, every one gets the gradients that it gets alone. */
#ifndef LK_CORE_TRAIN_STEP_PARTS_H
#define LK_CORE_TRAIN_STEP_PARTS_H

#include "core/train/data.h"

struct lk_trainer;

typedef struct lk_step_part {
    const lk_data *data;
    lk_batch_iterator *iterator;
    int64_t first_token, first_sequence;      /* within the micro-batch */
    lk_variable *rows, *targets, *loss_scale; /* [T of the part], [T of the part], [1] */
    lk_tensor *loss;
    int64_t num_targets; /* of the step */
    double step_loss;    /* mean over them */
} lk_step_part;

/* Sets up trainer->parts and trainer->data, which stands for all of them together. */
lk_status lk_step_parts_create(struct lk_trainer *trainer, lk_data *const *data, size_t count);
void lk_step_parts_destroy(struct lk_trainer *trainer);
lk_status lk_step_parts_add_variables(struct lk_trainer *trainer);
/* The sum of the parts' losses. */
lk_tensor *lk_step_parts_loss(struct lk_trainer *trainer, lk_forward *forward, lk_tensor *hidden);
/* The next micro-batch of each, in one. */
void lk_step_parts_next(struct lk_trainer *trainer, lk_batch *to);
lk_status lk_step_parts_upload(struct lk_trainer *trainer, const lk_batch *batch);
/* Adds the micro-batch's losses to the step's. */
lk_status lk_step_parts_read(struct lk_trainer *trainer);

#endif
