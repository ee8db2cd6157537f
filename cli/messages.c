#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "progress.h"

static const char *command_name;

void cli_set_command(const char *name) {
    command_name = name;
}

static void print_line(const char *format, va_list arguments) {
    cli_progress_interrupt();
    fprintf(stderr, "lorikeet%s%s: ", command_name != NULL ? " " : "", command_name != NULL ? command_name : "");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

void cli_message(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
}

int cli_failed(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
    return CLI_FAILED;
}

int cli_usage(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
    fprintf(stderr, "See 'lorikeet %s%s--help'.\n", command_name != NULL ? command_name : "",
            command_name != NULL ? " " : "");
    return CLI_USAGE;
}

int cli_library_failed(const lk_context *context, lk_status status) {
    const char *message = context != NULL ? lk_error_message(context) : "";
    return cli_failed("%s", message[0] != '\0' ? message : lk_status_text(status));
}

int cli_print_json(json_t *value) {
    if (value == NULL) {
        return cli_failed("out of memory while writing JSON");
    }
    int result = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(value);
    if (result != 0 || putchar('\n') == EOF) {
        return cli_failed("cannot write to standard output");
    }
    return CLI_DONE;
}

/* Edit distance with transpositions (optimal string alignment), over three rows. Words longer than the rows are far. */
static int edit_distance(const char *a, const char *b) {
    enum { LONGEST = 40 };
    int rows[3][LONGEST + 1];
    int length_a = (int)strlen(a);
    int length_b = (int)strlen(b);
    if (length_a > LONGEST || length_b > LONGEST) {
        return LONGEST;
    }
    int *before = rows[0];
    int *above = rows[1];
    int *row = rows[2];
    for (int j = 0; j <= length_b; j++) {
        above[j] = j;
        before[j] = j;
    }
    for (int i = 1; i <= length_a; i++) {
        row[0] = i;
        for (int j = 1; j <= length_b; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) {
                best = before[j - 2] + 1;
            }
            row[j] = best;
        }
        int *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[length_b];
}

const char *cli_closest(const char *word, const char *const *names) {
    const char *closest = NULL;
    int smallest = 0;
    for (; *names != NULL; names++) {
        int distance = edit_distance(word, *names);
        /* what was typed so far may also be the beginning of a name */
        if (strlen(word) >= 3 && strncmp(word, *names, strlen(word)) == 0) {
            distance = 1;
        }
        if (closest == NULL || distance < smallest) {
            closest = *names;
            smallest = distance;
        }
    }
    int length = (int)strlen(word);
    return closest != NULL && smallest <= 1 + length / 4 && smallest < length ? closest : NULL;
}
