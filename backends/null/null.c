/* The backend to copy. It has every method, is chosen only by name, and supports no
 * op: the conformance suite runs over it and expects each case to be refused. A new backend fills these in, adds its
 * rows to kernels(), and one line to dispatch/backends.def. */
#include <string.h>

#include "dispatch/dispatch.h"

struct lk_buffer {
    size_t bytes;
};

/* Describe what is there; load drivers at run time, and say what is missing. One device without memory of the host. */
static lk_status probe(lk_context *context, lk_device_caps *caps, int capacity, int *count) {
    (void)context;
    *count = 1;
    if (capacity > 0) {
        caps[0] = (lk_device_caps){.struct_size = sizeof *caps,
                                   .backend = "null",
                                   .name = "a device that can do nothing",
                                   .driver = "1",
                                   .subgroup_size = 1,
                                   .max_group_size = 1,
                                   .max_buffer_bytes = SIZE_MAX,
                                   .flops_f32 = 1.0,
                                   .bandwidth = 1.0};
    }
    return LK_OK;
}

static lk_status open_device(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                             lk_device **out) {
    (void)options;
    *out = lk_calloc(context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(context, sizeof **out, "a device");
    }
    **out = (lk_device){&lk_backend_null, context, *caps};
    return LK_OK;
}

static void close_device(lk_device *device) {
    if (device != NULL) {
        lk_free(device->context, device);
    }
}

static lk_status alloc_buffer(lk_device *device, size_t bytes, lk_buffer **out) {
    *out = lk_calloc(device->context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(device->context, sizeof **out, "a buffer");
    }
    (*out)->bytes = bytes;
    return LK_OK;
}

static lk_status wrap_buffer(lk_device *device, const void *host, size_t bytes, lk_buffer **out) {
    (void)host;
    (void)bytes;
    *out = NULL;
    return lk_fail(device->context, LK_STATUS_UNSUPPORTED, "the null device cannot use memory of the host");
}

static void free_buffer(lk_device *device, lk_buffer *buffer) {
    lk_free(device->context, buffer);
}

static void *map_buffer(lk_buffer *buffer) {
    (void)buffer;
    return NULL;
}

static lk_status upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes) {
    (void)host;
    if (offset > buffer->bytes || bytes > buffer->bytes - offset) {
        return lk_fail(device->context, LK_STATUS_INVALID_ARGUMENT, "upload outside the buffer");
    }
    return LK_OK;
}

static lk_status download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes) {
    if (offset > buffer->bytes || bytes > buffer->bytes - offset) {
        return lk_fail(device->context, LK_STATUS_INVALID_ARGUMENT, "download outside the buffer");
    }
    memset(host, 0, bytes);
    return LK_OK;
}

static lk_status compile(lk_device *device, const lk_command *commands, int count, lk_commands **out) {
    (void)commands;
    *out = NULL;
    if (count > 0) {
        return lk_fail(device->context, LK_STATUS_UNSUPPORTED, "the null device has no kernels");
    }
    return LK_OK;
}

static void release(lk_device *device, lk_commands *commands) {
    (void)device;
    (void)commands;
}

static lk_status run(lk_device *device, lk_commands *commands, double *seconds) {
    (void)device;
    (void)commands;
    (void)seconds;
    return LK_OK;
}

static lk_status wait_device(lk_device *device) {
    (void)device;
    return LK_OK;
}

/* From kernels.def: one row per kernel, the portable one of each op last. */
static const lk_kernel *kernels(int *count) {
    *count = 0;
    return NULL;
}

const lk_backend lk_backend_null = {
    .abi_version = LK_BACKEND_ABI_VERSION,
    .struct_size = sizeof(lk_backend),
    .name = "null",
    .summary = "a device without kernels, for tests and as a pattern",
    .unasked = true,
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
