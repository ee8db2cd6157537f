/* What `lorikeet train` holds: shared by the run (train.c) and what it writes (train_report.c). */
#ifndef LK_CLI_TRAIN_H
#define LK_CLI_TRAIN_H

#include <stdio.h>

#include "cli.h"
#include "progress.h"

typedef enum train_phase {
    TRAIN_LOAD_MODEL,
    TRAIN_LOAD_DATA,
    TRAIN_COMPILE,
    TRAIN_STEPS,
    TRAIN_WAIT_FOR_DATA,
    TRAIN_VALIDATE,
    TRAIN_SAVE,
    TRAIN_NUM_PHASES
} train_phase;

/* An adapter of the run: mostly the only one. */
typedef struct train_part {
    char *name;                       /* of --mix; NULL: it is the only one */
    const char *data_path, *val_path; /* val_path NULL: nothing is held out */
    char *out;                        /* its folder */
    lk_adapter *adapter;
    lk_data *data, *val_data;
    lk_evaluator *evaluator;
    double last_loss;
    double val_loss_before, val_loss;
    lk_eval_report validation; /* the last one */
    double best_val_loss;
    int64_t best_step, validations_since_best; /* best_step -1: none yet */
} train_part;

typedef struct train_command {
    /* options */
    cli_workspace workspace;
    lk_adapter_options adapter_options;
    lk_data_options data_options;
    lk_train_options train_options;
    int schedule, recompute;
    int first_adapter_option, end_adapter_options; /* among the options: what --init-adapter decides */
    const char *data_path, *out, *init_adapter, *log_path;
    cli_texts mix, val; /* with --mix NAME=FILE each, otherwise val is one FILE */
    int64_t steps, epochs, save_every, val_every;
    int64_t early_stopping; /* validations without a lower loss; 0: go on to the end */
    uint64_t seed;
    bool resume, profile, json;
    /* the run */
    char *checkpoint; /* the folder of the checkpoint, in --out */
    train_part parts[CLI_MAX_TEXTS];
    int num_parts;
    lk_trainer *trainer;
    FILE *log;
    cli_progress progress;
    bool resumed; /* from a checkpoint */
    double seconds[TRAIN_NUM_PHASES];
    /* figures for the summary */
    int64_t steps_here, tokens, samples; /* in this run, without what came before a resumption */
    double first_loss, smooth_loss, last_loss;
    bool stopped_early;
} train_command;

/* Each returns an exit status where it can fail. */
/* (train_parts.c) Checks --data, --mix and --val, and sets the parts up from them. */
int train_make_parts(train_command *command, const cli_options *options);
void train_free_parts(train_command *command);
/* Reports a failure of the library; one of the device is noted. */
int train_checked(train_command *command, lk_status status);
int train_make_adapters(train_command *command);
int train_load_data(train_command *command);
int train_make_trainer(train_command *command);
int train_make_evaluators(train_command *command);
/* What belongs to the device; the parts stay. */
void train_close_parts(train_command *command);
int train_save(train_command *command, bool with_checkpoint);
int train_validate(train_command *command, bool before);
int train_set_checkpoint(train_command *command);
bool train_has_checkpoint(const train_command *command);
int train_log_open(train_command *command);
int train_log_step(train_command *command, const lk_step_report *report);
int train_log_validation(train_command *command, const train_part *part);
/* Keeps `result` unless the log cannot be written in full. */
int train_log_close(train_command *command, int result);
void train_print_start(const train_command *command);
int train_print_summary(const train_command *command, int stopped_by);

#endif
