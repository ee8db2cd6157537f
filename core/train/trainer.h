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
    lk_batch_state *places; /* in the data, of each part */
} lk_train_state;

struct lk_trainer {
    lk_context *context;
    lk_model *model;
    lk_train_options options;
    bool plan_only;
    lk_step_part *parts; /* the adapters that are trained: one, or several side by side */
    int32_t num_parts;
    lk_adapter *mixed;             /* of several parts; NULL: there is one */
    lk_variable *adapter_rows;     /* with it, [T]: the part of each token */
    int64_t tokens, max_sequences; /* of a micro-batch, all parts' */
    int64_t step, micro_batches;   /* done so far */
    lk_variables *variables;       /* inputs; the parts have their own */
    lk_step_inputs inputs;
    lk_variable *hyper;
    /* A micro-batch: forward, backward, gradients added to the sums. An update: norms, clipping, AdamW, sums cleared.
     */
    lk_program *micro, *update;
    lk_recompute recompute; /* chosen */
    lk_recompute_cost recompute_cost;
    lk_tensor *loss; /* the sum of the parts' */
    lk_batch *held;  /* copies of a step's micro-batches: the loss is a mean over all their targets */
    int32_t *held_ids;
    lk_train_state copy, spare; /* with keep_copy; the spare is what the next copy goes to */
    double copied_at, copy_seconds;
    lk_status failed; /* DEVICE or OUT_OF_MEMORY: the device did in a step; LK_OK: it did not */
};

/* As lk_trainer_create, but nothing is allocated on a device and no step can be taken. */
lk_status lk_trainer_create_plan_only(lk_model *model, lk_adapter *adapter, lk_data *shape,
                                      const lk_train_options *options, lk_trainer **out);

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
