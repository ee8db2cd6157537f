/* lorikeet convert: adapters from one program's format into another's, and sums of adapters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

typedef struct convert_command {
    cli_workspace workspace;
    lk_convert_options convert_options;
    cli_texts adapters; /* "path" or "path=weight" */
    int format, how;
    const char *out;
    char *paths[CLI_MAX_TEXTS];
    double weights[CLI_MAX_TEXTS];
    bool weighted;
} convert_command;

static const char description[] =
    "Writes a LoRA adapter in another program's format: PEFT (Hugging Face, and 'lorikeet train'), GGUF (llama.cpp)\n"
    "or MLX-LM. The format that is read is recognised. rsLoRA, and ranks and alphas that differ between layers, keep\n"
    "their meaning. DoRA, which GGUF has no place for, is refused there: use 'lorikeet merge'.\n\n"
    "Several --adapter make one: their sum, each with the weight behind its '=', 1 where there is none.\n"
    "  svd     the update of --rank that is nearest to the sum\n"
    "  cat     the sum itself; its rank is the sum of the ranks\n"
    "  linear  A and B summed each: for adapters of one rank that are alike";

static const char examples[] =
    "  lorikeet convert --adapter my-adapter --to gguf --model model.gguf --out my-adapter.gguf\n"
    "  lorikeet convert --adapter from-llama-cpp.gguf --to peft --model ./Qwen2-0.5B --out from-llama-cpp\n"
    "  lorikeet convert --adapter mlx-adapters --to peft --out my-adapter\n"
    "  lorikeet convert --adapter style=0.7 --adapter facts=0.5 --how svd --rank 16 --to peft --out both";

static void declare(convert_command *command, cli_options *options) {
    static const char *const formats[] = {"peft", "gguf", "mlx", NULL};
    static const char *const ways[] = {"svd", "linear", "cat", NULL};
    options->usage = "--adapter PATH[=WEIGHT]... --to FORMAT --out PATH [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Adapters:");
    cli_text_list(options, "adapter", 'a', &command->adapters, "PATH[=WEIGHT]", "a folder or a .gguf file");
    cli_required(options);
    cli_text(options, "model", 'm', &command->workspace.model_path, "PATH",
             "the base model, where GGUF is read or written (its weights are not)");
    cli_choice(options, "to", 0, &command->format, formats, "format to write");
    cli_text(options, "out", 'o', &command->out, "PATH", "the folder or file to write");
    cli_required(options);
    cli_group(options, "Several adapters:");
    cli_choice(options, "how", 0, &command->how, ways, "what becomes of their sum");
    cli_int64(options, "rank", 'r', &command->convert_options.rank, 0, "with svd; 0: the largest of theirs");
    cli_group(options, "Messages:");
    cli_flag(options, "quiet", 'q', &command->workspace.quiet, true, "only warnings and errors");
    cli_flag(options, "verbose", 'v', &command->workspace.verbose, true, "also what helps to find a fault");
}

/* "path=0.5"; a '=' without a number behind it belongs to the path. */
static int split_weights(convert_command *command) {
    for (int i = 0; i < command->adapters.count; i++) {
        const char *text = command->adapters.items[i], *equals = strrchr(text, '=');
        size_t length = strlen(text);
        command->weights[i] = 1.0;
        if (equals != NULL && equals[1] != '\0') {
            char *end;
            double weight = strtod(equals + 1, &end);
            if (*end == '\0') {
                command->weights[i] = weight;
                command->weighted = true;
                length = (size_t)(equals - text);
            }
        }
        command->paths[i] = calloc(length + 1, 1);
        if (command->paths[i] == NULL) {
            return cli_failed("out of memory");
        }
        memcpy(command->paths[i], text, length);
    }
    return CLI_DONE;
}

static int run(convert_command *command) {
    int result = split_weights(command);
    if (result == CLI_DONE) {
        result = cli_open_context(&command->workspace);
    }
    if (result != CLI_DONE) {
        return result;
    }
    command->convert_options.format = (lk_adapter_format)command->format;
    command->convert_options.how = (lk_combine)command->how;
    command->convert_options.base_model = command->workspace.model_path;
    size_t count = (size_t)command->adapters.count;
    bool sum = count > 1 || command->weighted;
    const char *paths[CLI_MAX_TEXTS];
    memcpy(paths, command->paths, sizeof paths);
    lk_status status = lk_convert_adapter(command->workspace.context, paths, sum ? command->weights : NULL, count,
                                          &command->convert_options, command->out);
    if (status != LK_OK) {
        return cli_library_failed(command->workspace.context, status);
    }
    printf("%s\n", command->out);
    return CLI_DONE;
}

int cli_command_convert(int argc, const char **argv) {
    convert_command command = {0};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
    lk_convert_options_init(&command.convert_options);
    declare(&command, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = run(&command);
    }
    cli_workspace_close(&command.workspace);
    for (int i = 0; i < command.adapters.count; i++) {
        free(command.paths[i]);
    }
    cli_options_free(&options);
    return result;
}
