/* Replaying a program, and looking into it. */
#include <math.h>
#include <string.h>

#include "dispatch/program.h"

lk_status lk_program_copy(lk_program *program, const lk_tensor *tensor, int32_t from, int32_t to) {
    const lk_binding *source = &lk_location_of(program, tensor, from)->binding;
    const lk_binding *target = &lk_location_of(program, tensor, to)->binding;
    lk_device *sender = program->devices[from], *receiver = program->devices[to];
    char *mapped = sender->backend->map(source->buffer);
    if (mapped != NULL) {
        return receiver->backend->upload(receiver, target->buffer, target->offset, mapped + source->offset,
                                         source->bytes);
    }
    mapped = receiver->backend->map(target->buffer);
    if (mapped != NULL) {
        return sender->backend->download(sender, source->buffer, source->offset, mapped + target->offset,
                                         source->bytes);
    }
    void *staging = program->staging;
    if (staging == NULL) { /* while compiling, before the run's own staging exists */
        staging = lk_alloc_aligned(program->context, source->bytes);
        if (staging == NULL) {
            return lk_out_of_memory(program->context, source->bytes, "a copy between devices");
        }
    }
    lk_status status = sender->backend->download(sender, source->buffer, source->offset, staging, source->bytes);
    if (status == LK_OK) {
        status = receiver->backend->upload(receiver, target->buffer, target->offset, staging, source->bytes);
    }
    if (program->staging == NULL) {
        lk_free_aligned(program->context, staging);
    }
    return status;
}

static lk_status run_steps(lk_program *program, bool timed) {
    for (int32_t s = 0; s < program->num_steps; s++) {
        const lk_step *step = &program->steps[s];
        if (step->device < 0) {
            LK_TRY(lk_program_copy(program, step->tensor, step->from, step->to));
            continue;
        }
        lk_device *device = program->devices[step->device];
        LK_TRY(device->backend->run(device, step->commands, timed ? program->seconds + step->first : NULL));
        LK_TRY(device->backend->wait(device));
    }
    return LK_OK;
}

lk_status lk_program_run(lk_program *program) {
    return run_steps(program, false);
}

lk_status lk_program_profile(lk_program *program) {
    LK_TRY(run_steps(program, true));
    for (int32_t i = 0; i < program->num_commands; i++) {
        program->placements[i].measured_seconds = program->seconds[i];
    }
    return LK_OK;
}

static int32_t producer_device(const lk_program *program, const lk_tensor *tensor) {
    for (int32_t d = 0; d < program->num_devices; d++) {
        if (lk_location_of(program, tensor, d)->residence == LK_OWN) {
            return d;
        }
    }
    return -1;
}

static lk_status read_tensor(lk_program *program, const lk_tensor *tensor, void *host, size_t bytes) {
    int32_t d = producer_device(program, tensor);
    if (d < 0) {
        return lk_fail(program->context, LK_STATUS_INVALID_ARGUMENT, "the program does not make tensor %d", tensor->id);
    }
    const lk_binding *binding = &lk_location_of(program, tensor, d)->binding;
    return program->devices[d]->backend->download(program->devices[d], binding->buffer, binding->offset, host, bytes);
}

lk_status lk_program_read(lk_program *program, const lk_tensor *tensor, void *host, size_t bytes) {
    if (!tensor->is_output || bytes != lk_tensor_bytes(tensor)) {
        return lk_fail(program->context, LK_STATUS_INVALID_ARGUMENT,
                       "tensor %d is not an output of %zu bytes of the program", tensor->id, bytes);
    }
    return read_tensor(program, tensor, host, bytes);
}

const lk_graph *lk_program_graph(const lk_program *program) {
    return program->graph;
}

lk_context *lk_program_context(const lk_program *program) {
    return program->context;
}

lk_program_memory lk_program_memory_of(const lk_program *program) {
    return program->memory;
}

lk_program_estimate lk_program_estimate_of(const lk_program *program) {
    /* of a copy between memories: what buses commonly reach, and the round trip */
    static const double bytes_per_second = 1e10, round_trip = 2e-5;
    lk_program_estimate estimate = {.measured = true};
    for (int32_t i = 0; i < program->num_commands; i++) {
        const lk_placement *placement = &program->placements[i];
        estimate.seconds += placement->estimated_seconds;
        estimate.untuned_seconds += placement->kernel->cost(&placement->device->caps, placement->node);
        estimate.measured = estimate.measured && placement->tuned;
    }
    for (int32_t s = 0; s < program->num_steps; s++) {
        if (program->steps[s].device < 0) {
            estimate.copies++;
            estimate.copied_bytes += lk_tensor_bytes(program->steps[s].tensor);
        }
    }
    estimate.copy_seconds = estimate.copies * round_trip + (double)estimate.copied_bytes / bytes_per_second;
    estimate.seconds += estimate.copy_seconds;
    estimate.untuned_seconds += estimate.copy_seconds;
    return estimate;
}

int32_t lk_program_num_commands(const lk_program *program) {
    return program->num_commands;
}

lk_placement lk_program_placement(const lk_program *program, int32_t index) {
    return program->placements[index];
}

int lk_program_candidates(const lk_program *program, int32_t index, lk_candidate candidates[LK_MAX_CANDIDATES]) {
    const lk_device *device = program->placements[index].device;
    int num_rows, count;
    const lk_kernel *rows = device->backend->kernels(&num_rows);
    lk_select(rows, num_rows, &device->caps, program->placements[index].node,
              program->has_preferences ? &program->preferences : NULL, candidates, &count);
    return count;
}

/* ---- where a value that is not finite comes from ---- */

static lk_status is_finite(lk_program *program, const lk_tensor *tensor, bool *finite) {
    *finite = true;
    if (tensor->dtype != LK_DTYPE_F32) {
        return LK_OK;
    }
    size_t bytes = lk_tensor_bytes(tensor);
    float *values = lk_alloc(program->context, bytes);
    if (values == NULL) {
        return lk_out_of_memory(program->context, bytes, "a tensor");
    }
    lk_status status = read_tensor(program, tensor, values, bytes);
    for (int64_t i = 0; i < lk_tensor_elements(tensor) && status == LK_OK && *finite; i++) {
        *finite = isfinite(values[i]);
    }
    lk_free(program->context, values);
    return status;
}

static lk_status run_one(lk_program *program, int32_t device, int32_t index) {
    lk_device *open = program->devices[device];
    lk_commands *single;
    LK_TRY(open->backend->compile(open, &program->commands[index], 1, &single));
    lk_status status = open->backend->run(open, single, NULL);
    if (status == LK_OK) {
        status = open->backend->wait(open);
    }
    open->backend->release(open, single);
    return status;
}

lk_status lk_program_find_not_finite(lk_program *program, const lk_node **out) {
    *out = NULL;
    for (int32_t s = 0; s < program->num_steps; s++) {
        const lk_step *step = &program->steps[s];
        if (step->device < 0) {
            LK_TRY(lk_program_copy(program, step->tensor, step->from, step->to));
            continue;
        }
        for (int32_t i = step->first; i < step->first + step->count; i++) {
            const lk_node *node = program->placements[i].node;
            LK_TRY(run_one(program, step->device, i));
            for (int j = 0; j < node->num_outputs; j++) {
                bool finite = true;
                if (node->outputs[j] != NULL) {
                    LK_TRY(is_finite(program, node->outputs[j], &finite));
                }
                if (!finite) {
                    *out = node;
                    return LK_OK;
                }
            }
        }
    }
    return LK_OK;
}
