/* A model that reads and writes token by token: compiled passes, and the keys and values of earlier tokens of several
 * sequences, kept on the device. */
#ifndef LK_CORE_TRAIN_DECODER_H
#define LK_CORE_TRAIN_DECODER_H

#include "core/adapters/mixed.h"

/* One compiled forward pass. */
typedef struct lk_decoder_pass {
    int64_t tokens, sequences;
    lk_variable *input_ids, *positions, *slots; /* [tokens] */
    lk_variable *cu_seqlens, *cu_seqlens_k;     /* [sequences + 1]: of the tokens, and where a cache begins */
    lk_variable *seqlens_k;                     /* [sequences]: tokens in the cache, with the new ones */
    lk_variable *row;                           /* [1]: of the prompt's last token; NULL: all rows' logits */
    lk_variable *adapter_rows;                  /* [tokens]: of a mixed adapter; NULL: it is none */
    lk_program *program;
    lk_tensor *logits;
} lk_decoder_pass;

typedef struct lk_decoder {
    lk_context *context;
    lk_model *model;
    lk_adapter *adapter;
    int64_t max_tokens; /* of a sequence */
    int64_t sequences;
    lk_variables *variables;
    lk_variable **key_caches, **value_caches; /* per layer [sequences * max_tokens, width] */
    lk_decoder_pass prompt, next;
    lk_variable *moved_from, *moved_to; /* of the program that copies places of the caches; NULL before it is needed */
    lk_program *move;
    int32_t *parts; /* [sequences]: of a mixed adapter; the caller sets them, 0 at first */
    int32_t *staging;
    float *logits; /* [sequences, vocab_size]: what follows the last token that each sequence was given */
} lk_decoder;

/* max_tokens: 2 to the model's max_length. out is filled in place; lk_decoder_close releases it, after a failure too.
 */
lk_status lk_decoder_open(lk_decoder *self, lk_model *model, lk_adapter *adapter, int64_t max_tokens,
                          int64_t sequences);
void lk_decoder_close(lk_decoder *self);
/* Starts a sequence anew with count < max_tokens ids. */
lk_status lk_decoder_read(lk_decoder *self, int64_t sequence, const int32_t *ids, int64_t count);
/* One token for each sequence, behind the past[i] tokens that it has. Sequences with a negative id are left alone. */
lk_status lk_decoder_step(lk_decoder *self, const int32_t *ids, const int32_t *past);
/* Sequence i goes on from what sequence parents[i] holds in places [first, end), all at once; what they hold before is
 * the same already. */
lk_status lk_decoder_reorder(lk_decoder *self, const int32_t *parents, int64_t first, int64_t end);

#endif
