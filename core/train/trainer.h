/* The inside of lk_trainer, for its own files: trainer.c (building and stepping) and checkpoint.c. */
#ifndef LK_CORE_TRAIN_TRAINER_H
#define LK_CORE_TRAIN_TRAINER_H

#include "core/graph/passes/passes.h"
#include "core/train/data.h"
#include "core/train/step_inputs.h"
#include "core/train/step_parts.h"

/* All that a run goes on from, in the host's memory. */
typedef struct lk_train_state {
    char *block; /* the trained tensors and their moments */
    size_t bytes;
    int64_t step, micro_batches;
    lk_batch_state place;
} lk_train_state;

struct lk_trainer {
    lk_context *context;
    lk_model *model;
    lk_adapter *adapter;
    lk_data *data;
    lk_train_options options;
    bool plan_only;
    lk_batch_iterator *iterator;
    int64_t step, micro_batches; /* done so far */
    lk_variables *variables;     /* inputs and optimizer state */
    lk_step_inputs inputs;
    lk_variable *hyper;
    lk_variable **first, **second; /* moments, per adapter tensor */
    /* A micro-batch: forward, backward, gradients added to the sums. An update: norm, clipping, AdamW, sums cleared. */
    lk_program *micro, *update;
    lk_recompute recompute; /* chosen */
    lk_recompute_cost recompute_cost;
    lk_tensor *loss, *norm;
    lk_step_part *parts; /* of a mixed adapter; NULL: it is not one */
    int32_t num_parts;
    lk_data all_parts; /* their sizes together */
    lk_variable *adapter_rows;
    lk_batch *held; /* copies of a step's micro-batches: the loss is a mean over all their targets */
    int32_t *held_ids;
    lk_train_state copy, spare; /* with keep_copy; the spare is what the next copy goes to */
    double copied_at, copy_seconds;
    lk_status failed; /* DEVICE or OUT_OF_MEMORY: the device did in a step; LK_OK: it did not */
};

/* As lk_trainer_create; with plan_only nothing is allocated on a device and no step can be taken. */
lk_status lk_trainer_create_for(lk_model *model, lk_adapter *adapter, lk_data *data, const lk_train_options *options,
                                bool plan_only, lk_trainer **out);

/* Data that is described by its options alone, as plans need it. */
lk_status lk_data_shape(lk_model *model, const lk_data_options *options, lk_data *out);
/* A trainer that is planned only, for at least one step; `shape` must outlive it. */
lk_status lk_trainer_create_plan(lk_model *model, lk_adapter *adapter, lk_data *shape, const lk_train_options *train,
                                 lk_trainer **out);

/* The first half of a step: forward and backward over its micro-batches; the gradient sums are then the gradients. */
lk_status lk_trainer_accumulate(lk_trainer *trainer, lk_step_report *report);
/* (checkpoint.c) Copies the state to the host's memory, if that is asked for and due. */
lk_status lk_trainer_renew_copy(lk_trainer *trainer);
void lk_train_state_free(lk_context *context, lk_train_state *state);
lk_status lk_trainer_clear_gradients(lk_trainer *trainer);

#endif
