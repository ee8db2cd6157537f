#include <stdio.h>
#include <string.h>

#include "backends/cuda/cublaslt.h"
#include "backends/cuda/cuda.h"
#include "backends/cuda/cudnn.h"

typedef struct reader {
    const lk_cu_api *api;
    CUdevice device;
    CUresult error; /* of the first failure */
} reader;

static int32_t attribute(reader *from, int which) {
    int value = 0;
    CUresult error = from->api->cuDeviceGetAttribute(&value, which, from->device);
    if (error != CUDA_SUCCESS && from->error == CUDA_SUCCESS) {
        from->error = error;
    }
    return error == CUDA_SUCCESS ? value : 0;
}

/* Operations per clock and multiprocessor (NVIDIA's tuning guides and white papers): fp32, and 16-bit tensor cores with
 * fp32 sums, dense. */
static void rates_of(int32_t capability, double *f32, double *f16) {
    static const struct {
        int32_t capability;
        double f32, f16;
    } rates[] = {{120, 256, 1024}, {100, 256, 8192}, {90, 256, 4096}, {86, 256, 512}, {80, 128, 2048}, {70, 128, 0}};
    *f32 = 128;
    *f16 = 0;
    for (size_t i = 0; i < LK_COUNT(rates); i++) {
        if (capability >= rates[i].capability) {
            *f32 = rates[i].f32;
            *f16 = rates[i].f16;
            return;
        }
    }
}

void lk_cuda_estimate(lk_device_caps *caps, const lk_cuda_numbers *numbers) {
    double f32, f16, hertz = numbers->clock_khz > 0 ? (double)numbers->clock_khz * 1e3 : 1.5e9;
    rates_of(caps->capability, &f32, &f16);
    caps->flops_f32 = (double)LK_MAX(caps->threads, 1) * hertz * f32;
    caps->flops_16 = (double)LK_MAX(caps->threads, 1) * hertz * f16;
    double bandwidth = 2e3 * (double)numbers->memory_clock_khz * (double)numbers->bus_bits / 8.0;
    caps->bandwidth = bandwidth > 0.0 ? bandwidth : 5e11;
    caps->launch_seconds = 2e-6; /* of a kernel in a graph */
}

static CUresult describe(const lk_cu_api *api, int index, lk_device_caps *caps) {
    reader from = {.api = api};
    CUresult error = api->cuDeviceGet(&from.device, index);
    if (error != CUDA_SUCCESS) {
        return error;
    }
    *caps = (lk_device_caps){.struct_size = sizeof *caps, .backend = "cuda", .index = index, .is_cpu = false};
    int driver = 0;
    if (api->cuDeviceGetName(caps->name, (int)sizeof caps->name, from.device) != CUDA_SUCCESS) {
        snprintf(caps->name, sizeof caps->name, "an NVIDIA GPU");
    }
    caps->name[sizeof caps->name - 1] = '\0';
    api->cuDriverGetVersion(&driver);
    int used = snprintf(caps->driver, sizeof caps->driver, "driver for CUDA %d.%d, kernels by nvcc %s", driver / 1000,
                        driver % 1000 / 10, lk_cuda_toolkit);
    const int64_t dnn = lk_cuda_dnn_version();
    if (dnn > 0 && used > 0 && used < (int)sizeof caps->driver) { /* its kernels are checked anew when it changes */
        snprintf(caps->driver + used, sizeof caps->driver - (size_t)used, ", cuDNN %d.%d.%d", (int)(dnn / 10000),
                 (int)(dnn / 100 % 100), (int)(dnn % 100));
    }
    error = api->cuDeviceTotalMem(&caps->memory_bytes, from.device);
    if (error != CUDA_SUCCESS) {
        return error;
    }
    caps->features = (lk_cuda_lt_absent() == NULL ? LK_CUDA_FEATURE_CUBLASLT : 0) |
                     (lk_cuda_dnn_absent() == NULL ? LK_CUDA_FEATURE_CUDNN : 0);
    caps->max_buffer_bytes = SIZE_MAX;
    caps->capability = 10 * attribute(&from, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                       attribute(&from, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    caps->threads = attribute(&from, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    caps->shared_bytes = (size_t)attribute(&from, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    caps->subgroup_size = attribute(&from, CU_DEVICE_ATTRIBUTE_WARP_SIZE);
    caps->max_group_size = attribute(&from, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    caps->l2_bytes = (size_t)attribute(&from, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
    error = from.error;
    lk_cuda_numbers numbers = {attribute(&from, CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
                               attribute(&from, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
                               attribute(&from, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)};
    lk_cuda_estimate(caps, &numbers);
    return error;
}

/* Cards that the kernels are not made for are not listed; where there are no others the reason names one. */
lk_status lk_cuda_probe(lk_context *context, lk_device_caps *caps, int capacity, int *count) {
    const lk_cu_api *api;
    *count = 0;
    LK_TRY(lk_cu_load(context, &api));
    int present = 0;
    CUresult error = api->cuDeviceGetCount(&present);
    if (error != CUDA_SUCCESS || present == 0) {
        return lk_fail(context, LK_STATUS_UNAVAILABLE, "the NVIDIA driver finds no GPU (%s, %d)",
                       lk_cu_error_name(api, error), error);
    }
    lk_device_caps last;
    for (int i = 0; i < LK_MIN(present, (int)LK_CUDA_MAX_DEVICES); i++) {
        error = describe(api, i, &last);
        if (error != CUDA_SUCCESS) {
            return lk_fail(context, LK_STATUS_DEVICE, "cuda:%d cannot be described: %s (%d)", i,
                           lk_cu_error_name(api, error), error);
        }
        if (last.capability >= LK_CUDA_CAPABILITY) {
            last.index = *count;
            if (*count < capacity) {
                caps[*count] = last;
            }
            (*count)++;
        }
    }
    return *count > 0 ? LK_OK
                      : lk_fail(context, LK_STATUS_UNAVAILABLE,
                                "%s has compute capability %d.%d, the kernels need 8.0 or more", last.name,
                                last.capability / 10, last.capability % 10);
}

CUresult lk_cuda_find(const lk_cu_api *api, int32_t index, CUdevice *out) {
    int present = 0;
    CUresult error = api->cuDeviceGetCount(&present);
    for (int i = 0; i < present && error == CUDA_SUCCESS; i++) {
        reader from = {.api = api};
        error = api->cuDeviceGet(&from.device, i);
        int32_t major = error == CUDA_SUCCESS ? attribute(&from, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) : 0;
        error = error == CUDA_SUCCESS ? from.error : error;
        if (error == CUDA_SUCCESS && 10 * major >= LK_CUDA_CAPABILITY && index-- == 0) {
            *out = from.device;
            return CUDA_SUCCESS;
        }
    }
    return error == CUDA_SUCCESS ? CUDA_ERROR_INVALID_DEVICE : error;
}
