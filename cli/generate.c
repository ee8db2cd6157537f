/* lorikeet generate: continues a prompt on stdout as the text is made. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

typedef struct generate_command {
    cli_workspace workspace;
    lk_generate_options generate_options;
    const char *prompt;
    char *prompt_from_stdin;
    int64_t max_tokens; /* prompt and continuation; 0: what the model allows */
    bool json;
    lk_generator *generator;
    char *text; /* collected for --json */
    size_t length, capacity;
    bool out_of_memory;
} generate_command;

static const char description[] =
    "Continues a prompt, or answers it as a chat message. The text goes to standard output as it is made,\n"
    "without the prompt. Ctrl-C ends it after the current token.";

static const char examples[] =
    "  lorikeet generate --model model.gguf --prompt 'Once upon a time'\n"
    "  lorikeet generate --model model.gguf --adapter my-adapter --chat --prompt 'What is a lorikeet?' \\\n"
    "      --temperature 0.7 --top-p 0.9\n"
    "  lorikeet generate --model model.gguf --prompt - < prompt.txt";

static void declare(generate_command *command, cli_options *options) {
    lk_generate_options *generate = &command->generate_options;
    options->usage = "--model PATH --prompt TEXT [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model and prompt:");
    cli_model_options(&command->workspace, options);
    cli_text(options, "adapter", 0, &command->workspace.adapter_path, "DIR", "a PEFT folder");
    cli_text(options, "prompt", 'p', &command->prompt, "TEXT", "what to continue; -: standard input");
    cli_required(options);
    cli_flag(options, "chat", 0, &generate->chat, true, "the prompt is a message, put into the model's chat template");
    cli_text(options, "system", 0, &generate->system, "TEXT", "with --chat: the system message");
    cli_group(options, "Text:");
    cli_int64(options, "max-tokens", 'n', &generate->max_new_tokens, 1, "of the continuation");
    cli_int64(options, "context", 0, &command->max_tokens, 0,
              "room for tokens of prompt and continuation; 0: as many as they need");
    cli_real(options, "temperature", 't', &generate->temperature, 0, 100, "0: always the likeliest token");
    cli_int64(options, "top-k", 0, &generate->top_k, 0, "only among the K likeliest; 0: no limit");
    cli_real(options, "top-p", 0, &generate->top_p, 0, 1, "only among the likeliest that make up this share");
    cli_uint64(options, "seed", 0, &generate->seed, "of the choice among tokens");
    cli_flag(options, "json", 0, &command->json, true, "print text, counts and times as JSON when all is done");
    cli_workspace_options(&command->workspace, options);
}

/* Keeps the text for the JSON object; false when memory is out. */
static bool collect(generate_command *command, const char *text, size_t length) {
    if (command->length + length + 1 > command->capacity) {
        size_t capacity = 2 * (command->length + length + 1);
        char *larger = realloc(command->text, capacity);
        if (larger == NULL) {
            command->out_of_memory = true;
            return false;
        }
        command->text = larger;
        command->capacity = capacity;
    }
    memcpy(command->text + command->length, text, length);
    command->length += length;
    command->text[command->length] = '\0';
    return true;
}

static bool take_text(void *user, const char *text, size_t length) {
    generate_command *command = user;
    if (cli_stop_signal() != 0) {
        return false;
    }
    if (command->json) {
        return collect(command, text, length);
    }
    return fwrite(text, 1, length, stdout) == length && fflush(stdout) == 0;
}

static int print(generate_command *command, const lk_generate_report *report) {
    double rate = report->new_seconds > 0 ? (double)report->new_tokens / report->new_seconds : 0;
    if (command->json) {
        return cli_print_json(json_pack("{s:s%,s:I,s:I,s:f,s:f,s:f,s:b}", "text",
                                        command->text != NULL ? command->text : "", command->length, "prompt_tokens",
                                        (json_int_t)report->prompt_tokens, "new_tokens", (json_int_t)report->new_tokens,
                                        "prompt_seconds", report->prompt_seconds, "new_seconds", report->new_seconds,
                                        "new_tokens_per_second", rate, "stopped", report->stopped));
    }
    putchar('\n');
    if (!command->workspace.quiet) {
        cli_message("prompt %" PRId64 " tokens in %.2f s; %" PRId64 " new ones at %.1f tokens/s", report->prompt_tokens,
                    report->prompt_seconds, report->new_tokens, rate);
    }
    return CLI_DONE;
}

/* Room for the prompt, as it is tokenised, and the continuation. */
static int64_t needed_tokens(generate_command *command) {
    enum { CHAT_TEMPLATE = 256 }; /* what a template adds at most, besides the system message */
    lk_tokenizer *tokenizer = lk_model_tokenizer(command->workspace.model);
    const char *texts[] = {command->prompt, command->generate_options.chat ? command->generate_options.system : NULL};
    int64_t tokens = command->generate_options.max_new_tokens;
    for (int i = 0; tokenizer != NULL && i < 2; i++) {
        int32_t *ids;
        size_t count;
        if (texts[i] != NULL &&
            lk_tokenizer_to_ids(tokenizer, texts[i], strlen(texts[i]), true, &ids, &count) == LK_OK) {
            tokens += (int64_t)count;
            lk_release(command->workspace.context, ids);
        }
    }
    tokens += command->generate_options.chat ? CHAT_TEMPLATE : 0;
    lk_model_info info;
    lk_model_get_info(command->workspace.model, &info);
    return info.max_position_embeddings > 0 && tokens > info.max_position_embeddings ? info.max_position_embeddings
                                                                                     : tokens;
}

static int run(generate_command *command) {
    cli_workspace *workspace = &command->workspace;
    if (strcmp(command->prompt, "-") == 0) {
        size_t length;
        command->prompt_from_stdin = cli_read_file("-", &length);
        if (command->prompt_from_stdin == NULL) {
            return CLI_FAILED;
        }
        command->prompt = command->prompt_from_stdin;
    }
    int result = cli_open_model(workspace);
    if (result == CLI_DONE) {
        result = cli_open_adapter(workspace);
    }
    if (result != CLI_DONE) {
        return result;
    }
    int64_t max_tokens = command->max_tokens > 0 ? command->max_tokens : needed_tokens(command);
    lk_generate_report report;
    lk_status status = lk_generator_create(workspace->model, workspace->adapter, max_tokens, &command->generator);
    if (status == LK_OK) {
        cli_stop_install();
        status = lk_generator_run(command->generator, command->prompt, &command->generate_options, take_text, command,
                                  &report);
    }
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    if (command->out_of_memory) {
        return cli_failed("out of memory");
    }
    result = print(command, &report);
    return result == CLI_DONE && cli_stop_signal() != 0 ? CLI_SIGNAL + cli_stop_signal() : result;
}

int cli_command_generate(int argc, const char **argv) {
    generate_command command = {0};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
    lk_generate_options_init(&command.generate_options);
    declare(&command, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED && command.generate_options.system != NULL && !command.generate_options.chat) {
        result = cli_usage("--system needs --chat");
    } else if (parsed == CLI_PARSED) {
        result = run(&command);
    }
    lk_generator_destroy(command.generator);
    cli_workspace_close(&command.workspace);
    free(command.prompt_from_stdin);
    free(command.text);
    cli_options_free(&options);
    return result;
}
