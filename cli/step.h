/* Commands that say something of a training step without loading weights: plan, tune. */
#ifndef LK_CLI_STEP_H
#define LK_CLI_STEP_H

#include "cli.h"

typedef struct cli_step {
    const char *description, *examples; /* for --help */
    const char *json_help;
    /* Makes the text that is printed, to be released by lk_release. */
    lk_status (*make_text)(struct cli_step *step, char **text);

    cli_workspace workspace; /* with a model that is only planned, and an adapter */
    lk_adapter_options adapter_options;
    lk_data_options data_options;
    lk_train_options train_options;
    int schedule, recompute;
    bool json;
} cli_step;

/* The whole command; returns the exit status. */
int cli_step_run(cli_step *step, int argc, const char **argv);

#endif
