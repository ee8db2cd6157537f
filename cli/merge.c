/* lorikeet merge: base plus adapter as one model. */
#include <stdio.h>

#include "cli.h"
#include "progress.h"

typedef struct merge_command {
    cli_workspace workspace;
    const char *out;
    int out_dtype;
} merge_command;

static const char description[] =
    "Adds an adapter's update to the weights of its model and writes the sum as a Hugging Face folder\n"
    "(config.json, model.safetensors, tokenizer files), which needs no adapter any more; or, where --out ends in "
    ".gguf,\n"
    "as a file for llama.cpp. Without an adapter the model is written as it is: from one format into the other.";

static const char examples[] =
    "  lorikeet merge --model ./Qwen2-0.5B --adapter my-adapter --out ./Qwen2-0.5B-mine --dtype bf16\n"
    "  lorikeet merge --model ./Qwen2-0.5B --adapter my-adapter --out mine.gguf --dtype q8_0";

static const char *const written_dtypes[] = {"fp32", "bf16", "fp16", "q8_0", NULL};

static lk_dtype written_dtype(int index) {
    return index < 3 ? cli_dtype(index) : LK_DTYPE_Q8_0;
}

static void declare(merge_command *command, cli_options *options) {
    cli_workspace *workspace = &command->workspace;
    options->usage = "--model PATH --out PATH [--adapter DIR] [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model:");
    cli_text(options, "model", 'm', &workspace->model_path, "PATH",
             "a Hugging Face folder (config.json, *.safetensors, tokenizer.json) or a .gguf file");
    cli_required(options);
    cli_text(options, "adapter", 0, &workspace->adapter_path, "DIR", "a PEFT folder");
    cli_task_options(workspace, options);
    cli_text(options, "out", 'o', &command->out, "PATH", "the folder to write, or the file: its name ends in .gguf");
    cli_required(options);
    cli_choice(options, "dtype", 0, &command->out_dtype, written_dtypes, "type of the written weights; q8_0 in GGUF");
    cli_workspace_options(workspace, options);
}

static void show_progress(void *user, int64_t done, int64_t total) {
    cli_progress *progress = user;
    progress->total = total;
    cli_progress_update(progress, done, "");
}

static int run(merge_command *command) {
    cli_workspace *workspace = &command->workspace;
    int result = cli_open_model(workspace);
    if (result == CLI_DONE) {
        result = cli_open_adapter(workspace);
    }
    if (result != CLI_DONE) {
        return result;
    }
    cli_progress progress;
    cli_progress_start(&progress, "merge", 0, 0, workspace->quiet);
    lk_status status = lk_merge(workspace->model, workspace->adapter, written_dtype(command->out_dtype), command->out,
                                show_progress, &progress);
    cli_progress_finish(&progress);
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    printf("%s\n", command->out);
    return CLI_DONE;
}

int cli_command_merge(int argc, const char **argv) {
    merge_command command = {0};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
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
