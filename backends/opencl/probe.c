#include <stdio.h>
#include <string.h>

#include "backends/opencl/clblast.h"

lk_status lk_cl_find(lk_context *context, const lk_cl_api *api, lk_cl_found found[LK_CL_MAX_DEVICES], int *count) {
    enum { MAX_PLATFORMS = 8 };
    cl_platform_id platforms[MAX_PLATFORMS];
    cl_uint num_platforms = 0;
    *count = 0;
    cl_int error = api->clGetPlatformIDs(MAX_PLATFORMS, platforms, &num_platforms);
    if (error != CL_SUCCESS || num_platforms == 0) { /* the ICD loader says -1001 where no driver is registered */
        return lk_fail(context, LK_STATUS_UNAVAILABLE,
                       "the OpenCL loader finds no driver: install one, e.g. pocl-opencl-icd for the processor");
    }
    for (cl_uint p = 0; p < LK_MIN(num_platforms, (cl_uint)MAX_PLATFORMS); p++) {
        cl_device_id devices[LK_CL_MAX_DEVICES];
        cl_uint num_devices = 0;
        if (api->clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, LK_CL_MAX_DEVICES, devices, &num_devices) !=
            CL_SUCCESS) {
            continue; /* a driver without devices */
        }
        for (cl_uint d = 0; d < LK_MIN(num_devices, (cl_uint)LK_CL_MAX_DEVICES) && *count < LK_CL_MAX_DEVICES; d++) {
            found[(*count)++] = (lk_cl_found){platforms[p], devices[d]};
        }
    }
    return *count > 0 ? LK_OK
                      : lk_fail(context, LK_STATUS_UNAVAILABLE,
                                "%u OpenCL driver(s), but no device: is its hardware there, and may this user open it?",
                                (unsigned)num_platforms);
}

static void platform_of(const lk_cl_api *api, cl_platform_id id, char *text, size_t capacity) {
    char long_text[256] = "";
    if (api->clGetPlatformInfo(id, CL_PLATFORM_NAME, sizeof long_text, long_text, NULL) != CL_SUCCESS) {
        long_text[0] = '\0';
    }
    long_text[sizeof long_text - 1] = '\0';
    snprintf(text, capacity, "%s", long_text);
}

static void text_of(const lk_cl_api *api, cl_device_id device, cl_device_info what, char *text, size_t capacity) {
    char long_text[512] = "";
    if (api->clGetDeviceInfo(device, what, sizeof long_text, long_text, NULL) != CL_SUCCESS) {
        long_text[0] = '\0';
    }
    long_text[sizeof long_text - 1] = '\0';
    snprintf(text, capacity, "%s", long_text);
}

static cl_ulong number_of(const lk_cl_api *api, cl_device_id device, cl_device_info what, size_t size) {
    cl_ulong wide = 0;
    cl_uint narrow = 0;
    bool is_wide = size == sizeof wide;
    if (api->clGetDeviceInfo(device, what, size, is_wide ? (void *)&wide : (void *)&narrow, NULL) != CL_SUCCESS) {
        return 0;
    }
    return is_wide ? wide : narrow;
}

#define UINT_OF(what) number_of(api, found->device, what, sizeof(cl_uint))
#define ULONG_OF(what) number_of(api, found->device, what, sizeof(cl_ulong))

static void describe(const lk_cl_api *api, const lk_cl_found *found, int index, lk_device_caps *caps) {
    char platform[40], version[64], driver[64];
    *caps = (lk_device_caps){.struct_size = sizeof *caps, .backend = "opencl", .index = index};
    text_of(api, found->device, CL_DEVICE_NAME, caps->name, sizeof caps->name);
    text_of(api, found->device, CL_DEVICE_VERSION, version, sizeof version);
    text_of(api, found->device, CL_DRIVER_VERSION, driver, sizeof driver);
    platform_of(api, found->platform, platform, sizeof platform);
    snprintf(caps->driver, sizeof caps->driver, "%s, driver %s, %s", platform, driver, version);
    /* oclgrind says it is everything: then it runs what GPUs run */
    caps->is_cpu = (ULONG_OF(CL_DEVICE_TYPE) & (CL_DEVICE_TYPE_CPU | CL_DEVICE_TYPE_GPU)) == CL_DEVICE_TYPE_CPU;
    caps->host_memory = caps->is_cpu;
    caps->features = lk_clblast_is_there() ? LK_CL_CLBLAST : 0;
    caps->threads = (int32_t)UINT_OF(CL_DEVICE_MAX_COMPUTE_UNITS);
    caps->shared_bytes = (size_t)ULONG_OF(CL_DEVICE_LOCAL_MEM_SIZE);
    caps->max_group_size = (int32_t)number_of(api, found->device, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof(size_t));
    caps->memory_bytes = (size_t)ULONG_OF(CL_DEVICE_GLOBAL_MEM_SIZE);
    caps->max_buffer_bytes = (size_t)ULONG_OF(CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    /* lanes that work together: on a processor those of its vectors */
    caps->subgroup_size = caps->is_cpu ? (int32_t)UINT_OF(CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT) : 32;
    double hertz = (double)UINT_OF(CL_DEVICE_MAX_CLOCK_FREQUENCY) * 1e6;
    hertz = hertz > 0.0 ? hertz : 1e9;
    /* half of a processor's peak: what its driver reaches, so that the cpu backend is preferred */
    double lanes = caps->is_cpu ? (double)LK_MAX(caps->subgroup_size, 1) : 64.0;
    caps->flops_f32 = (double)LK_MAX(caps->threads, 1) * hertz * 2.0 * lanes;
    caps->bandwidth = caps->is_cpu ? 1e10 : 1e11; /* OpenCL does not say */
    caps->launch_seconds = caps->is_cpu ? 5e-6 : 1e-5;
}

lk_status lk_opencl_probe(lk_context *context, lk_device_caps *caps, int capacity, int *count) {
    const lk_cl_api *api;
    lk_cl_found found[LK_CL_MAX_DEVICES];
    *count = 0;
    LK_TRY(lk_cl_load(context, &api));
    LK_TRY(lk_cl_find(context, api, found, count));
    for (int i = 0; i < *count && i < capacity; i++) {
        describe(api, &found[i], i, &caps[i]);
    }
    return LK_OK;
}
