#include "step.h"

#include <stdio.h>

static void declare(cli_step *step, cli_options *options) {
    options->usage = "--model PATH [OPTION...]";
    options->description = step->description;
    options->examples = step->examples;
    cli_group(options, "Model and micro-batch:");
    cli_model_options(&step->workspace, options);
    cli_batch_options(&step->data_options, options);
    cli_flag(options, "json", 0, &step->json, true, step->json_help);
    cli_adapter_options(&step->adapter_options, options);
    cli_optimizer_options(&step->train_options, &step->schedule, &step->recompute, options);
    cli_workspace_options(&step->workspace, options);
}

static int run(cli_step *step) {
    cli_workspace *workspace = &step->workspace;
    workspace->model_options.plan_only = true;
    step->train_options.schedule = (lk_schedule)step->schedule;
    step->train_options.recompute = (lk_recompute)step->recompute;
    step->train_options.total_steps = 1;
    cli_plan_for(workspace, &step->adapter_options, &step->data_options, &step->train_options);
    int result = cli_open_model(workspace);
    if (result != CLI_DONE) {
        return result;
    }
    char *text = NULL;
    lk_status status = lk_adapter_create(workspace->model, &step->adapter_options, &workspace->adapter);
    if (status == LK_OK) {
        status = step->make_text(step, &text);
    }
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    fputs(text, stdout);
    lk_release(workspace->context, text);
    return CLI_DONE;
}

int cli_step_run(cli_step *step, int argc, const char **argv) {
    cli_options options = {0};
    cli_workspace_init(&step->workspace);
    lk_adapter_options_init(&step->adapter_options);
    lk_data_options_init(&step->data_options);
    lk_train_options_init(&step->train_options);
    declare(step, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = run(step);
    }
    cli_workspace_close(&step->workspace);
    cli_options_free(&options);
    return result;
}
