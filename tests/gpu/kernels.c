/* Times of single operations, as `lorikeet bench kernels` takes them: products, attention and LoRA linears of two
 * models, by every row of the device that takes them. */
#include <stdio.h>
#include <string.h>

#include "lorikeet_bench.h"
#include "tests/gpu/report.h"

typedef struct measurement {
    const char *model;
    lk_dtype dtype;
    json_t *rows;
} measurement;

static bool add_row(void *user, const lk_bench_kernel *kernel) {
    const measurement *self = user;
    char name[160];
    snprintf(name, sizeof name, "%s %s %s", kernel->op, lk_dtype_name(self->dtype), kernel->shape);
    json_t *row = json_pack("{s:s, s:s, s:s, s:b, s:f, s:f, s:f, s:i, s:f}", "operation", name, "model", self->model,
                            "kernel", kernel->kernel, "chosen", (int)kernel->chosen, "flops", kernel->flops, "seconds",
                            kernel->seconds, "fastest_seconds", kernel->fastest_seconds, "runs", kernel->runs, "tflops",
                            kernel->seconds > 0.0 ? kernel->flops / kernel->seconds * 1e-12 : 0.0);
    if (kernel->error >= 0.0) {
        json_object_set_new(row, "error", json_real(kernel->error));
    }
    if (kernel->failure != NULL) { /* it is told, and the others are still run */
        json_object_set_new(row, "failure", json_string(kernel->failure));
    }
    return json_array_append_new(self->rows, row) == 0;
}

static lk_status measure(report *self, const char *op, measurement *of) {
    lk_bench_kernel_options options;
    lk_bench_kernel_options_init(&options);
    options.model = lk_bench_model_find(of->model);
    options.tokens = self->small ? 32 : 4096;
    options.dtype = of->dtype;
    options.op = op;
    options.seconds = self->small ? 0.0 : 0.2;
    return lk_bench_kernels(self->session, &options, add_row, of);
}

lk_status report_kernels(report *self) {
    static const char *const ops[] = {"linear", "lora_linear", "lora_linear_backward", "attention",
                                      "attention_backward"};
    static const char *const models[] = {"llama-3-8b", "smollm2-135m"}, *const toy[] = {"toy"};
    const char *const *names = self->small ? toy : models;
    measurement of = {.dtype = LK_DTYPE_BF16, .rows = json_array()};
    json_object_set_new(self->root, "kernels", of.rows);
    for (size_t m = 0; m < (self->small ? LK_COUNT(toy) : LK_COUNT(models)); m++) {
        of.model = names[m];
        for (size_t i = 0; i < LK_COUNT(ops); i++) {
            LK_TRY(measure(self, ops[i], &of));
        }
    }
    of.model = names[0];
    of.dtype = LK_DTYPE_F32; /* what is lost without bf16 */
    return measure(self, ops[0], &of);
}
