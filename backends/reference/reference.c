/* The reference backend: runs the specification of each op (core/ops/<op>.c) over doubles. Slow, complete, and what
 * every other backend is measured against. */
#include <stdio.h>
#include <string.h>

#include "backends/host/buffer.h"
#include "core/graph/ops.h"
#include "dispatch/dispatch.h"

struct lk_commands {
    const lk_command *commands;
    int count;
};

typedef struct reference_device {
    lk_device device;
    lk_status status; /* of the last run */
} reference_device;

static lk_status probe(lk_context *context, lk_device_caps *caps, int capacity, int *count) {
    (void)context;
    *count = 1;
    if (capacity > 0) {
        caps[0] = (lk_device_caps){.struct_size = sizeof *caps,
                                   .backend = "reference",
                                   .name = "specification in plain C, double precision",
                                   .driver = "1",
                                   .is_cpu = true,
                                   .host_memory = true,
                                   .threads = 1,
                                   .subgroup_size = 1,
                                   .max_group_size = 1,
                                   .max_buffer_bytes = SIZE_MAX,
                                   .flops_f32 = 2e8,
                                   .bandwidth = 1e9};
    }
    return LK_OK;
}

static lk_status open_device(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                             lk_device **out) {
    (void)options;
    *out = NULL;
    reference_device *device = lk_calloc(context, 1, sizeof *device);
    if (device == NULL) {
        return lk_out_of_memory(context, sizeof *device, "a device");
    }
    device->device = (lk_device){&lk_backend_reference, context, *caps};
    *out = &device->device;
    return LK_OK;
}

static void close_device(lk_device *device) {
    if (device != NULL) {
        lk_free(device->context, device);
    }
}

static lk_status alloc_buffer(lk_device *device, size_t bytes, lk_buffer **out) {
    LK_TRY(lk_host_alloc(device, bytes, out));
    memset((*out)->bytes, 0, bytes);
    return LK_OK;
}

/* Copies of everything as doubles are made per command: the one backend where a run allocates. */
static lk_status run_command(lk_context *context, const lk_command *command) {
    const lk_node *node = command->node;
    int count = node->num_inputs + node->num_outputs;
    lk_arena arena;
    lk_arena_init(&arena, context);
    double **values = lk_arena_alloc(&arena, (size_t)(count + 1) * sizeof *values);
    lk_status status = values ? LK_OK : lk_out_of_memory(context, (size_t)count * sizeof *values, "a command");
    for (int i = 0; i < count && status == LK_OK; i++) {
        bool is_input = i < node->num_inputs;
        const lk_tensor *tensor = is_input ? node->inputs[i] : node->outputs[i - node->num_inputs];
        if (tensor == NULL) {
            continue;
        }
        size_t bytes = (size_t)lk_tensor_elements(tensor) * sizeof(double);
        values[i] = lk_arena_alloc(&arena, bytes);
        if (values[i] == NULL) {
            status = lk_out_of_memory(context, bytes, "a tensor in double precision");
        } else if (is_input) {
            lk_dtype_to_f64(tensor->dtype, lk_host_bytes(&command->inputs[i]), lk_tensor_elements(tensor), values[i]);
        }
    }
    if (status == LK_OK) {
        lk_reference_call call = {context, node, values, values + node->num_inputs};
        status = lk_op_info_of(node->op)->reference(&call);
    }
    for (int i = 0; i < node->num_outputs && status == LK_OK; i++) {
        if (node->outputs[i] != NULL) {
            lk_dtype_from_f64(node->outputs[i]->dtype, values[node->num_inputs + i],
                              lk_tensor_elements(node->outputs[i]), lk_host_bytes(&command->outputs[i]));
        }
    }
    for (int i = 0; i < node->num_inputs && status == LK_OK && lk_node_mutates(node); i++) {
        if (node->inputs[i] != NULL && node->inputs[i]->role == LK_ROLE_STATE) {
            lk_dtype_from_f64(node->inputs[i]->dtype, values[i], lk_tensor_elements(node->inputs[i]),
                              lk_host_bytes(&command->inputs[i]));
        }
    }
    lk_arena_free(&arena);
    return status;
}

static lk_status compile(lk_device *device, const lk_command *commands, int count, lk_commands **out) {
    *out = lk_calloc(device->context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(device->context, sizeof **out, "a command list");
    }
    **out = (lk_commands){commands, count};
    return LK_OK;
}

static void release(lk_device *device, lk_commands *commands) {
    lk_free(device->context, commands);
}

static lk_status run(lk_device *device, lk_commands *commands, double *seconds) {
    reference_device *self = (reference_device *)device;
    self->status = LK_OK;
    for (int i = 0; i < commands->count && self->status == LK_OK; i++) {
        double start = lk_seconds();
        self->status = run_command(device->context, &commands->commands[i]);
        if (seconds != NULL) {
            seconds[i] = lk_seconds() - start;
        }
    }
    return self->status;
}

static lk_status wait_device(lk_device *device) {
    return ((reference_device *)device)->status;
}

static double cost(const lk_device_caps *caps, const lk_node *node) {
    return lk_node_flops(node) / caps->flops_f32 + lk_node_bytes(node) / caps->bandwidth;
}

static bool supports(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    (void)caps;
    for (int i = 0; i < node->num_inputs; i++) {
        LK_REQUIRE(why, node->inputs[i] == NULL || lk_dtype_block_size(node->inputs[i]->dtype) == 1,
                   "quantised tensors must be dequantised first");
    }
    return true;
}

/* Every op has a reference kernel, so every op has a row. */
static const lk_kernel rows[] = {
#define LK_OP(NAME, op_name, signature, gradient, decomposition, accumulate, effect, flops) \
    {.name = "reference_" #op_name, .op = LK_OP_##NAME, .supports = supports, .cost = cost, .in_place = -1},
#include "lorikeet/ops.def"
#undef LK_OP
};

static const lk_kernel *kernels(int *count) {
    *count = (int)LK_COUNT(rows);
    return rows;
}

const lk_backend lk_backend_reference = {
    .abi_version = LK_BACKEND_ABI_VERSION,
    .struct_size = sizeof(lk_backend),
    .name = "reference",
    .summary = "the specification itself: plain C, double precision, one thread",
    .unasked = true,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .kernels = kernels,
    .alloc = alloc_buffer,
    .wrap = lk_host_wrap,
    .free = lk_host_free,
    .map = lk_host_map,
    .upload = lk_host_upload,
    .download = lk_host_download,
    .compile = compile,
    .release = release,
    .run = run,
    .wait = wait_device,
};
