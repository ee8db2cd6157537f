#include "backends/host/buffer.h"

#include <string.h>

#include "core/base/base.h"

static lk_status make(lk_device *device, char *bytes, size_t size, bool wrapped, lk_buffer **out) {
    *out = lk_calloc(device->context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(device->context, sizeof **out, "a buffer");
    }
    **out = (lk_buffer){bytes, size, wrapped};
    return LK_OK;
}

lk_status lk_host_alloc(lk_device *device, size_t bytes, lk_buffer **out) {
    *out = NULL;
    char *memory = lk_alloc_aligned(device->context, bytes);
    if (memory == NULL) {
        return lk_out_of_memory(device->context, bytes, "a buffer");
    }
    lk_status status = make(device, memory, bytes, false, out);
    if (status != LK_OK) {
        lk_free_aligned(device->context, memory);
    }
    return status;
}

lk_status lk_host_wrap(lk_device *device, const void *host, size_t bytes, lk_buffer **out) {
    return make(device, (char *)(uintptr_t)host, bytes, true, out);
}

void lk_host_free(lk_device *device, lk_buffer *buffer) {
    if (buffer != NULL) {
        if (!buffer->wrapped) {
            lk_free_aligned(device->context, buffer->bytes);
        }
        lk_free(device->context, buffer);
    }
}

void *lk_host_map(lk_buffer *buffer) {
    return buffer->bytes;
}

static lk_status check_range(lk_device *device, const lk_buffer *buffer, size_t offset, size_t bytes,
                             const char *what) {
    if (offset > buffer->size || bytes > buffer->size - offset) {
        return lk_fail(device->context, LK_STATUS_INVALID_ARGUMENT, "%s of %zu bytes at %zu in a buffer of %zu bytes",
                       what, bytes, offset, buffer->size);
    }
    return LK_OK;
}

lk_status lk_host_upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes) {
    LK_TRY(check_range(device, buffer, offset, bytes, "upload"));
    if (buffer->wrapped) {
        return lk_fail(device->context, LK_STATUS_INVALID_ARGUMENT, "upload into memory that is only borrowed");
    }
    memcpy(buffer->bytes + offset, host, bytes);
    return LK_OK;
}

lk_status lk_host_download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes) {
    LK_TRY(check_range(device, buffer, offset, bytes, "download"));
    memcpy(host, buffer->bytes + offset, bytes);
    return LK_OK;
}
