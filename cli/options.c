#include "options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <popt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* ---- declaring ---- */

static const char no_room[] = "internal error: more options than CLI_MAX_OPTIONS\n";

static cli_option *add(cli_options *options, cli_option_kind kind, const char *name, char letter, void *target,
                       const char *argument) {
    if (options->count == CLI_MAX_OPTIONS) {
        fputs(no_room, stderr);
        exit(CLI_FAILED);
    }
    cli_option *option = &options->rows[options->count++];
    option->kind = kind;
    option->name = name;
    option->letter = letter;
    option->target = target;
    option->argument = argument;
    return option;
}

/* The help text with the choices and the default behind it. */
static void set_help(cli_option *option, const char *help, const char *default_text) {
    char choices[160] = "";
    for (const char *const *choice = option->choices; choice != NULL && *choice != NULL; choice++) {
        size_t used = strlen(choices);
        snprintf(choices + used, sizeof(choices) - used, "%s%s", used == 0 ? ": " : ", ", *choice);
    }
    bool says_default = default_text[0] == '\0' || strstr(help, "default") != NULL;
    snprintf(option->help, sizeof(option->help), "%s%s%s%s%s", help, choices, says_default ? "" : " (default ",
             says_default ? "" : default_text, says_default ? "" : ")");
}

void cli_group(cli_options *options, const char *title) {
    cli_option *option = add(options, CLI_GROUP, "", 0, NULL, NULL);
    snprintf(option->help, sizeof(option->help), "%s", title);
}

void cli_flag(cli_options *options, const char *name, char letter, bool *target, bool value, const char *help) {
    cli_option *option = add(options, CLI_FLAG, name, letter, target, NULL);
    option->flag_value = value;
    set_help(option, help, "");
}

void cli_text(cli_options *options, const char *name, char letter, const char **target, const char *argument,
              const char *help) {
    cli_option *option = add(options, CLI_TEXT, name, letter, (void *)target, argument);
    set_help(option, help, *target != NULL ? *target : "");
}

void cli_text_list(cli_options *options, const char *name, char letter, cli_texts *target, const char *argument,
                   const char *help) {
    cli_option *option = add(options, CLI_TEXTS, name, letter, target, argument);
    set_help(option, help, "");
}

void cli_int32(cli_options *options, const char *name, char letter, int32_t *target, int32_t minimum, int32_t maximum,
               const char *help) {
    cli_option *option = add(options, CLI_INT32, name, letter, target, "N");
    option->minimum = minimum;
    option->maximum = maximum;
    char text[32];
    snprintf(text, sizeof(text), "%" PRId32, *target);
    set_help(option, help, text);
}

void cli_int64(cli_options *options, const char *name, char letter, int64_t *target, int64_t minimum,
               const char *help) {
    cli_option *option = add(options, CLI_INT64, name, letter, target, "N");
    option->minimum = (double)minimum;
    option->maximum = 1e15; /* exact in a double */
    char text[32];
    snprintf(text, sizeof(text), "%" PRId64, *target);
    set_help(option, help, text);
}

void cli_size(cli_options *options, const char *name, char letter, int64_t *target, const char *help) {
    set_help(add(options, CLI_BYTES, name, letter, target, "SIZE"), help, "");
}

void cli_uint64(cli_options *options, const char *name, char letter, uint64_t *target, const char *help) {
    cli_option *option = add(options, CLI_UINT64, name, letter, target, "N");
    char text[32];
    snprintf(text, sizeof(text), "%" PRIu64, *target);
    set_help(option, help, text);
}

void cli_real(cli_options *options, const char *name, char letter, double *target, double minimum, double maximum,
              const char *help) {
    cli_option *option = add(options, CLI_REAL, name, letter, target, "X");
    option->minimum = minimum;
    option->maximum = maximum;
    char text[32];
    snprintf(text, sizeof(text), "%g", *target);
    set_help(option, help, text);
}

void cli_choice(cli_options *options, const char *name, char letter, int *target, const char *const *choices,
                const char *help) {
    cli_option *option = add(options, CLI_CHOICE, name, letter, target, "NAME");
    option->choices = choices;
    set_help(option, help, choices[*target]);
}

void cli_choice_text(cli_options *options, const char *name, char letter, const char **target,
                     const char *const *choices, const char *help) {
    cli_option *option = add(options, CLI_CHOICE_TEXT, name, letter, (void *)target, "NAME");
    option->choices = choices;
    set_help(option, help, *target != NULL ? *target : "");
}

void cli_required(cli_options *options) {
    options->rows[options->count - 1].required = true;
}

bool cli_given(const cli_options *options, const char *name) {
    for (int i = 0; i < options->count; i++) {
        if (strcmp(options->rows[i].name, name) == 0) {
            return options->rows[i].given;
        }
    }
    return false;
}

/* ---- values ---- */

/* Reads a whole number in the option's range; false after a message. */
/* A number and a unit, of 1024 bytes each step. */
static bool parse_size(const cli_option *option, const char *text, int64_t *out) {
    static const char units[] = "KMGT";
    char *end;
    double value = strtod(text, &end);
    const char *unit = *end != '\0' && end != text ? strchr(units, *end) : NULL;
    for (const char *at = units; unit != NULL && at <= unit; at++) {
        value *= 1024.0;
    }
    end += unit != NULL;
    if (end == text || *end != '\0' || !(value >= 0.0 && value < 1e18)) {
        cli_usage("--%s %s: not a size such as 512M or 1.5G", option->name, text);
        return false;
    }
    *out = (int64_t)value;
    return true;
}

static bool parse_integer(const cli_option *option, const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0') {
        cli_usage("--%s %s: not a whole number", option->name, text);
        return false;
    }
    if (errno == ERANGE || (double)value < option->minimum || (double)value > option->maximum) {
        if (option->kind == CLI_INT64 && (double)value <= option->maximum) {
            cli_usage("--%s %s: must be at least %.0f", option->name, text, option->minimum);
        } else {
            cli_usage("--%s %s: must be from %.0f to %.0f", option->name, text, option->minimum, option->maximum);
        }
        return false;
    }
    *out = value;
    return true;
}

static bool parse_unsigned(const cli_option *option, const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || text[0] == '-' || errno == ERANGE) {
        cli_usage("--%s %s: not a whole number from 0 to %" PRIu64, option->name, text, UINT64_MAX);
        return false;
    }
    *out = value;
    return true;
}

static bool parse_real(const cli_option *option, const char *text, double *out) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value)) {
        cli_usage("--%s %s: not a number", option->name, text);
        return false;
    }
    if (value < option->minimum || value > option->maximum) {
        if (option->maximum >= 1e300) {
            cli_usage("--%s %s: must be at least %g", option->name, text, option->minimum);
        } else {
            cli_usage("--%s %s: must be from %g to %g", option->name, text, option->minimum, option->maximum);
        }
        return false;
    }
    *out = value;
    return true;
}

static bool parse_choice(const cli_option *option, const char *text, int *out) {
    char all[256] = "";
    for (int i = 0; option->choices[i] != NULL; i++) {
        if (strcmp(option->choices[i], text) == 0) {
            *out = i;
            return true;
        }
        size_t used = strlen(all);
        snprintf(all + used, sizeof(all) - used, "%s%s", used == 0 ? "" : ", ", option->choices[i]);
    }
    cli_usage("--%s %s: must be one of %s", option->name, text, all);
    return false;
}

static bool store_another(cli_options *options, cli_option *option, char *text) {
    cli_texts *list = option->target;
    if (options->num_more == CLI_MAX_TEXTS) {
        cli_usage("--%s %s: there are more than %d such options", option->name, text, CLI_MAX_TEXTS);
        free(text);
        return false;
    }
    options->more[options->num_more++] = text;
    list->items[list->count++] = text;
    return true;
}

/* Stores the value of options->rows[index]; takes over `text`, which a flag does not have. */
static bool store(cli_options *options, int index, char *text) {
    cli_option *option = &options->rows[index];
    option->given = true;
    if (option->kind != CLI_FLAG && text == NULL) {
        cli_usage("--%s: out of memory", option->name);
        return false;
    }
    if (option->kind == CLI_TEXTS) {
        return store_another(options, option, text);
    }
    free(options->values[index]);
    options->values[index] = text;
    int64_t integer = 0;
    int choice = 0;
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)option->target = option->flag_value;
        return true;
    case CLI_TEXT:
        *(const char **)option->target = text;
        return true;
    case CLI_INT32:
        if (!parse_integer(option, text, &integer)) {
            return false;
        }
        *(int32_t *)option->target = (int32_t)integer;
        return true;
    case CLI_INT64:
        return parse_integer(option, text, option->target);
    case CLI_UINT64:
        return parse_unsigned(option, text, option->target);
    case CLI_BYTES:
        return parse_size(option, text, option->target);
    case CLI_REAL:
        return parse_real(option, text, option->target);
    case CLI_CHOICE:
        return parse_choice(option, text, option->target);
    case CLI_CHOICE_TEXT:
        if (!parse_choice(option, text, &choice)) {
            return false;
        }
        *(const char **)option->target = option->choices[choice];
        return true;
    case CLI_TEXTS:
    case CLI_GROUP:
        break;
    }
    return false;
}

/* ---- parsing and help ---- */

/* One popt table per group, included by the first one. The rows of all lie in `tables`, each group ended by a zero row.
 */
typedef struct popt_tables {
    struct poptOption top[CLI_MAX_OPTIONS + 1];
    struct poptOption rows[2 * CLI_MAX_OPTIONS + 4];
} popt_tables;

enum { VALUE_HELP = 1000 };

static void build_tables(cli_options *options, popt_tables *tables) {
    memset(tables, 0, sizeof(*tables));
    int top = 0;
    int row = 0;
    for (int i = 0; i < options->count; i++) {
        cli_option *option = &options->rows[i];
        if (option->kind == CLI_GROUP) {
            row += top > 0; /* the zero row that ends the group before */
            tables->top[top++] =
                (struct poptOption){NULL, '\0', POPT_ARG_INCLUDE_TABLE, &tables->rows[row], 0, option->help, NULL};
        } else {
            tables->rows[row++] = (struct poptOption){
                option->name, option->letter,  option->kind == CLI_FLAG ? POPT_ARG_NONE : POPT_ARG_STRING, NULL, i + 1,
                option->help, option->argument};
        }
    }
    tables->rows[row++] = (struct poptOption){"help", 'h', POPT_ARG_NONE, NULL, VALUE_HELP, "show this text", NULL};
}

static void print_help(const cli_options *options, poptContext context) {
    printf("%s\n\n", options->description);
    poptPrintHelp(context, stdout, 0);
    if (options->examples != NULL) {
        printf("\nExamples:\n%s\n", options->examples);
    }
}

static void report_unknown(const cli_options *options, const char *given) {
    const char *names[CLI_MAX_OPTIONS + 2];
    int count = 0;
    for (int i = 0; i < options->count; i++) {
        if (options->rows[i].kind != CLI_GROUP) {
            names[count++] = options->rows[i].name;
        }
    }
    names[count++] = "help";
    names[count] = NULL;
    char word[64];
    snprintf(word, sizeof(word), "%s", given + strspn(given, "-"));
    word[strcspn(word, "=")] = '\0';
    const char *closest = strncmp(given, "--", 2) == 0 ? cli_closest(word, names) : NULL;
    if (closest != NULL) {
        cli_usage("unknown option %s; did you mean --%s?", given, closest);
    } else {
        cli_usage("unknown option %s", given);
    }
}

static void report_popt_error(const cli_options *options, poptContext context, int error) {
    const char *given = poptBadOption(context, POPT_BADOPTION_NOALIAS);
    if (error == POPT_ERROR_BADOPT) {
        report_unknown(options, given);
    } else if (error == POPT_ERROR_NOARG) {
        cli_usage("%s needs a value", given);
    } else if (error == POPT_ERROR_UNWANTEDARG) {
        cli_usage("%s takes no value", given);
    } else {
        cli_usage("%s: %s", given, poptStrerror(error));
    }
}

static cli_parse_result parse_all(cli_options *options, poptContext context) {
    int value;
    while ((value = poptGetNextOpt(context)) > 0) {
        if (value == VALUE_HELP) {
            print_help(options, context);
            return CLI_PARSED_HELP;
        }
        if (!store(options, value - 1, poptGetOptArg(context))) {
            return CLI_PARSED_WRONG;
        }
    }
    if (value < -1) {
        report_popt_error(options, context, value);
        return CLI_PARSED_WRONG;
    }
    const char *extra = poptGetArg(context);
    if (extra != NULL) {
        cli_usage("unexpected argument '%s'", extra);
        return CLI_PARSED_WRONG;
    }
    for (int i = 0; i < options->count; i++) {
        const cli_option *option = &options->rows[i];
        if (option->required && !option->given) {
            cli_usage("--%s %s is missing", option->name, option->argument);
            return CLI_PARSED_WRONG;
        }
    }
    return CLI_PARSED;
}

cli_parse_result cli_parse(cli_options *options, int argc, const char **argv) {
    char title[64];
    snprintf(title, sizeof(title), "lorikeet %s", argv[0]);
    const char **arguments = malloc(((size_t)argc + 1) * sizeof(*arguments));
    popt_tables tables;
    build_tables(options, &tables);
    poptContext context = NULL;
    cli_parse_result result = CLI_PARSED_WRONG;
    if (arguments != NULL) {
        memcpy(arguments, argv, (size_t)argc * sizeof(*arguments));
        arguments[0] = title;
        arguments[argc] = NULL;
        context = poptGetContext(NULL, argc, arguments, tables.top, 0);
    }
    if (context == NULL) {
        cli_failed("out of memory");
    } else {
        poptSetOtherOptionHelp(context, options->usage);
        result = parse_all(options, context);
        poptFreeContext(context);
    }
    free(arguments);
    return result;
}

void cli_options_free(cli_options *options) {
    for (int i = 0; i < options->count; i++) {
        free(options->values[i]);
        options->values[i] = NULL;
    }
    for (int i = 0; i < options->num_more; i++) {
        free(options->more[i]);
    }
    options->num_more = 0;
}
