/* Training data as samples of token ids.
 *
 *   .txt    one text; its ids are cut into consecutive blocks of `seq` (the last one may be shorter)
 *   .jsonl  an object a line: {"text"} | {"prompt", "completion"} | {"messages": [{"role", "content"}, ...]}, or, when
 *           classifying, {"text", "label"}. Other keys are ignored.
 *   .tsv    label TAB text, when classifying
 *   .ids    ids with spaces between them; after a TAB, optionally, as many labels, or the class when classifying
 *
 * The loss is on all tokens of a text, on the completion, and on what the assistant says with the end of its turn. The
 * end-of-text token is appended to "text" and "completion" rows (not to a .txt, not when classifying) unless they end
 * with it. Prompt and completion are encoded as one text; a token that straddles their boundary counts as completion.
 * Lines that are empty or white space are skipped; a row without any token is an error. Labels are aligned with ids as
 * in Hugging Face: labels[t] is predicted from the tokens before t, -100 where there is no loss. */
#ifndef LK_CORE_TEXT_DATASET_H
#define LK_CORE_TEXT_DATASET_H

#include "core/text/tokenizer.h"

enum { LK_IGNORE_LABEL = -100 };

typedef struct lk_dataset lk_dataset;

typedef struct lk_dataset_options {
    lk_tokenizer *tokenizer;     /* borrowed during the call; may be NULL for .ids */
    bool classify;               /* one class per sample in place of labels per token */
    bool append_eos;             /* see above; the default is true */
    int64_t seq;                 /* block length of .txt (required there), and where rows are cut; 0: max_length */
    int64_t max_length;          /* what the model can take; 0: no limit. A longer .ids row is an error */
    int64_t vocab_size;          /* of the model: ids and labels must be below it; 0: the tokenizer's */
    int64_t class_count;         /* when classifying: classes must be below it; 0: any */
    const char *cache_directory; /* tokenised data is kept here and mapped next time; NULL: no cache */
} lk_dataset_options;
void lk_dataset_options_init(lk_dataset_options *options);

/* Rows that are cut, and rows left without any token to train on (these are dropped), are counted and logged as
 * warnings. Errors name file, line and key. No samples at all is an error. */
lk_status lk_dataset_load(lk_context *context, const char *path, const lk_dataset_options *options, lk_dataset **out);
void lk_dataset_destroy(lk_dataset *dataset);

typedef struct lk_sample {
    const int32_t *ids;
    const int32_t *labels; /* as many as ids; the same pointer as ids where every token counts; NULL when classifying */
    int64_t length;
    int32_t class_label; /* -100 unless classifying */
} lk_sample;
int64_t lk_dataset_size(const lk_dataset *dataset);
/* index < size; borrowed from the dataset. */
lk_sample lk_dataset_sample(const lk_dataset *dataset, int64_t index);

typedef struct lk_dataset_info {
    int64_t samples, tokens;
    int64_t targets;      /* tokens with a label, first tokens of samples excepted; samples when classifying */
    int64_t longest;      /* the longest sample */
    int64_t cut, dropped; /* rows, see lk_dataset_load */
    int64_t classes;      /* 1 + the largest class; 0 unless classifying */
    bool classify;
    bool from_cache;
} lk_dataset_info;
lk_dataset_info lk_dataset_get_info(const lk_dataset *dataset);

#endif
