/* lorikeet bench: finds the part and hands over to it. */
#include "bench.h"

#include <string.h>

typedef struct part {
    const char *name, *summary;
    int (*run)(int argc, const char **argv);
} part;

static const part parts[] = {
#define LK_BENCH(name, title, summary) {title, summary, bench_##name},
#include "bench.def"
#undef LK_BENCH
};
enum { PARTS = sizeof parts / sizeof parts[0] };

static void print_help(FILE *stream) {
    fputs("Measures this machine: kernels, training, and how they compare with other programs. Each part prints a\n"
          "table, and writes all of its figures as JSON or CSV and as one page with pictures that also prints well.\n"
          "Times mean something only on a machine that does nothing else.\n\n"
          "Usage: lorikeet bench PART [OPTION...]\n\n",
          stream);
    for (int i = 0; i < PARTS; i++) {
        fprintf(stream, "  %-15s %s\n", parts[i].name, parts[i].summary);
    }
    fputs("\n'lorikeet bench PART --help' explains a part. To compare devices or machines, run the same part on each\n"
          "with --device and --json, and lay the results side by side.\n\nExamples:\n"
          "  lorikeet bench train --device cpu --json cpu.json\n"
          "  lorikeet bench train --device vulkan --json vulkan.json\n"
          "  lorikeet bench report cpu.json vulkan.json --html both.html\n",
          stream);
}

int cli_command_bench(int argc, const char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? CLI_USAGE : CLI_DONE;
    }
    const char *names[PARTS + 1] = {NULL};
    for (int i = 0; i < PARTS; i++) {
        names[i] = parts[i].name;
        if (strcmp(parts[i].name, argv[1]) == 0) {
            static char command[48];
            snprintf(command, sizeof command, "bench %s", parts[i].name);
            cli_set_command(command);
            argv[1] = command; /* for the usage line */
            return parts[i].run(argc - 1, argv + 1);
        }
    }
    if (argv[1][0] == '-') {
        return cli_usage("unknown option %s", argv[1]);
    }
    const char *closest = cli_closest(argv[1], names);
    return closest != NULL ? cli_usage("unknown part '%s'; did you mean '%s'?", argv[1], closest)
                           : cli_usage("unknown part '%s'", argv[1]);
}
