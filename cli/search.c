/* lorikeet search: which settings of an adapter train best, by random search with successive halving. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "search.h"

static const char description[] =
    "Looks for good settings of an adapter: draws --trials combinations of rank, learning rate, alpha, targets and\n"
    "dropout, trains each for a few steps, goes on with the best of them (one in --eta), and so on up to --steps\n"
    "(successive halving). What counts is the loss on --val. With --device auto, a device that fails is given up, and "
    "the\n"
    "search goes on with the next one.\n\n"
    "The --out folder gets journal.jsonl (a line for each trial and rung; with --resume a search that was stopped "
    "goes\n"
    "on from it), search.svg (a picture), and a folder for each trial: with a checkpoint and, of those that came\n"
    "through to the end, the adapter. A table is printed.";

static const char examples[] =
    "  lorikeet search --model model.gguf --data notes.txt --val held-out.txt --out search --trials 16 --steps 200\n"
    "  lorikeet search --model ./MiniLM --task classify --labels 2 --data reviews.tsv --val held-out.tsv --out search "
    "\\\n"
    "      --ranks 4,8,16 --targets 'query,value;all-linear' --lr-min 1e-4 --lr-max 1e-2 --steps 300 --min-steps 30";

static void declare(search_command *command, cli_options *options) {
    options->usage = "--model PATH --data FILE --val FILE --out DIR [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model and data:");
    cli_model_options(&command->workspace, options);
    cli_text(options, "data", 'd', &command->data_path, "FILE", "what to train on");
    cli_required(options);
    cli_text(options, "val", 0, &command->val_path, "FILE", "held-out data");
    cli_required(options);
    cli_text(options, "out", 'o', &command->out, "DIR", "where journal, picture and the best adapter are written");
    cli_required(options);
    cli_batch_options(&command->data_options, options);
    cli_group(options, "What is drawn:");
    cli_text(options, "ranks", 0, &command->ranks_text, "LIST", "choices of the rank");
    cli_text(options, "alphas", 0, &command->alphas_text, "LIST", "choices of alpha");
    cli_text(options, "targets", 0, &command->targets_text, "LISTS",
             "choices of targets, separated by semicolons: 'q_proj,v_proj;all-linear'");
    cli_text(options, "dropouts", 0, &command->dropouts_text, "LIST", "choices of the dropout");
    cli_real(options, "lr-min", 0, &command->lr_min, 0, 1e6, "the learning rate is drawn from here");
    cli_real(options, "lr-max", 0, &command->lr_max, 0, 1e6, "to here, evenly in its logarithm");
    cli_choice_text(options, "method", 0, &command->adapter_options.method, lk_adapter_methods(), "of all trials");
    cli_group(options, "Search:");
    cli_int64(options, "trials", 0, &command->num_trials, 1, "combinations");
    cli_int64(options, "steps", 0, &command->max_steps, 1, "of those that come through to the end");
    cli_int64(options, "min-steps", 0, &command->min_steps, 1, "that every trial gets, at least");
    cli_int64(options, "eta", 0, &command->eta, 2, "one in so many goes on, with so many times the steps");
    cli_int64(options, "accum", 0, &command->train_options.gradient_accumulation_steps, 1, "micro-batches per step");
    cli_uint64(options, "seed", 0, &command->seed, "of the combinations and of all trials");
    cli_flag(options, "resume", 0, &command->resume, true, "go on with the search in --out; give the same options");
    cli_flag(options, "json", 0, &command->json, true, "print the table as JSON");
    cli_workspace_options(&command->workspace, options);
}

static int checked(search_command *command, lk_status status) {
    return cli_checked(&command->workspace, status);
}

/* ---- one trial, one rung ---- */

typedef struct trial_run {
    lk_adapter *adapter;
    lk_trainer *trainer;
    lk_evaluator *evaluator;
    char *checkpoint;
} trial_run;

static char *trial_path(const search_command *command, const search_trial *trial) {
    char name[32];
    snprintf(name, sizeof name, "trial-%d", trial->number);
    return search_path(command, name);
}

static int open_run(search_command *command, const search_trial *trial, trial_run *run) {
    lk_adapter_options adapter = command->adapter_options;
    lk_train_options train = command->train_options;
    lk_model *model = command->workspace.model;
    adapter.rank = trial->rank;
    adapter.alpha = trial->alpha;
    adapter.dropout = trial->dropout;
    adapter.target_modules = trial->targets;
    adapter.seed = train.seed = command->seed;
    train.learning_rate = trial->learning_rate;
    train.total_steps = command->max_steps;
    run->checkpoint = trial_path(command, trial);
    if (run->checkpoint == NULL) {
        return cli_failed("out of memory");
    }
    lk_status status = lk_adapter_create(model, &adapter, &run->adapter);
    status = status == LK_OK ? lk_trainer_create(model, run->adapter, command->data, &train, &run->trainer) : status;
    if (status == LK_OK && trial->rungs > 0) {
        status = lk_trainer_load_checkpoint(run->trainer, run->checkpoint);
    }
    if (status == LK_OK) {
        status = lk_evaluator_create(model, run->adapter, command->val_data, &run->evaluator);
    }
    return checked(command, status);
}

static void close_run(trial_run *run) {
    lk_evaluator_destroy(run->evaluator);
    lk_trainer_destroy(run->trainer);
    lk_adapter_destroy(run->adapter);
    free(run->checkpoint);
}

/* A loss that is not finite ends the trial, not the search. */
static int train_and_validate(search_command *command, trial_run *run, int64_t steps, double *loss) {
    lk_status status = LK_OK;
    *loss = INFINITY;
    while (status == LK_OK && lk_trainer_steps(run->trainer) < steps && cli_stop_signal() == 0) {
        lk_step_report report;
        status = lk_trainer_step(run->trainer, &report);
    }
    if (status == LK_OK && cli_stop_signal() == 0) {
        lk_eval_report report;
        status = lk_evaluator_run(run->evaluator, NULL, NULL, &report);
        *loss = status == LK_OK ? report.loss : INFINITY;
    }
    return status == LK_OK || status == LK_STATUS_NUMERIC ? CLI_DONE : checked(command, status);
}

static int run_rung(search_command *command, search_trial *trial, int rung) {
    trial_run run = {0};
    double started = cli_seconds(), loss = INFINITY;
    int result = open_run(command, trial, &run);
    if (result == CLI_DONE) {
        result = train_and_validate(command, &run, command->rung_steps[rung], &loss);
    }
    if (result == CLI_DONE && cli_stop_signal() == 0 && isfinite(loss)) {
        result = checked(command, lk_trainer_save_checkpoint(run.trainer, run.checkpoint));
    }
    if (result == CLI_DONE && cli_stop_signal() == 0) {
        double seconds = cli_seconds() - started;
        trial->losses[trial->rungs++] = loss;
        trial->seconds += seconds;
        result = search_write_journal(command, trial, rung, seconds);
    }
    if (result == CLI_DONE && cli_stop_signal() == 0 && trial->rungs == command->num_rungs && isfinite(loss)) {
        char *folder = trial_path(command, trial); /* beside the checkpoint's files lies the adapter */
        result = folder != NULL ? checked(command, lk_adapter_save(run.adapter, folder)) : cli_failed("out of memory");
        free(folder);
    }
    close_run(&run);
    return result;
}

/* ---- the search ---- */

static int64_t in_rung(const search_command *command, int rung) {
    int64_t count = command->num_trials;
    for (int i = 0; i < rung; i++) {
        count = count / command->eta > 1 ? count / command->eta : 1;
    }
    return count;
}

/* Those that were best at the rung before, in order of number. */
static void choose(const search_command *command, int rung, bool *chosen) {
    int64_t wanted = in_rung(command, rung);
    for (int64_t i = 0; i < command->num_trials; i++) {
        const search_trial *trial = &command->trials[i];
        int64_t better = 0;
        for (int64_t j = 0; j < command->num_trials && rung > 0; j++) {
            const search_trial *other = &command->trials[j];
            bool ahead = other->losses[rung - 1] < trial->losses[rung - 1] ||
                         (other->losses[rung - 1] == trial->losses[rung - 1] && j < i);
            better += other->rungs >= rung && ahead;
        }
        chosen[i] = rung == 0 || (trial->rungs >= rung && better < wanted && isfinite(trial->losses[rung - 1]));
    }
}

static int run_all(search_command *command, bool *chosen) {
    int64_t total = 0, done = 0;
    int result = CLI_DONE;
    for (int rung = 0; rung < command->num_rungs; rung++) {
        total += in_rung(command, rung);
    }
    cli_progress_start(&command->progress, "search", 0, total, command->workspace.quiet);
    for (int rung = 0; rung < command->num_rungs && result == CLI_DONE; rung++) {
        choose(command, rung, chosen);
        for (int64_t i = 0; i < command->num_trials && result == CLI_DONE && cli_stop_signal() == 0; i++) {
            search_trial *trial = &command->trials[i];
            if (!chosen[i]) {
                continue;
            }
            result = trial->rungs <= rung ? run_rung(command, trial, rung) : CLI_DONE;
            char details[96];
            snprintf(details, sizeof details, "trial %d, %" PRId64 " steps: loss %.4f", trial->number,
                     command->rung_steps[rung], trial->rungs > rung ? trial->losses[rung] : INFINITY);
            cli_progress_update(&command->progress, ++done, details);
        }
    }
    cli_progress_finish(&command->progress);
    return result;
}

/* ---- what is printed ---- */

static int print_json(const search_command *command, const int64_t *order) {
    json_t *list = json_array();
    for (int64_t i = 0; i < command->num_trials; i++) {
        const search_trial *trial = &command->trials[order[i]];
        if (trial->rungs == 0) {
            continue;
        }
        double loss = trial->losses[trial->rungs - 1];
        json_array_append_new(list,
                              json_pack("{s:i,s:I,s:i,s:f,s:f,s:s,s:f,s:o,s:f}", "trial", trial->number, "steps",
                                        (json_int_t)command->rung_steps[trial->rungs - 1], "rank", (int)trial->rank,
                                        "learning_rate", trial->learning_rate, "alpha", trial->alpha, "targets",
                                        trial->targets, "dropout", trial->dropout, "validation_loss",
                                        isfinite(loss) ? json_real(loss) : json_null(), "seconds", trial->seconds));
    }
    return cli_print_json(json_pack("{s:o}", "trials", list));
}

static int print(const search_command *command) {
    int64_t *order = calloc((size_t)command->num_trials, sizeof *order);
    if (order == NULL) {
        return cli_failed("out of memory");
    }
    int result = CLI_DONE;
    search_sort(command, order);
    if (command->json) {
        result = print_json(command, order);
    } else {
        printf("trial  steps  rank   alpha  dropout  learning rate      loss  targets\n");
    }
    for (int64_t i = 0; i < command->num_trials && !command->json; i++) {
        const search_trial *trial = &command->trials[order[i]];
        if (trial->rungs > 0) {
            printf("%5d  %5" PRId64 "  %4d  %6g  %7g  %13.3g  %8.4f  %s\n", trial->number,
                   command->rung_steps[trial->rungs - 1], (int)trial->rank, trial->alpha, trial->dropout,
                   trial->learning_rate, trial->losses[trial->rungs - 1], trial->targets);
        }
    }
    const search_trial *best = &command->trials[order[0]];
    if (best->rungs == command->num_rungs && isfinite(best->losses[best->rungs - 1]) && !command->workspace.quiet) {
        cli_message("best: trial %d, whose adapter is %s/trial-%d; picture: %s/search.svg", best->number, command->out,
                    best->number, command->out);
    }
    free(order);
    return result;
}

static int load(search_command *command) {
    int result = cli_open_model(&command->workspace);
    lk_data_options held_out = command->data_options;
    held_out.shuffle = false;
    if (result == CLI_DONE) {
        result = checked(command, lk_data_load(command->workspace.model, command->data_path, &command->data_options,
                                               &command->data));
    }
    if (result == CLI_DONE) {
        result =
            checked(command, lk_data_load(command->workspace.model, command->val_path, &held_out, &command->val_data));
    }
    return result;
}

static void unload(search_command *command) {
    lk_data_destroy(command->val_data);
    lk_data_destroy(command->data);
    command->val_data = command->data = NULL;
    cli_workspace_close(&command->workspace);
}

/* On device after device, where --device is auto: the rung of a trial that a failure ended is done again. */
static int search_on_devices(search_command *command, bool *chosen) {
    cli_workspace *workspace = &command->workspace;
    cli_watch_devices(workspace);
    for (;;) {
        workspace->failure = LK_OK;
        int result = load(command);
        if (result == CLI_DONE) {
            cli_stop_install();
            result = run_all(command, chosen);
        }
        if (result == CLI_DONE || !cli_is_device_failure(workspace, workspace->failure) ||
            !cli_give_up_device(workspace, "the search goes on with the next device")) {
            return result;
        }
        unload(command);
    }
}

static int run(search_command *command) {
    command->data_options.seed = command->seed;
    int result = search_prepare(command);
    if (result == CLI_DONE && mkdir(command->out, 0777) != 0 && errno != EEXIST) {
        result = cli_failed("%s: %s", command->out, strerror(errno));
    }
    if (result == CLI_DONE) {
        result = search_read_journal(command);
    }
    bool *chosen = calloc((size_t)command->num_trials, sizeof *chosen);
    if (result == CLI_DONE && chosen == NULL) {
        result = cli_failed("out of memory");
    }
    if (result == CLI_DONE) {
        result = search_on_devices(command, chosen);
    }
    free(chosen);
    if (result == CLI_DONE) {
        result = search_draw(command);
    }
    if (result == CLI_DONE) {
        result = print(command);
    }
    if (result == CLI_DONE && cli_stop_signal() != 0) {
        cli_message("stopped; the same command with --resume goes on");
        result = CLI_SIGNAL + cli_stop_signal();
    }
    return result;
}

int cli_command_search(int argc, const char **argv) {
    search_command command = {.ranks_text = "4,8,16,32",
                              .alphas_text = "8,16,32",
                              .targets_text = "all-linear",
                              .dropouts_text = "0,0.05,0.1",
                              .lr_min = 5e-5,
                              .lr_max = 5e-3,
                              .num_trials = 9,
                              .max_steps = 90,
                              .min_steps = 10,
                              .eta = 3};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
    lk_adapter_options_init(&command.adapter_options);
    lk_data_options_init(&command.data_options);
    lk_train_options_init(&command.train_options);
    declare(&command, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = cli_check_folder("out", command.out);
        result = result == CLI_DONE ? run(&command) : result;
    }
    unload(&command);
    search_free(&command);
    cli_options_free(&options);
    return result;
}
