/* lorikeet bench train */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RANKS = 32 };

typedef struct command {
    cli_workspace workspace;
    bench_results results;
    bench_model model;
    const char *ranks, *methods;
    int32_t rank;
    json_t *part;
} command;

static const char description[] =
    "Trains adapters on random tokens and reports tokens per second and memory: for each of a list of ranks (with\n"
    "LoRA), for each of a list of methods (at one rank), and for that rank where the time of a step goes, operation "
    "by\n"
    "operation, and what lives in memory during a micro-batch. Time and memory depend on sizes, not on values, so the\n"
    "model may have random weights.";

static const char examples[] = "  lorikeet bench train --html train.html\n"
                               "  lorikeet bench train --model model.gguf --dtype bf16 --batch 4 --ranks 8,64\n"
                               "  lorikeet bench train --device cuda --size llama-3-8b --dtype bf16 --seq 2048";

static void print_row(const json_t *row) {
    char memory[32];
    if (json_object_get(row, "failure") != NULL) {
        printf("%-14s %5.0f  failed: %s\n", bench_text(row, "method"), bench_number(row, "rank"),
               bench_text(row, "failure"));
    } else {
        printf("%-14s %5.0f %12.0f %10.3f %11.1f %12s\n", bench_text(row, "method"), bench_number(row, "rank"),
               bench_number(row, "parameters"), bench_number(row, "seconds"), bench_number(row, "tokens_per_second"),
               cli_bytes(bench_number(row, "total_bytes"), memory));
    }
    fflush(stdout);
}

static int add_run(command *self, const char *table, const char *method, int32_t rank, json_t **profile) {
    bench_run run = {method, rank, self->model.data.batch, self->model.data.seq};
    json_t *row = bench_model_train(&self->model, &run, profile);
    if (row == NULL) {
        return cli_failed("out of memory");
    }
    print_row(row);
    return json_array_append_new(json_object_get(self->part, table), row) == 0 ? CLI_DONE : CLI_FAILED;
}

/* Seconds by operation, the largest first, of the profile's kernels. */
static json_t *time_by_op(const json_t *profile) {
    json_t *sums = json_object(), *list = json_array(), *program, *kernel, *value;
    const char *op;
    size_t i, j;
    double total = 0.0;
    json_array_foreach(json_object_get(profile, "programs"), i, program) {
        json_array_foreach(json_object_get(program, "kernels"), j, kernel) {
            double seconds = bench_number(kernel, "measured_seconds");
            total += seconds;
            op = bench_text(kernel, "op");
            json_object_set_new(sums, op, json_real(bench_number(sums, op) + seconds));
        }
    }
    while (json_object_size(sums) > 0) {
        const char *most = NULL;
        json_object_foreach(sums, op, value) {
            most = most == NULL || json_real_value(value) > bench_number(sums, most) ? op : most;
        }
        double seconds = bench_number(sums, most);
        if (seconds > 0.0) {
            json_array_append_new(
                list, json_pack("{s:s, s:f, s:f}", "op", most, "seconds", seconds, "share", seconds / total));
        }
        char name[64];
        snprintf(name, sizeof name, "%s", most);
        json_object_del(sums, name);
    }
    json_decref(sums);
    return list;
}

static void add_profile(command *self, const json_t *profile) {
    size_t i;
    json_t *row, *ops = time_by_op(profile);
    printf("\nwhere the time of a micro-batch goes, rank %d:\n", (int)self->rank);
    json_array_foreach(ops, i, row) {
        if (bench_number(row, "share") >= 0.005) {
            printf("%6.1f %%  %8.2f ms  %s\n", 100.0 * bench_number(row, "share"), 1e3 * bench_number(row, "seconds"),
                   bench_text(row, "op"));
        }
    }
    json_object_set_new(self->part, "time", ops);
    json_t *live = json_deep_copy(json_object_get(profile, "live_bytes"));
    const json_t *memory = json_object_get(profile, "memory");
    for (int m = 0; m < 4; m++) {
        static const char *const constant[] = {"weights", "adapter", "optimizer", "inputs"};
        json_object_set(live, constant[m], json_object_get(memory, constant[m]));
    }
    json_object_set_new(self->part, "live_bytes", live);
}

static int run(command *self) {
    int64_t ranks[MAX_RANKS];
    int count = bench_parse_list("ranks", self->ranks, ranks, MAX_RANKS);
    if (count == 0) {
        return CLI_USAGE;
    }
    int result = bench_model_open(&self->model, 0);
    if (result != CLI_DONE) {
        return result;
    }
    self->part = json_pack("{s:o, s:[], s:[]}", "settings", bench_model_settings(&self->model), "ranks", "methods");
    if (self->part == NULL) {
        return cli_failed("out of memory");
    }
    printf("%s\n\n%-14s %5s %12s %10s %11s %12s\n", lk_session_device_name(self->workspace.session), "method", "rank",
           "parameters", "s/step", "tokens/s", "memory");
    for (int i = 0; i < count && result == CLI_DONE && cli_stop_signal() == 0; i++) {
        result = add_run(self, "ranks", "lora", (int32_t)ranks[i], NULL);
    }
    json_t *profile = NULL;
    const char *const *methods = lk_adapter_methods();
    for (int i = 0; methods[i] != NULL && result == CLI_DONE && cli_stop_signal() == 0; i++) {
        char list[512], name[64];
        snprintf(list, sizeof list, ",%s,", self->methods);
        snprintf(name, sizeof name, ",%s,", methods[i]);
        bool wanted = strcmp(self->methods, "all") == 0 || strstr(list, name) != NULL;
        bool profiled = strcmp(methods[i], "lora") == 0; /* the baseline is always there */
        if (wanted || profiled) {
            result = add_run(self, "methods", methods[i], self->rank, profiled ? &profile : NULL);
        }
    }
    if (profile != NULL) {
        add_profile(self, profile);
        json_decref(profile);
    }
    if (cli_stop_signal() != 0) {
        return CLI_SIGNAL + cli_stop_signal();
    }
    return result == CLI_DONE ? bench_results_write(&self->results, &self->workspace, "train", json_incref(self->part))
                              : result;
}

int bench_train(int argc, const char **argv) {
    command self = {.ranks = "1,2,4,8,16,32,64,128,256", .methods = "all", .rank = 8};
    cli_options options = {.usage = "[OPTION...]", .description = description, .examples = examples};
    cli_workspace_init(&self.workspace);
    bench_model_init(&self.model, &self.workspace);
    bench_model_options(&self.model, &options);
    cli_group(&options, "Adapters:");
    cli_text(&options, "ranks", 0, &self.ranks, "LIST", "of LoRA, separated by commas");
    cli_text(&options, "methods", 0, &self.methods, "LIST", "all, or names separated by commas");
    cli_int32(&options, "rank", 'r', &self.rank, 1, 65536, "of the methods and of the profile");
    bench_results_options(&self.results, &options);
    cli_workspace_options(&self.workspace, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        cli_stop_install();
        result = run(&self);
    }
    json_decref(self.part);
    bench_model_close(&self.model);
    bench_model_remove(&self.model);
    cli_options_free(&options);
    return result;
}
