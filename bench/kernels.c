/* Every kernel of a device on every operation: how fast, and how far from the reference in double precision. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "bench/operations.h"

void lk_bench_kernel_options_init(lk_bench_kernel_options *options) {
    *options = (lk_bench_kernel_options){.struct_size = sizeof *options,
                                         .model = lk_bench_model_find("smollm2-135m"),
                                         .tokens = 1024,
                                         .rank = 16,
                                         .dtype = LK_DTYPE_F32,
                                         .seconds = 0.2,
                                         .check_flops = 5e7};
}

/* A graph with the operation, compiled; `command` is the one that is measured. */
typedef struct instance {
    lk_variables *variables;
    lk_program *program;
    const lk_node *node;
    int32_t command; /* -1: it was lowered to others */
    char shape[96];
} instance;

static void release(instance *self) {
    lk_program_destroy(self->program);
    lk_variables_destroy(self->variables);
    *self = (instance){.command = -1};
}

/* On these devices, the first of which holds the operands; kernel NULL: what selection takes. */
static lk_status compile(lk_session *session, lk_device *const *devices, int num_devices,
                         const bench_operation *operation, const bench_sizes *sizes, const char *kernel,
                         instance *out) {
    lk_context *context = session->context;
    *out = (instance){.command = -1};
    LK_TRY(lk_variables_create(context, devices[0], &out->variables));
    bench_build build = {.context = context, .variables = out->variables, .sizes = *sizes};
    build.in = operation->in(sizes);
    build.out = operation->out(sizes);
    LK_TRY(lk_graph_create(context, &build.graph));
    operation->build(&build);
    if (build.status != LK_OK) {
        lk_graph_destroy(build.graph);
        return build.status;
    }
    memcpy(out->shape, build.shape, sizeof out->shape);
    lk_preferences preferences = session->preferences;
    preferences.override = kernel != NULL ? kernel : preferences.override;
    lk_program_options options = {
        .preferences = &preferences, .devices = devices, .num_devices = num_devices, .plan_only = false};
    LK_TRY(lk_program_compile(context, build.graph, &options, &out->program));
    for (int32_t i = 0; i < lk_program_num_commands(out->program); i++) {
        const lk_node *node = lk_program_placement(out->program, i).node;
        if (node->op == operation->op) {
            out->command = i;
            out->node = node;
        }
    }
    return LK_OK;
}

/* ---- time ---- */

static lk_status measure(lk_program *program, int32_t command, double limit, lk_bench_kernel *row) {
    enum { FEWEST = 3, MOST = 501 };
    double seconds[MOST], begin = 0.0;
    int runs = -1; /* the first is not counted: clocks rise, pages are touched */
    while (runs < MOST && (runs < FEWEST || lk_seconds() - begin < limit)) {
        LK_TRY(lk_program_profile(program));
        begin = runs < 0 ? lk_seconds() : begin;
        if (runs >= 0) {
            seconds[runs] = lk_program_placement(program, command).measured_seconds;
        }
        runs++;
    }
    row->runs = runs;
    row->seconds = lk_bench_median(seconds, runs);
    row->fastest_seconds = seconds[0];
    return LK_OK;
}

/* ---- error ---- */

/* Rounding errors of a sum of n terms grow like sqrt(n) when they are independent; 8 leaves room for the constant and
 * for functions whose own error is a few units in the last place. Where weights are bf16, gradients of logits may be
 * rounded to bf16 before they meet them. */
static double tolerance_of(const lk_node *node, lk_dtype dtype) {
    double elements = 1.0;
    for (int i = 0; i < node->num_outputs; i++) {
        elements = node->outputs[i] ? fmax(elements, (double)lk_tensor_elements(node->outputs[i])) : elements;
    }
    double terms = fmax(1.0, lk_node_flops(node) / elements), rounding = 8.0 * 0.5 * FLT_EPSILON * (2.0 + sqrt(terms));
    return dtype == LK_DTYPE_BF16 ? fmax(rounding, 1.0 / 128.0) : rounding;
}

static lk_status read_output(const instance *self, lk_context *context, int index, float **out) {
    const lk_tensor *tensor = self->node->outputs[index];
    size_t bytes = lk_tensor_bytes(tensor);
    *out = lk_alloc(context, bytes);
    if (*out == NULL) {
        return lk_out_of_memory(context, bytes, "a result");
    }
    return lk_program_read(self->program, tensor, *out, bytes);
}

/* Keeps the larger of *error and the deviation of an output. */
static lk_status compare(lk_context *context, const instance *found, const instance *expected, int index,
                         double *error) {
    float *a = NULL, *b = NULL;
    lk_status status = read_output(found, context, index, &a);
    if (status == LK_OK) {
        status = read_output(expected, context, index, &b);
    }
    double largest = 0.0, worst = 0.0;
    for (int64_t i = 0; status == LK_OK && i < lk_tensor_elements(found->node->outputs[index]); i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        largest = fmax(largest, fabs((double)b[i]));
        worst = difference <= worst ? worst : difference; /* NaN, too */
    }
    lk_free(context, a);
    lk_free(context, b);
    worst = largest > 0.0 ? worst / largest : worst;
    *error = worst <= *error ? *error : worst;
    return status;
}

static lk_status check(lk_session *session, const bench_operation *operation, const bench_sizes *sizes,
                       const char *kernel, const instance *expected, lk_bench_kernel *row) {
    instance found;
    lk_status status = compile(session, session->devices, session->num_devices, operation, sizes, kernel, &found);
    if (status == LK_OK) {
        status = lk_program_run(found.program);
    }
    /* with fewer tokens a row may refuse what it takes with more */
    bool same = status == LK_OK && found.command >= 0 &&
                strcmp(lk_program_placement(found.program, found.command).kernel->name, kernel) == 0;
    double error = 0.0;
    for (int i = 0; same && i < found.node->num_outputs && status == LK_OK; i++) {
        if (found.node->outputs[i] != NULL && expected->node->outputs[i] != NULL) {
            status = compare(session->context, &found, expected, i, &error);
        }
    }
    if (status == LK_OK && same && found.node->outputs[0] != NULL) {
        row->error = error;
        row->tolerance = tolerance_of(found.node, sizes->dtype);
        row->checked_tokens = sizes->tokens;
    }
    release(&found);
    return status;
}

/* ---- rows ---- */

typedef struct run {
    lk_session *session;
    const lk_bench_kernel_options *options;
    bench_sizes sizes;
    lk_bench_kernel_function each;
    void *user;
    bool stopped;
} run;

/* The reference's results for fewer tokens, or nothing where the operation has no output to compare. */
static lk_status prepare_check(const run *self, const bench_operation *operation, double flops, instance *expected,
                               bench_sizes *sizes) {
    *expected = (instance){.command = -1};
    *sizes = self->sizes;
    if (self->options->check_flops <= 0.0) {
        return LK_OK;
    }
    double share = fmin(1.0, self->options->check_flops / fmax(flops, 1.0));
    sizes->tokens = LK_MAX((int64_t)((double)sizes->tokens * share), LK_MIN((int64_t)4, sizes->tokens));
    lk_device *const *last = self->session->devices + self->session->num_devices - 1; /* the reference */
    lk_status status = compile(self->session, last, 1, operation, sizes, NULL, expected);
    return status == LK_OK ? lk_program_run(expected->program) : status;
}

static lk_status run_kernel(run *self, const bench_operation *operation, const lk_kernel *kernel, const char *chosen,
                            const instance *expected, const bench_sizes *check_sizes) {
    instance made;
    lk_bench_kernel row = {.op = lk_op_name(operation->op), .kernel = kernel->name, .error = -1.0};
    lk_status status = compile(self->session, self->session->devices, self->session->num_devices, operation,
                               &self->sizes, kernel->name, &made);
    bool taken =
        status == LK_OK && made.command >= 0 && lk_program_placement(made.program, made.command).kernel == kernel;
    row.shape = made.shape;
    row.chosen = strcmp(kernel->name, chosen) == 0;
    if (taken) {
        row.flops = lk_node_flops(made.node);
        row.bytes = lk_node_bytes(made.node);
        status = measure(made.program, made.command, self->options->seconds, &row);
    }
    if (taken && status == LK_OK && expected->node != NULL) {
        status = check(self->session, operation, check_sizes, kernel->name, expected, &row);
    }
    if (status != LK_OK) { /* it is told, and the others are still run */
        row.failure = lk_error_message(self->session->context);
    }
    if (taken || status != LK_OK) {
        self->stopped = !self->each(self->user, &row);
    }
    release(&made);
    return status == LK_STATUS_DEVICE ? status : LK_OK; /* nothing runs on a lost device */
}

static lk_status run_operation(run *self, const bench_operation *operation) {
    const lk_device *device = lk_session_main_device(self->session);
    instance made, expected = {.command = -1};
    bench_sizes check_sizes;
    char chosen[96] = "";
    double flops = 0.0;
    lk_status status = compile(self->session, self->session->devices, self->session->num_devices, operation,
                               &self->sizes, NULL, &made);
    if (status == LK_OK && made.command >= 0) {
        const char *name = lk_program_placement(made.program, made.command).kernel->name;
        memcpy(chosen, name, LK_MIN(strlen(name) + 1, sizeof chosen - 1));
        flops = lk_node_flops(made.node);
    }
    bool lowered = status == LK_OK && made.command < 0;
    release(&made);
    if (status != LK_OK || lowered) {
        return status;
    }
    status = prepare_check(self, operation, flops, &expected, &check_sizes);
    int count;
    const lk_kernel *kernels = device->backend->kernels(&count);
    for (int i = 0; i < count && status == LK_OK && !self->stopped; i++) {
        if (kernels[i].op == operation->op && (kernels[i].required_features & ~device->caps.features) == 0) {
            status = run_kernel(self, operation, &kernels[i], chosen, &expected, &check_sizes);
        }
    }
    release(&expected);
    return status;
}

static lk_status check_options(lk_context *context, const lk_bench_kernel_options *options) {
    const lk_bench_model *model = options->model;
    if (model == NULL || model->num_attention_heads < 1 || model->hidden_size < model->num_attention_heads ||
        model->hidden_size % model->num_attention_heads != 0) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "the model's sizes are not those of a Llama model");
    }
    if (options->tokens < 1 || options->tokens > (1 << 24) || options->rank < 1 || options->rank > (1 << 16)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "tokens is %lld and rank %lld, expected 1 or more",
                       (long long)options->tokens, (long long)options->rank);
    }
    if (options->dtype != LK_DTYPE_F32 && options->dtype != LK_DTYPE_BF16) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "dtype is %s, expected f32 or bf16",
                       lk_dtype_name(options->dtype));
    }
    return LK_OK;
}

lk_status lk_bench_kernels(lk_session *session, const lk_bench_kernel_options *options, lk_bench_kernel_function each,
                           void *user) {
    lk_bench_kernel_options chosen;
    lk_bench_kernel_options_init(&chosen);
    if (options != NULL) {
        memcpy(&chosen, options, LK_MIN(options->struct_size, sizeof chosen));
    }
    LK_TRY(check_options(session->context, &chosen));
    const lk_bench_model *model = chosen.model;
    run self = {.session = session, .options = &chosen, .each = each, .user = user};
    self.sizes = (bench_sizes){.tokens = chosen.tokens,
                               .hidden = model->hidden_size,
                               .inner = model->intermediate_size,
                               .heads = model->num_attention_heads,
                               .kv_heads = model->num_key_value_heads,
                               .head_dim = model->hidden_size / model->num_attention_heads,
                               .vocab = model->vocab_size,
                               .rank = chosen.rank,
                               .dtype = chosen.dtype};
    int count;
    const bench_operation *operations = lk_bench_operations(&count);
    bool known = chosen.op == NULL;
    for (int i = 0; i < count && !self.stopped; i++) {
        if (chosen.op == NULL || strcmp(chosen.op, lk_op_name(operations[i].op)) == 0) {
            known = true;
            LK_TRY(run_operation(&self, &operations[i]));
        }
    }
    return known ? LK_OK
                 : lk_fail(session->context, LK_STATUS_INVALID_ARGUMENT, "there is no measurement of an op %s",
                           chosen.op);
}
