/* lorikeet bench report FILE.json... */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static const char description[] =
    "Reads the --json files of other parts and writes one page. Files with the same label are one machine: their "
    "parts\n"
    "are joined, and the tables of a part that was run in pieces, too. Different ones stand side by side.";

static const char examples[] = "  lorikeet bench report kernels.json train.json --html report.html\n"
                               "  lorikeet bench report desk.json server.json --html both.html";

static const char *label_of(const json_t *document) {
    return bench_text(json_object_get(document, "machine"), "label");
}

/* Rows of the same table follow one another; settings stay those of the first. */
static void join_part(json_t *into, const json_t *part) {
    const char *key;
    json_t *table;
    json_object_foreach((json_t *)(uintptr_t)part, key, table) {
        json_t *there = json_object_get(into, key);
        if (there == NULL) {
            json_object_set(into, key, table);
        } else if (json_is_array(there) && json_is_array(table)) {
            json_array_extend(there, table);
        }
    }
}

static void join(json_t *documents, json_t *document) {
    size_t i;
    json_t *there, *part;
    const char *key;
    json_array_foreach(documents, i, there) {
        if (strcmp(label_of(there), label_of(document)) != 0) {
            continue;
        }
        json_object_foreach(document, key, part) {
            json_t *same = json_object_get(there, key);
            if (same == NULL) {
                json_object_set(there, key, part);
            } else if (json_is_object(same) && strcmp(key, "machine") != 0) {
                join_part(same, part);
            }
        }
        return;
    }
    json_array_append(documents, document);
}

static int read_all(int count, const char **paths, json_t *documents) {
    for (int i = 0; i < count; i++) {
        json_error_t error;
        json_t *document = json_load_file(paths[i], 0, &error);
        if (document == NULL) {
            return cli_failed("%s: %s", paths[i], error.text);
        }
        if (!json_is_object(json_object_get(document, "machine"))) {
            json_decref(document);
            return cli_failed("%s: not a result of 'lorikeet bench'", paths[i]);
        }
        join(documents, document);
        json_decref(document);
    }
    return CLI_DONE;
}

int bench_report(int argc, const char **argv) {
    const char *html = NULL;
    cli_options options = {.usage = "FILE.json... --html FILE", .description = description, .examples = examples};
    cli_group(&options, "Results:");
    cli_text(&options, "html", 0, &html, "FILE", "the page; it needs no other file");
    cli_required(&options);
    /* files come first: the parser takes options only */
    int files = 1;
    while (files < argc && argv[files][0] != '-') {
        files++;
    }
    const char **rest = calloc((size_t)argc + 1, sizeof *rest);
    json_t *documents = json_array();
    int result = CLI_USAGE;
    if (rest == NULL || documents == NULL) {
        result = cli_failed("out of memory");
    } else {
        rest[0] = argv[0];
        memcpy(rest + 1, argv + files, (size_t)(argc - files) * sizeof *rest);
        cli_parse_result parsed = cli_parse(&options, argc - files + 1, rest);
        result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
        if (parsed == CLI_PARSED && files == 1) {
            result = cli_usage("name the .json files first");
        } else if (parsed == CLI_PARSED) {
            result = read_all(files - 1, argv + 1, documents);
            result = result == CLI_DONE ? bench_html_write(html, documents) : result;
        }
    }
    json_decref(documents);
    free(rest);
    cli_options_free(&options);
    return result;
}
