#include "tests/ops/harness.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { GUARD = LK_BUFFER_ALIGNMENT, SENTINEL = 0xa5 };

static double rounded(const lk_tensor *tensor, double value);

lk_status op_instance_make(lk_context *context, const op_case *self, uint64_t seed, op_instance *out) {
    *out = (op_instance){.context = context, .self = self};
    lk_arena_init(&out->arena, context);
    for (int i = 0; i < self->num_inputs; i++) {
        const case_input *source = &self->inputs[i];
        if (!source->present) {
            continue;
        }
        lk_tensor *tensor = &out->tensors[i];
        *tensor = (lk_tensor){.id = i, .role = source->role, .dtype = source->dtype, .rank = source->rank, .name = ""};
        memcpy(tensor->shape, source->shape, sizeof tensor->shape);
        out->inputs[i] = tensor;
        size_t bytes = (size_t)case_input_elements(source) * sizeof(double);
        out->values[i] = lk_arena_alloc(&out->arena, bytes);
        out->mutated[i] = lk_arena_alloc(&out->arena, bytes);
    }
    op_case_fill(self, seed, out->values);
    for (int i = 0; i < self->num_inputs; i++) {
        for (int64_t j = 0; out->inputs[i] != NULL && j < lk_tensor_elements(out->inputs[i]); j++) {
            out->values[i][j] = rounded(out->inputs[i], out->values[i][j]);
        }
    }
    out->node = (lk_node){.op = self->op,
                          .num_inputs = self->num_inputs,
                          .inputs = out->inputs,
                          .attributes = self->attributes,
                          .scope = ""};
    lk_shape shapes[LK_MAX_OUTPUTS];
    LK_TRY(lk_op_info_of(self->op)->infer(context, &out->node, shapes, &out->node.num_outputs));
    for (int i = 0; i < out->node.num_outputs; i++) {
        if (self->wanted & (1u << i)) {
            lk_tensor *tensor = &out->tensors[MAX_CASE_INPUTS + i];
            *tensor =
                (lk_tensor){.id = MAX_CASE_INPUTS + i, .dtype = shapes[i].dtype, .rank = shapes[i].rank, .name = ""};
            memcpy(tensor->shape, shapes[i].extent, sizeof tensor->shape);
            out->node.outputs[i] = tensor;
            out->expected[i] = lk_arena_alloc(&out->arena, (size_t)lk_tensor_elements(tensor) * sizeof(double));
        }
    }
    for (int i = 0; i < self->num_inputs; i++) {
        if (out->inputs[i] != NULL) {
            memcpy(out->mutated[i], out->values[i], (size_t)lk_tensor_elements(out->inputs[i]) * sizeof(double));
        }
    }
    lk_reference_call call = {context, &out->node, out->mutated, out->expected};
    return lk_op_info_of(self->op)->reference(&call);
}

void op_instance_free(op_instance *instance) {
    lk_arena_free(&instance->arena);
}

/* Kernels that multiply bf16 round what no input holds exactly: the low-rank products and adapter tensors, attention's
 * weights and scores. Two such roundings meet, each by up to 2^-9. */
static bool rounds_factors(const lk_kernel *kernel, const lk_node *node) {
    int weight = node->op == LK_OP_LORA_LINEAR            ? 1
                 : node->op == LK_OP_LORA_LINEAR_BACKWARD ? 2
                 : node->op == LK_OP_ATTENTION            ? 2
                 : node->op == LK_OP_ATTENTION_BACKWARD   ? 3
                                                          : -1;
    return weight >= 0 && node->inputs[weight]->dtype == LK_DTYPE_BF16 && strstr(kernel->name, "bf16") != NULL;
}

double op_case_tolerance(const op_case *self, const lk_node *node, const lk_kernel *kernel) {
    if (rounds_factors(kernel, node)) {
        return 1.0 / 128.0;
    }
    if (self->tolerance > 0.0) {
        return self->tolerance;
    }
    /* rounding errors of a sum of n terms grow like sqrt(n) when they are independent; 8 leaves room for the constant
     * and for the functions (exp, division) whose own error is a few units in the last place */
    double elements = 1.0;
    for (int i = 0; i < node->num_outputs; i++) {
        elements = node->outputs[i] ? fmax(elements, (double)lk_tensor_elements(node->outputs[i])) : elements;
    }
    double terms = fmax(1.0, lk_node_flops(node) / elements);
    return 8.0 * 5.97e-8 * (2.0 + sqrt(terms));
}

static void to_bytes(const lk_tensor *tensor, const double *values, char *bytes) {
    for (int64_t i = 0; i < lk_tensor_elements(tensor); i++) {
        if (tensor->dtype == LK_DTYPE_I32) {
            ((int32_t *)(void *)bytes)[i] = (int32_t)values[i];
        } else if (tensor->dtype == LK_DTYPE_BF16) {
            ((uint16_t *)(void *)bytes)[i] = lk_f32_to_bf16((float)values[i]);
        } else if (tensor->dtype == LK_DTYPE_F16) {
            ((uint16_t *)(void *)bytes)[i] = lk_f32_to_f16((float)values[i]);
        } else {
            ((float *)(void *)bytes)[i] = (float)values[i];
        }
    }
}

static double from_bytes(const lk_tensor *tensor, const char *bytes, int64_t i) {
    switch (tensor->dtype) {
    case LK_DTYPE_BF16:
        return (double)lk_bf16_to_f32(((const uint16_t *)(const void *)bytes)[i]);
    case LK_DTYPE_F16:
        return (double)lk_f16_to_f32(((const uint16_t *)(const void *)bytes)[i]);
    case LK_DTYPE_I32:
        return (double)((const int32_t *)(const void *)bytes)[i];
    default:
        return (double)((const float *)(const void *)bytes)[i];
    }
}

static double rounded(const lk_tensor *tensor, double value) {
    switch (tensor->dtype) {
    case LK_DTYPE_BF16:
        return (double)lk_bf16_to_f32(lk_f32_to_bf16((float)value));
    case LK_DTYPE_F16:
        return (double)lk_f16_to_f32(lk_f32_to_f16((float)value));
    default:
        return value;
    }
}

static void compare(const char *what, int index, const lk_tensor *tensor, const char *bytes, const double *expected,
                    op_verdict *verdict) {
    double largest = 0.0, worst = 0.0;
    int64_t at = 0;
    for (int64_t i = 0; i < lk_tensor_elements(tensor); i++) {
        largest = fmax(largest, fabs(expected[i]));
    }
    for (int64_t i = 0; i < lk_tensor_elements(tensor); i++) {
        double error = fabs(from_bytes(tensor, bytes, i) - rounded(tensor, expected[i]));
        if (!(error <= worst)) { /* also when it is NaN */
            worst = error;
            at = i;
        }
    }
    double relative = largest > 0.0 ? worst / largest : worst, allowed = verdict->tolerance;
    if (tensor->dtype == LK_DTYPE_BF16 || tensor->dtype == LK_DTYPE_F16) { /* either neighbour of a value in between */
        allowed += tensor->dtype == LK_DTYPE_BF16 ? 1.0 / 128.0 : 1.0 / 1024.0;
    }
    verdict->error = fmax(verdict->error, relative);
    if (!(relative <= allowed) && verdict->problem[0] == '\0') {
        snprintf(verdict->problem, sizeof verdict->problem,
                 "%s %d element %lld: found %.9g, expected %.9g (error %.3g > %.3g)", what, index, (long long)at,
                 from_bytes(tensor, bytes, at), expected[at], relative, allowed);
    }
}

/* One guarded buffer on the device. */
typedef struct guarded {
    lk_buffer *buffer;
    size_t bytes;
    char *host; /* the whole buffer, guards too */
} guarded;

static lk_status guarded_make(const op_instance *instance, lk_device *device, size_t bytes, guarded *out) {
    size_t whole = bytes + 2 * (size_t)GUARD;
    *out = (guarded){NULL, bytes, lk_alloc_aligned(instance->context, whole)};
    memset(out->host, SENTINEL, whole);
    return device->backend->alloc(device, whole, &out->buffer);
}

static bool guarded_intact(const guarded *buffer) {
    for (size_t i = 0; i < GUARD; i++) {
        if ((unsigned char)buffer->host[i] != SENTINEL ||
            (unsigned char)buffer->host[GUARD + buffer->bytes + i] != SENTINEL) {
            return false;
        }
    }
    return true;
}

typedef struct buffers {
    guarded inputs[MAX_CASE_INPUTS], outputs[LK_MAX_OUTPUTS], scratch;
    lk_binding input_bindings[MAX_CASE_INPUTS], output_bindings[LK_MAX_OUTPUTS];
} buffers;

static lk_status upload_all(const op_instance *instance, lk_device *device, buffers *table) {
    for (int i = 0; i < instance->node.num_inputs; i++) {
        if (instance->inputs[i] != NULL) {
            guarded *buffer = &table->inputs[i];
            to_bytes(instance->inputs[i], instance->values[i], buffer->host + GUARD);
            LK_TRY(device->backend->upload(device, buffer->buffer, 0, buffer->host, buffer->bytes + 2 * (size_t)GUARD));
        }
    }
    for (int i = 0; i < LK_MAX_OUTPUTS + 1; i++) {
        guarded *buffer = i < LK_MAX_OUTPUTS ? &table->outputs[i] : &table->scratch;
        if (buffer->buffer != NULL) { /* all ones is a NaN in every float format */
            memset(buffer->host, SENTINEL, buffer->bytes + 2 * (size_t)GUARD);
            memset(buffer->host + GUARD, 0xff, buffer->bytes);
            LK_TRY(device->backend->upload(device, buffer->buffer, 0, buffer->host, buffer->bytes + 2 * (size_t)GUARD));
        }
    }
    return LK_OK;
}

static lk_status fetch(lk_device *device, guarded *buffer, const char *what, int index, op_verdict *verdict) {
    LK_TRY(device->backend->download(device, buffer->buffer, 0, buffer->host, buffer->bytes + 2 * (size_t)GUARD));
    if (!guarded_intact(buffer) && verdict->problem[0] == '\0') {
        snprintf(verdict->problem, sizeof verdict->problem, "%s %d: bytes outside its buffer were written", what,
                 index);
    }
    return LK_OK;
}

static lk_status judge(const op_instance *instance, lk_device *device, buffers *table, int in_place, uint64_t *hash,
                       op_verdict *verdict) {
    const lk_node *node = &instance->node;
    *hash = 0;
    for (int i = 0; i < node->num_outputs; i++) {
        if (node->outputs[i] != NULL) {
            guarded *buffer = i == 0 && in_place >= 0 ? &table->inputs[in_place] : &table->outputs[i];
            LK_TRY(fetch(device, buffer, "output", i, verdict));
            compare("output", i, node->outputs[i], buffer->host + GUARD, instance->expected[i], verdict);
            *hash = lk_hash64(buffer->host + GUARD, buffer->bytes, *hash);
        }
    }
    for (int i = 0; i < node->num_inputs; i++) {
        if (node->inputs[i] == NULL || i == in_place) {
            continue;
        }
        guarded *buffer = &table->inputs[i];
        LK_TRY(fetch(device, buffer, "input", i, verdict));
        if (node->inputs[i]->role == LK_ROLE_STATE) {
            compare("state", i, node->inputs[i], buffer->host + GUARD, instance->mutated[i], verdict);
            *hash = lk_hash64(buffer->host + GUARD, buffer->bytes, *hash);
            continue;
        }
        for (int64_t j = 0; j < lk_tensor_elements(node->inputs[i]) && verdict->problem[0] == '\0'; j++) {
            if (from_bytes(node->inputs[i], buffer->host + GUARD, j) != instance->values[i][j]) {
                snprintf(verdict->problem, sizeof verdict->problem, "input %d was written", i);
            }
        }
    }
    return table->scratch.buffer != NULL ? fetch(device, &table->scratch, "scratch", 0, verdict) : LK_OK;
}

static lk_status run_once(const op_instance *instance, lk_device *device, const lk_kernel *kernel, buffers *table,
                          int in_place, uint64_t *hash, op_verdict *verdict) {
    LK_TRY(upload_all(instance, device, table));
    lk_binding outputs[LK_MAX_OUTPUTS];
    memcpy(outputs, table->output_bindings, sizeof outputs);
    if (in_place >= 0) {
        outputs[0] = table->input_bindings[in_place];
    }
    lk_command command = {&instance->node, kernel, table->input_bindings, outputs, {NULL, 0, 0}};
    if (table->scratch.buffer != NULL) {
        command.scratch = (lk_binding){table->scratch.buffer, GUARD, table->scratch.bytes};
    }
    lk_commands *commands;
    LK_TRY(device->backend->compile(device, &command, 1, &commands));
    lk_status status = device->backend->run(device, commands, NULL);
    if (status == LK_OK) {
        status = device->backend->wait(device);
    }
    device->backend->release(device, commands);
    LK_TRY(status);
    return judge(instance, device, table, in_place, hash, verdict);
}

static lk_status check_with(const op_instance *instance, lk_device *device, const lk_kernel *kernel, buffers *table,
                            op_verdict *verdict) {
    const lk_node *node = &instance->node;
    for (int i = 0; i < node->num_inputs; i++) {
        if (node->inputs[i] != NULL) {
            LK_TRY(guarded_make(instance, device, lk_tensor_bytes(node->inputs[i]), &table->inputs[i]));
            table->input_bindings[i] = (lk_binding){table->inputs[i].buffer, GUARD, table->inputs[i].bytes};
        }
    }
    for (int i = 0; i < node->num_outputs; i++) {
        if (node->outputs[i] != NULL) {
            LK_TRY(guarded_make(instance, device, lk_tensor_bytes(node->outputs[i]), &table->outputs[i]));
            table->output_bindings[i] = (lk_binding){table->outputs[i].buffer, GUARD, table->outputs[i].bytes};
        }
    }
    size_t scratch = kernel->scratch != NULL ? kernel->scratch(&device->caps, node) : 0;
    if (scratch > 0) {
        LK_TRY(guarded_make(instance, device, scratch, &table->scratch));
    }
    uint64_t first, second;
    LK_TRY(run_once(instance, device, kernel, table, -1, &first, verdict));
    LK_TRY(run_once(instance, device, kernel, table, -1, &second, verdict));
    if (first != second && verdict->problem[0] == '\0') {
        snprintf(verdict->problem, sizeof verdict->problem, "two runs differ");
    }
    int in_place = kernel->in_place;
    if (in_place >= 0 && in_place < node->num_inputs && node->inputs[in_place] != NULL && node->outputs[0] != NULL &&
        lk_tensor_bytes(node->inputs[in_place]) == lk_tensor_bytes(node->outputs[0])) {
        LK_TRY(run_once(instance, device, kernel, table, in_place, &second, verdict));
    }
    return LK_OK;
}

lk_status op_instance_check(const op_instance *instance, lk_device *device, const lk_kernel *kernel,
                            op_verdict *verdict) {
    *verdict = (op_verdict){.tolerance = op_case_tolerance(instance->self, &instance->node, kernel)};
    buffers table = {0};
    lk_status status = check_with(instance, device, kernel, &table, verdict);
    for (int i = 0; i < MAX_CASE_INPUTS + LK_MAX_OUTPUTS + 1; i++) {
        guarded *buffer = i < MAX_CASE_INPUTS                    ? &table.inputs[i]
                          : i < MAX_CASE_INPUTS + LK_MAX_OUTPUTS ? &table.outputs[i - MAX_CASE_INPUTS]
                                                                 : &table.scratch;
        device->backend->free(device, buffer->buffer);
        lk_free_aligned(instance->context, buffer->host);
    }
    return status;
}
