/* lorikeet bench kernels */
#include "bench.h"

#include <string.h>

typedef struct command {
    cli_workspace workspace;
    bench_results results;
    lk_bench_kernel_options options;
    const char *size;
    int dtype;
    bool check;
    json_t *rows;
    lk_bench_rates rates;
    int failures;
} command;

static const char description[] =
    "Times every kernel of a device that supports an operation, on the operations of a training step with the sizes "
    "of\n"
    "a model, and compares its results with the reference in double precision (on fewer tokens where the reference\n"
    "would take long). First the device's limits are measured: its best matrix product, its memory bandwidth, and on\n"
    "the CPU multiplications in registers alone. Their minimum is the roofline: a kernel of intensity I (operations\n"
    "per byte) can do at most min(rate, I * bandwidth). '*' marks the kernel that a run would take.";

static const char examples[] = "  lorikeet bench kernels --html kernels.html\n"
                               "  lorikeet bench kernels --op attention --tokens 4096\n"
                               "  lorikeet bench kernels --device cuda --size llama-3-8b --dtype bf16 --tokens 4096";

static bool print_kernel(void *user, const lk_bench_kernel *kernel) {
    command *self = user;
    bool wrong = kernel->error >= 0.0 && !(kernel->error <= kernel->tolerance);
    char error[48] = "not checked";
    if (kernel->error >= 0.0) {
        snprintf(error, sizeof error, "%.1e%s", kernel->error, wrong ? " WRONG" : "");
    }
    if (kernel->failure != NULL) {
        printf("%-22s %-28s %s: %s\n", kernel->op, kernel->shape, kernel->kernel, kernel->failure);
    } else {
        printf("%-22s %-28s %-38s%c %10.3f %9.1f %8.1f %s\n", kernel->op, kernel->shape, kernel->kernel,
               kernel->chosen ? '*' : ' ', kernel->seconds * 1e3, kernel->flops / kernel->seconds * 1e-9,
               kernel->bytes / kernel->seconds * 1e-9, error);
    }
    fflush(stdout);
    self->failures += wrong || kernel->failure != NULL;
    json_t *row =
        json_pack("{s:s, s:s, s:s, s:b, s:f, s:f, s:f, s:f, s:i, s:f, s:f, s:I, s:b}", "op", kernel->op, "shape",
                  kernel->shape, "kernel", kernel->kernel, "chosen", (int)kernel->chosen, "flops", kernel->flops,
                  "bytes", kernel->bytes, "seconds", kernel->seconds, "fastest_seconds", kernel->fastest_seconds,
                  "runs", kernel->runs, "error", kernel->error, "tolerance", kernel->tolerance, "checked_tokens",
                  (json_int_t)kernel->checked_tokens, "wrong", (int)wrong);
    if (row != NULL && kernel->failure != NULL) {
        json_object_set_new(row, "failure", json_string(kernel->failure));
    }
    return json_array_append_new(self->rows, row) == 0;
}

static int run(command *self) {
    cli_workspace *workspace = &self->workspace;
    self->options.model = lk_bench_model_find(self->size);
    self->options.dtype = self->dtype == 1 ? LK_DTYPE_BF16 : LK_DTYPE_F32;
    self->options.check_flops = self->check ? self->options.check_flops : 0.0;
    int result = cli_open_session(workspace);
    if (result != CLI_DONE) {
        return result;
    }
    lk_status status = lk_bench_measure_rates(workspace->session, self->options.seconds, &self->rates);
    if (status == LK_OK) {
        const lk_bench_rates *rates = &self->rates;
        printf("%s\nbest product %.1f GFLOP/s in fp32, %.1f with bf16 weights; y = a + b %.1f GB/s",
               lk_session_device_name(workspace->session), rates->flops_f32 * 1e-9, rates->flops_bf16 * 1e-9,
               rates->bandwidth * 1e-9);
        if (rates->flops_registers > 0.0) {
            printf("; in registers %.1f GFLOP/s fp32", rates->flops_registers * 1e-9);
        }
        if (rates->flops_registers_bf16 > 0.0) {
            printf(", %.1f bf16", rates->flops_registers_bf16 * 1e-9);
        }
        printf("\n\n%-22s %-28s %-39s %10s %9s %8s %s\n", "operation", "shape", "kernel", "ms", "GFLOP/s", "GB/s",
               "error");
        fflush(stdout);
        status = lk_bench_kernels(workspace->session, &self->options, print_kernel, self);
    }
    if (status != LK_OK) {
        return cli_library_failed(workspace->context, status);
    }
    json_t *part =
        json_pack("{s:{s:s, s:s, s:I, s:I}, s:[{s:f, s:f, s:f, s:f, s:f}], s:O}", "settings", "size", self->size,
                  "dtype", cli_dtype_names[self->dtype], "tokens", (json_int_t)self->options.tokens, "rank",
                  (json_int_t)self->options.rank, "rates", "flops_f32", self->rates.flops_f32, "flops_bf16",
                  self->rates.flops_bf16, "flops_registers", self->rates.flops_registers, "flops_registers_bf16",
                  self->rates.flops_registers_bf16, "bandwidth", self->rates.bandwidth, "kernels", self->rows);
    result = bench_results_write(&self->results, workspace, "kernels", part);
    return self->failures > 0 ? cli_failed("%d kernels are wrong or failed", self->failures) : result;
}

int bench_kernels(int argc, const char **argv) {
    static const char *const dtypes[] = {"fp32", "bf16", NULL};
    command self = {.size = "smollm2-135m", .check = true, .rows = json_array()};
    cli_options options = {.usage = "[OPTION...]", .description = description, .examples = examples};
    cli_workspace_init(&self.workspace);
    lk_bench_kernel_options_init(&self.options);
    const char *sizes[32] = {NULL};
    for (int i = 0; i < 31 && lk_bench_models()[i].name != NULL; i++) {
        sizes[i] = lk_bench_models()[i].name;
    }
    cli_group(&options, "What to measure:");
    cli_choice_text(&options, "size", 0, &self.size, sizes, "the model whose sizes are used");
    cli_int64(&options, "tokens", 0, &self.options.tokens, 1, "in one sequence");
    cli_int64(&options, "rank", 'r', &self.options.rank, 1, "of the LoRA layers");
    cli_choice(&options, "dtype", 0, &self.dtype, dtypes, "of weight matrices");
    cli_text(&options, "op", 0, &self.options.op, "NAME", "only this operation, such as lora_linear");
    cli_real(&options, "seconds", 0, &self.options.seconds, 0, 3600, "to spend on each kernel, about");
    cli_flag(&options, "no-check", 0, &self.check, false, "do not compare with the reference");
    bench_results_options(&self.results, &options);
    cli_workspace_options(&self.workspace, &options);
    cli_parse_result parsed = cli_parse(&options, argc, argv);
    int result = parsed == CLI_PARSED_HELP ? CLI_DONE : CLI_USAGE;
    if (parsed == CLI_PARSED) {
        result = run(&self);
    }
    json_decref(self.rows);
    cli_workspace_close(&self.workspace);
    cli_options_free(&options);
    return result;
}
