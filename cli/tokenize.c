/* lorikeet tokenize: a model's token ids of a text, and back. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

typedef struct tokenize_command {
    cli_workspace workspace;
    const char *text, *file, *ids;
    bool json, lines, skip_special, no_special;
    lk_tokenizer *tokenizer;
} tokenize_command;

static const char description[] =
    "Prints the token ids of a text as a model's tokenizer makes them, on one line, or the text of ids.\n"
    "With --lines, each line of the text is one by itself.";

static const char examples[] = "  lorikeet tokenize --model model.gguf --text 'Hello, world'\n"
                               "  lorikeet tokenize --model ./Qwen2-0.5B --file notes.txt --json\n"
                               "  lorikeet tokenize --model model.gguf --ids '9707 11 1879'";

static void declare(tokenize_command *command, cli_options *options) {
    options->usage = "--model PATH (--text TEXT | --file FILE | --ids IDS) [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model and text:");
    cli_text(options, "model", 'm', &command->workspace.model_path, "PATH",
             "a Hugging Face folder (only its tokenizer.json is read) or a .gguf file");
    cli_required(options);
    cli_text(options, "text", 't', &command->text, "TEXT", "the text");
    cli_text(options, "file", 'f', &command->file, "FILE", "a file with the text; -: standard input");
    cli_text(options, "ids", 'i', &command->ids, "IDS", "the other way round: ids, separated by spaces or commas");
    cli_flag(options, "lines", 'l', &command->lines, true, "each line of the text by itself: a line of ids for each");
    cli_flag(options, "no-special", 0, &command->no_special, true,
             "leave out the special tokens that the tokenizer puts around a text");
    cli_flag(options, "skip-special", 0, &command->skip_special, true, "with --ids: leave out special tokens");
    cli_flag(options, "json", 0, &command->json, true, "print ids, and the text of each, as JSON");
}

/* {"ids": [..], "tokens": [..]}; a token that is part of a character has no text of its own: null. */
static int print_ids_json(tokenize_command *command, const int32_t *ids, size_t count) {
    json_t *id_array = json_array();
    json_t *token_array = json_array();
    for (size_t i = 0; i < count; i++) {
        char *piece;
        lk_status status = lk_tokenizer_to_text(command->tokenizer, &ids[i], 1, false, &piece);
        if (status != LK_OK) {
            json_decref(id_array);
            json_decref(token_array);
            return cli_library_failed(command->workspace.context, status);
        }
        json_t *token = json_string(piece);
        json_array_append_new(id_array, json_integer(ids[i]));
        json_array_append_new(token_array, token != NULL ? token : json_null());
        lk_release(command->workspace.context, piece);
    }
    return cli_print_json(json_pack("{s:o,s:o}", "ids", id_array, "tokens", token_array));
}

static int print_ids_of(tokenize_command *command, const char *text, size_t length) {
    int32_t *ids;
    size_t count;
    lk_status status = lk_tokenizer_to_ids(command->tokenizer, text, length, !command->no_special, &ids, &count);
    if (status != LK_OK) {
        return cli_library_failed(command->workspace.context, status);
    }
    int result = CLI_DONE;
    if (command->json) {
        result = print_ids_json(command, ids, count);
    } else {
        for (size_t i = 0; i < count; i++) {
            printf("%s%" PRId32, i > 0 ? " " : "", ids[i]);
        }
        putchar('\n');
    }
    lk_release(command->workspace.context, ids);
    return result;
}

static int print_ids(tokenize_command *command, const char *text, size_t length) {
    if (!command->lines) {
        return print_ids_of(command, text, length);
    }
    int result = CLI_DONE;
    for (size_t at = 0; at < length && result == CLI_DONE;) {
        const char *end = memchr(text + at, '\n', length - at);
        size_t line = end != NULL ? (size_t)(end - text) - at : length - at;
        result = print_ids_of(command, text + at, line);
        at += line + 1;
    }
    return result;
}

/* Reads ids into a new array; NULL after a message. */
static int32_t *parse_ids(const char *text, size_t *count) {
    int32_t *ids = malloc((strlen(text) / 2 + 1) * sizeof(*ids));
    if (ids == NULL) {
        cli_failed("--ids: out of memory");
        return NULL;
    }
    const char *separators = " ,\t\n";
    *count = 0;
    for (text += strspn(text, separators); *text != '\0'; text += strspn(text, separators)) {
        char *end;
        errno = 0;
        long id = strtol(text, &end, 10);
        if (end == text || strcspn(end, separators) != 0 || errno != 0 || id < 0 || id > INT32_MAX) {
            cli_usage("--ids: '%.*s' is not a token id", (int)strcspn(text, separators), text);
            free(ids);
            return NULL;
        }
        ids[(*count)++] = (int32_t)id;
        text = end;
    }
    return ids;
}

static int print_text(tokenize_command *command, const int32_t *ids, size_t count) {
    char *text;
    lk_status status = lk_tokenizer_to_text(command->tokenizer, ids, count, command->skip_special, &text);
    if (status != LK_OK) {
        return cli_library_failed(command->workspace.context, status);
    }
    int result = CLI_DONE;
    if (command->json) {
        result = cli_print_json(json_pack("{s:s}", "text", text));
    } else {
        puts(text);
    }
    lk_release(command->workspace.context, text);
    return result;
}

static int open_tokenizer(tokenize_command *command) {
    cli_workspace *workspace = &command->workspace;
    int result = cli_open_context(workspace);
    if (result != CLI_DONE) {
        return result;
    }
    lk_status status = lk_tokenizer_open(workspace->context, workspace->model_path, &command->tokenizer);
    return status == LK_OK ? CLI_DONE : cli_library_failed(workspace->context, status);
}

static int run(tokenize_command *command) {
    if ((command->text != NULL) + (command->file != NULL) + (command->ids != NULL) != 1) {
        return cli_usage("give one of --text, --file and --ids");
    }
    if (command->lines && command->ids != NULL) {
        return cli_usage("--lines and --ids exclude each other");
    }
    size_t count = 0;
    int32_t *ids = NULL;
    char *file_text = NULL;
    size_t length = command->text != NULL ? strlen(command->text) : 0;
    if (command->ids != NULL) {
        ids = parse_ids(command->ids, &count);
        if (ids == NULL) {
            return CLI_USAGE;
        }
    } else if (command->file != NULL) {
        file_text = cli_read_file(command->file, &length);
        if (file_text == NULL) {
            return CLI_FAILED;
        }
    }
    int result = open_tokenizer(command);
    if (result == CLI_DONE) {
        result = ids != NULL ? print_text(command, ids, count)
                             : print_ids(command, file_text != NULL ? file_text : command->text, length);
    }
    free(file_text);
    free(ids);
    return result;
}

int cli_command_tokenize(int argc, const char **argv) {
    tokenize_command command = {0};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
    declare(&command, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = run(&command);
    }
    lk_tokenizer_destroy(command.tokenizer);
    cli_workspace_close(&command.workspace);
    cli_options_free(&options);
    return result;
}
