/* Times of single operations: products, attention and LoRA linears, by every row of the device that takes them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/graph/ops.h"
#include "tests/gpu/report.h"

enum { MAX_INPUTS = 8, RANK = 16 };

typedef struct input {
    lk_role role;
    lk_dtype dtype;
    int64_t rows, columns; /* columns 0: one dimension; rows 0: absent */
} input;

typedef struct operation {
    char name[96];
    lk_op op;
    lk_attributes attributes;
    int num_inputs;
    input inputs[MAX_INPUTS];
    uint32_t wanted;
    double flops;
} operation;

static input activations(int64_t rows, int64_t columns) {
    return (input){LK_ROLE_INPUT, LK_DTYPE_F32, rows, columns};
}

static operation linear(int64_t t, int64_t n, int64_t k, lk_dtype dtype) {
    operation self = {
        .op = LK_OP_LINEAR, .num_inputs = 2, .wanted = 1, .flops = 2.0 * (double)t * (double)n * (double)k};
    snprintf(self.name, sizeof self.name, "linear %s T=%lld N=%lld K=%lld", lk_dtype_name(dtype), (long long)t,
             (long long)n, (long long)k);
    self.inputs[0] = activations(t, k);
    self.inputs[1] = (input){LK_ROLE_INPUT, dtype, n, k};
    return self;
}

static operation lora(int64_t t, int64_t n, int64_t k, bool backward) {
    operation self = {.op = backward ? LK_OP_LORA_LINEAR_BACKWARD : LK_OP_LORA_LINEAR,
                      .attributes.lora.scale = 2.0f,
                      .num_inputs = backward ? 6 : 5,
                      .wanted = backward ? 7 : 3};
    self.flops = 2.0 * (double)t * (double)n * (double)k;
    self.flops += (backward ? 4.0 : 2.0) * (double)t * RANK * (double)(n + k);
    snprintf(self.name, sizeof self.name, "lora_linear%s bf16 T=%lld N=%lld K=%lld r=%d", backward ? "_backward" : "",
             (long long)t, (long long)n, (long long)k, RANK);
    int i = 0;
    if (backward) {
        self.inputs[i++] = activations(t, n);
    }
    self.inputs[i++] = activations(t, k);
    self.inputs[i++] = (input){LK_ROLE_INPUT, LK_DTYPE_BF16, n, k};
    if (!backward) {
        self.inputs[i++] = (input){0}; /* no bias */
    }
    self.inputs[i++] = activations(RANK, k);
    self.inputs[i++] = activations(n, RANK);
    if (backward) {
        self.inputs[i++] = activations(t, RANK);
    }
    return self;
}

/* Causal: half of the pairs. FLOPs are counted as in the papers on flash attention: backward 2.5 times forward. */
static operation attention(int64_t t, int32_t heads, int32_t kv_heads, int32_t head_dim, bool backward) {
    operation self = {.op = backward ? LK_OP_ATTENTION_BACKWARD : LK_OP_ATTENTION,
                      .num_inputs = backward ? 7 : 4,
                      .wanted = backward ? 7 : 3};
    self.attributes.attention = (lk_attention_attributes){.num_attention_heads = heads,
                                                          .num_key_value_heads = kv_heads,
                                                          .head_dim = head_dim,
                                                          .scale = (float)(1.0 / sqrt(head_dim)),
                                                          .causal = true,
                                                          .allow_bf16 = true};
    self.flops = (backward ? 5.0 : 2.0) * (double)t * (double)t * heads * head_dim;
    snprintf(self.name, sizeof self.name, "attention%s T=%lld heads=%d/%d D=%d", backward ? "_backward" : "",
             (long long)t, heads, kv_heads, head_dim);
    int64_t q = (int64_t)heads * head_dim, kv = (int64_t)kv_heads * head_dim;
    int i = 0;
    if (backward) {
        self.inputs[i++] = activations(t, q);
    }
    self.inputs[i++] = activations(t, q);
    self.inputs[i++] = activations(t, kv);
    self.inputs[i++] = activations(t, kv);
    if (backward) {
        self.inputs[i++] = activations(t, q);
        self.inputs[i++] = activations(t, heads);
    }
    self.inputs[i++] = (input){LK_ROLE_INPUT, LK_DTYPE_I32, 2, 0};
    return self;
}

/* ---- running one ---- */

static lk_status fill(lk_context *context, lk_variable *variable, int64_t tokens) {
    if (variable->dtype == LK_DTYPE_I32) {
        int32_t cu_seqlens[2] = {0, (int32_t)tokens};
        return lk_variable_upload(variable, cu_seqlens);
    }
    size_t count = variable->bytes / lk_dtype_block_bytes(variable->dtype);
    unsigned char *bytes = lk_alloc(context, variable->bytes);
    if (bytes == NULL) {
        return lk_out_of_memory(context, variable->bytes, "an operand");
    }
    uint32_t state = 12345;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        float value = (float)(int32_t)state * (0.5f / 2147483648.0f);
        uint16_t half = lk_f32_to_bf16(value);
        if (variable->dtype == LK_DTYPE_BF16) {
            memcpy(bytes + i * sizeof half, &half, sizeof half);
        } else {
            memcpy(bytes + i * sizeof value, &value, sizeof value);
        }
    }
    lk_status status = lk_variable_upload(variable, bytes);
    lk_free(context, bytes);
    return status;
}

static lk_status build(report *self, const operation *op, lk_variables *variables, lk_graph *graph) {
    lk_tensor *inputs[MAX_INPUTS] = {NULL}, *outputs[LK_MAX_OUTPUTS] = {NULL};
    for (int i = 0; i < op->num_inputs; i++) {
        const input *in = &op->inputs[i];
        if (in->rows > 0) {
            char name[16];
            int64_t shape[2] = {in->rows, in->columns};
            lk_variable *variable;
            snprintf(name, sizeof name, "%d", i);
            LK_TRY(lk_variables_add(variables, name, in->role, "operand", in->dtype, in->columns > 0 ? 2 : 1, shape,
                                    &variable));
            LK_TRY(fill(self->context, variable, op->inputs[0].rows));
            inputs[i] = lk_graph_variable(graph, variable);
        }
    }
    lk_graph_add(graph, op->op, op->num_inputs, inputs, &op->attributes, op->wanted, LK_MAX_OUTPUTS, outputs);
    for (int i = 0; i < LK_MAX_OUTPUTS; i++) {
        if (outputs[i] != NULL) {
            lk_graph_mark_output(graph, outputs[i]);
        }
    }
    return lk_graph_status(graph);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static lk_status measure(report *self, lk_program *program, json_t *row) {
    enum { MOST = 20 };
    double seconds[MOST], spent = 0.0;
    int runs = 0, wanted = self->small ? 2 : MOST;
    LK_TRY(lk_program_profile(program)); /* not counted: clocks rise */
    while (runs < wanted && (runs < 3 || spent < 1.0)) {
        LK_TRY(lk_program_profile(program));
        seconds[runs] = 0.0;
        for (int32_t i = 0; i < lk_program_num_commands(program); i++) {
            seconds[runs] += lk_program_placement(program, i).measured_seconds;
        }
        spent += seconds[runs++];
    }
    qsort(seconds, (size_t)runs, sizeof *seconds, by_value);
    double median = seconds[runs / 2], flops = json_real_value(json_object_get(row, "flops"));
    json_object_set_new(row, "seconds", json_real(median));
    json_object_set_new(row, "fastest_seconds", json_real(seconds[0]));
    json_object_set_new(row, "runs", json_integer(runs));
    json_object_set_new(row, "tflops", json_real(median > 0.0 ? flops / median * 1e-12 : 0.0));
    return LK_OK;
}

/* By one row of the main device, which is preferred by its name; false in *taken where it refuses. */
static lk_status run_by(report *self, const operation *op, const lk_kernel *kernel, json_t *row, bool *taken) {
    lk_variables *variables;
    lk_graph *graph;
    lk_program *program = NULL;
    LK_TRY(lk_variables_create(self->context, lk_session_main_device(self->session), &variables));
    lk_status status = lk_graph_create(self->context, &graph);
    if (status == LK_OK) {
        status = build(self, op, variables, graph);
        if (status == LK_OK) {
            lk_preferences preferences = {.override = kernel->name};
            lk_program_options options = {&preferences, self->session->devices, self->session->num_devices, false};
            status = lk_program_compile(self->context, graph, &options, &program);
        } else {
            lk_graph_destroy(graph);
        }
    }
    *taken =
        status == LK_OK && lk_program_num_commands(program) == 1 && lk_program_placement(program, 0).kernel == kernel;
    if (*taken) {
        status = measure(self, program, row);
    }
    lk_program_destroy(program);
    lk_variables_destroy(variables);
    return status;
}

static lk_status run_operation(report *self, const operation *op, json_t *rows) {
    const lk_device *device = lk_session_main_device(self->session);
    int count;
    const lk_kernel *kernels = device->backend->kernels(&count);
    for (int i = 0; i < count; i++) {
        if (kernels[i].op != op->op) {
            continue;
        }
        bool taken;
        json_t *row =
            json_pack("{s:s, s:s, s:f}", "operation", op->name, "kernel", kernels[i].name, "flops", op->flops);
        lk_status status = run_by(self, op, &kernels[i], row, &taken);
        if (taken || status != LK_OK) {
            if (status != LK_OK) { /* it is told, and the others are still run */
                json_object_set_new(row, "failure", json_string(lk_error_message(self->context)));
            }
            json_array_append(rows, row);
        }
        json_decref(row);
        if (status == LK_STATUS_DEVICE) {
            return status; /* nothing runs on a lost device */
        }
    }
    return LK_OK;
}

lk_status report_kernels(report *self) {
    int64_t t = self->small ? 32 : 4096;
    operation operations[24];
    int count = 0;
    if (self->small) {
        operations[count++] = linear(t, 48, 64, LK_DTYPE_BF16);
        operations[count++] = lora(t, 48, 64, false);
        operations[count++] = lora(t, 48, 64, true);
        operations[count++] = attention(t, 4, 2, 64, false);
        operations[count++] = attention(t, 4, 2, 64, true);
    } else {
        static const int64_t products[][2] = {{4096, 4096}, {14336, 4096}, {4096, 14336}, {576, 576}, {1536, 576}};
        for (size_t i = 0; i < LK_COUNT(products); i++) {
            operations[count++] = linear(t, products[i][0], products[i][1], LK_DTYPE_BF16);
        }
        operations[count++] = linear(t, 4096, 4096, LK_DTYPE_F32);
        for (int backward = 0; backward < 2; backward++) {
            operations[count++] = lora(t, 4096, 4096, backward != 0);
            operations[count++] = lora(t, 14336, 4096, backward != 0);
            operations[count++] = lora(t, 576, 576, backward != 0);
            operations[count++] = attention(t, 32, 8, 128, backward != 0);
            operations[count++] = attention(t, 9, 3, 64, backward != 0);
        }
    }
    json_t *rows = json_array();
    json_object_set_new(self->root, "kernels", rows);
    for (int i = 0; i < count; i++) {
        LK_TRY(run_operation(self, &operations[i], rows));
    }
    return LK_OK;
}
