/* The adapters of one run: mostly one, or several side by side. A micro-batch is one of each part's, one after the
 * other, each with its own loss, and an update is one of each part's. As the parts share nothing but the base, every
 * one gets what it gets alone. */
#ifndef LK_CORE_TRAIN_STEP_PARTS_H
#define LK_CORE_TRAIN_STEP_PARTS_H

#include "core/train/data.h"

struct lk_trainer;

typedef struct lk_step_part {
    lk_adapter *adapter;
    const lk_data *data;
    lk_batch_iterator *iterator;
    int64_t first_token, first_sequence; /* within the micro-batch */
    lk_variables *variables;             /* the moments and, where there are several parts, the inputs */
    lk_variable **first, **second;       /* moments, per trained tensor */
    lk_variable *rows;                   /* [T of the part]: which of the micro-batch; NULL: all */
    lk_variable *targets, *loss_scale;   /* [T of the part], [1] */
    lk_tensor *loss, *norm;
    lk_step_report report; /* of the step */
} lk_step_part;

/* Sets up trainer->parts, and trainer->mixed where there are several. */
lk_status lk_step_parts_create(struct lk_trainer *trainer, lk_adapter *const *adapters, lk_data *const *data,
                               size_t count);
void lk_step_parts_destroy(struct lk_trainer *trainer);
/* After the trainer's own inputs. */
lk_status lk_step_parts_add_variables(struct lk_trainer *trainer);
/* The sum of the parts' losses. */
lk_tensor *lk_step_parts_loss(struct lk_trainer *trainer, lk_forward *forward, lk_tensor *hidden);
/* Norms of the gradients, clipping, AdamW, sums cleared. */
lk_status lk_step_parts_update(struct lk_trainer *trainer, lk_graph *graph);
/* The next micro-batch of each, in one. */
void lk_step_parts_next(struct lk_trainer *trainer, lk_batch *to);
lk_status lk_step_parts_upload(struct lk_trainer *trainer, const lk_batch *batch);

#endif
