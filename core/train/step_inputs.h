/* The input variables that every program over a micro-batch shares, and how a batch gets into them. */
#ifndef LK_CORE_TRAIN_STEP_INPUTS_H
#define LK_CORE_TRAIN_STEP_INPUTS_H

#include "core/adapters/adapter.h"
#include "core/text/batch.h"

typedef struct lk_step_inputs {
    lk_variable *input_ids, *positions; /* [T] */
    lk_variable *targets;               /* [T]; when classifying [max_sequences] */
    lk_variable *cu_seqlens;            /* [max_sequences + 1] */
    /* when classifying, otherwise NULL */
    lk_variable *first_tokens; /* [max_sequences] */
    lk_variable *token_types;  /* [T]: zeros, all tokens are of the first type */
    lk_variable *loss_scale;   /* [1] */
    lk_variable *rng;          /* [4] */
} lk_step_inputs;

/* Adds the variables, named "input.*", for batches of `tokens` tokens in at most `max_sequences` sequences. */
lk_status lk_step_inputs_add(lk_variables *variables, lk_task task, int64_t tokens, int64_t max_sequences,
                             lk_step_inputs *out);
lk_status lk_step_inputs_upload(lk_step_inputs *inputs, const lk_batch *batch, float loss_scale);
/* Starts a forward pass that reads them; with dropout if `train`. */
lk_forward lk_step_inputs_forward(const lk_step_inputs *inputs, lk_model *model, lk_adapter *adapter, lk_graph *graph,
                                  bool train);

#endif
