/* lorikeet generate: continues prompts on stdout as the text is made. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters.h"
#include "cli.h"

/* Text that is kept until all of it is there. */
typedef struct collected {
    char *text;
    size_t length, capacity;
} collected;

typedef struct generate_command {
    cli_workspace workspace;
    lk_generate_options generate_options;
    const char *prompt, *prompts_path;
    cli_texts stops, adapter_texts;
    cli_adapters adapters;
    int32_t *choices; /* with several adapters: for each prompt */
    const char *use;
    cli_prompts prompts;
    int64_t max_tokens; /* prompt and continuation; 0: what the model allows */
    int64_t batch;
    bool json, stats;
    lk_generator *generator;
    collected *texts; /* one for each prompt, where they are not printed as they are made */
    lk_generate_report *reports;
    bool out_of_memory;
} generate_command;

static const char description[] =
    "Continues a prompt, or answers it as a chat message. The text goes to standard output as it is made,\n"
    "without the prompt. Ctrl-C ends it after the current token.\n\n"
    "With --prompts, many prompts go through together: a file with one a line (.jsonl: {\"prompt\": ..} a line, other\n"
    "keys are kept). Then a JSON object a line is printed, {\"prompt\", \"text\", ..}, in the file's order.\n\n"
    "With several --adapter, {\"prompt\": .., \"adapter\": NAME} is continued with that one; all go through together.";

static const char examples[] =
    "  lorikeet generate --model model.gguf --prompt 'Once upon a time'\n"
    "  lorikeet generate --model model.gguf --adapter my-adapter --chat --prompt 'What is a lorikeet?' \\\n"
    "      --temperature 0.7 --top-p 0.9 --stop '###'\n"
    "  lorikeet generate --model model.gguf --prompt - --beams 4 --no-repeat-ngram 3 < prompt.txt\n"
    "  lorikeet generate --model model.gguf --prompts questions.jsonl --batch 8 > answers.jsonl\n"
    "  lorikeet generate --model model.gguf --adapter poet=poems --adapter clerk=letters --use clerk --prompt 'Dear'";

static void declare(generate_command *command, cli_options *options) {
    lk_generate_options *generate = &command->generate_options;
    options->usage = "--model PATH (--prompt TEXT | --prompts FILE) [OPTION...]";
    options->description = description;
    options->examples = examples;
    cli_group(options, "Model and prompt:");
    cli_model_options(&command->workspace, options);
    cli_text_list(options, "adapter", 0, &command->adapter_texts, "[NAME=]DIR",
                  "a PEFT folder; may be given several times, with names");
    cli_text(options, "use", 0, &command->use, "NAME",
             "with several adapters: the one for prompts that name none; none: the base (default: the first)");
    cli_text(options, "prompt", 'p', &command->prompt, "TEXT", "what to continue; -: standard input");
    cli_text(options, "prompts", 0, &command->prompts_path, "FILE", "many of them");
    cli_int64(options, "batch", 'b', &command->batch, 1, "with --prompts: how many go through together");
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
    cli_int64(options, "beams", 0, &generate->num_beams, 1, "beam search with so many beams; 1: none");
    cli_real(options, "length-penalty", 0, &generate->length_penalty, -100, 100,
             "of beams: above 0 favours longer texts, below 0 shorter ones");
    cli_flag(options, "early-stopping", 0, &generate->early_stopping, true, "of beams: end when --beams are finished");
    cli_real(options, "repetition-penalty", 0, &generate->repetition_penalty, 0.01, 100,
             "above 1: tokens that were there already become less likely");
    cli_int64(options, "no-repeat-ngram", 0, &generate->no_repeat_ngram_size, 0,
              "no sequence of so many tokens occurs twice; 0: they may");
    cli_text_list(options, "stop", 0, &command->stops, "TEXT", "end before this text; may be given several times");
    cli_group(options, "Result:");
    cli_flag(options, "json", 0, &command->json, true, "print text, counts and times as JSON when all is done");
    cli_flag(options, "stats", 0, &command->stats, true,
             "afterwards compare tokens/s of the base, with the adapter, and merged (on standard error)");
    cli_workspace_options(&command->workspace, options);
}

/* Keeps a piece of text; false when memory is out. */
static bool collect(collected *to, const char *text, size_t length) {
    if (to->length + length + 1 > to->capacity) {
        size_t capacity = 2 * (to->length + length + 1);
        char *larger = realloc(to->text, capacity);
        if (larger == NULL) {
            return false;
        }
        to->text = larger;
        to->capacity = capacity;
    }
    memcpy(to->text + to->length, text, length);
    to->length += length;
    to->text[to->length] = '\0';
    return true;
}

static bool take_text(void *user, size_t index, const char *text, size_t length) {
    generate_command *command = user;
    if (cli_stop_signal() != 0) {
        return false;
    }
    if (command->texts != NULL) {
        bool kept = collect(&command->texts[index], text, length);
        command->out_of_memory = command->out_of_memory || !kept;
        return kept;
    }
    return fwrite(text, 1, length, stdout) == length && fflush(stdout) == 0;
}

static double rate(int64_t tokens, double seconds) {
    return seconds > 0 ? (double)tokens / seconds : 0;
}

static json_t *result_json(const generate_command *command, size_t index) {
    const lk_generate_report *report = &command->reports[index];
    const collected *text = &command->texts[index];
    return json_pack("{s:s%,s:I,s:I,s:f,s:f,s:f,s:b}", "text", text->text != NULL ? text->text : "", text->length,
                     "prompt_tokens", (json_int_t)report->prompt_tokens, "new_tokens", (json_int_t)report->new_tokens,
                     "prompt_seconds", report->prompt_seconds, "new_seconds", report->new_seconds,
                     "new_tokens_per_second", rate(report->new_tokens, report->new_seconds), "stopped",
                     report->stopped);
}

/* With --prompts: a line each. */
static int print_lines(const generate_command *command, double seconds) {
    int64_t tokens = 0;
    for (size_t i = 0; i < command->prompts.count; i++) {
        json_t *line = json_copy(command->prompts.rows[i]), *result = result_json(command, i);
        int failed = line == NULL || result == NULL || json_object_update(line, result) != 0 ||
                     json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) != 0 || putchar('\n') == EOF;
        json_decref(line);
        json_decref(result);
        if (failed) {
            return cli_failed("cannot write to standard output");
        }
        tokens += command->reports[i].new_tokens;
    }
    if (!command->workspace.quiet) {
        cli_message("%zu prompts: %" PRId64 " new tokens in %.2f s, %.1f tokens/s", command->prompts.count, tokens,
                    seconds, rate(tokens, seconds));
    }
    return CLI_DONE;
}

static int print_one(const generate_command *command) {
    const lk_generate_report *report = &command->reports[0];
    if (command->json) {
        return cli_print_json(result_json(command, 0));
    }
    putchar('\n');
    if (!command->workspace.quiet) {
        cli_message("prompt %" PRId64 " tokens in %.2f s; %" PRId64 " new ones at %.1f tokens/s", report->prompt_tokens,
                    report->prompt_seconds, report->new_tokens, rate(report->new_tokens, report->new_seconds));
    }
    return CLI_DONE;
}

/* Room for the longest prompt, as it is tokenised, and the continuation. */
static int64_t needed_tokens(const generate_command *command) {
    enum { CHAT_TEMPLATE = 256 }; /* what a template adds at most, besides the system message */
    lk_tokenizer *tokenizer = lk_model_tokenizer(command->workspace.model);
    int64_t longest = 0, system = 0;
    for (size_t i = 0; tokenizer != NULL && i <= command->prompts.count; i++) {
        bool is_system = i == command->prompts.count;
        const char *text = is_system ? command->generate_options.system : command->prompts.texts[i];
        int32_t *ids;
        size_t count;
        if (text != NULL && lk_tokenizer_to_ids(tokenizer, text, strlen(text), true, &ids, &count) == LK_OK) {
            int64_t *most = is_system ? &system : &longest;
            *most = (int64_t)count > *most ? (int64_t)count : *most;
            lk_release(command->workspace.context, ids);
        }
    }
    int64_t tokens = command->generate_options.max_new_tokens + longest;
    tokens += command->generate_options.chat ? CHAT_TEMPLATE + system : 0;
    lk_model_info info;
    lk_model_get_info(command->workspace.model, &info);
    return info.max_position_embeddings > 0 && tokens > info.max_position_embeddings ? info.max_position_embeddings
                                                                                     : tokens;
}

static int read_prompts(generate_command *command) {
    int result = command->prompts_path != NULL ? cli_prompts_read(&command->prompts, command->prompts_path)
                                               : cli_prompts_one(&command->prompts, command->prompt);
    size_t count = command->prompts.count;
    if (result != CLI_DONE) {
        return result;
    }
    command->reports = calloc(count + 1, sizeof *command->reports);
    if (command->json || command->prompts_path != NULL) {
        command->texts = calloc(count + 1, sizeof *command->texts);
    }
    bool complete = command->reports != NULL && (command->texts != NULL || !command->json);
    return complete ? CLI_DONE : cli_failed("out of memory");
}

/* One adapter is used as it is; several are mixed, and each prompt gets its choice. */
static int open_adapters(generate_command *command) {
    cli_workspace *workspace = &command->workspace;
    if (command->adapter_texts.count == 1 && command->use == NULL) {
        const char *text = command->adapter_texts.items[0], *equals = strchr(text, '=');
        workspace->adapter_path = equals != NULL ? equals + 1 : text;
        return cli_open_adapter(workspace);
    }
    if (command->adapter_texts.count == 0) {
        return CLI_DONE;
    }
    command->choices = calloc(command->prompts.count + 1, sizeof *command->choices);
    if (command->choices == NULL) {
        return cli_failed("out of memory");
    }
    int result = cli_adapters_open(&command->adapters, workspace, &command->adapter_texts);
    if (result == CLI_DONE) {
        result = cli_adapters_choose(&command->adapters, &command->prompts, command->use, command->choices);
    }
    command->generate_options.adapters = command->choices;
    return result;
}

static int run(generate_command *command) {
    cli_workspace *workspace = &command->workspace;
    lk_generate_options *options = &command->generate_options;
    options->stop = command->stops.count > 0 ? command->stops.items : NULL;
    int result = read_prompts(command);
    if (result == CLI_DONE) {
        result = cli_open_model(workspace);
    }
    if (result == CLI_DONE) {
        result = open_adapters(command);
    }
    if (result != CLI_DONE) {
        return result;
    }
    int64_t max_tokens = command->max_tokens > 0 ? command->max_tokens : needed_tokens(command);
    int64_t together = command->prompts_path == NULL ? 1 : command->batch;
    together = together > (int64_t)command->prompts.count ? (int64_t)command->prompts.count : together;
    together = options->num_beams > 1 ? options->num_beams : together;
    lk_status status =
        lk_generator_create_batch(workspace->model, workspace->adapter, max_tokens, together, &command->generator);
    double started = cli_seconds();
    if (status == LK_OK) {
        cli_stop_install();
        status = lk_generator_run_batch(command->generator, command->prompts.texts, command->prompts.count, options,
                                        take_text, command, command->reports);
    }
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    if (command->out_of_memory) {
        return cli_failed("out of memory");
    }
    result = command->prompts_path != NULL ? print_lines(command, cli_seconds() - started) : print_one(command);
    if (result == CLI_DONE && command->stats && cli_stop_signal() == 0) {
        result = cli_generate_stats(workspace, command->prompts.texts[0], options, max_tokens);
    }
    return result == CLI_DONE && cli_stop_signal() != 0 ? CLI_SIGNAL + cli_stop_signal() : result;
}

static int check(const generate_command *command) {
    if ((command->prompt == NULL) == (command->prompts_path == NULL)) {
        return cli_usage("give one of --prompt and --prompts");
    }
    if (command->generate_options.system != NULL && !command->generate_options.chat) {
        return cli_usage("--system needs --chat");
    }
    if (command->generate_options.num_beams > 1 && command->generate_options.temperature > 0) {
        return cli_usage("--beams and --temperature exclude each other");
    }
    if (command->use != NULL && command->adapter_texts.count == 0) {
        return cli_usage("--use needs --adapter NAME=DIR");
    }
    if (command->stats && command->adapter_texts.count > 1) {
        return cli_usage("--stats compares one adapter with the base");
    }
    return CLI_DONE;
}

int cli_command_generate(int argc, const char **argv) {
    generate_command command = {.batch = 4};
    cli_options options = {0};
    cli_workspace_init(&command.workspace);
    lk_generate_options_init(&command.generate_options);
    declare(&command, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = check(&command);
        result = result == CLI_DONE ? run(&command) : result;
    }
    lk_generator_destroy(command.generator);
    cli_adapters_close(&command.adapters);
    free(command.choices);
    cli_workspace_close(&command.workspace);
    for (size_t i = 0; command.texts != NULL && i < command.prompts.count; i++) {
        free(command.texts[i].text);
    }
    free(command.texts);
    free(command.reports);
    cli_prompts_free(&command.prompts);
    cli_options_free(&options);
    return result;
}
