/* lorikeet: finds the command and hands over to it. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

typedef struct command {
    const char *name, *summary;
    cli_command_function run;
} command;

static const command commands[] = {
#define LK_COMMAND(name, summary) {#name, summary, cli_command_##name},
#include "commands.def"
#undef LK_COMMAND
};
enum { NUM_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_help(FILE *stream) {
    fputs("Lorikeet fine-tunes transformer models with the LoRA family of methods on whatever hardware is there.\n\n"
          "Usage: lorikeet COMMAND [OPTION...]\n\n",
          stream);
    for (int i = 0; i < NUM_COMMANDS; i++) {
        fprintf(stream, "  %-10s %s\n", commands[i].name, commands[i].summary);
    }
    fputs("\n'lorikeet COMMAND --help' explains a command; 'lorikeet --version' prints the version.\n"
          "Results go to standard output, progress and messages to standard error.\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage, 130 (143) stopped by Ctrl-C (SIGTERM).\n",
          stream);
}

static int unknown_command(const char *name) {
    const char *names[NUM_COMMANDS + 1];
    for (int i = 0; i < NUM_COMMANDS; i++) {
        names[i] = commands[i].name;
    }
    names[NUM_COMMANDS] = NULL;
    const char *closest = cli_closest(name, names);
    if (closest != NULL) {
        return cli_usage("unknown command '%s'; did you mean '%s'?", name, closest);
    }
    return cli_usage("unknown command '%s'", name);
}

static int run_command(int argc, const char **argv) {
    const char *name = argv[0];
    for (int i = 0; i < NUM_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            cli_set_command(name);
            return commands[i].run(argc, argv);
        }
    }
    return unknown_command(name);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    const char *first = argv[1];
    int status = CLI_DONE;
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0 || (strcmp(first, "help") == 0 && argc == 2)) {
        print_help(stdout);
    } else if (strcmp(first, "help") == 0) { /* lorikeet help train */
        const char *arguments[] = {argv[2], "--help"};
        status = run_command(2, arguments);
    } else if (strcmp(first, "--version") == 0) {
        printf("lorikeet %s\n", lk_version());
    } else if (first[0] == '-') {
        return cli_usage("unknown option %s before the command", first);
    } else {
        status = run_command(argc - 1, (const char **)argv + 1);
    }
    if (fflush(stdout) != 0 && status == CLI_DONE) {
        status = cli_failed("cannot write to standard output");
    }
    return status;
}
