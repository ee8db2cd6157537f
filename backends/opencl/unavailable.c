/* What stands for the OpenCL backend in a build without the OpenCL headers. */
#include "dispatch/dispatch.h"

static lk_status probe(lk_context *context, lk_device_caps *caps, int capacity, int *count) {
    (void)caps;
    (void)capacity;
    *count = 0;
    return lk_fail(context, LK_STATUS_UNAVAILABLE,
                   "built without OpenCL: install its headers (Debian: opencl-headers) and build again");
}

static const lk_kernel *kernels(int *count) {
    *count = 0;
    return NULL;
}

const lk_backend lk_backend_opencl = {.abi_version = LK_BACKEND_ABI_VERSION,
                                      .struct_size = sizeof(lk_backend),
                                      .name = "opencl",
                                      .summary = "OpenCL devices (not in this build)",
                                      .probe = probe,
                                      .kernels = kernels};
