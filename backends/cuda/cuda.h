/* The CUDA backend's own types. */
#ifndef LK_BACKENDS_CUDA_H
#define LK_BACKENDS_CUDA_H

#include "backends/cuda/driver.h"
#include "backends/shaders/launch.h"
#include "dispatch/dispatch.h"

/* ---- the driver (loader.c) ---- */

typedef struct lk_cu_api {
#define LK_CU(name, symbol, parameters) CUresult(*name) parameters;
#include "backends/cuda/symbols.def"
#undef LK_CU
} lk_cu_api;

/* Loads the driver once per process: LORIKEET_CUDA_DRIVER, else libcuda.so.1. UNAVAILABLE with what is missing. */
lk_status lk_cu_load(lk_context *context, const lk_cu_api **out);
/* Status of a driver error: OUT_OF_MEMORY or DEVICE. */
lk_status lk_cu_status(CUresult error);
const char *lk_cu_error_name(const lk_cu_api *api, CUresult error); /* "CUDA_ERROR_LAUNCH_FAILED" */

/* ---- the kernels that were compiled (made by cmake/cuda.cmake) ---- */

typedef struct lk_cuda_image {
    const char *name; /* of the file: "attention" */
    const unsigned char *start, *end;
} lk_cuda_image;
extern const lk_cuda_image lk_cuda_images[]; /* the last has name NULL; empty in a build without nvcc */
extern const char lk_cuda_toolkit[];         /* "13.0" */

enum {
    LK_CUDA_CAPABILITY = 80,          /* the least that the kernels are compiled for */
    LK_CUDA_STATIC_SHARED = 48 * 1024 /* what a kernel of shaders/ may use: more must be asked for at run time */
};

/* ---- devices (probe.c, device.c) ---- */

enum { LK_CUDA_MAX_DEVICES = 16 };
lk_status lk_cuda_probe(lk_context *context, lk_device_caps *caps, int capacity, int *count);
/* The driver's device of an index of the probe's list. */
CUresult lk_cuda_find(const lk_cu_api *api, int32_t index, CUdevice *out);
/* What is derived from the numbers that a driver gives: rates by the capability, units and clock. */
typedef struct lk_cuda_numbers {
    int32_t clock_khz, memory_clock_khz, bus_bits;
} lk_cuda_numbers;
void lk_cuda_estimate(lk_device_caps *caps, const lk_cuda_numbers *numbers);

/* Bits of lk_device_caps.features; cuda.c has their names. */
enum { LK_CUDA_FEATURE_CUBLASLT = 1, LK_CUDA_FEATURE_CUDNN = 2 };

typedef struct lk_cuda_device lk_cuda_device;
struct lk_buffer {
    CUdeviceptr memory;
    size_t bytes;
};

enum { LK_CUDA_STAGING_PARTS = 2, LK_CUDA_STAGING_BYTES = 4 << 20 }; /* bytes of each part */

struct lk_cuda_device {
    lk_device device;
    const lk_cu_api *api;
    CUdevice id;
    CUcontext cu;
    CUstream stream;
    CUmodule *modules; /* one per image; NULL: not loaded yet */
    int32_t num_images;
    void *staging[LK_CUDA_STAGING_PARTS]; /* page-locked */
    CUevent staged[LK_CUDA_STAGING_PARTS];
    struct lk_cuda_lt *lt;   /* NULL: products without cuBLASLt (cublaslt.h) */
    struct lk_cuda_dnn *dnn; /* NULL: cuDNN was not used yet (cudnn.h) */
    bool uses_graphs;
    lk_commands *pending; /* running */
    double *seconds;      /* where its times go; NULL: not timed */
};

/* "cuda:0 NAME: what: CUDA_ERROR_X (n)" */
lk_status lk_cuda_fail(lk_cuda_device *device, CUresult error, const char *what);
/* Makes the device's context the calling thread's. */
lk_status lk_cuda_enter(lk_cuda_device *device);

lk_status lk_cuda_open(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                       lk_device **out);
void lk_cuda_close(lk_device *device);
lk_status lk_cuda_alloc(lk_device *device, size_t bytes, lk_buffer **out);
lk_status lk_cuda_wrap(lk_device *device, const void *host, size_t bytes, lk_buffer **out);
void lk_cuda_free(lk_device *device, lk_buffer *buffer);
void *lk_cuda_map(lk_buffer *buffer);
/* (transfer.c) through page-locked memory, one part being copied while the next is filled */
lk_status lk_cuda_upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes);
lk_status lk_cuda_download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes);

/* ---- kernels (kernels.c) ---- */

enum { LK_CUDA_NAME = 128 };
/* The name of the variant that a launch wants (backends/cuda/variants.txt). */
void lk_cuda_variant_name(const lk_launch *launch, char name[LK_CUDA_NAME]);
lk_status lk_cuda_function(lk_cuda_device *self, const lk_launch *launch, CUfunction *out);

/* ---- commands (commands.c) ---- */

/* A library whose calls stand among our kernels: launches of the file `file` are its own. */
typedef struct lk_cuda_library {
    const char *file;
    /* What can be made ready once; *out is given to release() also after a failure. */
    lk_status (*prepare)(lk_cuda_device *device, const lk_launch *launch, void **out);
    lk_status (*start)(lk_cuda_device *device, void *prepared); /* on the device's stream */
    void (*release)(lk_cuda_device *device, void *prepared);    /* NULL is allowed */
} lk_cuda_library;

lk_status lk_cuda_compile(lk_device *device, const lk_command *commands, int count, lk_commands **out);
void lk_cuda_release(lk_device *device, lk_commands *commands);
lk_status lk_cuda_run(lk_device *device, lk_commands *commands, double *seconds);
lk_status lk_cuda_wait(lk_device *device);

#endif
