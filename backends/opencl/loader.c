/* OpenCL found at run time, so that one binary starts on machines without it. */
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "backends/opencl/opencl.h"

static lk_cl_api api;
static bool loaded;
static char missing[160];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
    static const char *const names[] = {
#if defined(__APPLE__)
        "/System/Library/Frameworks/OpenCL.framework/OpenCL",
#endif
        "libOpenCL.so.1",
        "libOpenCL.so"
    };
    void *library = NULL; /* never closed: drivers keep threads */
    for (size_t i = 0; i < LK_COUNT(names) && library == NULL; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (library == NULL) {
        strcpy(missing, "no OpenCL loader: install ocl-icd-libopencl1 and a driver, e.g. pocl-opencl-icd");
        return;
    }
    void *symbol;
#define LK_CL(function)                                                                       \
    symbol = dlsym(library, #function);                                                       \
    if (symbol == NULL) {                                                                     \
        strcpy(missing, "the OpenCL loader is older than version 1.2: it has no " #function); \
        return;                                                                               \
    }                                                                                         \
    memcpy(&api.function, &symbol, sizeof symbol);
#include "backends/opencl/symbols.def"
#undef LK_CL
    loaded = true;
}

lk_status lk_cl_load(lk_context *context, const lk_cl_api **out) {
    pthread_once(&once, load);
    *out = loaded ? &api : NULL;
    return loaded ? LK_OK : lk_fail(context, LK_STATUS_UNAVAILABLE, "%s", missing);
}

const char *lk_cl_error_name(cl_int error) {
    static const struct {
        cl_int error;
        const char *name;
    } names[] = {
#define LK_ERROR(name) {name, #name},
        LK_ERROR(CL_DEVICE_NOT_FOUND) LK_ERROR(CL_DEVICE_NOT_AVAILABLE) LK_ERROR(CL_COMPILER_NOT_AVAILABLE)
            LK_ERROR(CL_MEM_OBJECT_ALLOCATION_FAILURE) LK_ERROR(CL_OUT_OF_RESOURCES) LK_ERROR(CL_OUT_OF_HOST_MEMORY)
                LK_ERROR(CL_BUILD_PROGRAM_FAILURE) LK_ERROR(CL_INVALID_VALUE) LK_ERROR(CL_INVALID_DEVICE)
                    LK_ERROR(CL_INVALID_BINARY) LK_ERROR(CL_INVALID_BUILD_OPTIONS) LK_ERROR(CL_INVALID_PROGRAM)
                        LK_ERROR(CL_INVALID_PROGRAM_EXECUTABLE) LK_ERROR(CL_INVALID_KERNEL_NAME)
                            LK_ERROR(CL_INVALID_KERNEL) LK_ERROR(CL_INVALID_ARG_INDEX) LK_ERROR(CL_INVALID_ARG_VALUE)
                                LK_ERROR(CL_INVALID_ARG_SIZE) LK_ERROR(CL_INVALID_KERNEL_ARGS)
                                    LK_ERROR(CL_INVALID_WORK_GROUP_SIZE) LK_ERROR(CL_INVALID_WORK_ITEM_SIZE)
                                        LK_ERROR(CL_INVALID_COMMAND_QUEUE) LK_ERROR(CL_INVALID_MEM_OBJECT)
                                            LK_ERROR(CL_INVALID_BUFFER_SIZE)
#undef LK_ERROR
    };
    for (size_t i = 0; i < LK_COUNT(names); i++) {
        if (names[i].error == error) {
            return names[i].name;
        }
    }
    return "an OpenCL error";
}
