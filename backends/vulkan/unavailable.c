/* What stands for the Vulkan backend in a build without the Vulkan headers or without kernels in SPIR-V. */
#include "dispatch/dispatch.h"

static lk_status probe(lk_context *context, lk_device_caps *caps, int capacity, int *count) {
    (void)caps;
    (void)capacity;
    *count = 0;
    return lk_fail(context, LK_STATUS_UNAVAILABLE,
                   "built without Vulkan: install " LK_VULKAN_MISSING " and build again");
}

static const lk_kernel *kernels(int *count) {
    *count = 0;
    return NULL;
}

const lk_backend lk_backend_vulkan = {.abi_version = LK_BACKEND_ABI_VERSION,
                                      .struct_size = sizeof(lk_backend),
                                      .name = "vulkan",
                                      .summary = "Vulkan devices (not in this build)",
                                      .probe = probe,
                                      .kernels = kernels};
