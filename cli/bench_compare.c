/* lorikeet bench compare: runs bench/peers/compare.py, which takes the programs in turn, and reads its results. */
#define _DEFAULT_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "bench_peer.h"

typedef struct command {
    cli_workspace workspace;
    bench_results results;
    const char *python, *script, *model, *targets, *variants, *device, *lorikeet, *text;
    int dtype;
    int64_t batch, seq, rank, steps, repeats;
    int32_t threads;
} command;

static const char description[] =
    "Trains the same adapter on the same batches with this program and with PyTorch + PEFT, in turn, each run a "
    "process\n"
    "of its own, and compares tokens per second, peak memory and losses. Needs a Python with torch, transformers and\n"
    "peft; the script is bench/peers/compare.py of Lorikeet's sources. Variants: fp32, bf16 (weights and arithmetic),\n"
    "autocast (fp32 weights, bf16 arithmetic), each also with '-compile' for torch.compile.";

static const char examples[] =
    "  lorikeet bench compare --python ~/venv/bin/python --model model.gguf --dtype bf16 --html compare.html\n"
    "  lorikeet bench compare --python python3 --model ./SmolLM2-135M --variants fp32,bf16-compile --repeats 5";

static json_t *rows_of(const json_t *report) {
    json_t *rows = json_array(), *result;
    const json_t *ours = json_object_get(json_object_get(report, "results"), "lorikeet");
    const char *name;
    json_object_foreach(json_object_get(report, "results"), name, result) {
        json_t *row =
            json_pack("{s:s, s:f, s:f, s:f, s:f}", "program", name, "tokens_per_second",
                      bench_number(result, "tokens_per_second"), "spread", bench_number(result, "spread"), "peak_bytes",
                      bench_number(result, "peak_bytes"), "wall_seconds", bench_number(result, "wall_seconds"));
        if (result != ours && ours != NULL) {
            double worst = 0.0;
            const json_t *a = json_object_get(ours, "losses"), *b = json_object_get(result, "losses");
            for (size_t i = 0; i < json_array_size(a) && i < json_array_size(b); i++) {
                double difference = json_number_value(json_array_get(a, i)) - json_number_value(json_array_get(b, i));
                difference = difference < 0.0 ? -difference : difference;
                worst = difference > worst ? difference : worst;
            }
            json_object_set_new(
                row, "lorikeet_speed",
                json_real(bench_number(ours, "tokens_per_second") / bench_number(result, "tokens_per_second")));
            json_object_set_new(row, "lorikeet_memory",
                                json_real(bench_number(ours, "peak_bytes") / bench_number(result, "peak_bytes")));
            json_object_set_new(row, "loss_difference", json_real(worst));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

static void own_path(char *path, size_t size) {
    ssize_t length = readlink("/proc/self/exe", path, size - 1);
    snprintf(path + (length > 0 ? length : 0), size - (size_t)(length > 0 ? length : 0), "%s",
             length > 0 ? "" : "lorikeet");
}

static int run_script(command *self, const char *script, const char *json) {
    char program[1024], number[6][24];
    own_path(program, sizeof program);
    const int64_t numbers[] = {self->batch, self->seq, self->rank, self->steps, self->repeats, self->threads};
    for (int i = 0; i < 6; i++) {
        snprintf(number[i], sizeof number[i], "%lld", (long long)numbers[i]);
    }
    const char *argv[40] = {
        self->python, script,        "--lorikeet", self->lorikeet != NULL ? self->lorikeet : program,
        "--model",    self->model,   "--batch",    number[0],
        "--seq",      number[1],     "--rank",     number[2],
        "--steps",    number[3],     "--repeats",  number[4],
        "--targets",  self->targets, "--dtype",    cli_dtype_names[self->dtype],
        "--device",   self->device,  "--variants", self->variants,
        "--json",     json};
    int count = 0;
    while (argv[count] != NULL) {
        count++;
    }
    if (self->threads > 0) {
        argv[count++] = "--threads";
        argv[count++] = number[5];
    }
    if (self->text != NULL) {
        argv[count++] = "--text";
        argv[count++] = self->text;
    }
    bench_peer peer;
    char line[512];
    if (!bench_peer_start(&peer, argv)) {
        return CLI_FAILED;
    }
    while (fgets(line, sizeof line, peer.from) != NULL) { /* its table */
        fputs(line, stdout);
        fflush(stdout);
    }
    int status = bench_peer_stop(&peer);
    return status == 0     ? CLI_DONE
           : status == 127 ? cli_failed("cannot run %s", self->python)
                           : cli_failed("%s ended with status %d", script, status);
}

static int run(command *self) {
    char script[1024], json[1024];
    if (!bench_peer_script(self->script, "compare.py", script, sizeof script)) {
        return CLI_FAILED;
    }
    int file = cli_temporary_path("compare", json, sizeof json) ? mkstemp(json) : -1;
    if (file < 0) {
        return cli_failed("%s: cannot make a temporary file", json);
    }
    close(file);
    int result = run_script(self, script, json);
    json_t *report = result == CLI_DONE ? json_load_file(json, 0, NULL) : NULL;
    remove(json);
    if (result != CLI_DONE) {
        return result;
    }
    if (report == NULL) {
        return cli_failed("%s wrote no results", script);
    }
    json_t *part =
        json_pack("{s:O, s:o}", "settings", json_object_get(report, "settings"), "programs", rows_of(report));
    json_decref(report);
    return bench_results_write(&self->results, &self->workspace, "compare", part);
}

int bench_compare(int argc, const char **argv) {
    static const char *const dtypes[] = {"fp32", "bf16", NULL};
    command self = {.python = "python3",
                    .targets = "all-linear",
                    .variants = "fp32,bf16,autocast,fp32-compile,bf16-compile,autocast-compile",
                    .device = "cpu",
                    .batch = 4,
                    .seq = 256,
                    .rank = 8,
                    .steps = 6,
                    .repeats = 3};
    cli_options options = {.usage = "--model PATH [OPTION...]", .description = description, .examples = examples};
    cli_workspace_init(&self.workspace);
    cli_group(&options, "Programs:");
    cli_text(&options, "python", 0, &self.python, "PYTHON", "that has torch, transformers and peft");
    cli_text(&options, "variants", 0, &self.variants, "LIST", "of PyTorch, separated by commas");
    cli_text(&options, "script", 0, &self.script, "FILE", "compare.py (default: of the sources or the installation)");
    cli_text(&options, "lorikeet", 0, &self.lorikeet, "PROGRAM", "(default: this one)");
    cli_group(&options, "Training:");
    cli_text(&options, "model", 'm', &self.model, "PATH", "a Hugging Face folder or a .gguf file");
    cli_required(&options);
    cli_text(&options, "text", 0, &self.text, "FILE", "to take tokens from (default: the sources' tinyshakespeare)");
    cli_choice(&options, "dtype", 0, &self.dtype, dtypes, "Lorikeet's");
    cli_text(&options, "device", 0, &self.device, "NAME", "Lorikeet's");
    cli_int32(&options, "threads", 0, &self.threads, 0, 1024, "of each program; 0: all processors");
    cli_int64(&options, "batch", 'b', &self.batch, 1, "sequences per micro-batch");
    cli_int64(&options, "seq", 0, &self.seq, 2, "tokens per sequence");
    cli_int64(&options, "rank", 'r', &self.rank, 1, "of LoRA");
    cli_text(&options, "targets", 0, &self.targets, "NAMES", "layers that get an adapter");
    cli_int64(&options, "steps", 0, &self.steps, 3, "of a run, the first of which is dropped");
    cli_int64(&options, "repeats", 0, &self.repeats, 1, "runs of each program, in turn");
    bench_results_options(&self.results, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = run(&self);
    }
    cli_workspace_close(&self.workspace);
    cli_options_free(&options);
    return result;
}
