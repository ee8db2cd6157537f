/* The CUDA backend: NVIDIA GPUs through the driver found at run time, kernels compiled when the library was built. */
#include "backends/cuda/cuda.h"
#include "backends/cuda/cublaslt.h"
#include "backends/cuda/cudnn.h"
#include "backends/cuda/tensor_cores.h"
#include "backends/shaders/rows.h"

/* What every row requires; the rows of shaders/ see no more shared memory than kernels have without asking. */
static bool has_capability(const lk_device_caps *caps, lk_refusal *why) {
    LK_REQUIRE(why, caps->capability >= LK_CUDA_CAPABILITY, "needs compute capability 8.0");
    return true;
}

static lk_device_caps limited(const lk_device_caps *caps) {
    lk_device_caps own = *caps;
    own.shared_bytes = LK_MIN(own.shared_bytes, (size_t)LK_CUDA_STATIC_SHARED);
    return own;
}

#define LK_SHADER_KERNEL(row, OP, supports_function, cost_function, scratch_function, in_place_input, record) \
    static bool supports_##row(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {            \
        lk_device_caps own = limited(caps);                                                                   \
        return has_capability(caps, why) && supports_function(&own, node, why);                               \
    }
#include "backends/shaders/kernels.def"
#undef LK_SHADER_KERNEL

/* Ops of shaders/ whose products are made by others. */
#define LK_CUDA_PRODUCTS(row, OP, by, weight, supports_function, cost_function, scratch_function, in_place, recorded) \
    static bool supports_##row(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {                    \
        lk_device_caps own = limited(caps);                                                                           \
        return has_capability(caps, why) && lk_cuda_supports_##by(caps, node, weight, why) &&                         \
               supports_function(&own, node, why);                                                                    \
    }                                                                                                                 \
    static double cost_##row(const lk_device_caps *caps, const lk_node *node) {                                       \
        return cost_function(&lk_cuda_products_##by, caps, node);                                                     \
    }                                                                                                                 \
    static size_t scratch_##row(const lk_device_caps *caps, const lk_node *node) {                                    \
        return scratch_function(&lk_cuda_products_##by, caps, node);                                                  \
    }                                                                                                                 \
    static void record_##row(lk_recorder *recorder, const lk_command *command) {                                      \
        recorder->products = &lk_cuda_products_##by;                                                                  \
        recorded(recorder, command);                                                                                  \
        recorder->products = NULL;                                                                                    \
    }
#define LK_CUDA_KERNEL(row, OP, supports_function, cost_function, scratch_function, in_place, recorded) \
    static bool supports_##row(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {      \
        return has_capability(caps, why) && supports_function(caps, node, why);                         \
    }
#include "backends/cuda/kernels.def"
#undef LK_CUDA_KERNEL
#undef LK_CUDA_PRODUCTS

#define LK_ROW(row, OP, cost_function, scratch_function, in_place_input, record_function) \
    {.name = "cuda_" #row,                                                                \
     .op = LK_OP_##OP,                                                                    \
     .supports = supports_##row,                                                          \
     .cost = cost_function,                                                               \
     .scratch = scratch_function,                                                         \
     .in_place = in_place_input,                                                          \
     .run = (void (*)(void))record_function},
static const lk_kernel rows[] = {
#define LK_CUDA_PRODUCTS(row, OP, by, weight, supports_function, cost_function, scratch_function, in_place, recorded) \
    LK_ROW(row, OP, cost_##row, scratch_##row, in_place, record_##row)
#define LK_CUDA_KERNEL(row, OP, supports_function, cost_function, scratch_function, in_place, recorded) \
    LK_ROW(row, OP, cost_function, scratch_function, in_place, recorded)
#define LK_SHADER_KERNEL(row, OP, supports_function, cost_function, scratch_function, in_place, recorded) \
    LK_ROW(row, OP, cost_function, scratch_function, in_place, recorded)
#include "backends/cuda/kernels.def"
#include "backends/shaders/kernels.def"
#undef LK_SHADER_KERNEL
#undef LK_CUDA_KERNEL
#undef LK_CUDA_PRODUCTS
};

static const lk_kernel *kernels(int *count) {
    *count = (int)LK_COUNT(rows);
    return rows;
}

static const char *const features[] = {"cublaslt", "cudnn", NULL};

static const char *absent(int feature) {
    return feature == 0 ? lk_cuda_lt_absent() : lk_cuda_dnn_absent();
}

const lk_backend lk_backend_cuda = {
    .abi_version = LK_BACKEND_ABI_VERSION,
    .struct_size = sizeof(lk_backend),
    .name = "cuda",
    .summary = "NVIDIA GPUs, compute capability 8.0 and newer",
    .by_drivers = true,
    .features = features,
    .absent = absent,
    .probe = lk_cuda_probe,
    .open = lk_cuda_open,
    .close = lk_cuda_close,
    .kernels = kernels,
    .alloc = lk_cuda_alloc,
    .wrap = lk_cuda_wrap,
    .free = lk_cuda_free,
    .map = lk_cuda_map,
    .upload = lk_cuda_upload,
    .download = lk_cuda_download,
    .compile = lk_cuda_compile,
    .release = lk_cuda_release,
    .run = lk_cuda_run,
    .wait = lk_cuda_wait,
};
