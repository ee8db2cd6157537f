/* What was measured, as JSON, CSV and HTML. */
#define _DEFAULT_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

static double load_average(void) {
    double load[1];
    return getloadavg(load, 1) == 1 ? load[0] : -1.0;
}

void bench_results_options(bench_results *results, cli_options *options) {
    results->load_before = load_average();
    cli_group(options, "Results:");
    cli_text(options, "json", 0, &results->json_path, "FILE", "all figures, for 'lorikeet bench report' and programs");
    cli_text(options, "csv", 0, &results->csv_path, "FILE", "the tables, for spreadsheets");
    cli_text(options, "html", 0, &results->html_path, "FILE", "a page with pictures that needs no other file");
    cli_text(options, "label", 0, &results->label, "TEXT",
             "what to call this machine in reports (default: the device's name)");
}

double bench_number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

const char *bench_text(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

int bench_parse_list(const char *option, const char *text, int64_t *values, int most) {
    int count = 0;
    for (const char *at = text; *at != '\0';) {
        char *end;
        errno = 0;
        long long value = strtoll(at, &end, 10);
        if (end == at || errno != 0 || value < 1 || value > (1 << 24) || (*end != ',' && *end != '\0') ||
            count == most) {
            cli_usage("--%s %s: expected up to %d whole numbers from 1, separated by commas", option, text, most);
            return 0;
        }
        values[count++] = value;
        at = *end == ',' ? end + 1 : end;
    }
    if (count == 0) {
        cli_usage("--%s: the list is empty", option);
    }
    return count;
}

/* ---- the machine ---- */

static void processor_name(char *name, size_t size) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    snprintf(name, size, "unknown processor");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(name, size, "%s", colon + 2);
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

static json_t *describe_machine(const bench_results *results, const cli_workspace *workspace) {
    char processor[192], device[256] = "";
    processor_name(processor, sizeof processor);
    if (workspace->session != NULL) {
        snprintf(device, sizeof device, "%s", lk_session_device_name(workspace->session));
    }
    const char *label = results->label != NULL ? results->label : device[0] != '\0' ? device : processor;
    return json_pack("{s:s, s:s, s:s, s:I, s:f, s:f}", "label", label, "device", device, "processor", processor,
                     "processors", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "load_before", results->load_before,
                     "load_after", load_average());
}

static json_t *make_document(const bench_results *results, const cli_workspace *workspace, const char *name,
                             json_t *part) {
    char date[32] = "";
    time_t now = time(NULL);
    struct tm when;
    if (gmtime_r(&now, &when) != NULL) {
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &when);
    }
    return json_pack("{s:s, s:s, s:o, s:o}", "lorikeet", lk_version(), "date", date, "machine",
                     describe_machine(results, workspace), name, part);
}

/* ---- files ---- */

int bench_write_file(const char *path, int (*write)(FILE *file, void *user), void *user) {
    size_t size = strlen(path) + 8;
    char *part = malloc(size);
    if (part == NULL) {
        return cli_failed("%s: out of memory", path);
    }
    snprintf(part, size, "%s.part", path);
    FILE *file = fopen(part, "wb");
    int result = file != NULL ? write(file, user) : CLI_FAILED;
    bool failed = file == NULL || ferror(file) != 0 || result != CLI_DONE;
    failed = (file != NULL && fclose(file) != 0) || failed;
    if (failed || rename(part, path) != 0) {
        result = cli_failed("%s: %s", path, strerror(errno));
        remove(part);
    }
    free(part);
    return result;
}

static int write_json(FILE *file, void *user) {
    int result = json_dumpf(user, file, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    fputc('\n', file);
    return result == 0 ? CLI_DONE : CLI_FAILED;
}

/* ---- CSV: one table of all rows; the first column says which they are of ---- */

static void collect_columns(const json_t *part, json_t *columns) {
    const char *key, *column;
    json_t *table, *row, *value;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)part, key, table) {
        json_array_foreach(table, i, row) {
            json_object_foreach(row, column, value) {
                if (!json_is_array(value) && !json_is_object(value)) {
                    json_object_set_new(columns, column, json_true());
                }
            }
        }
    }
}

static void put_field(FILE *file, const json_t *value) {
    if (json_is_string(value)) {
        fputc('"', file);
        for (const char *c = json_string_value(value); *c != '\0'; c++) {
            fputs(*c == '"' ? "\"\"" : (char[]){*c, '\0'}, file);
        }
        fputc('"', file);
    } else if (json_is_integer(value)) {
        fprintf(file, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_real(value)) {
        fprintf(file, "%.9g", json_real_value(value));
    } else if (json_is_boolean(value)) {
        fputs(json_is_true(value) ? "1" : "0", file);
    }
}

static int write_csv(FILE *file, void *user) {
    const json_t *part = user;
    json_t *columns = json_object(), *table, *row, *unused;
    const char *name, *column;
    size_t i;
    if (columns == NULL) {
        return CLI_FAILED;
    }
    collect_columns(part, columns);
    fputs("table", file);
    json_object_foreach(columns, column, unused) {
        fprintf(file, ",%s", column);
    }
    fputs("\r\n", file);
    json_object_foreach((json_t *)user, name, table) {
        json_array_foreach(table, i, row) {
            if (!json_is_object(row)) {
                continue;
            }
            fputs(name, file);
            json_object_foreach(columns, column, unused) {
                fputc(',', file);
                put_field(file, json_object_get(row, column));
            }
            fputs("\r\n", file);
        }
    }
    json_decref(columns);
    return CLI_DONE;
}

int bench_results_write(const bench_results *results, const cli_workspace *workspace, const char *name, json_t *part) {
    json_t *document = part != NULL ? make_document(results, workspace, name, part) : NULL;
    if (document == NULL) {
        return cli_failed("out of memory while writing results");
    }
    int result = CLI_DONE;
    if (results->json_path != NULL) {
        result = bench_write_file(results->json_path, write_json, document);
    }
    if (results->csv_path != NULL && result == CLI_DONE) {
        result = bench_write_file(results->csv_path, write_csv, json_object_get(document, name));
    }
    if (results->html_path != NULL && result == CLI_DONE) {
        json_t *documents = json_pack("[O]", document);
        result = documents != NULL ? bench_html_write(results->html_path, documents) : cli_failed("out of memory");
        json_decref(documents);
    }
    json_decref(document);
    return result;
}
