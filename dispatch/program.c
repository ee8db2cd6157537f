/* Compiling: lower what the main device cannot do, choose a kernel for every node, place every tensor, and record the
 * command lists. */
#include "dispatch/program.h"

#include <string.h>

#include "core/graph/passes/passes.h"

bool lk_devices_share_memory(const lk_device *a, const lk_device *b) {
    return a == b || (a->caps.host_memory && b->caps.host_memory);
}

static lk_selection select_on(const lk_program *program, int32_t device, const lk_node *node) {
    int count;
    const lk_kernel *rows = program->devices[device]->backend->kernels(&count);
    return lk_select(rows, count, &program->devices[device]->caps, node,
                     program->has_preferences ? &program->preferences : NULL, NULL, NULL);
}

static bool runs_on_main_device(void *user, const lk_node *node) {
    return select_on(user, 0, node).kernel != NULL;
}

/* Chooses until the kernel that is chosen has passed its check. */
static lk_status select_sound(const lk_program *program, int32_t device, const lk_node *node, lk_selection *out) {
    bool checks = program->has_preferences && program->preferences.check != NULL && !program->planned_only;
    for (bool sound = false; !sound;) {
        *out = select_on(program, device, node);
        sound = true;
        if (checks && out->kernel != NULL) {
            LK_TRY(program->preferences.check(program->preferences.user, program->devices[device], out->kernel, node,
                                              &sound));
        }
    }
    return LK_OK;
}

/* The main device where it can, else the next one that has a kernel. */
static lk_status place_nodes(lk_program *program) {
    lk_graph *graph = program->graph;
    program->num_commands = graph->num_nodes;
    size_t count = (size_t)graph->num_nodes + 1;
    program->placements = lk_arena_alloc(&program->arena, count * sizeof *program->placements);
    program->commands = lk_arena_alloc(&program->arena, count * sizeof *program->commands);
    program->seconds = lk_arena_alloc(&program->arena, count * sizeof *program->seconds);
    program->locations = lk_arena_alloc(
        &program->arena, ((size_t)graph->num_tensors * (size_t)program->num_devices + 1) * sizeof *program->locations);
    if (!program->placements || !program->commands || !program->seconds || !program->locations) {
        return lk_out_of_memory(program->context, count * sizeof *program->commands, "a program");
    }
    for (int32_t i = 0; i < graph->num_nodes; i++) {
        const lk_node *node = graph->nodes[i];
        lk_selection chosen = {0};
        for (int32_t d = 0; d < program->num_devices && chosen.kernel == NULL; d++) {
            LK_TRY(select_sound(program, d, node, &chosen));
            program->placements[i].device = program->devices[d];
        }
        if (chosen.kernel == NULL) {
            return lk_fail(program->context, LK_STATUS_UNSUPPORTED, "no device has a kernel for %s at %s",
                           lk_op_name(node->op), node->scope);
        }
        program->placements[i].node = node;
        program->placements[i].kernel = chosen.kernel;
        program->placements[i].estimated_seconds = chosen.seconds;
        program->placements[i].rule = chosen.rule;
        program->placements[i].tuned = chosen.tuned;
    }
    return LK_OK;
}

static int32_t device_index(const lk_program *program, const lk_device *device) {
    for (int32_t d = 0; d < program->num_devices; d++) {
        if (program->devices[d] == device) {
            return d;
        }
    }
    return -1;
}

static int32_t device_of(const lk_program *program, int32_t command) {
    return device_index(program, program->placements[command].device);
}

static int32_t owner_of(const lk_program *program, const lk_tensor *tensor) {
    for (int32_t d = 0; d < program->num_devices; d++) {
        if (lk_location_of(program, tensor, d)->residence == LK_OWN) {
            return d;
        }
    }
    return -1;
}

static lk_status settle_variable(lk_program *program, const lk_tensor *tensor) {
    lk_device *home = program->planned_only ? program->devices[0] : lk_variable_home(tensor->variable);
    int32_t d = device_index(program, home);
    if (d < 0) {
        return lk_fail(program->context, LK_STATUS_INVALID_ARGUMENT, "%s lies on a device the program does not use",
                       tensor->name);
    }
    lk_location *location = lk_location_of(program, tensor, d);
    location->residence = LK_OWN;
    location->item = -1;
    if (!program->planned_only) {
        location->binding = (lk_binding){lk_variable_buffer(tensor->variable), 0, tensor->variable->bytes};
    }
    return LK_OK;
}

/* How each device that a tensor is used on gets to it. */
static lk_status settle_tensors(lk_program *program) {
    for (int32_t i = 0; i < program->num_commands; i++) {
        const lk_node *node = program->placements[i].node;
        int32_t d = device_of(program, i);
        for (int j = 0; j < node->num_inputs; j++) {
            const lk_tensor *tensor = node->inputs[j];
            if (tensor == NULL) {
                continue;
            }
            if (tensor->variable != NULL && owner_of(program, tensor) < 0) {
                LK_TRY(settle_variable(program, tensor));
            }
            int32_t owner = owner_of(program, tensor);
            if (owner < 0) {
                return lk_fail(program->context, LK_STATUS_INTERNAL, "%s at %s reads a tensor before it is made",
                               lk_op_name(node->op), node->scope);
            }
            lk_location *location = lk_location_of(program, tensor, d);
            if (location->residence == LK_ABSENT) {
                bool shared = lk_devices_share_memory(program->devices[owner], program->devices[d]);
                location->residence = shared ? LK_ALIAS : LK_COPY;
                location->item = -1;
            }
        }
        for (int j = 0; j < node->num_outputs; j++) {
            if (node->outputs[j] != NULL) {
                lk_location_of(program, node->outputs[j], d)->residence = LK_OWN;
            }
        }
    }
    return LK_OK;
}

static lk_status add_step(lk_program *program, lk_step step) {
    if (program->num_steps % 64 == 0) {
        lk_step *steps = lk_arena_alloc(&program->arena, (size_t)(program->num_steps + 64) * sizeof *steps);
        if (steps == NULL) {
            return lk_out_of_memory(program->context, sizeof *steps, "a program");
        }
        if (program->num_steps > 0) {
            memcpy(steps, program->steps, (size_t)program->num_steps * sizeof *steps);
        }
        program->steps = steps;
    }
    program->steps[program->num_steps++] = step;
    return LK_OK;
}

static bool is_copied_since(const lk_program *program, int32_t step, const lk_tensor *tensor) {
    for (int32_t s = step; s < program->num_steps; s++) {
        if (program->steps[s].device < 0 && program->steps[s].tensor == tensor) {
            return true;
        }
    }
    return false;
}

/* Consecutive commands on one device form a replay. Before it come the copies of what it reads from elsewhere; after it
 * those of the variables it wrote, back to where they are at home. `fresh` marks copies that are up to date. */
static lk_status schedule(lk_program *program, bool *fresh) {
    int32_t devices = program->num_devices;
    for (int32_t i = 0; i < program->num_commands;) {
        int32_t d = device_of(program, i), end = i;
        while (end < program->num_commands && device_of(program, end) == d) {
            end++;
        }
        for (int32_t c = i; c < end; c++) {
            const lk_node *node = program->placements[c].node;
            for (int j = 0; j < node->num_inputs; j++) {
                const lk_tensor *tensor = node->inputs[j];
                if (tensor == NULL || lk_location_of(program, tensor, d)->residence != LK_COPY ||
                    tensor->role == LK_ROLE_WEIGHT || fresh[tensor->id * devices + d]) {
                    continue;
                }
                fresh[tensor->id * devices + d] = true;
                LK_TRY(add_step(
                    program,
                    (lk_step){.device = -1, .first = i, .tensor = tensor, .from = owner_of(program, tensor), .to = d}));
            }
        }
        int32_t replay = program->num_steps;
        LK_TRY(add_step(program, (lk_step){.device = d, .first = i, .count = end - i}));
        for (int32_t c = i; c < end; c++) {
            const lk_node *node = program->placements[c].node;
            for (int j = 0; j < node->num_inputs && lk_node_mutates(node); j++) {
                const lk_tensor *tensor = node->inputs[j];
                if (tensor == NULL || tensor->role != LK_ROLE_STATE) {
                    continue;
                }
                for (int32_t other = 0; other < devices; other++) {
                    fresh[tensor->id * devices + other] = other == d;
                }
                if (lk_location_of(program, tensor, d)->residence == LK_COPY &&
                    !is_copied_since(program, replay, tensor)) {
                    LK_TRY(add_step(program, (lk_step){.device = -1,
                                                       .first = end - 1,
                                                       .tensor = tensor,
                                                       .from = d,
                                                       .to = owner_of(program, tensor)}));
                }
            }
        }
        i = end;
    }
    return LK_OK;
}

/* ---- memory ---- */

typedef struct memory_plan {
    lk_plan_item *items;
    int32_t count;
} memory_plan;

static int32_t last_use(const lk_program *program, const lk_tensor *tensor, const int32_t *uses) {
    return tensor->is_output ? program->num_commands - 1 : uses[tensor->id];
}

/* The input whose memory output 0 of a command takes over, or NULL. */
static const lk_tensor *taken_over(const lk_program *program, int32_t command, int32_t device, const int32_t *uses) {
    const lk_node *node = program->placements[command].node;
    int32_t index = program->placements[command].kernel->in_place;
    if (index < 0 || index >= node->num_inputs || node->inputs[index] == NULL || node->outputs[0] == NULL) {
        return NULL;
    }
    const lk_tensor *tensor = node->inputs[index];
    if (tensor->variable != NULL || tensor->is_output || uses[tensor->id] != command ||
        lk_location_of(program, tensor, device)->residence != LK_OWN ||
        lk_tensor_bytes(tensor) != lk_tensor_bytes(node->outputs[0])) {
        return NULL;
    }
    for (int j = 0; j < node->num_inputs; j++) {
        if (j != index && node->inputs[j] == tensor) {
            return NULL;
        }
    }
    return tensor;
}

static void list_items(lk_program *program, int32_t device, const int32_t *uses, memory_plan *plan) {
    for (int32_t i = 0; i < program->num_commands; i++) {
        const lk_node *node = program->placements[i].node;
        bool here = device_of(program, i) == device;
        for (int j = 0; j < node->num_outputs; j++) {
            lk_tensor *tensor = node->outputs[j];
            if (tensor == NULL) {
                continue;
            }
            lk_location *location = lk_location_of(program, tensor, device);
            if (location->residence != LK_OWN && location->residence != LK_COPY) {
                continue;
            }
            int32_t last = LK_MAX(i, last_use(program, tensor, uses)), shares = -1;
            const lk_tensor *input = here && j == 0 ? taken_over(program, i, device, uses) : NULL;
            if (input != NULL) {
                shares = lk_location_of(program, input, device)->item;
            }
            location->item = plan->count;
            plan->items[plan->count++] = (lk_plan_item){lk_tensor_bytes(tensor), i, last, shares, 0};
        }
        size_t scratch = here && program->placements[i].kernel->scratch != NULL
                             ? program->placements[i].kernel->scratch(&program->devices[device]->caps, node)
                             : 0;
        if (scratch > 0) { /* until the plan is made, the offset is the item's number */
            program->commands[i].scratch = (lk_binding){NULL, (size_t)plan->count, scratch};
            plan->items[plan->count++] = (lk_plan_item){scratch, i, i, -1, 0};
        }
    }
    for (int32_t s = 0; s < program->num_steps; s++) { /* copies of variables that change from run to run */
        const lk_tensor *tensor = program->steps[s].tensor;
        if (tensor != NULL && tensor->variable != NULL && program->steps[s].to == device &&
            lk_location_of(program, tensor, device)->item < 0 &&
            lk_location_of(program, tensor, device)->residence == LK_COPY) {
            lk_location_of(program, tensor, device)->item = plan->count;
            plan->items[plan->count++] =
                (lk_plan_item){lk_tensor_bytes(tensor), program->steps[s].first, program->num_commands - 1, -1, 0};
        }
    }
}

static lk_status own_buffer(lk_program *program, int32_t device, lk_buffer *buffer) {
    int32_t count = program->num_buffers[device];
    if (count % 64 == 0) {
        lk_buffer **list = lk_arena_alloc(&program->arena, (size_t)(count + 64) * sizeof(lk_buffer *));
        if (list == NULL) {
            program->devices[device]->backend->free(program->devices[device], buffer);
            return lk_out_of_memory(program->context, sizeof(lk_buffer *), "a program");
        }
        if (count > 0) {
            memcpy(list, program->buffers[device], (size_t)count * sizeof(lk_buffer *));
        }
        program->buffers[device] = list;
    }
    program->buffers[device][program->num_buffers[device]++] = buffer;
    return LK_OK;
}

/* Aliases of other devices' memory, and copies of weights, which are made once, now. */
static lk_status bind_elsewhere(lk_program *program, const lk_tensor *tensor, int32_t d) {
    lk_location *location = lk_location_of(program, tensor, d);
    lk_device *device = program->devices[d];
    int32_t owner = owner_of(program, tensor);
    const lk_binding *origin = &lk_location_of(program, tensor, owner)->binding;
    lk_buffer *buffer;
    if (location->residence == LK_ALIAS) {
        char *host = program->devices[owner]->backend->map(origin->buffer);
        LK_TRY(device->backend->wrap(device, host + origin->offset, origin->bytes, &buffer));
    } else {
        LK_TRY(device->backend->alloc(device, origin->bytes, &buffer));
    }
    LK_TRY(own_buffer(program, d, buffer));
    location->binding = (lk_binding){buffer, 0, origin->bytes};
    return location->residence == LK_COPY ? lk_program_copy(program, tensor, owner, d) : LK_OK;
}

static lk_status bind_tensors(lk_program *program) {
    for (int32_t t = 0; t < program->graph->num_tensors; t++) {
        const lk_tensor *tensor = program->graph->tensors[t];
        for (int32_t d = 0; d < program->num_devices; d++) {
            lk_residence residence = lk_location_of(program, tensor, d)->residence;
            if (residence == LK_ALIAS || (residence == LK_COPY && tensor->role == LK_ROLE_WEIGHT)) {
                LK_TRY(bind_elsewhere(program, tensor, d));
            }
        }
    }
    return LK_OK;
}

static lk_status plan_device(lk_program *program, int32_t device, const int32_t *uses, memory_plan *plan) {
    plan->count = 0;
    list_items(program, device, uses, plan);
    size_t total, lower_bound;
    LK_TRY(lk_plan_memory(program->context, plan->items, plan->count, &total, &lower_bound));
    program->memory.arena_bytes += total;
    program->memory.lower_bound_bytes += lower_bound;
    if (program->planned_only) {
        return LK_OK;
    }
    lk_device *open = program->devices[device];
    if (total > 0) {
        lk_status status = open->backend->alloc(open, total, &program->arenas[device]);
        if (status != LK_OK) {
            return lk_fail_within(program->context, status, "activations of one step on %s", open->caps.backend);
        }
    }
    for (int32_t t = 0; t < program->graph->num_tensors; t++) {
        const lk_tensor *tensor = program->graph->tensors[t];
        lk_location *location = lk_location_of(program, tensor, device);
        bool planned = location->residence == LK_OWN ? tensor->variable == NULL
                                                     : location->residence == LK_COPY && tensor->role != LK_ROLE_WEIGHT;
        if (planned) {
            location->binding =
                (lk_binding){program->arenas[device], plan->items[location->item].offset, lk_tensor_bytes(tensor)};
        }
    }
    for (int32_t i = 0; i < program->num_commands; i++) {
        lk_binding *scratch = &program->commands[i].scratch;
        if (device_of(program, i) == device && scratch->bytes > 0) {
            *scratch = (lk_binding){program->arenas[device], plan->items[scratch->offset].offset, scratch->bytes};
        }
    }
    return LK_OK;
}

static lk_status plan_all(lk_program *program) {
    size_t num_tensors = (size_t)program->graph->num_tensors + 1;
    size_t capacity = num_tensors * 2 + (size_t)program->num_commands;
    int32_t *uses = lk_arena_alloc(&program->arena, num_tensors * sizeof *uses);
    bool *fresh = lk_arena_alloc(&program->arena, num_tensors * (size_t)program->num_devices);
    memory_plan plan = {lk_arena_alloc(&program->arena, capacity * sizeof(lk_plan_item)), 0};
    if (!uses || !fresh || !plan.items) {
        return lk_out_of_memory(program->context, capacity * sizeof(lk_plan_item), "the memory plan");
    }
    LK_TRY(schedule(program, fresh));
    for (int32_t i = 0; i < program->num_commands; i++) {
        const lk_node *node = program->placements[i].node;
        for (int j = 0; j < node->num_inputs; j++) {
            if (node->inputs[j] != NULL) {
                uses[node->inputs[j]->id] = i;
            }
        }
    }
    for (int32_t d = 0; d < program->num_devices; d++) {
        LK_TRY(plan_device(program, d, uses, &plan));
    }
    return LK_OK;
}

/* ---- command lists ---- */

static lk_status bind_command(lk_program *program, int32_t index) {
    const lk_node *node = program->placements[index].node;
    int32_t d = device_of(program, index);
    lk_command *command = &program->commands[index];
    size_t count = (size_t)(node->num_inputs + node->num_outputs);
    lk_binding *bindings = lk_arena_alloc(&program->arena, (count + 1) * sizeof *bindings);
    if (bindings == NULL) {
        return lk_out_of_memory(program->context, count * sizeof *bindings, "a command");
    }
    for (int j = 0; j < node->num_inputs; j++) {
        if (node->inputs[j] != NULL) {
            bindings[j] = lk_location_of(program, node->inputs[j], d)->binding;
        }
    }
    for (int j = 0; j < node->num_outputs; j++) {
        if (node->outputs[j] != NULL) {
            bindings[node->num_inputs + j] = lk_location_of(program, node->outputs[j], d)->binding;
        }
    }
    command->node = node;
    command->kernel = program->placements[index].kernel;
    command->inputs = bindings;
    command->outputs = bindings + node->num_inputs;
    return LK_OK;
}

static lk_status record(lk_program *program) {
    size_t staging = 0;
    for (int32_t i = 0; i < program->num_commands; i++) {
        LK_TRY(bind_command(program, i));
    }
    for (int32_t s = 0; s < program->num_steps; s++) {
        lk_step *step = &program->steps[s];
        if (step->device < 0) {
            staging = LK_MAX(staging, lk_tensor_bytes(step->tensor));
        } else {
            lk_device *device = program->devices[step->device];
            LK_TRY(device->backend->compile(device, program->commands + step->first, step->count, &step->commands));
        }
    }
    if (staging > 0) {
        lk_free_aligned(program->context, program->staging);
        program->staging = lk_alloc_aligned(program->context, staging);
        if (program->staging == NULL) {
            return lk_out_of_memory(program->context, staging, "copies between devices");
        }
    }
    return LK_OK;
}

static lk_status compile(lk_program *program) {
    LK_TRY(lk_graph_optimize(program->graph));
    LK_TRY(lk_pass_decompose(program->graph, runs_on_main_device, program));
    LK_TRY(lk_pass_dead_code(program->graph));
    LK_TRY(place_nodes(program));
    LK_TRY(settle_tensors(program));
    LK_TRY(plan_all(program));
    if (program->planned_only) {
        return LK_OK;
    }
    LK_TRY(bind_tensors(program));
    return record(program);
}

lk_status lk_program_compile(lk_context *context, lk_graph *graph, const lk_program_options *options,
                             lk_program **out) {
    *out = NULL;
    if (options->num_devices < 1 || options->num_devices > LK_MAX_DEVICES) {
        lk_graph_destroy(graph);
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "a program for %d devices, expected 1 to %d",
                       options->num_devices, LK_MAX_DEVICES);
    }
    lk_program *program = lk_calloc(context, 1, sizeof *program);
    if (program == NULL) {
        lk_graph_destroy(graph);
        return lk_out_of_memory(context, sizeof *program, "a program");
    }
    program->context = context;
    program->graph = graph;
    program->planned_only = options->plan_only;
    program->num_devices = options->num_devices;
    for (int32_t d = 0; d < program->num_devices; d++) {
        program->devices[d] = options->devices[d];
    }
    if (options->preferences != NULL) {
        program->preferences = *options->preferences;
        program->has_preferences = true;
    }
    lk_arena_init(&program->arena, context);
    lk_status status = compile(program);
    if (status != LK_OK) {
        lk_program_destroy(program);
        return status;
    }
    *out = program;
    return LK_OK;
}

void lk_program_destroy(lk_program *program) {
    if (program == NULL) {
        return;
    }
    for (int32_t s = 0; s < program->num_steps; s++) {
        if (program->steps[s].commands != NULL) {
            lk_device *device = program->devices[program->steps[s].device];
            device->backend->release(device, program->steps[s].commands);
        }
    }
    for (int32_t d = program->num_devices - 1; d >= 0; d--) {
        lk_device *device = program->devices[d];
        for (int32_t i = 0; i < program->num_buffers[d]; i++) {
            device->backend->free(device, program->buffers[d][i]);
        }
    }
    for (int32_t d = 0; d < program->num_devices; d++) { /* after the aliases of it */
        if (program->arenas[d] != NULL) {
            program->devices[d]->backend->free(program->devices[d], program->arenas[d]);
        }
    }
    lk_free_aligned(program->context, program->staging);
    lk_arena_free(&program->arena);
    lk_graph_destroy(program->graph);
    lk_free(program->context, program);
}
