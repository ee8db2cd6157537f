/* As much of libcuda.so.1 as cuDNN asks for when it compiles a plan for a described device: kernels are "loaded". The
 * library itself has that name, so that cuDNN finds it where a test has opened it before. */
#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))
enum { SUCCESS = 0, NOT_INITIALIZED = 3 };

/* Looked for, and not called with success. */
#define NONE(name)              \
    EXPORT int name(void);      \
    int name(void) {            \
        return NOT_INITIALIZED; \
    }
NONE(cuInit)
NONE(cuDeviceGetCount)
NONE(cuGetErrorString)
NONE(cuCtxGetCurrent)
NONE(cuCtxGetLimit)
NONE(cuCtxPopCurrent)
NONE(cuCtxPushCurrent)
NONE(cuDeviceGet)
NONE(cuGetErrorName)
NONE(cuKernelGetAttribute)
NONE(cuKernelSetAttribute)
NONE(cuLaunchCooperativeKernel)
NONE(cuLaunchKernel)
NONE(cuLaunchKernelEx)
NONE(cuLibraryLoadFromFile)
NONE(cuLinkAddData)
NONE(cuLinkComplete)
NONE(cuLinkCreate)
NONE(cuLinkDestroy)
NONE(cuOccupancyMaxPotentialClusterSize)
NONE(cuStreamGetCtx)

EXPORT int cuDriverGetVersion(int *version);
int cuDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}

EXPORT int cuLibraryLoadData(void **library, const void *code);
int cuLibraryLoadData(void **library, const void *code) {
    static int loaded;
    *library = &loaded;
    return code != NULL ? SUCCESS : NOT_INITIALIZED;
}

EXPORT int cuLibraryGetKernel(void **kernel, void *library, const char *name);
int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
    (void)name;
    *kernel = library;
    return SUCCESS;
}

EXPORT int cuLibraryUnload(void *library);
int cuLibraryUnload(void *library) {
    (void)library;
    return SUCCESS;
}
