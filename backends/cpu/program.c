/* Command lists: each command is a call with its pointers resolved, and the conversions around it. */
#include <cblas.h>
#include <string.h>

#include "backends/cpu/device.h"
#include "backends/cpu/scratch.h"

/* A tensor in 16 bits that the kernel sees as fp32. */
typedef struct conversion {
    float *wide;
    void *narrow;
    lk_dtype dtype;
    int64_t count;
    bool before, after; /* widened before the call; narrowed after it */
} conversion;

typedef struct command {
    lk_cpu_call call;
    lk_cpu_run run;
    const lk_cpu_isa *isa;
    conversion *conversions;
    int num_conversions;
} command;

struct lk_commands {
    lk_arena arena;
    command *items;
    int count;
};

/* Puts the tensor's fp32 copy, at *cursor, in the place of its pointer if the kernel wants it so. */
static void convert(command *item, const lk_node *node, int index, bool is_output, void **pointer, char **cursor) {
    const lk_tensor *tensor = is_output ? node->outputs[index] : node->inputs[index];
    if (tensor == NULL || lk_cpu_is_native(lk_cpu_op_of(node->op), index, is_output) ||
        (tensor->dtype != LK_DTYPE_BF16 && tensor->dtype != LK_DTYPE_F16)) {
        return;
    }
    bool mutated = !is_output && lk_node_mutates(node) && tensor->role == LK_ROLE_STATE;
    float *wide = (float *)(void *)*cursor;
    item->conversions[item->num_conversions++] =
        (conversion){wide, *pointer, tensor->dtype, lk_tensor_elements(tensor), !is_output, is_output || mutated};
    *pointer = wide;
    *cursor += lk_cpu_floats(lk_tensor_elements(tensor));
}

static lk_status prepare(lk_cpu_device *device, lk_arena *arena, const lk_command *source, command *item) {
    const lk_node *node = source->node;
    size_t count = (size_t)(node->num_inputs + node->num_outputs) + 1;
    void **pointers = lk_arena_alloc(arena, count * sizeof *pointers);
    item->conversions = lk_arena_alloc(arena, count * sizeof *item->conversions);
    if (pointers == NULL || item->conversions == NULL) {
        return lk_out_of_memory(device->device.context, count * sizeof *item->conversions, "a command");
    }
    void **outputs = pointers + node->num_inputs;
    char *scratch = lk_host_bytes(&source->scratch), *cursor = scratch;
    cursor += lk_cpu_own_scratch(&device->device.caps, source->kernel->required_features, node);
    for (int i = 0; i < node->num_inputs; i++) {
        pointers[i] = node->inputs[i] != NULL ? lk_host_bytes(&source->inputs[i]) : NULL;
        convert(item, node, i, false, &pointers[i], &cursor);
    }
    for (int i = 0; i < node->num_outputs; i++) {
        outputs[i] = node->outputs[i] != NULL ? lk_host_bytes(&source->outputs[i]) : NULL;
        convert(item, node, i, true, &outputs[i], &cursor);
    }
    item->call = (lk_cpu_call){
        node, pointers, outputs, scratch, device->pool, lk_pool_threads(device->pool), device->worker_memory};
    item->run = (lk_cpu_run)source->kernel->run;
    item->isa = source->kernel->variant;
    return LK_OK;
}

lk_status lk_cpu_compile(lk_device *device, const lk_command *commands, int count, lk_commands **out) {
    *out = NULL;
    lk_commands *list = lk_calloc(device->context, 1, sizeof *list);
    if (list == NULL) {
        return lk_out_of_memory(device->context, sizeof *list, "a command list");
    }
    lk_arena_init(&list->arena, device->context);
    list->items = lk_arena_alloc(&list->arena, (size_t)count * sizeof *list->items);
    list->count = count;
    lk_status status = list->items != NULL ? LK_OK : lk_out_of_memory(device->context, (size_t)count, "commands");
    for (int i = 0; i < count && status == LK_OK; i++) {
        status = prepare((lk_cpu_device *)device, &list->arena, &commands[i], &list->items[i]);
        if (commands[i].kernel->required_features == 0) {
            openblas_set_num_threads(1); /* the portable kernels call it from each of our own threads */
        }
    }
    if (status != LK_OK) {
        lk_cpu_release(device, list);
        return status;
    }
    *out = list;
    return LK_OK;
}

void lk_cpu_release(lk_device *device, lk_commands *commands) {
    if (commands != NULL) {
        lk_arena_free(&commands->arena);
        lk_free(device->context, commands);
    }
}

typedef struct convert_job {
    const lk_cpu_isa *isa;
    const conversion *conversion;
    bool widen;
    int tasks;
} convert_job;

static void convert_part(void *argument, int task, int worker) {
    (void)worker;
    const convert_job *job = argument;
    const conversion *c = job->conversion;
    lk_range range = lk_split(c->count, 64, job->tasks, task);
    char *narrow = (char *)c->narrow + 2 * range.begin;
    if (job->widen) {
        job->isa->widen(c->wide + range.begin, narrow, c->dtype, range.end - range.begin);
    } else {
        job->isa->narrow(narrow, c->wide + range.begin, c->dtype, range.end - range.begin);
    }
}

static void run_conversions(const command *item, bool widen) {
    for (int i = 0; i < item->num_conversions; i++) {
        const conversion *c = &item->conversions[i];
        if (widen ? c->before : c->after) {
            convert_job job = {item->isa, c, widen, lk_cpu_tasks(&item->call, c->count, (double)c->count * 6.0)};
            lk_pool_run(item->call.pool, convert_part, &job, job.tasks);
        }
    }
}

lk_status lk_cpu_run_commands(lk_device *device, lk_commands *commands, double *seconds) {
    (void)device;
    for (int i = 0; i < commands->count; i++) {
        const command *item = &commands->items[i];
        double start = seconds != NULL ? lk_seconds() : 0.0;
        run_conversions(item, true);
        item->run(&item->call);
        run_conversions(item, false);
        if (seconds != NULL) {
            seconds[i] = lk_seconds() - start;
        }
    }
    return LK_OK;
}

/* A run is complete when it returns. */
lk_status lk_cpu_wait(lk_device *device) {
    (void)device;
    return LK_OK;
}
