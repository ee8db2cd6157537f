#include "tests/faults/fake_device.h"

#include <string.h>

_Static_assert(LK_OP_COUNT < 63, "an op is a feature bit of the fake device");

/* Each buffer, command and list is one of a reference device inside. */
typedef struct fake_device {
    lk_device device;
    lk_device *inner;
    fake_counters counters;
    const char *wrong;     /* a kernel that computes something else; NULL: none */
    const double *seconds; /* pairs with kernels[]; NULL: the time that passes */
    const char *const *clocked;
    int num_clocked;
    bool is_lost, loses; /* after a failure all calls fail */
    int countdown[FAKE_CALL_COUNT];
    lk_status failure[FAKE_CALL_COUNT];
} fake_device;

struct lk_buffer {
    lk_buffer *inner;
    bool host_memory;
};

struct lk_commands {
    lk_arena arena;
    lk_commands *inner;
    lk_command *commands;
    int count;
};

static const lk_backend fake_backend;

static fake_device *fake_of(lk_device *device) {
    return (fake_device *)device;
}

static lk_status enter(lk_device *device, fake_call call) {
    fake_device *self = fake_of(device);
    self->counters.calls[call]++;
    if (self->is_lost) {
        return lk_fail(device->context, LK_STATUS_DEVICE, "the device is lost");
    }
    if (self->countdown[call] > 0 && --self->countdown[call] == 0) {
        self->is_lost = self->loses;
        return lk_fail(device->context, self->failure[call], "injected failure");
    }
    return LK_OK;
}

static lk_status probe(lk_context *context, lk_device_caps *caps, int capacity, int *count) {
    LK_TRY(lk_backend_reference.probe(context, caps, capacity, count));
    if (capacity > 0) {
        strcpy(caps[0].backend, "fake");
        caps[0].is_cpu = caps[0].host_memory = false;
    }
    return LK_OK;
}

static lk_status open_device(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                             lk_device **out) {
    *out = NULL;
    fake_device *self = lk_calloc(context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(context, sizeof *self, "a device");
    }
    lk_status status = lk_backend_reference.open(context, caps, options, &self->inner);
    if (status != LK_OK) {
        lk_free(context, self);
        return status;
    }
    self->device = (lk_device){&fake_backend, context, *caps};
    *out = &self->device;
    return LK_OK;
}

static void close_device(lk_device *device) {
    if (device != NULL) {
        lk_backend_reference.close(fake_of(device)->inner);
        lk_free(device->context, device);
    }
}

/* A buffer around one of the inside, which `host` stands for where it is not NULL. */
static lk_status make_buffer(lk_device *device, const void *host, size_t bytes, lk_buffer **out) {
    lk_device *inner = fake_of(device)->inner;
    lk_buffer *buffer = lk_calloc(device->context, 1, sizeof *buffer);
    if (buffer == NULL) {
        return lk_out_of_memory(device->context, sizeof *buffer, "a buffer");
    }
    lk_status status = host != NULL ? lk_backend_reference.wrap(inner, host, bytes, &buffer->inner)
                                    : lk_backend_reference.alloc(inner, bytes, &buffer->inner);
    if (status != LK_OK) {
        lk_free(device->context, buffer);
        return status;
    }
    buffer->host_memory = device->caps.host_memory;
    fake_of(device)->counters.live_buffers++;
    *out = buffer;
    return LK_OK;
}

static lk_status alloc_buffer(lk_device *device, size_t bytes, lk_buffer **out) {
    *out = NULL;
    LK_TRY(enter(device, FAKE_ALLOC));
    return make_buffer(device, NULL, bytes, out);
}

static lk_status wrap_buffer(lk_device *device, const void *host, size_t bytes, lk_buffer **out) {
    *out = NULL;
    if (!device->caps.host_memory) {
        return lk_fail(device->context, LK_STATUS_UNSUPPORTED, "the fake device cannot use memory of the host");
    }
    return make_buffer(device, host, bytes, out);
}

static void free_buffer(lk_device *device, lk_buffer *buffer) {
    if (buffer != NULL) {
        lk_backend_reference.free(fake_of(device)->inner, buffer->inner);
        lk_free(device->context, buffer);
        fake_of(device)->counters.live_buffers--;
    }
}

static void *map_buffer(lk_buffer *buffer) {
    return buffer->host_memory ? lk_backend_reference.map(buffer->inner) : NULL;
}

static lk_status upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes) {
    LK_TRY(enter(device, FAKE_UPLOAD));
    return lk_backend_reference.upload(fake_of(device)->inner, buffer->inner, offset, host, bytes);
}

static lk_status download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes) {
    LK_TRY(enter(device, FAKE_DOWNLOAD));
    return lk_backend_reference.download(fake_of(device)->inner, buffer->inner, offset, host, bytes);
}

static lk_binding inner_binding(const lk_binding *binding) {
    lk_binding inner = *binding;
    inner.buffer = binding->buffer != NULL ? binding->buffer->inner : NULL;
    return inner;
}

static bool overlap(const lk_binding *a, const lk_binding *b) {
    return a->buffer != NULL && a->buffer == b->buffer && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

/* What a command writes lies apart from all else of it, but for output 0 in the place of the input that the row names.
 */
static lk_status check_bindings(lk_context *context, const lk_command *command) {
    const lk_node *node = command->node;
    int written = node->num_outputs + 1;
    for (int i = 0; i < written; i++) {
        const lk_binding *own = i < node->num_outputs ? &command->outputs[i] : &command->scratch;
        for (int j = 0; j < node->num_inputs; j++) {
            if (overlap(own, &command->inputs[j]) && !(i == 0 && j == command->kernel->in_place)) {
                return lk_fail(context, LK_STATUS_INTERNAL, "%s: result %d lies over input %d", lk_op_name(node->op), i,
                               j);
            }
        }
        for (int j = 0; j < i; j++) {
            if (overlap(own, &command->outputs[j])) {
                return lk_fail(context, LK_STATUS_INTERNAL, "%s: results %d and %d overlap", lk_op_name(node->op), i,
                               j);
            }
        }
    }
    return LK_OK;
}

static lk_status translate(lk_commands *list, const lk_command *commands) {
    for (int i = 0; i < list->count; i++) {
        const lk_node *node = commands[i].node;
        size_t count = (size_t)(node->num_inputs + node->num_outputs);
        LK_TRY(check_bindings(list->arena.context, &commands[i]));
        lk_binding *bindings = lk_arena_alloc(&list->arena, (count + 1) * sizeof *bindings);
        if (bindings == NULL) {
            return lk_out_of_memory(list->arena.context, count * sizeof *bindings, "a command");
        }
        for (int j = 0; j < node->num_inputs; j++) {
            bindings[j] = inner_binding(&commands[i].inputs[j]);
        }
        for (int j = 0; j < node->num_outputs; j++) {
            bindings[node->num_inputs + j] = inner_binding(&commands[i].outputs[j]);
        }
        list->commands[i] = commands[i];
        list->commands[i].inputs = bindings;
        list->commands[i].outputs = bindings + node->num_inputs;
        list->commands[i].scratch = inner_binding(&commands[i].scratch);
    }
    return LK_OK;
}

static void release(lk_device *device, lk_commands *list) {
    if (list != NULL) {
        lk_backend_reference.release(fake_of(device)->inner, list->inner);
        lk_arena_free(&list->arena);
        lk_free(device->context, list);
        fake_of(device)->counters.live_lists--;
    }
}

static lk_status compile(lk_device *device, const lk_command *commands, int count, lk_commands **out) {
    *out = NULL;
    LK_TRY(enter(device, FAKE_COMPILE));
    lk_commands *list = lk_calloc(device->context, 1, sizeof *list);
    if (list == NULL) {
        return lk_out_of_memory(device->context, sizeof *list, "a command list");
    }
    fake_of(device)->counters.live_lists++;
    lk_arena_init(&list->arena, device->context);
    list->count = count;
    list->commands = lk_arena_alloc(&list->arena, (size_t)(count + 1) * sizeof *list->commands);
    lk_status status = list->commands != NULL ? translate(list, commands)
                                              : lk_out_of_memory(device->context, sizeof *list->commands, "commands");
    if (status == LK_OK) {
        status = lk_backend_reference.compile(fake_of(device)->inner, list->commands, count, &list->inner);
    }
    if (status != LK_OK) {
        release(device, list);
        return status;
    }
    *out = list;
    return LK_OK;
}

/* All ones is a NaN in every float format. */
static lk_status spoil(lk_device *device, const lk_binding *scratch) {
    static const unsigned char ones[256] = {
#define EIGHT 255, 255, 255, 255, 255, 255, 255, 255
        EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT,
        EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT, EIGHT,
#undef EIGHT
    };
    for (size_t done = 0; done < scratch->bytes; done += sizeof ones) {
        LK_TRY(lk_backend_reference.upload(fake_of(device)->inner, scratch->buffer, scratch->offset + done, ones,
                                           LK_MIN(sizeof ones, scratch->bytes - done)));
    }
    return LK_OK;
}

/* Zeros in place of the first result. */
static lk_status falsify(lk_device *device, const lk_command *command) {
    static const char zeros[256];
    const lk_binding *result = &command->outputs[0];
    for (size_t done = 0; done < result->bytes; done += sizeof zeros) {
        LK_TRY(lk_backend_reference.upload(fake_of(device)->inner, result->buffer, result->offset + done, zeros,
                                           LK_MIN(sizeof zeros, result->bytes - done)));
    }
    return LK_OK;
}

static void read_clock(const fake_device *self, const char *kernel, double *seconds) {
    for (int i = 0; i < self->num_clocked && seconds != NULL; i++) {
        if (strcmp(self->clocked[i], kernel) == 0) {
            *seconds = self->seconds[i];
        }
    }
}

static lk_status run(lk_device *device, lk_commands *list, double *seconds) {
    fake_device *self = fake_of(device);
    LK_TRY(enter(device, FAKE_RUN));
    /* scratch is written after the command too: what an overlap would spoil is then an output */
    for (int i = 0; i < list->count; i++) {
        lk_commands *single;
        LK_TRY(spoil(device, &list->commands[i].scratch));
        LK_TRY(lk_backend_reference.compile(self->inner, &list->commands[i], 1, &single));
        lk_status status = lk_backend_reference.run(self->inner, single, seconds != NULL ? seconds + i : NULL);
        lk_backend_reference.release(self->inner, single);
        LK_TRY(status);
        read_clock(self, list->commands[i].kernel->name, seconds != NULL ? seconds + i : NULL);
        if (self->wrong != NULL && strcmp(self->wrong, list->commands[i].kernel->name) == 0) {
            LK_TRY(falsify(device, &list->commands[i]));
        }
        LK_TRY(spoil(device, &list->commands[i].scratch));
        self->counters.commands++;
    }
    return LK_OK;
}

static lk_status wait_device(lk_device *device) {
    return enter(device, FAKE_WAIT);
}

static double cost(const lk_device_caps *caps, const lk_node *node) {
    return lk_node_flops(node) / caps->flops_f32;
}

/* As much as the first output: the size that is easiest to mistake for it. */
static size_t scratch_bytes(const lk_device_caps *caps, const lk_node *node) {
    (void)caps;
    return node->outputs[0] != NULL ? lk_tensor_bytes(node->outputs[0]) : 40;
}

#define IN_PLACE(NAME)                                                                                          \
    (LK_OP_##NAME == LK_OP_MATMUL ? 2                                                                           \
     : LK_OP_##NAME == LK_OP_ADD || LK_OP_##NAME == LK_OP_MUL || LK_OP_##NAME == LK_OP_SCALE ||                 \
             LK_OP_##NAME == LK_OP_ADD_BIAS || LK_OP_##NAME == LK_OP_SWIGLU || LK_OP_##NAME == LK_OP_MUL_SCALAR \
         ? 0                                                                                                    \
         : -1)

static double half_cost(const lk_device_caps *caps, const lk_node *node) {
    return cost(caps, node) / 2.0;
}

static const lk_kernel rows[] = {
    {.name = "fake_mul_fast", .op = LK_OP_MUL, .required_features = FAKE_FAST_MUL, .cost = half_cost, .in_place = -1},
#define LK_OP(NAME, op_name, signature, gradient, decomposition, accumulate, effect, flops) \
    {.name = "fake_" #op_name,                                                              \
     .op = LK_OP_##NAME,                                                                    \
     .required_features = UINT64_C(1) << LK_OP_##NAME,                                      \
     .cost = cost,                                                                          \
     .scratch = scratch_bytes,                                                              \
     .in_place = IN_PLACE(NAME)},
#include "lorikeet/ops.def"
#undef LK_OP
};

static const lk_kernel *kernels(int *count) {
    *count = (int)LK_COUNT(rows);
    return rows;
}

static const lk_backend fake_backend = {
    .abi_version = LK_BACKEND_ABI_VERSION,
    .struct_size = sizeof(lk_backend),
    .name = "fake",
    .summary = "for tests",
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .kernels = kernels,
    .alloc = alloc_buffer,
    .wrap = wrap_buffer,
    .free = free_buffer,
    .map = map_buffer,
    .upload = upload,
    .download = download,
    .compile = compile,
    .release = release,
    .run = run,
    .wait = wait_device,
};

lk_status fake_device_open(lk_context *context, uint64_t ops, lk_device **out) {
    lk_device_caps caps;
    int count;
    LK_TRY(probe(context, &caps, 1, &count));
    caps.features = ops & (fake_all_ops() | FAKE_FAST_MUL);
    lk_device_options options = {sizeof options, 1};
    return open_device(context, &caps, &options, out);
}

void fake_device_share_memory(lk_device *device) {
    device->caps.host_memory = true;
}

uint64_t fake_op(lk_op op) {
    return UINT64_C(1) << op;
}

uint64_t fake_all_ops(void) {
    return (UINT64_C(1) << LK_OP_COUNT) - 1;
}

fake_counters *fake_device_counters(lk_device *device) {
    return &fake_of(device)->counters;
}

void fake_device_be_wrong(lk_device *device, const char *kernel) {
    fake_of(device)->wrong = kernel;
}

void fake_device_set_clock(lk_device *device, const char *const *kernels, const double *seconds, int count) {
    fake_of(device)->clocked = kernels;
    fake_of(device)->seconds = seconds;
    fake_of(device)->num_clocked = count;
}

void fake_device_lose(lk_device *device, fake_call call, int nth) {
    fake_device_fail(device, call, nth, LK_STATUS_DEVICE);
    fake_of(device)->loses = true;
}

void fake_device_fail(lk_device *device, fake_call call, int nth, lk_status status) {
    fake_of(device)->countdown[call] = nth;
    fake_of(device)->failure[call] = status;
}
