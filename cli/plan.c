/* lorikeet plan: what a training step would take, without loading weights or running anything. */
#include <stdio.h>

#include "cli.h"

typedef struct plan_command {
    cli_workspace workspace;
    lk_adapter_options adapter_options;
    lk_data_options data_options;
    lk_train_options train_options;
    int schedule, recompute;
    bool json;
} plan_command;

static const char description[] =
    "Says what a step of 'lorikeet train' with the same options would take: for each operation the kernel\n"
    "that is chosen, its estimated time, and why the other kernels are not; memory by purpose; totals.\n"
    "The weights are not loaded and nothing is run.";

static const char examples[] = "  lorikeet plan --model ./Qwen2-0.5B --batch 8 --seq 512\n"
                               "  lorikeet plan --model model.gguf --device cpu --threads 4 --json";

static void declare(plan_command *command, cli_options *options) {
    options->usage = "--model PATH [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model and micro-batch:");
    cli_model_options(&command->workspace, options);
    cli_batch_options(&command->data_options, options);
    cli_flag(options, "json", 0, &command->json, true, "print the plan as JSON");
    cli_adapter_options(&command->adapter_options, options);
    cli_optimizer_options(&command->train_options, &command->schedule, &command->recompute, options);
    cli_workspace_options(&command->workspace, options);
}

static int run(plan_command *command) {
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
        status = lk_plan(workspace->model, workspace->adapter, &command->data_options, &command->train_options,
                         command->json, &text);
    }
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    fputs(text, stdout);
    lk_release(workspace->context, text);
    return CLI_DONE;
}

int cli_command_plan(int argc, const char **argv) {
    plan_command command = {0};
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
