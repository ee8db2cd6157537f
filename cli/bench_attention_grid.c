/* lorikeet bench attention-grid */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_peer.h"

enum { AXES = 4, MOST = 16 };

typedef struct command {
    cli_workspace workspace;
    bench_results results;
    const char *lists[AXES]; /* b, e, h, r */
    const char *jax, *script;
    double seconds;
    bench_peer peer;
    json_t *rows;
    int64_t values[AXES][MOST];
    int counts[AXES];
    /* so far */
    int points, faster_lora, faster_full_than_jax, faster_lora_than_jax, jax_faster_lora;
    double log_lora, log_full_jax, log_lora_jax, log_jax;
} command;

static const char description[] =
    "Forward and backward of one head of self-attention, X[b,e], Wq/Wk/Wv[e,h], sum(softmax(Q K' / sqrt(h)) V), in\n"
    "fp32: full fine-tuning (the gradients of the three W) against LoRA on Wq and Wk (the gradients of the four\n"
    "low-rank factors). By default 4 x 4 x 4 x 3 = 192 points; each is the median of runs taken in turn. With --jax\n"
    "the same points are measured in JAX (jit-compiled, as many threads), alternately with this program.";

static const char examples[] = "  lorikeet bench attention-grid --html grid.html\n"
                               "  lorikeet bench attention-grid --jax ~/venv/bin/python --json grid.json\n"
                               "  lorikeet bench attention-grid --b 2,64 --e 256 --h 256 --r 1";

static bool ask_jax(command *self, const int64_t *point, json_t *row) {
    char line[128], answer[256];
    double full = 0.0, lora = 0.0;
    snprintf(line, sizeof line, "%lld %lld %lld %lld %g", (long long)point[0], (long long)point[1], (long long)point[2],
             (long long)point[3], self->seconds);
    if (!bench_peer_ask(&self->peer, line, answer, sizeof answer)) {
        return false;
    }
    if (sscanf(answer, "%lf %lf", &full, &lora) != 2 || full <= 0.0 || lora <= 0.0) {
        cli_failed("JAX answered '%s' to '%s'", answer, line);
        return false;
    }
    json_object_set_new(row, "jax_full_seconds", json_real(full));
    json_object_set_new(row, "jax_lora_seconds", json_real(lora));
    double ours_full = bench_number(row, "full_seconds"), ours_lora = bench_number(row, "lora_seconds");
    self->faster_full_than_jax += ours_full < full;
    self->faster_lora_than_jax += ours_lora < lora;
    self->jax_faster_lora += lora < full;
    self->log_full_jax += log(full / ours_full);
    self->log_lora_jax += log(lora / ours_lora);
    self->log_jax += log(full / lora);
    return true;
}

static int measure(command *self, const int64_t *point) {
    lk_bench_attention *attention;
    lk_bench_attention_report report;
    lk_status status =
        lk_bench_attention_create(self->workspace.session, point[0], point[1], point[2], point[3], &attention);
    if (status == LK_OK) {
        status = lk_bench_attention_run(attention, self->seconds, &report);
        lk_bench_attention_destroy(attention);
    }
    if (status != LK_OK) {
        return cli_library_failed(self->workspace.context, status);
    }
    json_t *row = json_pack("{s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:i}", "b", (json_int_t)point[0], "e",
                            (json_int_t)point[1], "h", (json_int_t)point[2], "r", (json_int_t)point[3], "full_seconds",
                            report.full_seconds, "lora_seconds", report.lora_seconds, "full_fastest_seconds",
                            report.full_fastest, "lora_fastest_seconds", report.lora_fastest, "runs", report.runs);
    if (json_array_append_new(self->rows, row) != 0) {
        return cli_failed("out of memory");
    }
    self->points++;
    self->faster_lora += report.lora_seconds < report.full_seconds;
    self->log_lora += log(report.full_seconds / report.lora_seconds);
    if (self->jax != NULL && !ask_jax(self, point, row)) {
        return CLI_FAILED;
    }
    printf("%5lld %5lld %5lld %2lld %12.1f %12.1f %7.2f", (long long)point[0], (long long)point[1], (long long)point[2],
           (long long)point[3], 1e6 * report.full_seconds, 1e6 * report.lora_seconds,
           report.full_seconds / report.lora_seconds);
    if (self->jax != NULL) {
        double full = bench_number(row, "jax_full_seconds"), lora = bench_number(row, "jax_lora_seconds");
        printf(" %12.1f %12.1f %7.2f %7.2f %7.2f", 1e6 * full, 1e6 * lora, full / lora, full / report.full_seconds,
               lora / report.lora_seconds);
    }
    printf("\n");
    fflush(stdout);
    return CLI_DONE;
}

static int measure_all(command *self) {
    int result = CLI_DONE;
    int64_t total = 1;
    for (int axis = 0; axis < AXES; axis++) {
        total *= self->counts[axis];
    }
    printf("%5s %5s %5s %2s %12s %12s %7s%s\n", "b", "e", "h", "r", "full us", "LoRA us", "ratio",
           self->jax != NULL ? "  JAX full us  JAX LoRA us   ratio    full    LoRA" : "");
    for (int64_t i = 0; i < total && result == CLI_DONE && cli_stop_signal() == 0; i++) {
        int64_t point[AXES], rest = i;
        for (int axis = AXES - 1; axis >= 0; axis--) {
            point[axis] = self->values[axis][rest % self->counts[axis]];
            rest /= self->counts[axis];
        }
        result = measure(self, point);
    }
    return cli_stop_signal() != 0 ? CLI_SIGNAL + cli_stop_signal() : result;
}

static int start_jax(command *self, char *answer, size_t size) {
    char script[1024], threads[16];
    if (!bench_peer_script(self->script, "attention_grid_jax.py", script, sizeof script)) {
        return CLI_FAILED;
    }
    snprintf(threads, sizeof threads, "%d", (int)self->workspace.session_options.threads);
    const char *argv[] = {self->jax, script, self->workspace.session_options.threads > 0 ? threads : NULL, NULL};
    return bench_peer_start(&self->peer, argv) && bench_peer_ask(&self->peer, "", answer, size) ? CLI_DONE : CLI_FAILED;
}

static int run(command *self) {
    static const char *const names[AXES] = {"b", "e", "h", "r"};
    char jax[256] = "";
    for (int axis = 0; axis < AXES; axis++) {
        self->counts[axis] = bench_parse_list(names[axis], self->lists[axis], self->values[axis], MOST);
        if (self->counts[axis] == 0) {
            return CLI_USAGE;
        }
    }
    int result = cli_open_session(&self->workspace);
    if (result == CLI_DONE && self->jax != NULL) {
        result = start_jax(self, jax, sizeof jax);
    }
    if (result != CLI_DONE) {
        return result;
    }
    printf("%s%s%s\n", lk_session_device_name(self->workspace.session), jax[0] != '\0' ? "; " : "", jax);
    result = measure_all(self);
    if (result != CLI_DONE) {
        return result;
    }
    printf("\nLoRA is faster than full fine-tuning on %d of %d points, geometric mean %.2f\n", self->faster_lora,
           self->points, exp(self->log_lora / self->points));
    if (self->jax != NULL) {
        printf("JAX's LoRA on %d, geometric mean %.2f\n", self->jax_faster_lora, exp(self->log_jax / self->points));
        printf("full fine-tuning is faster than JAX's on %d, %.2f; LoRA on %d, %.2f\n", self->faster_full_than_jax,
               exp(self->log_full_jax / self->points), self->faster_lora_than_jax,
               exp(self->log_lora_jax / self->points));
    }
    json_t *part =
        json_pack("{s:{s:s, s:f}, s:O}", "settings", "jax", jax, "seconds", self->seconds, "points", self->rows);
    return bench_results_write(&self->results, &self->workspace, "attention_grid", part);
}

int bench_attention_grid(int argc, const char **argv) {
    command self = {.lists = {"2,64,256,1024", "256,512,1024,2048", "256,512,1024,2048", "1,3,5"},
                    .seconds = 0.25,
                    .rows = json_array()};
    cli_options options = {.usage = "[OPTION...]", .description = description, .examples = examples};
    cli_workspace_init(&self.workspace);
    cli_group(&options, "Points:");
    cli_text(&options, "b", 0, &self.lists[0], "LIST", "rows of X");
    cli_text(&options, "e", 0, &self.lists[1], "LIST", "columns of X");
    cli_text(&options, "h", 0, &self.lists[2], "LIST", "the head's size");
    cli_text(&options, "r", 0, &self.lists[3], "LIST", "ranks");
    cli_real(&options, "seconds", 0, &self.seconds, 0, 3600, "for each point and program, about; at least 3 runs");
    cli_text(&options, "jax", 0, &self.jax, "PYTHON", "a Python that has JAX, to measure it in turn");
    cli_text(&options, "script", 0, &self.script, "FILE",
             "attention_grid_jax.py (default: of the sources or the installation)");
    bench_results_options(&self.results, &options);
    cli_workspace_options(&self.workspace, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        cli_stop_install();
        result = run(&self);
    }
    bench_peer_stop(&self.peer);
    json_decref(self.rows);
    cli_workspace_close(&self.workspace);
    cli_options_free(&options);
    return result;
}
