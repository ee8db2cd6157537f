/* lorikeet bench scaling */
#include "bench.h"

#include <math.h>

enum { SEQUENCE, BATCH, THREADS, RANK, AXES, MOST = 16 };

typedef struct command {
    cli_workspace workspace;
    bench_results results;
    bench_model model;
    const char *lists[AXES];
    json_t *rows, *exponents;
} command;

static const char *const names[AXES] = {"sequence", "batch", "threads", "rank"};
static const char *const option_names[AXES] = {"seqs", "batches", "thread-counts", "ranks"};

static const char description[] =
    "Trains with one thing changed at a time: the length of the sequence (batch 1), the number of sequences, the\n"
    "threads, the rank. For each the time of a step is fitted as a power of what was changed: exponent 1 is linear;\n"
    "beyond that only attention's share may go, which is quadratic in the length. A list of one value, or 'none',\n"
    "leaves an axis out.";

static const char examples[] = "  lorikeet bench scaling --dtype bf16 --html scaling.html\n"
                               "  lorikeet bench scaling --layers 4 --seqs 256,1024,4096 --batches none --ranks none";

/* Slope of log(seconds) over log(value) by least squares. */
static double fit(const double *value, const double *seconds, int count) {
    double sx = 0.0, sy = 0.0, sxx = 0.0, sxy = 0.0;
    for (int i = 0; i < count; i++) {
        double x = log(value[i]), y = log(seconds[i]);
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
    }
    double n = count, spread = n * sxx - sx * sx;
    return spread > 0.0 ? (n * sxy - sx * sy) / spread : 0.0;
}

static int measure(command *self, int axis, int64_t value, double *seconds) {
    bench_run run = {"lora", 8, self->model.data.batch, self->model.data.seq};
    if (axis == SEQUENCE) {
        run.batch = 1;
        run.seq = value;
    } else if (axis == BATCH) {
        run.batch = value;
    } else if (axis == RANK) {
        run.rank = (int32_t)value;
    }
    int result = CLI_DONE;
    if (axis == THREADS) { /* a pool belongs to a session */
        bench_model_close(&self->model);
        result = bench_model_open(&self->model, (int32_t)value);
    }
    json_t *row = result == CLI_DONE ? bench_model_train(&self->model, &run, NULL) : NULL;
    if (row == NULL) {
        return result == CLI_DONE ? cli_failed("out of memory") : result;
    }
    json_object_set_new(row, "axis", json_string(names[axis]));
    json_object_set_new(row, "value", json_integer((json_int_t)value));
    *seconds = bench_number(row, "seconds");
    if (json_object_get(row, "failure") != NULL) {
        printf("%-10s %8lld  failed: %s\n", names[axis], (long long)value, bench_text(row, "failure"));
    } else {
        char memory[32];
        double per_token = *seconds / bench_number(row, "tokens");
        json_object_set_new(row, "seconds_per_token", json_real(per_token));
        printf("%-10s %8lld %10.3f %12.3f %11.1f %12s\n", names[axis], (long long)value, *seconds, 1e3 * per_token,
               bench_number(row, "tokens_per_second"), cli_bytes(bench_number(row, "total_bytes"), memory));
    }
    fflush(stdout);
    return json_array_append_new(self->rows, row) == 0 ? CLI_DONE : CLI_FAILED;
}

static int run_axis(command *self, int axis, const int64_t *values, int count) {
    double x[MOST], y[MOST];
    int found = 0, result = CLI_DONE;
    for (int i = 0; i < count && result == CLI_DONE && cli_stop_signal() == 0; i++) {
        result = measure(self, axis, values[i], &y[found]);
        x[found] = (double)values[i];
        found += result == CLI_DONE && y[found] > 0.0;
    }
    if (axis == THREADS && result == CLI_DONE) {
        bench_model_close(&self->model);
        result = bench_model_open(&self->model, 0);
    }
    if (found >= 2) {
        double all = fit(x, y, found), last = fit(x + found - 2, y + found - 2, 2);
        printf("%-10s seconds of a step ~ %s^%.2f; between the last two ^%.2f\n\n", names[axis], names[axis], all,
               last);
        json_array_append_new(
            self->exponents, json_pack("{s:s, s:f, s:f}", "axis", names[axis], "exponent", all, "last_exponent", last));
    }
    return result;
}

static int run(command *self) {
    int64_t values[AXES][MOST];
    int counts[AXES] = {0};
    for (int axis = 0; axis < AXES; axis++) {
        bool none = self->lists[axis][0] == 'n';
        counts[axis] = none ? 0 : bench_parse_list(option_names[axis], self->lists[axis], values[axis], MOST);
        if (!none && counts[axis] == 0) {
            return CLI_USAGE;
        }
        if (axis == SEQUENCE && counts[axis] > 0 && values[axis][0] < 2) {
            return cli_usage("--seqs %s: at least 2", self->lists[axis]);
        }
    }
    int result = bench_model_open(&self->model, 0);
    if (result != CLI_DONE) {
        return result;
    }
    printf("%s\n\n%-10s %8s %10s %12s %11s %12s\n", lk_session_device_name(self->workspace.session), "", "value",
           "s/step", "ms/token", "tokens/s", "memory");
    for (int axis = 0; axis < AXES && result == CLI_DONE && cli_stop_signal() == 0; axis++) {
        result = counts[axis] > 1 ? run_axis(self, axis, values[axis], counts[axis]) : CLI_DONE;
    }
    if (cli_stop_signal() != 0) {
        return CLI_SIGNAL + cli_stop_signal();
    }
    json_t *part = json_pack("{s:o, s:O, s:O}", "settings", bench_model_settings(&self->model), "runs", self->rows,
                             "exponents", self->exponents);
    return result == CLI_DONE ? bench_results_write(&self->results, &self->workspace, "scaling", part) : result;
}

int bench_scaling(int argc, const char **argv) {
    command self = {.lists = {"256,512,1024,2048,4096,8192", "1,2,4,8,16", "1,2", "1,2,4,8,16,32,64,128,256"},
                    .rows = json_array(),
                    .exponents = json_array()};
    cli_options options = {.usage = "[OPTION...]", .description = description, .examples = examples};
    cli_workspace_init(&self.workspace);
    bench_model_init(&self.model, &self.workspace);
    self.model.steps = 2;
    bench_model_options(&self.model, &options);
    cli_group(&options, "What is changed:");
    cli_text(&options, "seqs", 0, &self.lists[SEQUENCE], "LIST", "lengths of the sequence");
    cli_text(&options, "batches", 0, &self.lists[BATCH], "LIST", "sequences per micro-batch");
    cli_text(&options, "thread-counts", 0, &self.lists[THREADS], "LIST", "of the CPU");
    cli_text(&options, "ranks", 0, &self.lists[RANK], "LIST", "of LoRA");
    bench_results_options(&self.results, &options);
    cli_workspace_options(&self.workspace, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        cli_stop_install();
        result = run(&self);
    }
    json_decref(self.rows);
    json_decref(self.exponents);
    bench_model_close(&self.model);
    bench_model_remove(&self.model);
    cli_options_free(&options);
    return result;
}
