/* Options are declared once, each with a target that already holds its default: parsing, ranges, the help text with the
 * defaults, and spelling suggestions all follow from that. popt does the parsing and the layout of the help. */
#ifndef LK_CLI_OPTIONS_H
#define LK_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum cli_option_kind {
    CLI_GROUP, /* a heading */
    CLI_FLAG,
    CLI_TEXT,
    CLI_TEXTS, /* may be given several times */
    CLI_INT32,
    CLI_INT64,
    CLI_UINT64,
    CLI_BYTES, /* "512M", "1.5G"; an int64_t */
    CLI_REAL,
    CLI_CHOICE,     /* an index into choices */
    CLI_CHOICE_TEXT /* one of choices, as text */
} cli_option_kind;

typedef struct cli_option {
    cli_option_kind kind;
    const char *name;
    char letter; /* 0: none */
    void *target;
    double minimum, maximum; /* of numbers, inclusive */
    const char *const *choices;
    const char *argument; /* "FILE" */
    char help[320];       /* with the default */
    bool flag_value;      /* what a flag stores */
    bool required, given;
} cli_option;

enum { CLI_MAX_OPTIONS = 96, CLI_MAX_TEXTS = 32 };

/* The values of an option that may be given several times, in order; NULL behind the last one. */
typedef struct cli_texts {
    const char *items[CLI_MAX_TEXTS + 1];
    int count;
} cli_texts;

typedef struct cli_options {
    const char *usage;       /* after "lorikeet train ": "--model MODEL --data FILE --out DIR [OPTION...]" */
    const char *description; /* what the command does: whole paragraphs, lines of at most 100 columns */
    const char *examples;    /* below the options; may be NULL */
    cli_option rows[CLI_MAX_OPTIONS];
    int count;
    char *values[CLI_MAX_OPTIONS]; /* texts that targets point to, by option */
    char *more[CLI_MAX_TEXTS];     /* and those of lists */
    int num_more;
} cli_options;

/* The help texts do not say the default: it is taken from the target, unless that is empty, zero for a required option,
 * or the text says "default" itself. Option and text are kept by reference except for the help. */
void cli_group(cli_options *options, const char *title);
void cli_flag(cli_options *options, const char *name, char letter, bool *target, bool value, const char *help);
void cli_text(cli_options *options, const char *name, char letter, const char **target, const char *argument,
              const char *help);
void cli_text_list(cli_options *options, const char *name, char letter, cli_texts *target, const char *argument,
                   const char *help);
void cli_int32(cli_options *options, const char *name, char letter, int32_t *target, int32_t minimum, int32_t maximum,
               const char *help);
void cli_int64(cli_options *options, const char *name, char letter, int64_t *target, int64_t minimum, const char *help);
void cli_uint64(cli_options *options, const char *name, char letter, uint64_t *target, const char *help);
void cli_size(cli_options *options, const char *name, char letter, int64_t *target, const char *help);
void cli_real(cli_options *options, const char *name, char letter, double *target, double minimum, double maximum,
              const char *help);
void cli_choice(cli_options *options, const char *name, char letter, int *target, const char *const *choices,
                const char *help);
void cli_choice_text(cli_options *options, const char *name, char letter, const char **target,
                     const char *const *choices, const char *help);
/* The option added last must be given. */
void cli_required(cli_options *options);

bool cli_given(const cli_options *options, const char *name);

typedef enum cli_parse_result { CLI_PARSED, CLI_PARSED_HELP, CLI_PARSED_WRONG } cli_parse_result;
/* CLI_PARSED_HELP: the help was printed to stdout; CLI_PARSED_WRONG: a message was printed. */
cli_parse_result cli_parse(cli_options *options, int argc, const char **argv);
void cli_options_free(cli_options *options);

#endif
