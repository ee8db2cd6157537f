/* The OpenCL backend: devices found through the ICD loader at run time, kernels from the texts in shaders. */
#include "backends/opencl/clblast.h"
#include "backends/shaders/rows.h"

static const lk_kernel rows[] = {
#define LK_OPENCL_KERNEL(row, OP, supports_function, cost_function, scratch_function, in_place_input, record) \
    {.name = "opencl_" #row,                                                                                  \
     .op = LK_OP_##OP,                                                                                        \
     .supports = supports_function,                                                                           \
     .cost = cost_function,                                                                                   \
     .scratch = scratch_function,                                                                             \
     .in_place = in_place_input,                                                                              \
     .run = (void (*)(void))record},
#include "backends/opencl/kernels.def"
#undef LK_OPENCL_KERNEL
#define LK_SHADER_KERNEL(row, OP, supports_function, cost_function, scratch_function, in_place_input, record) \
    {.name = "opencl_" #row,                                                                                  \
     .op = LK_OP_##OP,                                                                                        \
     .supports = supports_function,                                                                           \
     .cost = cost_function,                                                                                   \
     .scratch = scratch_function,                                                                             \
     .in_place = in_place_input,                                                                              \
     .run = (void (*)(void))record},
#include "backends/shaders/kernels.def"
#undef LK_SHADER_KERNEL
};

static const lk_kernel *kernels(int *count) {
    *count = (int)LK_COUNT(rows);
    return rows;
}

const lk_backend lk_backend_opencl = {
    .abi_version = LK_BACKEND_ABI_VERSION,
    .struct_size = sizeof(lk_backend),
    .name = "opencl",
    .summary = "OpenCL devices, through the loader found at run time",
    .by_drivers = true,
    .probe = lk_opencl_probe,
    .open = lk_opencl_open,
    .close = lk_opencl_close,
    .kernels = kernels,
    .alloc = lk_opencl_alloc,
    .wrap = lk_opencl_wrap,
    .free = lk_opencl_free,
    .map = lk_opencl_map,
    .upload = lk_opencl_upload,
    .download = lk_opencl_download,
    .compile = lk_opencl_compile,
    .release = lk_opencl_release,
    .run = lk_opencl_run,
    .wait = lk_opencl_wait,
};
