/* What `lorikeet search` holds: shared by the run (search.c), its trials and journal (search_trials.c) and the picture
 * (search_picture.c). */
#ifndef LK_CLI_SEARCH_H
#define LK_CLI_SEARCH_H

#include "cli.h"
#include "progress.h"

enum { SEARCH_MAX_CHOICES = 16, SEARCH_MAX_RUNGS = 12 };

/* A list of choices given as text: "4,8,16". */
typedef struct search_choices {
    char *text; /* split in place */
    const char *items[SEARCH_MAX_CHOICES];
    int count;
} search_choices;

/* One combination, and how far it came. */
typedef struct search_trial {
    int number;
    int32_t rank;
    double learning_rate, alpha, dropout;
    const char *targets;
    int rungs; /* done */
    double losses[SEARCH_MAX_RUNGS];
    double seconds;
} search_trial;

typedef struct search_command {
    /* options */
    cli_workspace workspace;
    lk_adapter_options adapter_options;
    lk_data_options data_options;
    lk_train_options train_options;
    const char *data_path, *val_path, *out;
    const char *ranks_text, *alphas_text, *targets_text, *dropouts_text;
    double lr_min, lr_max;
    int64_t num_trials, max_steps, min_steps, eta;
    uint64_t seed;
    bool resume, json;
    /* the search */
    search_choices ranks, alphas, targets, dropouts;
    search_trial *trials;
    int64_t rung_steps[SEARCH_MAX_RUNGS];
    int num_rungs;
    lk_data *data, *val_data;
    char *journal_path;
    cli_progress progress;
} search_command;

/* Each returns an exit status. */

/* Splits the choices, draws the trials, counts the rungs. */
int search_prepare(search_command *command);
/* Takes the results that the journal has; one of another search is an error. */
int search_read_journal(search_command *command);
int search_write_journal(const search_command *command, const search_trial *trial, int rung, double seconds);
/* In order: further rungs first, then lower loss. order[num_trials] gets indices of trials. */
void search_sort(const search_command *command, int64_t *order);
/* <out>/search.svg: learning rate against loss, colour by rank, size by steps. */
int search_draw(const search_command *command);
/* <out>/<name>; free() it. NULL: memory is out. */
char *search_path(const search_command *command, const char *name);
void search_free(search_command *command);

#endif
