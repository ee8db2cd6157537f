/* A command list is a list of kernels with their arguments set once; a run enqueues them in order. */
#include <string.h>

#include "backends/opencl/clblast.h"

typedef struct call {
    cl_kernel kernel;  /* NULL: a call of CLBlast */
    lk_launch *launch; /* of CLBlast; else NULL */
    double seconds;    /* that it took, while it is timed */
    size_t global[2], local[2];
    int32_t command;
    double estimated; /* seconds */
    cl_event event;   /* while it is timed */
} call;

struct lk_commands {
    const lk_command *commands;
    int32_t num_commands;
    call *calls;
    int32_t num_calls;
};

static cl_int set_arguments(const lk_cl_api *api, cl_kernel kernel, const lk_launch *launch) {
    cl_uint index = 0;
    cl_int error = CL_SUCCESS;
    for (int32_t i = 0; i < launch->num_buffers && error == CL_SUCCESS; i++) {
        cl_ulong offset = launch->buffers[i].offset;
        cl_mem memory = launch->buffers[i].buffer != NULL ? launch->buffers[i].buffer->memory : NULL;
        error = api->clSetKernelArg(kernel, index++, sizeof memory, &memory);
        if (error == CL_SUCCESS) {
            error = api->clSetKernelArg(kernel, index++, sizeof offset, &offset);
        }
    }
    for (int32_t i = 0; i < launch->num_parameters && error == CL_SUCCESS; i++) {
        error = api->clSetKernelArg(kernel, index++, sizeof launch->parameters[i], &launch->parameters[i]);
    }
    cl_int first = launch->first;
    return error == CL_SUCCESS ? api->clSetKernelArg(kernel, index, sizeof first, &first) : error;
}

static lk_status make_call(lk_cl_device *self, const lk_launch *launch, call *out) {
    cl_program program;
    cl_int error;
    out->command = launch->command;
    out->estimated = launch->seconds;
    if (lk_clblast_takes(launch)) {
        out->launch = lk_alloc(self->device.context, sizeof *launch);
        if (out->launch == NULL) {
            return lk_out_of_memory(self->device.context, sizeof *launch, "a call of CLBlast");
        }
        *out->launch = *launch;
        return LK_OK;
    }
    LK_TRY(lk_cl_program_get(self, launch, &program));
    out->kernel = self->api->clCreateKernel(program, launch->entry, &error);
    if (error != CL_SUCCESS) {
        out->kernel = NULL;
        return lk_cl_fail(self, error, launch->entry);
    }
    error = set_arguments(self->api, out->kernel, launch);
    if (error != CL_SUCCESS) {
        return lk_cl_fail(self, error, launch->entry);
    }
    size_t group = (size_t)launch->constants[0].value;
    out->local[0] = group;
    out->local[1] = 1;
    out->global[0] = (size_t)launch->groups[0] * group;
    out->global[1] = (size_t)launch->groups[1];
    return LK_OK;
}

static lk_status make_calls(lk_cl_device *self, lk_commands *list, const lk_recorder *recorder) {
    if (recorder->count == 0) {
        return LK_OK;
    }
    list->calls = lk_calloc(self->device.context, (size_t)recorder->count, sizeof *list->calls);
    if (list->calls == NULL) {
        return lk_out_of_memory(self->device.context, (size_t)recorder->count * sizeof *list->calls, "a command list");
    }
    for (int32_t i = 0; i < recorder->count; i++) {
        list->num_calls = i + 1;
        lk_status status = make_call(self, &recorder->launches[i], &list->calls[i]);
        if (status != LK_OK) {
            const lk_node *node = list->commands[recorder->launches[i].command].node;
            return lk_fail_within(self->device.context, status, "%s at %s", lk_op_name(node->op), node->scope);
        }
    }
    return LK_OK;
}

lk_status lk_opencl_compile(lk_device *device, const lk_command *commands, int count, lk_commands **out) {
    lk_cl_device *self = (lk_cl_device *)device;
    *out = NULL;
    lk_commands *list = lk_calloc(device->context, 1, sizeof *list);
    if (list == NULL) {
        return lk_out_of_memory(device->context, sizeof *list, "a command list");
    }
    list->commands = commands;
    list->num_commands = count;
    lk_recorder recorder;
    lk_recorder_init(&recorder, device->context, &device->caps);
    lk_status status = lk_record_commands(&recorder, commands, count);
    if (status == LK_OK) {
        status = make_calls(self, list, &recorder);
    }
    lk_recorder_free(&recorder);
    if (status != LK_OK) {
        lk_opencl_release(device, list);
        return status;
    }
    *out = list;
    return LK_OK;
}

void lk_opencl_release(lk_device *device, lk_commands *commands) {
    if (commands == NULL) {
        return;
    }
    for (int32_t i = 0; i < commands->num_calls; i++) {
        if (commands->calls[i].kernel != NULL) {
            ((lk_cl_device *)device)->api->clReleaseKernel(commands->calls[i].kernel);
        }
        lk_free(device->context, commands->calls[i].launch);
    }
    lk_free(device->context, commands->calls);
    lk_free(device->context, commands);
}

static lk_status run_failed(lk_cl_device *self, const lk_commands *commands, const call *failed, cl_int error) {
    const lk_node *node = commands->commands[failed->command].node;
    lk_status status = lk_cl_fail(self, error, "running a kernel");
    return lk_fail_within(self->device.context, status, "%s at %s", lk_op_name(node->op), node->scope);
}

/* One call of CLBlast is several kernels: it is timed from outside. */
static cl_int call_library(const lk_cl_api *api, call *c, cl_command_queue queue, bool timed) {
    if (!timed) {
        return lk_clblast_enqueue(c->launch, queue);
    }
    api->clFinish(queue);
    double start = lk_seconds();
    cl_int error = lk_clblast_enqueue(c->launch, queue);
    api->clFinish(queue);
    c->seconds = lk_seconds() - start;
    return error;
}

static cl_int start_call(const lk_cl_api *api, call *c, cl_command_queue queue, bool timed) {
    return c->launch != NULL ? call_library(api, c, queue, timed)
                             : api->clEnqueueNDRangeKernel(queue, c->kernel, 2, NULL, c->global, c->local, 0, NULL,
                                                           timed ? &c->event : NULL);
}

lk_status lk_opencl_run(lk_device *device, lk_commands *commands, double *seconds) {
    lk_cl_device *self = (lk_cl_device *)device;
    cl_command_queue queue = seconds != NULL ? self->timed_queue : self->queue;
    double most = lk_submit_seconds(&device->caps), queued = 0.0;
    self->pending = NULL;
    for (int32_t i = 0; i < commands->num_calls; i++) {
        call *c = &commands->calls[i];
        queued += c->estimated;
        if (most > 0.0 && queued > most) { /* drivers submit what is flushed, and watchdogs watch submissions */
            self->api->clFlush(queue);
            queued = c->estimated;
        }
        cl_int error = start_call(self->api, c, queue, seconds != NULL);
        if (error != CL_SUCCESS) {
            self->api->clFinish(queue);
            return run_failed(self, commands, c, error);
        }
    }
    if (seconds != NULL) {
        memset(seconds, 0, (size_t)commands->num_commands * sizeof *seconds);
        self->pending = commands;
        self->seconds = seconds;
    }
    cl_int error = self->api->clFlush(queue);
    return error == CL_SUCCESS ? LK_OK : lk_cl_fail(self, error, "clFlush");
}

static void take_times(lk_cl_device *self) {
    for (int32_t i = 0; i < self->pending->num_calls; i++) {
        call *c = &self->pending->calls[i];
        if (c->launch != NULL) {
            self->seconds[c->command] += c->seconds;
            continue;
        }
        cl_ulong start = 0, end = 0;
        self->api->clGetEventProfilingInfo(c->event, CL_PROFILING_COMMAND_START, sizeof start, &start, NULL);
        self->api->clGetEventProfilingInfo(c->event, CL_PROFILING_COMMAND_END, sizeof end, &end, NULL);
        self->seconds[c->command] += (double)(end - start) * 1e-9;
        self->api->clReleaseEvent(c->event);
        c->event = NULL;
    }
    self->pending = NULL;
}

lk_status lk_opencl_wait(lk_device *device) {
    lk_cl_device *self = (lk_cl_device *)device;
    cl_int error = self->api->clFinish(self->pending != NULL ? self->timed_queue : self->queue);
    if (self->pending != NULL) {
        take_times(self);
    }
    return error == CL_SUCCESS ? LK_OK : lk_cl_fail(self, error, "waiting for the device");
}
