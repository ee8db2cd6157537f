/* lorikeet tune: measures the kernels for a model's training step, so that the choice rests on times. */
#include <stdio.h>

#include "cli.h"
#include "progress.h"

typedef struct tune_command {
    cli_workspace workspace;
    lk_adapter_options adapter_options;
    lk_data_options data_options;
    lk_train_options train_options;
    int schedule, recompute;
    bool json;
    cli_progress progress;
} tune_command;

static const char description[] =
    "Measures, on one device, every kernel that fits an operation of a step of 'lorikeet train' with the same\n"
    "options, and keeps the times: from then on they decide in place of estimates ('lorikeet plan' shows\n"
    "\"chosen by tuned\"), and --device auto compares devices by them. The weights are not loaded. The times are kept\n"
    "in LORIKEET_CACHE_DIR (else the user's cache folder), one file per device, driver and version of the kernels.";

static const char examples[] = "  lorikeet tune --model ./Qwen2-0.5B --batch 8 --seq 512 --device vulkan\n"
                               "  lorikeet tune --model model.gguf --json > times.json";

static void declare(tune_command *command, cli_options *options) {
    options->usage = "--model PATH [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model and micro-batch:");
    cli_model_options(&command->workspace, options);
    cli_batch_options(&command->data_options, options);
    cli_flag(options, "json", 0, &command->json, true, "print the times as JSON");
    cli_adapter_options(&command->adapter_options, options);
    cli_optimizer_options(&command->train_options, &command->schedule, &command->recompute, options);
    cli_workspace_options(&command->workspace, options);
}

static void show(void *user, int64_t done, int64_t total) {
    cli_progress *progress = user;
    progress->total = total;
    cli_progress_update(progress, done, "kernels");
}

static int run(tune_command *command) {
    cli_workspace *workspace = &command->workspace;
    workspace->model_options.plan_only = true;
    command->train_options.schedule = (lk_schedule)command->schedule;
    command->train_options.recompute = (lk_recompute)command->recompute;
    command->train_options.total_steps = 1;
    cli_plan_for(workspace, &command->adapter_options, &command->data_options, &command->train_options);
    int result = cli_open_model(workspace);
    if (result != CLI_DONE) {
        return result;
    }
    char *text = NULL;
    lk_status status = lk_adapter_create(workspace->model, &command->adapter_options, &workspace->adapter);
    if (status == LK_OK) {
        cli_progress_start(&command->progress, "tune", 0, 0, workspace->quiet);
        status = lk_tune(workspace->model, workspace->adapter, &command->data_options, &command->train_options, show,
                         &command->progress, command->json, &text);
        cli_progress_finish(&command->progress);
    }
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    fputs(text, stdout);
    lk_release(workspace->context, text);
    return CLI_DONE;
}

int cli_command_tune(int argc, const char **argv) {
    tune_command command = {0};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
    lk_adapter_options_init(&command.adapter_options);
    lk_data_options_init(&command.data_options);
    lk_train_options_init(&command.train_options);
    declare(&command, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = run(&command);
    }
    cli_workspace_close(&command.workspace);
    cli_options_free(&options);
    return result;
}
