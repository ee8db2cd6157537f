/* A command list is a list of kernels with their arguments, captured once as a graph that a run replays. Timed runs,
 * and those with LORIKEET_CUDA_GRAPHS=0, launch them one by one. */
#include <string.h>

#include "backends/cuda/cublaslt.h"
#include "backends/cuda/cuda.h"
#include "backends/cuda/cudnn.h"

static const lk_cuda_library *const libraries[] = {&lk_cuda_cublaslt, &lk_cuda_cudnn};

typedef struct call {
    const lk_cuda_library *library; /* that makes it of what is prepared; NULL: a kernel of ours, as follows */
    void *prepared;
    CUfunction function;
    unsigned grid[2], group, shared_bytes;
    int32_t command, num_buffers, num_parameters, first;
    CUdeviceptr buffers[LK_LAUNCH_BUFFERS];
    uint32_t parameters[LK_LAUNCH_PARAMETERS];
} call;

struct lk_commands {
    const lk_command *commands;
    int32_t num_commands;
    call *calls;
    int32_t num_calls;
    CUgraphExec graph; /* NULL: launched one by one */
    CUevent *events;   /* num_commands + 1 of them, made for the first timed run */
};

static lk_status make_call(lk_cuda_device *self, const lk_launch *launch, call *out) {
    out->command = launch->command;
    for (size_t i = 0; i < LK_COUNT(libraries); i++) {
        if (strcmp(launch->file, libraries[i]->file) == 0) {
            out->library = libraries[i];
            return out->library->prepare(self, launch, &out->prepared);
        }
    }
    LK_TRY(lk_cuda_function(self, launch, &out->function));
    out->grid[0] = (unsigned)launch->groups[0];
    out->grid[1] = (unsigned)launch->groups[1];
    out->group = (unsigned)launch->constants[0].value;
    out->shared_bytes = (unsigned)launch->shared_bytes;
    out->num_buffers = launch->num_buffers;
    out->num_parameters = launch->num_parameters;
    out->first = launch->first;
    for (int32_t i = 0; i < launch->num_buffers; i++) {
        const lk_binding *binding = &launch->buffers[i];
        out->buffers[i] = binding->buffer != NULL ? binding->buffer->memory + binding->offset : 0;
    }
    memcpy(out->parameters, launch->parameters, (size_t)launch->num_parameters * sizeof *launch->parameters);
    return LK_OK;
}

/* What happened to a command, as the operation that it is. */
static lk_status named(lk_cuda_device *self, const lk_commands *list, int32_t command, lk_status status) {
    const lk_node *node = list->commands[command].node;
    return lk_fail_within(self->device.context, status, "%s at %s", lk_op_name(node->op), node->scope);
}

static lk_status failed(lk_cuda_device *self, const lk_commands *list, int32_t command, CUresult error) {
    return named(self, list, command, lk_cuda_fail(self, error, list->commands[command].kernel->name));
}

static lk_status launch(lk_cuda_device *self, const lk_commands *list, call *c) {
    if (c->library != NULL) {
        lk_status status = c->library->start(self, c->prepared);
        return status == LK_OK ? LK_OK : named(self, list, c->command, status);
    }
    void *arguments[LK_LAUNCH_BUFFERS + LK_LAUNCH_PARAMETERS + 1];
    int32_t count = 0;
    for (int32_t i = 0; i < c->num_buffers; i++) {
        arguments[count++] = &c->buffers[i];
    }
    for (int32_t i = 0; i < c->num_parameters; i++) {
        arguments[count++] = &c->parameters[i];
    }
    arguments[count] = &c->first; /* what every kernel's list of parameters ends in */
    CUresult error = self->api->cuLaunchKernel(c->function, c->grid[0], c->grid[1], 1, c->group, 1, 1, c->shared_bytes,
                                               self->stream, arguments, NULL);
    return error == CUDA_SUCCESS ? LK_OK : failed(self, list, c->command, error);
}

static lk_status make_calls(lk_cuda_device *self, lk_commands *list, const lk_recorder *recorder) {
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
            return named(self, list, recorder->launches[i].command, status);
        }
    }
    return LK_OK;
}

static lk_status capture(lk_cuda_device *self, lk_commands *list) {
    const lk_cu_api *api = self->api;
    CUgraph graph = NULL;
    CUresult error = api->cuStreamBeginCapture(self->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    if (error != CUDA_SUCCESS) {
        return lk_cuda_fail(self, error, "cuStreamBeginCapture");
    }
    lk_status status = LK_OK;
    for (int32_t i = 0; i < list->num_calls && status == LK_OK; i++) {
        status = launch(self, list, &list->calls[i]);
    }
    error = api->cuStreamEndCapture(self->stream, &graph); /* also after a failure: the stream must leave the mode */
    if (status == LK_OK && error != CUDA_SUCCESS) {
        status = lk_cuda_fail(self, error, "cuStreamEndCapture");
    }
    if (status == LK_OK) {
        error = api->cuGraphInstantiate(&list->graph, graph, 0);
        if (error != CUDA_SUCCESS) {
            list->graph = NULL;
            status = lk_cuda_fail(self, error, "cuGraphInstantiate");
        }
    }
    if (graph != NULL) {
        api->cuGraphDestroy(graph);
    }
    return status;
}

lk_status lk_cuda_compile(lk_device *device, const lk_command *commands, int count, lk_commands **out) {
    lk_cuda_device *self = (lk_cuda_device *)device;
    *out = NULL;
    LK_TRY(lk_cuda_enter(self));
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
    if (status == LK_OK && self->uses_graphs && list->num_calls > 0) {
        status = capture(self, list);
    }
    if (status != LK_OK) {
        lk_cuda_release(device, list);
        return status;
    }
    *out = list;
    return LK_OK;
}

void lk_cuda_release(lk_device *device, lk_commands *list) {
    lk_cuda_device *self = (lk_cuda_device *)device;
    if (list == NULL) {
        return;
    }
    self->api->cuCtxSetCurrent(self->cu);
    for (int32_t i = 0; list->events != NULL && i <= list->num_commands; i++) {
        if (list->events[i] != NULL) {
            self->api->cuEventDestroy(list->events[i]);
        }
    }
    if (list->graph != NULL) {
        self->api->cuGraphExecDestroy(list->graph);
    }
    for (int32_t i = 0; i < list->num_calls; i++) {
        if (list->calls[i].library != NULL) {
            list->calls[i].library->release(self, list->calls[i].prepared);
        }
    }
    lk_free(device->context, list->events);
    lk_free(device->context, list->calls);
    lk_free(device->context, list);
}

static lk_status make_events(lk_cuda_device *self, lk_commands *list) {
    if (list->events == NULL) {
        size_t count = (size_t)list->num_commands + 1;
        list->events = lk_calloc(self->device.context, count, sizeof(CUevent));
        if (list->events == NULL) {
            return lk_out_of_memory(self->device.context, count * sizeof(CUevent), "events");
        }
    }
    for (int32_t i = 0; i <= list->num_commands; i++) {
        if (list->events[i] == NULL) {
            CUresult error = self->api->cuEventCreate(&list->events[i], CU_EVENT_DEFAULT);
            if (error != CUDA_SUCCESS) {
                list->events[i] = NULL;
                return lk_cuda_fail(self, error, "cuEventCreate");
            }
        }
    }
    return LK_OK;
}

/* Event i stands before command i. Without timing each command is waited for, so that a failure has its name. */
static lk_status run_one_by_one(lk_cuda_device *self, lk_commands *list, bool timed) {
    int32_t next = 0;
    for (int32_t command = 0; command < list->num_commands; command++) {
        CUresult error = timed ? self->api->cuEventRecord(list->events[command], self->stream) : CUDA_SUCCESS;
        lk_status status = error == CUDA_SUCCESS ? LK_OK : failed(self, list, command, error);
        for (; next < list->num_calls && list->calls[next].command == command && status == LK_OK; next++) {
            status = launch(self, list, &list->calls[next]);
        }
        if (status == LK_OK && !timed) {
            error = self->api->cuStreamSynchronize(self->stream);
            status = error == CUDA_SUCCESS ? LK_OK : failed(self, list, command, error);
        }
        if (status != LK_OK) {
            self->api->cuStreamSynchronize(self->stream);
            return status;
        }
    }
    CUresult error = timed ? self->api->cuEventRecord(list->events[list->num_commands], self->stream) : CUDA_SUCCESS;
    return error == CUDA_SUCCESS ? LK_OK : lk_cuda_fail(self, error, "cuEventRecord");
}

lk_status lk_cuda_run(lk_device *device, lk_commands *list, double *seconds) {
    lk_cuda_device *self = (lk_cuda_device *)device;
    self->pending = NULL;
    LK_TRY(lk_cuda_enter(self));
    if (seconds != NULL) {
        LK_TRY(make_events(self, list));
    }
    if (seconds != NULL || list->graph == NULL) {
        LK_TRY(run_one_by_one(self, list, seconds != NULL));
    } else {
        CUresult error = self->api->cuGraphLaunch(list->graph, self->stream);
        if (error != CUDA_SUCCESS) {
            return lk_cuda_fail(self, error, "cuGraphLaunch");
        }
    }
    self->pending = list;
    self->seconds = seconds;
    return LK_OK;
}

static lk_status take_times(lk_cuda_device *self, const lk_commands *list) {
    for (int32_t i = 0; i < list->num_commands; i++) {
        float milliseconds = 0.0f;
        CUresult error = self->api->cuEventElapsedTime(&milliseconds, list->events[i], list->events[i + 1]);
        if (error != CUDA_SUCCESS) {
            return lk_cuda_fail(self, error, "cuEventElapsedTime");
        }
        self->seconds[i] = (double)milliseconds * 1e-3;
    }
    return LK_OK;
}

lk_status lk_cuda_wait(lk_device *device) {
    lk_cuda_device *self = (lk_cuda_device *)device;
    lk_commands *list = self->pending;
    self->pending = NULL;
    LK_TRY(lk_cuda_enter(self));
    CUresult error = self->api->cuStreamSynchronize(self->stream);
    if (error != CUDA_SUCCESS) {
        lk_status status = lk_cuda_fail(self, error, "running kernels");
        return lk_fail_within(device->context, status, "LORIKEET_CUDA_GRAPHS=0 names the operation that fails");
    }
    return list != NULL && self->seconds != NULL ? take_times(self, list) : LK_OK;
}
