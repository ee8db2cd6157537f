/* Opening a device, and its memory. */
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cublaslt.h"
#include "backends/cuda/cuda.h"
#include "backends/cuda/cudnn.h"

lk_status lk_cuda_fail(lk_cuda_device *device, CUresult error, const char *what) {
    return lk_fail(device->device.context, lk_cu_status(error), "cuda:%d %s: %s: %s (%d)", device->device.caps.index,
                   device->device.caps.name, what, lk_cu_error_name(device->api, error), error);
}

lk_status lk_cuda_enter(lk_cuda_device *device) {
    CUresult error = device->api->cuCtxSetCurrent(device->cu);
    return error == CUDA_SUCCESS ? LK_OK : lk_cuda_fail(device, error, "cuCtxSetCurrent");
}

static lk_status make_stream(lk_cuda_device *self) {
    CUresult error = self->api->cuDevicePrimaryCtxRetain(&self->cu, self->id);
    if (error != CUDA_SUCCESS) {
        self->cu = NULL;
        return lk_cuda_fail(self, error, "cuDevicePrimaryCtxRetain");
    }
    LK_TRY(lk_cuda_enter(self));
    error = self->api->cuStreamCreate(&self->stream, CU_STREAM_NON_BLOCKING);
    if (error != CUDA_SUCCESS) {
        self->stream = NULL;
        return lk_cuda_fail(self, error, "cuStreamCreate");
    }
    return LK_OK;
}

static lk_status make_staging(lk_cuda_device *self) {
    for (int i = 0; i < LK_CUDA_STAGING_PARTS; i++) {
        CUresult error = self->api->cuMemAllocHost(&self->staging[i], LK_CUDA_STAGING_BYTES);
        if (error != CUDA_SUCCESS) {
            self->staging[i] = NULL;
            return lk_cuda_fail(self, error, "page-locked memory for copies");
        }
        error = self->api->cuEventCreate(&self->staged[i], CU_EVENT_DISABLE_TIMING);
        if (error != CUDA_SUCCESS) {
            self->staged[i] = NULL;
            return lk_cuda_fail(self, error, "cuEventCreate");
        }
    }
    return LK_OK;
}

static lk_status make_modules(lk_cuda_device *self) {
    while (lk_cuda_images[self->num_images].name != NULL) {
        self->num_images++;
    }
    self->modules = lk_calloc(self->device.context, (size_t)self->num_images + 1, sizeof *self->modules);
    return self->modules != NULL ? LK_OK : lk_out_of_memory(self->device.context, sizeof *self->modules, "a device");
}

lk_status lk_cuda_open(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                       lk_device **out) {
    (void)options; /* threads are the processor's */
    *out = NULL;
    const lk_cu_api *api;
    LK_TRY(lk_cu_load(context, &api));
    lk_cuda_device *self = lk_calloc(context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(context, sizeof *self, "a device");
    }
    const char *graphs = getenv("LORIKEET_CUDA_GRAPHS");
    self->device = (lk_device){&lk_backend_cuda, context, *caps};
    self->api = api;
    self->uses_graphs = graphs == NULL || strcmp(graphs, "0") != 0;
    CUresult error = lk_cuda_find(api, caps->index, &self->id);
    lk_status status = error == CUDA_SUCCESS ? make_stream(self) : lk_cuda_fail(self, error, "finding the device");
    if (status == LK_OK) {
        status = make_staging(self);
    }
    if (status == LK_OK) {
        status = make_modules(self);
    }
    if (status == LK_OK && (caps->features & LK_CUDA_FEATURE_CUBLASLT) != 0) {
        self->lt = lk_cuda_lt_open(self);
        self->device.caps.features &= self->lt != NULL ? ~(uint64_t)0 : ~(uint64_t)LK_CUDA_FEATURE_CUBLASLT;
    }
    if (status != LK_OK) {
        lk_cuda_close(&self->device);
        return status;
    }
    *out = &self->device;
    return LK_OK;
}

/* Errors while closing have no one to go to: after a failed kernel every call fails. */
void lk_cuda_close(lk_device *device) {
    lk_cuda_device *self = (lk_cuda_device *)device;
    if (self == NULL) {
        return;
    }
    if (self->cu != NULL) {
        self->api->cuCtxSetCurrent(self->cu);
    }
    lk_cuda_lt_close(self, self->lt);
    lk_cuda_dnn_close(self, self->dnn);
    for (int32_t i = 0; self->modules != NULL && i < self->num_images; i++) {
        if (self->modules[i] != NULL) {
            self->api->cuModuleUnload(self->modules[i]);
        }
    }
    for (int i = 0; i < LK_CUDA_STAGING_PARTS; i++) {
        if (self->staged[i] != NULL) {
            self->api->cuEventDestroy(self->staged[i]);
        }
        if (self->staging[i] != NULL) {
            self->api->cuMemFreeHost(self->staging[i]);
        }
    }
    if (self->stream != NULL) {
        self->api->cuStreamDestroy(self->stream);
    }
    if (self->cu != NULL) {
        self->api->cuDevicePrimaryCtxRelease(self->id);
    }
    lk_free(device->context, self->modules);
    lk_free(device->context, self);
}

lk_status lk_cuda_alloc(lk_device *device, size_t bytes, lk_buffer **out) {
    lk_cuda_device *self = (lk_cuda_device *)device;
    *out = NULL;
    bytes = LK_MAX(bytes, (size_t)LK_BUFFER_ALIGNMENT);
    LK_TRY(lk_cuda_enter(self));
    lk_buffer *buffer = lk_calloc(device->context, 1, sizeof *buffer);
    if (buffer == NULL) {
        return lk_out_of_memory(device->context, sizeof *buffer, "a buffer");
    }
    buffer->bytes = bytes;
    CUresult error = self->api->cuMemAlloc(&buffer->memory, bytes);
    if (error != CUDA_SUCCESS) {
        lk_free(device->context, buffer);
        lk_status status = lk_cuda_fail(self, error, "cuMemAlloc");
        return lk_fail_within(device->context, status, "%zu bytes", bytes);
    }
    error = self->api->cuMemsetD8Async(buffer->memory, 0, bytes, self->stream);
    if (error == CUDA_SUCCESS) {
        error = self->api->cuStreamSynchronize(self->stream);
    }
    if (error != CUDA_SUCCESS) {
        lk_cuda_free(device, buffer);
        return lk_cuda_fail(self, error, "clearing a buffer");
    }
    *out = buffer;
    return LK_OK;
}

lk_status lk_cuda_wrap(lk_device *device, const void *host, size_t bytes, lk_buffer **out) {
    (void)host;
    (void)bytes;
    *out = NULL;
    return lk_fail(device->context, LK_STATUS_UNSUPPORTED, "cuda:%d %s has memory of its own", device->caps.index,
                   device->caps.name);
}

void lk_cuda_free(lk_device *device, lk_buffer *buffer) {
    lk_cuda_device *self = (lk_cuda_device *)device;
    if (buffer != NULL) {
        self->api->cuCtxSetCurrent(self->cu);
        self->api->cuMemFree(buffer->memory);
        lk_free(device->context, buffer);
    }
}

void *lk_cuda_map(lk_buffer *buffer) {
    (void)buffer;
    return NULL;
}
