/* The inside of lk_dataset, for the dataset's own files. */
#ifndef LK_CORE_TEXT_DATASET_INTERNAL_H
#define LK_CORE_TEXT_DATASET_INTERNAL_H

#include "core/text/dataset.h"

/* Rows lie one after the other: row i is ids[offsets[i] .. offsets[i + 1]). */
typedef struct lk_dataset_arrays {
    uint64_t rows;
    const uint64_t *offsets; /* [rows + 1] */
    const int32_t *ids;
    const int32_t *labels;  /* NULL: the ids are the labels, or there are only classes */
    const int32_t *classes; /* [rows]; NULL: none */
    uint64_t cut, dropped;
} lk_dataset_arrays;

/* Rows as they are read. */
typedef struct lk_dataset_builder {
    lk_context *context;
    const lk_dataset_options *options;
    const char *path;
    int64_t limit;      /* rows are cut to it; 0: no limit */
    int64_t vocab_size; /* 0: not checked */
    lk_ids ids, labels, classes;
    uint64_t *offsets;
    size_t rows, row_capacity;
    uint64_t cut, dropped;
    /* working memory of one row */
    lk_ids row_ids, row_labels;
    const struct lk_chat_template *chat_template;
} lk_dataset_builder;

/* One kind of file (dataset_rows.c). */
typedef struct lk_dataset_format {
    const char *extension;
    bool blocks;    /* one long row, cut into blocks of seq when samples are taken */
    bool tokenizer; /* needs one */
    int classify;   /* 1: only when classifying, -1: never */
    /* Reads one line, or, when blocks, all of the file. */
    lk_status (*read)(lk_dataset_builder *builder, const char *text, size_t length, int64_t line);
} lk_dataset_format;
lk_status lk_dataset_find_format(lk_context *context, const char *path, const lk_dataset_format **out);

/* Ends the row in builder->row_ids and row_labels (which stays empty when classifying): checks, cuts and keeps it.
 * keep_tail: so many ids of the end outlive a cut; droppable: the row goes when nothing of it is trained on. */
lk_status lk_dataset_end_row(lk_dataset_builder *builder, int64_t line, int32_t class_label, size_t keep_tail,
                             bool droppable);

/* dataset_cache.c. A cache that is absent, damaged or of other data is not an error: *found is false. */
void lk_dataset_cache_read(lk_context *context, const char *path, uint64_t key, lk_mapping *mapping,
                           lk_dataset_arrays *out, bool *found);
lk_status lk_dataset_cache_write(lk_context *context, const char *path, uint64_t key, const lk_dataset_arrays *arrays);

#endif
