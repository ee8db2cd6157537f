/* Copies between the host and the device. They go through page-locked memory in parts, so that a part is on its way
 * while the host copies another. */
#include <string.h>

#include "backends/cuda/cuda.h"

static lk_status check_range(lk_device *device, const lk_buffer *buffer, size_t offset, size_t bytes,
                             const char *what) {
    bool inside = offset <= buffer->bytes && bytes <= buffer->bytes - offset;
    return inside ? LK_OK : lk_fail(device->context, LK_STATUS_INVALID_ARGUMENT, "%s outside the buffer", what);
}

/* After an error nothing may be under way that uses the staging memory. */
static lk_status finish(lk_cuda_device *self, CUresult error, const char *what) {
    CUresult last = self->api->cuStreamSynchronize(self->stream);
    error = error != CUDA_SUCCESS ? error : last;
    return error == CUDA_SUCCESS ? LK_OK : lk_cuda_fail(self, error, what);
}

lk_status lk_cuda_upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes) {
    lk_cuda_device *self = (lk_cuda_device *)device;
    const lk_cu_api *api = self->api;
    LK_TRY(check_range(device, buffer, offset, bytes, "upload"));
    LK_TRY(lk_cuda_enter(self));
    CUresult error = CUDA_SUCCESS;
    for (size_t done = 0, part = 0; done < bytes && error == CUDA_SUCCESS; part++) {
        size_t slot = part % LK_CUDA_STAGING_PARTS, size = LK_MIN(bytes - done, (size_t)LK_CUDA_STAGING_BYTES);
        if (part >= LK_CUDA_STAGING_PARTS) {
            error = api->cuEventSynchronize(self->staged[slot]);
        }
        if (error == CUDA_SUCCESS) {
            memcpy(self->staging[slot], (const char *)host + done, size);
            error = api->cuMemcpyHtoDAsync(buffer->memory + offset + done, self->staging[slot], size, self->stream);
        }
        if (error == CUDA_SUCCESS) {
            error = api->cuEventRecord(self->staged[slot], self->stream);
        }
        done += size;
    }
    return finish(self, error, "upload");
}

static CUresult fetch(lk_cuda_device *self, CUdeviceptr from, size_t slot, size_t size) {
    CUresult error = self->api->cuMemcpyDtoHAsync(self->staging[slot], from, size, self->stream);
    return error == CUDA_SUCCESS ? self->api->cuEventRecord(self->staged[slot], self->stream) : error;
}

lk_status lk_cuda_download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes) {
    lk_cuda_device *self = (lk_cuda_device *)device;
    LK_TRY(check_range(device, buffer, offset, bytes, "download"));
    LK_TRY(lk_cuda_enter(self));
    const size_t part = LK_CUDA_STAGING_BYTES, parts = bytes / part + (bytes % part != 0);
    CUresult error = CUDA_SUCCESS;
    for (size_t i = 0; i < parts + LK_CUDA_STAGING_PARTS - 1 && error == CUDA_SUCCESS; i++) {
        if (i < parts) {
            error = fetch(self, buffer->memory + offset + i * part, i % LK_CUDA_STAGING_PARTS,
                          LK_MIN(part, bytes - i * part));
        }
        if (error == CUDA_SUCCESS && i + 1 >= LK_CUDA_STAGING_PARTS) {
            size_t ready = i + 1 - LK_CUDA_STAGING_PARTS, slot = ready % LK_CUDA_STAGING_PARTS;
            error = self->api->cuEventSynchronize(self->staged[slot]);
            if (error == CUDA_SUCCESS) {
                memcpy((char *)host + ready * part, self->staging[slot], LK_MIN(part, bytes - ready * part));
            }
        }
    }
    return finish(self, error, "download");
}
