/* Opening a device, its memory, and transfers. A device that is the host's processor works on the host's memory. */
#include <string.h>

#include "backends/opencl/opencl.h"

lk_status lk_cl_fail(lk_cl_device *device, cl_int error, const char *what) {
    lk_status status = LK_STATUS_DEVICE;
    if (error == CL_MEM_OBJECT_ALLOCATION_FAILURE || error == CL_OUT_OF_HOST_MEMORY ||
        error == CL_INVALID_BUFFER_SIZE) {
        status = LK_STATUS_OUT_OF_MEMORY;
    }
    return lk_fail(device->device.context, status, "opencl:%d %s: %s: %s (%d)", device->device.caps.index,
                   device->device.caps.name, what, lk_cl_error_name(error), error);
}

static lk_status make_queues(lk_cl_device *self) {
    cl_int error;
    self->cl = self->api->clCreateContext(NULL, 1, &self->id, NULL, NULL, &error);
    if (error != CL_SUCCESS) {
        return lk_cl_fail(self, error, "clCreateContext");
    }
    self->queue = self->api->clCreateCommandQueue(self->cl, self->id, 0, &error);
    if (error == CL_SUCCESS) {
        self->timed_queue = self->api->clCreateCommandQueue(self->cl, self->id, CL_QUEUE_PROFILING_ENABLE, &error);
    }
    return error == CL_SUCCESS ? LK_OK : lk_cl_fail(self, error, "clCreateCommandQueue");
}

lk_status lk_opencl_open(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                         lk_device **out) {
    (void)options; /* how many threads a processor's driver uses is the driver's own affair */
    *out = NULL;
    const lk_cl_api *api;
    lk_cl_found found[LK_CL_MAX_DEVICES];
    int count;
    LK_TRY(lk_cl_load(context, &api));
    LK_TRY(lk_cl_find(context, api, found, &count));
    if (caps->index < 0 || caps->index >= count) {
        return lk_fail(context, LK_STATUS_NOT_FOUND, "opencl:%d: there are %d OpenCL devices", caps->index, count);
    }
    lk_cl_device *self = lk_calloc(context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(context, sizeof *self, "a device");
    }
    self->device = (lk_device){&lk_backend_opencl, context, *caps};
    self->api = api;
    self->id = found[caps->index].device;
    self->identity = lk_hash64(caps->name, strlen(caps->name), lk_hash64(caps->driver, strlen(caps->driver), 0));
    lk_status status = make_queues(self);
    if (status != LK_OK) {
        lk_opencl_close(&self->device);
        return status;
    }
    *out = &self->device;
    return LK_OK;
}

void lk_opencl_close(lk_device *device) {
    lk_cl_device *self = (lk_cl_device *)device;
    if (self == NULL) {
        return;
    }
    for (int32_t i = 0; i < self->num_programs; i++) {
        self->api->clReleaseProgram(self->programs[i].program);
    }
    if (self->timed_queue != NULL) {
        self->api->clReleaseCommandQueue(self->timed_queue);
    }
    if (self->queue != NULL) {
        self->api->clReleaseCommandQueue(self->queue);
    }
    if (self->cl != NULL) {
        self->api->clReleaseContext(self->cl);
    }
    lk_free(device->context, self->programs);
    lk_free(device->context, self);
}

static lk_status make_buffer(lk_cl_device *self, char *host, size_t bytes, bool owns_host, lk_buffer **out) {
    *out = NULL;
    lk_buffer *buffer = lk_calloc(self->device.context, 1, sizeof *buffer);
    if (buffer == NULL) {
        return lk_out_of_memory(self->device.context, sizeof *buffer, "a buffer");
    }
    *buffer = (lk_buffer){NULL, host, bytes, owns_host};
    cl_int error;
    cl_mem_flags flags = CL_MEM_READ_WRITE | (host != NULL ? CL_MEM_USE_HOST_PTR : 0);
    buffer->memory = self->api->clCreateBuffer(self->cl, flags, bytes, host, &error);
    if (error != CL_SUCCESS) {
        lk_free(self->device.context, buffer);
        return lk_cl_fail(self, error, "clCreateBuffer");
    }
    *out = buffer;
    return LK_OK;
}

lk_status lk_opencl_alloc(lk_device *device, size_t bytes, lk_buffer **out) {
    lk_cl_device *self = (lk_cl_device *)device;
    *out = NULL;
    bytes = LK_MAX(bytes, (size_t)LK_BUFFER_ALIGNMENT);
    if (device->caps.host_memory) {
        char *host = lk_alloc_aligned(device->context, bytes);
        if (host == NULL) {
            return lk_out_of_memory(device->context, bytes, "a buffer");
        }
        memset(host, 0, bytes);
        lk_status status = make_buffer(self, host, bytes, true, out);
        if (status != LK_OK) {
            lk_free_aligned(device->context, host);
        }
        return status;
    }
    LK_TRY(make_buffer(self, NULL, bytes, false, out));
    cl_uint zero = 0; /* in words: sizes need not be a multiple of one, the last bytes are written separately */
    cl_int error = CL_SUCCESS;
    size_t whole = bytes / sizeof zero * sizeof zero;
    error = self->api->clEnqueueFillBuffer(self->queue, (*out)->memory, &zero, sizeof zero, 0, whole, 0, NULL, NULL);
    if (error == CL_SUCCESS && bytes > whole) {
        error = self->api->clEnqueueWriteBuffer(self->queue, (*out)->memory, CL_TRUE, whole, bytes - whole, &zero, 0,
                                                NULL, NULL);
    }
    if (error != CL_SUCCESS) {
        lk_opencl_free(device, *out);
        *out = NULL;
        return lk_cl_fail(self, error, "clearing a buffer");
    }
    return LK_OK;
}

lk_status lk_opencl_wrap(lk_device *device, const void *host, size_t bytes, lk_buffer **out) {
    *out = NULL;
    if (!device->caps.host_memory || bytes == 0) {
        return lk_fail(device->context, LK_STATUS_UNSUPPORTED, "opencl:%d %s has memory of its own", device->caps.index,
                       device->caps.name);
    }
    return make_buffer((lk_cl_device *)device, (char *)(uintptr_t)host, bytes, false, out);
}

void lk_opencl_free(lk_device *device, lk_buffer *buffer) {
    if (buffer != NULL) {
        ((lk_cl_device *)device)->api->clReleaseMemObject(buffer->memory);
        if (buffer->owns_host) {
            lk_free_aligned(device->context, buffer->host);
        }
        lk_free(device->context, buffer);
    }
}

void *lk_opencl_map(lk_buffer *buffer) {
    return buffer->host;
}

lk_status lk_opencl_upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes) {
    lk_cl_device *self = (lk_cl_device *)device;
    if (offset > buffer->bytes || bytes > buffer->bytes - offset) {
        return lk_fail(device->context, LK_STATUS_INVALID_ARGUMENT, "upload outside the buffer");
    }
    if (buffer->host != NULL) {
        memcpy(buffer->host + offset, host, bytes);
        return LK_OK;
    }
    cl_int error = bytes == 0 ? CL_SUCCESS
                              : self->api->clEnqueueWriteBuffer(self->queue, buffer->memory, CL_TRUE, offset, bytes,
                                                                host, 0, NULL, NULL);
    return error == CL_SUCCESS ? LK_OK : lk_cl_fail(self, error, "upload");
}

lk_status lk_opencl_download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes) {
    lk_cl_device *self = (lk_cl_device *)device;
    if (offset > buffer->bytes || bytes > buffer->bytes - offset) {
        return lk_fail(device->context, LK_STATUS_INVALID_ARGUMENT, "download outside the buffer");
    }
    if (buffer->host != NULL) {
        memcpy(host, buffer->host + offset, bytes);
        return LK_OK;
    }
    cl_int error = bytes == 0 ? CL_SUCCESS
                              : self->api->clEnqueueReadBuffer(self->queue, buffer->memory, CL_TRUE, offset, bytes,
                                                               host, 0, NULL, NULL);
    return error == CL_SUCCESS ? LK_OK : lk_cl_fail(self, error, "download");
}
