/* lorikeet train --mix NAME=FILE ...: several adapters side by side, each with its own data. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "train.h"

typedef struct mixed_run {
    train_command *command;
    int count;
    char *names[CLI_MAX_TEXTS];
    lk_data *data[CLI_MAX_TEXTS];
    lk_adapter *parts[CLI_MAX_TEXTS];
    double losses[CLI_MAX_TEXTS];
} mixed_run;

static int checked(const mixed_run *run, lk_status status) {
    return status == LK_OK ? CLI_DONE : cli_library_failed(run->command->workspace.context, status);
}

/* NAME=FILE: the name is also that of a folder. */
static int read_name(mixed_run *run, const char *text) {
    const char *equals = strchr(text, '=');
    size_t length = equals != NULL ? (size_t)(equals - text) : 0;
    if (length == 0 || equals[1] == '\0' || memchr(text, '/', length) != NULL || text[0] == '.') {
        return cli_usage("--mix %s: expected NAME=FILE", text);
    }
    char *name = calloc(length + 1, 1);
    if (name == NULL) {
        return cli_failed("out of memory");
    }
    memcpy(name, text, length);
    run->names[run->count++] = name;
    for (int i = 0; i + 1 < run->count; i++) {
        if (strcmp(run->names[i], name) == 0) {
            return cli_usage("--mix %s: the name %s is taken", text, name);
        }
    }
    return CLI_DONE;
}

int train_check_mixed(const train_command *command, const cli_options *options) {
    static const char *const excluded[] = {"data",   "val",        "val-every", "init-adapter", "early-stopping",
                                           "resume", "save-every", "profile",   "max-grad-norm"};
    for (size_t i = 0; command->mix.count > 0 && i < sizeof(excluded) / sizeof(excluded[0]); i++) {
        if (cli_given(options, excluded[i])) {
            return cli_usage("--mix and --%s exclude each other", excluded[i]);
        }
    }
    if (command->mix.count == 0 && command->data_path == NULL) {
        return cli_usage("--data FILE is missing");
    }
    return CLI_DONE;
}

static int make_parts(mixed_run *run) {
    train_command *command = run->command;
    lk_model *model = command->workspace.model;
    int64_t longest = 1;
    for (int i = 0; i < run->count; i++) {
        const char *path = strchr(command->mix.items[i], '=') + 1;
        int result = checked(run, lk_data_load(model, path, &command->data_options, &run->data[i]));
        if (result == CLI_DONE) {
            result = checked(run, lk_adapter_create(model, &command->adapter_options, &run->parts[i]));
        }
        if (result != CLI_DONE) {
            return result;
        }
        lk_data_info info;
        lk_data_get_info(run->data[i], &info);
        longest = info.batches_per_epoch > longest ? info.batches_per_epoch : longest;
    }
    int64_t accumulated = command->train_options.gradient_accumulation_steps;
    command->train_options.total_steps =
        command->steps > 0 ? command->steps : command->epochs * ((longest + accumulated - 1) / accumulated);
    int result = checked(run, lk_adapter_mix_for_training(run->parts, (size_t)run->count, &command->workspace.adapter));
    return result != CLI_DONE
               ? result
               : checked(run, lk_trainer_create_mixed(model, command->workspace.adapter, run->data, (size_t)run->count,
                                                      &command->train_options, &command->trainer));
}

static int note_losses(mixed_run *run) {
    json_t *losses = json_object();
    int result = checked(run, lk_trainer_get_losses(run->command->trainer, run->losses, (size_t)run->count));
    for (int i = 0; i < run->count && result == CLI_DONE; i++) {
        if (json_object_set_new(losses, run->names[i], json_real(run->losses[i])) != 0) {
            result = cli_failed("out of memory");
        }
    }
    json_decref(run->command->losses);
    run->command->losses = losses;
    return result;
}

static int take_steps(mixed_run *run) {
    train_command *command = run->command;
    int64_t step = 0, total = command->train_options.total_steps;
    int result = train_log_open(command);
    cli_stop_install();
    cli_progress_start(&command->progress, "train", 0, total, command->workspace.quiet);
    while (step < total && cli_stop_signal() == 0 && result == CLI_DONE) {
        lk_step_report report;
        result = checked(run, lk_trainer_step(command->trainer, &report));
        result = result == CLI_DONE ? note_losses(run) : result;
        result = result == CLI_DONE ? train_log_step(command, &report) : result;
        step = result == CLI_DONE ? report.step : step;
    }
    cli_progress_finish(&command->progress);
    return result;
}

static int save(mixed_run *run) {
    train_command *command = run->command;
    for (int i = 0; i < run->count; i++) {
        size_t size = strlen(command->out) + strlen(run->names[i]) + 2;
        char *folder = malloc(size);
        if (folder == NULL) {
            return cli_failed("out of memory");
        }
        snprintf(folder, size, "%s/%s", command->out, run->names[i]);
        int result = checked(run, lk_adapter_unmix(command->workspace.adapter, (size_t)i, run->parts[i]));
        result = result == CLI_DONE ? checked(run, lk_adapter_save(run->parts[i], folder)) : result;
        if (result == CLI_DONE) {
            printf("%-16s loss %.4f at last  %s\n", run->names[i], run->losses[i], folder);
        }
        free(folder);
        if (result != CLI_DONE) {
            return result;
        }
    }
    return CLI_DONE;
}

int train_run_mixed(train_command *command) {
    mixed_run run = {.command = command};
    int result = CLI_DONE;
    for (int i = 0; i < command->mix.count && result == CLI_DONE; i++) {
        result = read_name(&run, command->mix.items[i]);
    }
    result = result == CLI_DONE ? cli_open_model(&command->workspace) : result;
    result = result == CLI_DONE ? make_parts(&run) : result;
    result = result == CLI_DONE ? take_steps(&run) : result;
    result = result == CLI_DONE ? save(&run) : result;
    lk_trainer_destroy(command->trainer);
    command->trainer = NULL;
    for (int i = 0; i < run.count; i++) {
        lk_adapter_destroy(run.parts[i]);
        lk_data_destroy(run.data[i]);
        free(run.names[i]);
    }
    json_decref(command->losses);
    command->losses = NULL;
    int stopped_by = cli_stop_signal();
    return result == CLI_DONE && stopped_by != 0 ? CLI_SIGNAL + stopped_by : result;
}
