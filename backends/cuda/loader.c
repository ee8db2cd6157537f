/* The driver found at run time, so that one binary starts on machines without it. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cuda.h"

static lk_cu_api api;
static bool loaded;
static char missing[320];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool find_symbol(void *library, const char *name, void *function, size_t size) {
    void *symbol = dlsym(library, name);
    if (symbol == NULL) {
        snprintf(missing, sizeof missing, "the NVIDIA driver is too old, it has no %s: 470 or newer is needed", name);
        return false;
    }
    memcpy(function, &symbol, size);
    return true;
}

static void load(void) {
    const char *own = getenv("LORIKEET_CUDA_DRIVER");
    bool has_own = own != NULL && own[0] != '\0';
    void *library = dlopen(has_own ? own : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL); /* never closed: it keeps threads */
    if (library == NULL) {
        snprintf(missing, sizeof missing, "there is no NVIDIA driver (%s cannot be loaded): install one",
                 has_own ? own : "libcuda.so.1");
        return;
    }
#define LK_CU(name, symbol, parameters)                                       \
    if (!find_symbol(library, #symbol, (void *)&api.name, sizeof api.name)) { \
        return;                                                               \
    }
#include "backends/cuda/symbols.def"
#undef LK_CU
    CUresult error = api.cuInit(0);
    if (error != CUDA_SUCCESS) {
        snprintf(missing, sizeof missing, "%s (%s, %d)",
                 error == CUDA_ERROR_NO_DEVICE ? "the NVIDIA driver finds no GPU" : "the NVIDIA driver does not start",
                 lk_cu_error_name(&api, error), error);
        return;
    }
    loaded = true;
}

lk_status lk_cu_load(lk_context *context, const lk_cu_api **out) {
    if (lk_cuda_images[0].name == NULL) {
        return lk_fail(context, LK_STATUS_UNAVAILABLE,
                       "built without CUDA kernels: install the CUDA toolkit's nvcc and build again");
    }
    pthread_once(&once, load);
    *out = loaded ? &api : NULL;
    return loaded ? LK_OK : lk_fail(context, LK_STATUS_UNAVAILABLE, "%s", missing);
}

lk_status lk_cu_status(CUresult error) {
    return error == CUDA_ERROR_OUT_OF_MEMORY ? LK_STATUS_OUT_OF_MEMORY : LK_STATUS_DEVICE;
}

const char *lk_cu_error_name(const lk_cu_api *driver, CUresult error) {
    const char *name = NULL;
    return driver->cuGetErrorName(error, &name) == CUDA_SUCCESS && name != NULL ? name : "a CUDA error";
}
