/* lorikeet classify: texts in, their classes with probabilities out. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

typedef struct classify_command {
    cli_workspace workspace;
    lk_data_options data_options;
    const char *file, *text, *names;
    bool json, all;
    lk_classifier *classifier;
    int64_t num_labels;
    char *names_copy;
    const char **labels; /* [num_labels], NULL: known by number only */
    char *bytes;         /* the file; texts point into it or into rows */
    json_t **rows;       /* of a .jsonl */
    const char **texts;
    size_t count;
} classify_command;

enum { TEXTS_AT_A_TIME = 256 };

static const char description[] =
    "Says to which class texts belong, by a model with a classification head: one trained by\n"
    "'lorikeet train --task classify', or by Hugging Face. A line a text: class, TAB, its probability, TAB, the text;\n"
    "with --json an object a line, {\"label\", \"index\", \"probability\", \"probabilities\", \"text\"}.\n\n"
    "Files: .jsonl (a line is {\"text\": ..}, other keys are ignored), .tsv (what stands before the first TAB is\n"
    "ignored: the files of 'lorikeet train --task classify'), or one text a line.";

static const char examples[] =
    "  lorikeet classify --model ./MiniLM --adapter reviews --text 'A warm, funny film.' --names negative,positive\n"
    "  lorikeet classify --model ./reviews-merged --file reviews.txt --json\n"
    "  cat reviews.txt | lorikeet classify --model ./reviews-merged --file - --all";

static void declare(classify_command *command, cli_options *options) {
    cli_workspace *workspace = &command->workspace;
    options->usage = "--model PATH (--file FILE | --text TEXT) [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model and texts:");
    cli_text(options, "model", 'm', &workspace->model_path, "PATH",
             "a Hugging Face folder (config.json, *.safetensors, tokenizer.json)");
    cli_required(options);
    cli_text(options, "adapter", 0, &workspace->adapter_path, "DIR", "a PEFT folder");
    cli_int64(options, "labels", 0, &workspace->model_options.num_labels, 0,
              "the number of classes; 0: as config.json says, or 2");
    cli_choice(options, "dtype", 0, &workspace->dtype, cli_dtype_names, "type of the frozen weights in memory");
    cli_text(options, "file", 'f', &command->file, "FILE", "texts, one a line; -: standard input");
    cli_text(options, "text", 't', &command->text, "TEXT", "one text, instead of a file");
    cli_group(options, "Result:");
    cli_text(options, "names", 0, &command->names, "NAMES",
             "of the classes, separated by commas, where config.json has none or others");
    cli_flag(options, "all", 0, &command->all, true, "the probabilities of all classes, not of the likeliest alone");
    cli_flag(options, "json", 0, &command->json, true, "print an object a text");
    cli_int64(options, "batch", 'b', &command->data_options.batch, 1, "sequences that go through together");
    cli_int64(options, "seq", 0, &command->data_options.seq, 2, "tokens per text at most; what is beyond is cut off");
    cli_workspace_options(workspace, options);
}

/* ---- names of classes ---- */

static int split_names(classify_command *command) {
    command->names_copy = strdup(command->names);
    if (command->names_copy == NULL) {
        return cli_failed("out of memory");
    }
    int64_t given = 0;
    for (char *name = strtok(command->names_copy, ","); name != NULL; name = strtok(NULL, ",")) {
        if (given < command->num_labels) {
            command->labels[given] = name;
        }
        given++;
    }
    if (given != command->num_labels) {
        return cli_failed("--names gives %" PRId64 " names, the model has %" PRId64 " classes", given,
                          command->num_labels);
    }
    return CLI_DONE;
}

static int name_labels(classify_command *command) {
    lk_model_info info;
    lk_model_get_info(command->workspace.model, &info);
    command->num_labels = info.num_labels;
    command->labels = calloc((size_t)info.num_labels, sizeof *command->labels);
    if (command->labels == NULL) {
        return cli_failed("out of memory");
    }
    for (int64_t i = 0; i < info.num_labels; i++) {
        command->labels[i] = lk_model_label(command->workspace.model, i);
    }
    return command->names != NULL ? split_names(command) : CLI_DONE;
}

/* The class by its name, or else by its number. */
static const char *label_name(const classify_command *command, int64_t index, char buffer[24]) {
    if (command->labels[index] != NULL) {
        return command->labels[index];
    }
    snprintf(buffer, 24, "%" PRId64, index);
    return buffer;
}

/* ---- texts ---- */

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static int add_json_line(classify_command *command, const char *line, size_t number) {
    json_error_t error;
    json_t *row = json_loads(line, 0, &error);
    const char *text = json_string_value(json_object_get(row, "text"));
    if (text == NULL) {
        json_decref(row);
        return cli_failed("%s: line %zu: %s", command->file, number,
                          row == NULL ? error.text : "there is no \"text\" that is a string");
    }
    command->rows[command->count] = row;
    command->texts[command->count++] = text;
    return CLI_DONE;
}

static int add_line(classify_command *command, char *line, size_t number) {
    if (line[strspn(line, " \t\r")] == '\0') {
        return CLI_DONE; /* empty lines are no texts */
    }
    if (ends_with(command->file, ".jsonl")) {
        return add_json_line(command, line, number);
    }
    if (ends_with(command->file, ".tsv")) {
        char *tab = strchr(line, '\t');
        if (tab == NULL) {
            return cli_failed("%s: line %zu: expected a class, a TAB and a text", command->file, number);
        }
        line = tab + 1;
    }
    command->texts[command->count++] = line;
    return CLI_DONE;
}

static int read_texts(classify_command *command) {
    size_t length = 0, lines = 1, number = 0;
    if (command->file != NULL) {
        command->bytes = cli_read_file(command->file, &length);
        if (command->bytes == NULL) {
            return CLI_FAILED;
        }
    }
    if (strlen(command->bytes != NULL ? command->bytes : "") != length) {
        return cli_failed("%s: a text file cannot have NUL bytes", command->file);
    }
    for (size_t i = 0; i < length; i++) {
        lines += command->bytes[i] == '\n';
    }
    command->texts = calloc(lines, sizeof *command->texts);
    command->rows = calloc(lines, sizeof *command->rows);
    if (command->texts == NULL || command->rows == NULL) {
        return cli_failed("out of memory");
    }
    if (command->text != NULL) {
        command->texts[command->count++] = command->text;
    }
    int result = CLI_DONE;
    for (char *line = command->bytes; line != NULL && result == CLI_DONE;) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        size_t width = strlen(line);
        if (width > 0 && line[width - 1] == '\r') {
            line[width - 1] = '\0';
        }
        result = add_line(command, line, ++number);
        line = end != NULL ? end + 1 : NULL;
    }
    return result;
}

/* ---- results ---- */

static int print_json(const classify_command *command, const char *text, const float *probabilities, int64_t best) {
    char number[24];
    json_t *all = json_object();
    for (int64_t i = 0; i < command->num_labels; i++) {
        json_object_set_new(all, label_name(command, i, number), json_real((double)probabilities[i]));
    }
    json_t *line =
        json_pack("{s:s,s:I,s:f,s:o,s:s}", "label", label_name(command, best, number), "index", (json_int_t)best,
                  "probability", (double)probabilities[best], "probabilities", all, "text", text);
    if (line == NULL) {
        return cli_failed("out of memory");
    }
    int written = json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(7));
    json_decref(line);
    return written == 0 && putchar('\n') != EOF ? CLI_DONE : cli_failed("cannot write to standard output");
}

static int print(const classify_command *command, const char *text, const float *probabilities) {
    char number[24];
    int64_t best = 0;
    for (int64_t i = 1; i < command->num_labels; i++) {
        best = probabilities[i] > probabilities[best] ? i : best;
    }
    if (command->json) {
        return print_json(command, text, probabilities, best);
    }
    printf("%s\t", label_name(command, best, number));
    for (int64_t i = 0; command->all && i < command->num_labels; i++) {
        printf("%s%s=%.4f", i > 0 ? " " : "", label_name(command, i, number), (double)probabilities[i]);
    }
    if (!command->all) {
        printf("%.4f", (double)probabilities[best]);
    }
    return printf("\t%s\n", text) > 0 ? CLI_DONE : cli_failed("cannot write to standard output");
}

static int classify(classify_command *command) {
    size_t room = command->count < TEXTS_AT_A_TIME ? command->count : TEXTS_AT_A_TIME;
    float *probabilities = calloc(room + 1, (size_t)command->num_labels * sizeof *probabilities);
    if (probabilities == NULL) {
        return cli_failed("out of memory");
    }
    int result = CLI_DONE;
    double seconds = 0;
    for (size_t done = 0; done < command->count && result == CLI_DONE && cli_stop_signal() == 0; done += room) {
        size_t count = command->count - done < room ? command->count - done : room;
        double started = cli_seconds();
        lk_status status = lk_classifier_run(command->classifier, command->texts + done, count, probabilities);
        seconds += cli_seconds() - started;
        result = status == LK_OK ? CLI_DONE : cli_library_failed(command->workspace.context, status);
        for (size_t i = 0; i < count && result == CLI_DONE; i++) {
            result = print(command, command->texts[done + i], probabilities + i * (size_t)command->num_labels);
        }
    }
    free(probabilities);
    if (result == CLI_DONE && cli_stop_signal() == 0 && !command->workspace.quiet) {
        cli_message("%zu texts in %.2f s: %.1f texts/s", command->count, seconds,
                    seconds > 0 ? (double)command->count / seconds : 0);
    }
    return result == CLI_DONE && cli_stop_signal() != 0 ? CLI_SIGNAL + cli_stop_signal() : result;
}

static int run(classify_command *command) {
    cli_workspace *workspace = &command->workspace;
    workspace->task = LK_TASK_CLASSIFY;
    int result = read_texts(command);
    if (result == CLI_DONE) {
        result = cli_open_model(workspace);
    }
    if (result == CLI_DONE) {
        result = cli_open_adapter(workspace);
    }
    if (result == CLI_DONE) {
        result = name_labels(command);
    }
    if (result != CLI_DONE) {
        return result;
    }
    lk_status status =
        lk_classifier_create(workspace->model, workspace->adapter, &command->data_options, &command->classifier);
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    cli_stop_install();
    return classify(command);
}

int cli_command_classify(int argc, const char **argv) {
    classify_command command = {0};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
    lk_data_options_init(&command.data_options);
    command.data_options.batch = 8;
    command.data_options.seq = 128;
    declare(&command, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED && (command.file == NULL) == (command.text == NULL)) {
        result = cli_usage("give one of --file and --text");
    } else if (parsed == CLI_PARSED) {
        result = run(&command);
    }
    lk_classifier_destroy(command.classifier);
    cli_workspace_close(&command.workspace);
    for (size_t i = 0; command.rows != NULL && i < command.count; i++) {
        json_decref(command.rows[i]);
    }
    free(command.rows);
    free(command.texts);
    free(command.labels);
    free(command.names_copy);
    free(command.bytes);
    cli_options_free(&options);
    return result;
}
