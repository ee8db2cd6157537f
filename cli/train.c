/* lorikeet train: the options, and the run from loading to saving. What is written on the way is in train_report.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "train.h"

static const char description[] =
    "Trains an adapter for a model on your data and writes it in the layout of Hugging Face PEFT.\n"
    "The model itself stays as it is.\n\n"
    "Data files: .txt (plain text), .jsonl (a line is {\"text\": ..}, {\"prompt\": .., \"completion\": ..} or\n"
    "{\"messages\": [..]}), .ids (token ids, one sequence a line; after a TAB, optionally, as many labels).\n"
    "With --task classify: .tsv (class, TAB, text), .jsonl ({\"text\": .., \"label\": ..}).\n\n"
    "With --device auto, a device that fails is given up, and the run goes on with the next one.\n\n"
    "Ctrl-C (or SIGTERM) finishes the step, saves the adapter and a checkpoint, and exits with 130 (143);\n"
    "--resume goes on from there. A second one ends the program at once.";

static const char examples[] =
    "  lorikeet train --model SmolLM2-135M.gguf --data notes.txt --out notes-adapter --steps 100\n"
    "  lorikeet train --model ./Qwen2-0.5B --data chats.jsonl --out adapter --epochs 3 --rank 16 --alpha 32 \\\n"
    "      --targets q_proj,v_proj --schedule cosine --warmup 20 --val held-out.jsonl --log log.jsonl\n"
    "  lorikeet train --model ./MiniLM --task classify --data reviews.tsv --val held-out.tsv --out reviews \\\n"
    "      --epochs 3 --lr 1e-3 --val-every 100 --early-stopping 3";

static void declare(train_command *command, cli_options *options) {
    options->usage = "--model PATH --data FILE --out DIR [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model and data:");
    cli_model_options(&command->workspace, options);
    cli_text(options, "data", 'd', &command->data_path, "FILE", "what to train on");
    cli_text_list(
        options, "mix", 0, &command->mix, "NAME=FILE",
        "instead of --data, several times: adapters trained side by side, each on its own data as it would be "
        "alone; written to DIR/NAME");
    cli_text(options, "out", 'o', &command->out, "DIR", "where the adapter is written");
    cli_required(options);
    cli_text_list(options, "val", 0, &command->val, "FILE",
                  "held-out data: its loss is taken before and after; with --mix NAME=FILE, for as many as you like");
    cli_int64(options, "val-every", 0, &command->val_every, 0, "and after every N steps; 0: not");
    cli_int64(options, "early-stopping", 0, &command->early_stopping, 0,
              "stop when so many validations in a row bring no lower loss, and keep the adapter of the best; 0: not");
    cli_batch_options(&command->data_options, options);
    cli_flag(options, "no-shuffle", 0, &command->data_options.shuffle, false, "take the data in order");
    command->first_adapter_option = options->count;
    cli_adapter_options(&command->adapter_options, options);
    command->end_adapter_options = options->count;
    cli_text(options, "init-adapter", 0, &command->init_adapter, "DIR",
             "start from this adapter, which then decides method, rank, alpha and targets");
    cli_optimizer_options(&command->train_options, &command->schedule, &command->recompute, options);
    cli_group(options, "Run:");
    cli_int64(options, "steps", 0, &command->steps, 1, "optimizer steps; default: one epoch");
    cli_int64(options, "epochs", 0, &command->epochs, 1, "passes over the data, instead of --steps");
    cli_uint64(options, "seed", 0, &command->seed, "of the adapter's start, the order of the data, and dropout");
    cli_int64(options, "save-every", 0, &command->save_every, 0,
              "save the adapter and a checkpoint after every N steps; 0: only when stopped");
    cli_flag(options, "resume", 0, &command->resume, true,
             "go on from the checkpoint in the --out folder, if there is one; give the same options as before");
    cli_text(options, "log", 0, &command->log_path, "FILE.jsonl", "one line of JSON per step");
    cli_flag(options, "profile", 0, &command->profile, true, "print where the time of a step goes, per kernel");
    cli_flag(options, "json", 0, &command->json, true, "print the summary as JSON");
    cli_workspace_options(&command->workspace, options);
}

static int check_options(train_command *command, const cli_options *options) {
    int parts = train_make_parts(command, options);
    if (parts != CLI_DONE) {
        return parts;
    }
    if (cli_given(options, "steps") && cli_given(options, "epochs")) {
        return cli_usage("--steps and --epochs exclude each other");
    }
    if (command->val_every > 0 && command->val.count == 0) {
        return cli_usage("--val-every needs --val FILE");
    }
    if (command->early_stopping > 0 && command->val_every == 0) {
        return cli_usage("--early-stopping needs --val-every N");
    }
    for (int i = command->first_adapter_option; command->init_adapter != NULL && i < command->end_adapter_options;
         i++) {
        if (options->rows[i].given) {
            cli_message("warning: --%s is taken from the adapter in %s", options->rows[i].name, command->init_adapter);
        }
    }
    command->adapter_options.seed = command->seed;
    command->data_options.seed = command->seed;
    command->train_options.seed = command->seed;
    command->train_options.schedule = (lk_schedule)command->schedule;
    command->train_options.recompute = (lk_recompute)command->recompute;
    return CLI_DONE;
}

int train_checked(train_command *command, lk_status status) {
    return cli_checked(&command->workspace, status);
}

/* Builds trainer and evaluators, and goes on from a checkpoint where that is asked for. */
static int make_trainer(train_command *command) {
    command->train_options.keep_copy = cli_may_lose_device(&command->workspace);
    int result = train_make_trainer(command);
    if (result == CLI_DONE && command->resume && train_has_checkpoint(command)) {
        result = train_checked(command, lk_trainer_load_checkpoint(command->trainer, command->checkpoint));
        command->resumed = result == CLI_DONE;
    }
    return result == CLI_DONE ? train_make_evaluators(command) : result;
}

static bool is_due(int64_t step, int64_t every) {
    return every > 0 && step % every == 0;
}

static int run_steps(train_command *command) {
    int64_t total = command->train_options.total_steps;
    int64_t step = lk_trainer_steps(command->trainer);
    int result = CLI_DONE;
    cli_progress_start(&command->progress, "train", step, total, command->workspace.quiet);
    while (step < total && cli_stop_signal() == 0 && !command->stopped_early && result == CLI_DONE) {
        lk_step_report report;
        result = train_checked(command, lk_trainer_step(command->trainer, &report));
        if (result != CLI_DONE) {
            break;
        }
        step = report.step;
        result = train_log_step(command, &report);
        if (result == CLI_DONE && is_due(step, command->save_every)) {
            result = train_save(command, true);
        }
        if (result == CLI_DONE && is_due(step, command->val_every) && step < total) {
            result = train_validate(command, false);
        }
    }
    cli_progress_finish(&command->progress);
    return result;
}

typedef int (*phase_function)(train_command *command);

static int timed(train_command *command, train_phase phase, phase_function function) {
    double started = cli_seconds();
    int result = function(command);
    command->seconds[phase] += cli_seconds() - started;
    return result;
}

static int open_model(train_command *command) {
    cli_plan_for(&command->workspace, &command->adapter_options, &command->data_options, &command->train_options);
    return cli_open_model(&command->workspace);
}

static int profile(train_command *command) {
    char *text;
    int result = train_checked(command, lk_trainer_profile(command->trainer, false, &text));
    if (result == CLI_DONE) {
        fputs(text, stdout);
        lk_release(command->workspace.context, text);
    }
    return result;
}

/* The run on one device. */
static int attempt(train_command *command) {
    int result = timed(command, TRAIN_LOAD_MODEL, open_model);
    if (result == CLI_DONE) {
        result = timed(command, TRAIN_COMPILE, train_make_adapters);
    }
    if (result == CLI_DONE) {
        result = timed(command, TRAIN_LOAD_DATA, train_load_data);
    }
    if (result == CLI_DONE) {
        result = timed(command, TRAIN_COMPILE, make_trainer);
    }
    if (result == CLI_DONE) {
        cli_stop_install();
        train_print_start(command);
        result = train_log_open(command);
    }
    if (result == CLI_DONE && command->workspace.lost[0] == '\0') {
        result = train_validate(command, true);
    }
    if (result == CLI_DONE) {
        result = run_steps(command);
    }
    if (result != CLI_DONE) {
        return result;
    }
    int stopped_by = cli_stop_signal();
    if (stopped_by == 0 && !command->stopped_early) {
        result = train_validate(command, false);
    }
    if (result == CLI_DONE && (command->early_stopping == 0 || stopped_by != 0)) {
        result = train_save(command, stopped_by != 0);
    }
    if (result == CLI_DONE && command->profile && stopped_by == 0) {
        result = profile(command);
    }
    if (result == CLI_DONE) {
        result = train_print_summary(command, stopped_by);
    }
    return result == CLI_DONE && stopped_by != 0 ? CLI_SIGNAL + stopped_by : result;
}

static void close_attempt(train_command *command) {
    lk_trainer_destroy(command->trainer);
    command->trainer = NULL;
    train_close_parts(command);
    cli_workspace_close(&command->workspace);
}

/* After a failure of the device: keeps the state, and where `auto` may take another device, makes ready for it. */
static bool go_on_elsewhere(train_command *command) {
    bool has_state = command->trainer != NULL;
    if (has_state && lk_trainer_save_checkpoint(command->trainer, command->checkpoint) != LK_OK) {
        cli_message("warning: the state is not saved: %s", lk_error_message(command->workspace.context));
        return false;
    }
    if (!cli_give_up_device(&command->workspace,
                            has_state ? "the run goes on with the next device, from the state that was kept"
                                      : "the run goes on with the next device")) {
        if (has_state) {
            cli_message("the state is kept in %s: the same command with --resume goes on, also with another --device",
                        command->checkpoint);
        }
        return false;
    }
    command->resume = command->resume || has_state;
    return true;
}

static int run(train_command *command) {
    cli_workspace *workspace = &command->workspace;
    cli_watch_devices(workspace);
    for (;;) {
        workspace->failure = LK_OK;
        int result = attempt(command);
        if (result == CLI_DONE || !cli_is_device_failure(workspace, workspace->failure) || !go_on_elsewhere(command)) {
            return result;
        }
        result = train_log_close(command, CLI_DONE);
        close_attempt(command);
        if (result != CLI_DONE) {
            return result;
        }
    }
}

int cli_command_train(int argc, const char **argv) {
    train_command command = {.epochs = 1};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
    lk_adapter_options_init(&command.adapter_options);
    lk_data_options_init(&command.data_options);
    lk_train_options_init(&command.train_options);
    declare(&command, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = check_options(&command, &options);
        if (result == CLI_DONE) {
            result = cli_check_folder("out", command.out);
        }
        if (result == CLI_DONE) {
            result = train_set_checkpoint(&command);
        }
        if (result == CLI_DONE) {
            result = run(&command);
        }
    }
    result = train_log_close(&command, result);
    close_attempt(&command);
    train_free_parts(&command);
    free(command.checkpoint);
    cli_options_free(&options);
    return result;
}
