/* The OpenCL backend's own types. */
#ifndef LK_BACKENDS_OPENCL_H
#define LK_BACKENDS_OPENCL_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl_icd.h>

#include "backends/shaders/launch.h"
#include "dispatch/dispatch.h"

/* ---- the loader (loader.c) ---- */

typedef struct lk_cl_api {
#define LK_CL(function) cl_api_##function function;
#include "backends/opencl/symbols.def"
#undef LK_CL
} lk_cl_api;

/* Loads OpenCL once per process; UNAVAILABLE with what to install where there is none. */
lk_status lk_cl_load(lk_context *context, const lk_cl_api **out);
const char *lk_cl_error_name(cl_int error); /* "CL_OUT_OF_RESOURCES" */

/* ---- devices (probe.c, device.c) ---- */

enum { LK_CL_MAX_DEVICES = 16 };
enum { LK_CL_CLBLAST = 1 }; /* bits of caps.features: CLBlast is there */

typedef struct lk_cl_found {
    cl_platform_id platform;
    cl_device_id device;
} lk_cl_found;
/* All devices of all platforms, in the loader's order. */
lk_status lk_cl_find(lk_context *context, const lk_cl_api *api, lk_cl_found found[LK_CL_MAX_DEVICES], int *count);
lk_status lk_opencl_probe(lk_context *context, lk_device_caps *caps, int capacity, int *count);

/* A compiled kernel text; found again by the hash of all that it depends on. */
typedef struct lk_cl_program {
    uint64_t key;
    cl_program program;
} lk_cl_program;

typedef struct lk_cl_device {
    lk_device device;
    const lk_cl_api *api;
    cl_device_id id;
    cl_context cl;
    cl_command_queue queue, timed_queue; /* the second takes times, which costs */
    lk_cl_program *programs;
    int32_t num_programs;
    uint64_t identity;            /* hash of what the driver says of itself */
    lk_commands *pending;         /* being timed */
    double *seconds;              /* where its times go */
    int32_t compiled, from_cache; /* programs, for the tests and the log */
} lk_cl_device;

struct lk_buffer {
    cl_mem memory;
    char *host; /* the same bytes, on devices that are the host's processor; else NULL */
    size_t bytes;
    bool owns_host;
};

lk_status lk_cl_fail(lk_cl_device *device, cl_int error, const char *what);

lk_status lk_opencl_open(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                         lk_device **out);
void lk_opencl_close(lk_device *device);
lk_status lk_opencl_alloc(lk_device *device, size_t bytes, lk_buffer **out);
lk_status lk_opencl_wrap(lk_device *device, const void *host, size_t bytes, lk_buffer **out);
void lk_opencl_free(lk_device *device, lk_buffer *buffer);
void *lk_opencl_map(lk_buffer *buffer);
lk_status lk_opencl_upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes);
lk_status lk_opencl_download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes);

/* ---- programs (program.c): from memory, from the disk cache, or compiled ---- */

/* The device keeps it. */
lk_status lk_cl_program_get(lk_cl_device *self, const lk_launch *launch, cl_program *out);

/* ---- commands (commands.c) ---- */

lk_status lk_opencl_compile(lk_device *device, const lk_command *commands, int count, lk_commands **out);
void lk_opencl_release(lk_device *device, lk_commands *commands);
lk_status lk_opencl_run(lk_device *device, lk_commands *commands, double *seconds);
lk_status lk_opencl_wait(lk_device *device);

#endif
