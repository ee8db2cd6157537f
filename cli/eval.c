/* lorikeet eval: loss and perplexity on a file. */
#include <inttypes.h>
#include <stdio.h>

#include "cli.h"
#include "progress.h"

typedef struct eval_command {
    cli_workspace workspace;
    lk_data_options data_options;
    const char *data_path;
    bool json;
    lk_data *data;
    lk_evaluator *evaluator;
    cli_progress progress;
} eval_command;

static const char description[] =
    "Takes the loss (mean over all targets, in nats) and the perplexity of a model on a file, with an adapter\n"
    "or without one. The data files are those of 'lorikeet train'.";

static const char examples[] = "  lorikeet eval --model model.gguf --data held-out.txt\n"
                               "  lorikeet eval --model model.gguf --adapter notes-adapter --data held-out.txt --json";

static void declare(eval_command *command, cli_options *options) {
    options->usage = "--model PATH --data FILE [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model and data:");
    cli_model_options(&command->workspace, options);
    cli_text(options, "adapter", 0, &command->workspace.adapter_path, "DIR", "a PEFT folder");
    cli_text(options, "data", 'd', &command->data_path, "FILE", "what to evaluate on");
    cli_required(options);
    cli_batch_options(&command->data_options, options);
    cli_flag(options, "json", 0, &command->json, true, "print the result as JSON");
    cli_workspace_options(&command->workspace, options);
}

static void show_progress(void *user, int64_t done, int64_t total) {
    cli_progress *progress = user;
    progress->total = total;
    cli_progress_update(progress, done, "");
}

static int print(const eval_command *command, const lk_eval_report *report) {
    double rate = report->seconds > 0 ? (double)report->tokens / report->seconds : 0;
    if (command->json) {
        json_t *json =
            json_pack("{s:f,s:f,s:I,s:I,s:I,s:f,s:f}", "loss", report->loss, "perplexity", report->perplexity,
                      "targets", (json_int_t)report->targets, "tokens", (json_int_t)report->tokens, "sequences",
                      (json_int_t)report->sequences, "seconds", report->seconds, "tokens_per_second", rate);
        if (json != NULL && report->num_labels > 0) {
            json_t *classes = cli_classification_json(command->evaluator, report);
            json_object_update(json, classes);
            json_decref(classes);
            json_object_set_new(json, "samples_per_second",
                                json_real(report->seconds > 0 ? (double)report->sequences / report->seconds : 0));
        }
        return cli_print_json(json);
    }
    if (report->num_labels > 0) {
        printf("loss      %.4f  (%.1f s, %.0f tokens/s)\n", report->loss, report->seconds, rate);
        cli_print_classification(command->evaluator, report);
        return CLI_DONE;
    }
    printf("loss %.4f  perplexity %.3f  (%" PRId64 " targets in %" PRId64 " sequences, %.1f s, %.0f tokens/s)\n",
           report->loss, report->perplexity, report->targets, report->sequences, report->seconds, rate);
    return CLI_DONE;
}

static int run(eval_command *command) {
    cli_workspace *workspace = &command->workspace;
    int result = cli_open_model(workspace);
    if (result == CLI_DONE) {
        result = cli_open_adapter(workspace);
    }
    if (result != CLI_DONE) {
        return result;
    }
    lk_eval_report report;
    lk_status status = lk_data_load(workspace->model, command->data_path, &command->data_options, &command->data);
    if (status == LK_OK) {
        status = lk_evaluator_create(workspace->model, workspace->adapter, command->data, &command->evaluator);
    }
    if (status == LK_OK) {
        cli_progress_start(&command->progress, "eval", 0, 0, workspace->quiet);
        status = lk_evaluator_run(command->evaluator, show_progress, &command->progress, &report);
        cli_progress_finish(&command->progress);
    }
    return status == LK_OK ? print(command, &report) : cli_library_failed(workspace->context, status);
}

int cli_command_eval(int argc, const char **argv) {
    eval_command command = {0};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
    lk_data_options_init(&command.data_options);
    command.data_options.shuffle = false;
    declare(&command, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = run(&command);
    }
    lk_evaluator_destroy(command.evaluator);
    lk_data_destroy(command.data);
    cli_workspace_close(&command.workspace);
    cli_options_free(&options);
    return result;
}
