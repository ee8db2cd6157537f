#define _POSIX_C_SOURCE 200809L
#include "prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- prompts ---- */

static int allocate(cli_prompts *prompts, size_t most) {
    prompts->rows = calloc(most + 1, sizeof *prompts->rows);
    prompts->texts = calloc(most + 1, sizeof *prompts->texts);
    return prompts->rows != NULL && prompts->texts != NULL ? CLI_DONE : cli_failed("out of memory");
}

/* Takes over the row. */
static int add(cli_prompts *prompts, json_t *row, const char *source, size_t line) {
    const char *text = json_string_value(json_object_get(row, "prompt"));
    if (text == NULL) {
        json_decref(row);
        return cli_failed("%s: line %zu: expected {\"prompt\": \"a text\"}", source, line);
    }
    prompts->rows[prompts->count] = row;
    prompts->texts[prompts->count++] = text;
    return CLI_DONE;
}

static int add_lines(cli_prompts *prompts, const char *path, char *bytes) {
    size_t length = strlen(path), number = 0;
    bool json = length >= 6 && strcmp(path + length - 6, ".jsonl") == 0;
    int result = CLI_DONE;
    for (char *line = bytes; line != NULL && result == CLI_DONE;) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        number++;
        if (line[strspn(line, " \t\r")] != '\0') {
            json_t *row = json ? json_loads(line, 0, NULL) : json_pack("{s:s}", "prompt", line);
            result = add(prompts, row, path, number);
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return result == CLI_DONE && prompts->count == 0 ? cli_failed("%s: no prompts", path) : result;
}

int cli_prompts_read(cli_prompts *prompts, const char *path) {
    size_t length, lines = 1;
    char *bytes = cli_read_file(path, &length);
    if (bytes == NULL) {
        return CLI_FAILED;
    }
    for (size_t i = 0; i < length; i++) {
        lines += bytes[i] == '\n';
    }
    int result = allocate(prompts, lines);
    result = result == CLI_DONE ? add_lines(prompts, path, bytes) : result;
    free(bytes);
    return result;
}

int cli_prompts_one(cli_prompts *prompts, const char *text) {
    size_t length;
    char *bytes = strcmp(text, "-") == 0 ? cli_read_file("-", &length) : NULL;
    if (bytes == NULL && strcmp(text, "-") == 0) {
        return CLI_FAILED;
    }
    int result = allocate(prompts, 1);
    if (result == CLI_DONE) {
        json_t *row = json_pack("{s:s}", "prompt", bytes != NULL ? bytes : text);
        result = row != NULL ? add(prompts, row, "--prompt", 1) : cli_failed("--prompt: not valid UTF-8");
    }
    free(bytes);
    return result;
}

void cli_prompts_free(cli_prompts *prompts) {
    for (size_t i = 0; i < prompts->count; i++) {
        json_decref(prompts->rows[i]);
    }
    free(prompts->rows);
    free(prompts->texts);
}

/* ---- speed ---- */

static bool ignore(void *user, const char *text, size_t length) {
    (void)user;
    (void)text;
    (void)length;
    return cli_stop_signal() == 0;
}

static int measure(cli_workspace *workspace, lk_model *model, lk_adapter *adapter, const char *name, const char *prompt,
                   const lk_generate_options *options, int64_t max_tokens) {
    lk_generator *generator;
    lk_generate_report report;
    lk_status status = lk_generator_create_batch(model, adapter, max_tokens, options->num_beams, &generator);
    for (int i = 0; i < 2 && status == LK_OK; i++) { /* the first run warms up */
        status = lk_generator_run(generator, prompt, options, ignore, NULL, &report);
    }
    lk_generator_destroy(generator);
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    cli_message("%-7s %.1f new tokens/s (%d), prompt at %.1f tokens/s", name,
                report.new_seconds > 0 ? (double)report.new_tokens / report.new_seconds : 0, (int)report.new_tokens,
                report.prompt_seconds > 0 ? (double)report.prompt_tokens / report.prompt_seconds : 0);
    return CLI_DONE;
}

static void remove_folder(const char *folder) {
    static const char *const names[] = {"config.json",           "model.safetensors",       "tokenizer.json",
                                        "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)remove(path);
    }
    (void)rmdir(folder);
}

/* The merged model is written to a temporary folder and loaded from there: as a user would have it. */
static int measure_merged(cli_workspace *workspace, const char *prompt, const lk_generate_options *options,
                          int64_t max_tokens) {
    char folder[256];
    if (!cli_temporary_path("merged", folder, sizeof folder) || mkdtemp(folder) == NULL) {
        return cli_failed("%s: cannot make a temporary folder", folder);
    }
    lk_model *merged = NULL;
    lk_status status = lk_merge(workspace->model, workspace->adapter, LK_DTYPE_F32, folder, NULL, NULL);
    status = status == LK_OK ? lk_model_load(workspace->session, folder, &workspace->model_options, &merged) : status;
    int result = status == LK_OK ? measure(workspace, merged, NULL, "merged", prompt, options, max_tokens)
                                 : cli_library_failed(workspace->context, status);
    lk_model_destroy(merged);
    remove_folder(folder);
    return result;
}

int cli_generate_stats(cli_workspace *workspace, const char *prompt, const lk_generate_options *options,
                       int64_t max_tokens) {
    int result = measure(workspace, workspace->model, NULL, "base", prompt, options, max_tokens);
    if (result == CLI_DONE && workspace->adapter != NULL) {
        result = measure(workspace, workspace->model, workspace->adapter, "adapter", prompt, options, max_tokens);
    }
    if (result == CLI_DONE && workspace->adapter != NULL) {
        result = measure_merged(workspace, prompt, options, max_tokens);
    }
    return result;
}
