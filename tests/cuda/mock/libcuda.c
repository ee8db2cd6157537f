/* A stand-in for libcuda.so.1: the functions of backends/cuda/symbols.def, on the host.
 *
 * It is stricter than a GPU where that finds mistakes. Device memory cannot be touched by the host (PROT_NONE but while
 * the device works), is followed by a page that never can be, and comes filled with NaNs. Work given to a stream is
 * done when it is waited for and not before, so what the host reads or overwrites too early is wrong. Functions are
 * found only if the module's image has them.
 *
 * LK_MOCK_CUDA_PTX=build/release/cuda  kernels are executed from nvcc's PTX in that folder (tests/cuda/ptx)
 * LK_MOCK_CUDA_PTX_COUNTS=1  and at the end the instructions, products and bank conflicts of each are printed
 * LK_MOCK_CUDA_CARDS=A100,V100  the cards (tests/cuda/cards.def); A100
 * LK_MOCK_CUDA_FAIL=cuMemAlloc_v2:3:2  the third call of that function fails with error 2; `kernel` is a kernel's run.
 *     Errors that lose the context (ECC, from 700 on) are returned by every later call.
 * The failures are read at every call, the cards at the first. */
#include "tests/cuda/mock/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- cards ---- */

static const card known_cards[] = {
#define LK_CARD(id, name, capability, units, shared, memory, l2, clock, memory_clock, bus) \
    {#id, name, capability, units, shared, memory, l2, clock, memory_clock, bus},
#include "tests/cuda/cards.def"
#undef LK_CARD
};
const card *mock_cards[MAX_CARDS];
int mock_num_cards;

static void read_cards(void) {
    const char *wanted = getenv("LK_MOCK_CUDA_CARDS");
    wanted = wanted != NULL ? wanted : "A100";
    mock_num_cards = 0;
    while (*wanted != '\0' && mock_num_cards < MAX_CARDS) {
        size_t length = strcspn(wanted, ",");
        for (size_t i = 0; i < COUNT(known_cards); i++) {
            if (strlen(known_cards[i].id) == length && memcmp(known_cards[i].id, wanted, length) == 0) {
                mock_cards[mock_num_cards++] = &known_cards[i];
            }
        }
        wanted += length + (wanted[length] == ',');
    }
}

static int context_of[MAX_CARDS]; /* how often each is retained */

/* ---- the interface ---- */

EXPORT CUresult cuInit(unsigned flags) {
    CUresult error = mock_enter_before_init("cuInit");
    if (error != CUDA_SUCCESS) {
        return error;
    }
    read_cards();
    mock_initialised = flags == 0 && mock_num_cards > 0;
    return flags != 0 ? CUDA_ERROR_INVALID_VALUE : mock_num_cards > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

EXPORT CUresult cuDriverGetVersion(int *version) {
    *version = 13000;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGetErrorName(CUresult error, const char **name) {
    static const struct {
        CUresult error;
        const char *name;
    } names[] = {
#define NAME(name) {name, #name},
        NAME(CUDA_ERROR_INVALID_VALUE) NAME(CUDA_ERROR_OUT_OF_MEMORY) NAME(CUDA_ERROR_NOT_INITIALIZED)
            NAME(CUDA_ERROR_STUB_LIBRARY) NAME(CUDA_ERROR_NO_DEVICE) NAME(CUDA_ERROR_INVALID_DEVICE)
                NAME(CUDA_ERROR_INVALID_IMAGE) NAME(CUDA_ERROR_INVALID_CONTEXT) NAME(CUDA_ERROR_NO_BINARY_FOR_GPU)
                    NAME(CUDA_ERROR_ECC_UNCORRECTABLE) NAME(CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
                        NAME(CUDA_ERROR_INVALID_HANDLE) NAME(CUDA_ERROR_NOT_FOUND) NAME(CUDA_ERROR_NOT_READY)
                            NAME(CUDA_ERROR_ILLEGAL_ADDRESS) NAME(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES)
                                NAME(CUDA_ERROR_LAUNCH_FAILED) NAME(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
                                    NAME(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED) NAME(CUDA_ERROR_UNKNOWN)
#undef NAME
    };
    for (size_t i = 0; i < COUNT(names); i++) {
        if (names[i].error == error) {
            *name = names[i].name;
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuDeviceGetCount(int *count) {
    ENTER(cuDeviceGetCount);
    *count = mock_num_cards;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER(cuDeviceGet);
    *device = ordinal + 100; /* handles are not ordinals */
    return ordinal >= 0 && ordinal < mock_num_cards ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static const card *card_of(CUdevice device) {
    return device >= 100 && device < 100 + mock_num_cards ? mock_cards[device - 100] : NULL;
}

EXPORT CUresult cuDeviceGetName(char *name, int capacity, CUdevice device) {
    ENTER(cuDeviceGetName);
    const card *of = card_of(device);
    if (of == NULL) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    snprintf(name, (size_t)capacity, "%s", of->name);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    ENTER(cuDeviceTotalMem_v2);
    const card *of = card_of(device);
    *bytes = of != NULL ? (size_t)of->memory_gib << 30 : 0;
    return of != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    ENTER(cuDeviceGetAttribute);
    const card *of = card_of(device);
    if (of == NULL) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = 1024;
        break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
        *value = 48 * 1024;
        break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
        *value = 32;
        break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
        *value = of->clock;
        break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        *value = of->units;
        break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
        *value = of->memory_clock;
        break;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
        *value = of->bus;
        break;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
        *value = of->l2_mib << 20;
        break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        *value = of->capability / 10;
        break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        *value = of->capability % 10;
        break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
        *value = of->shared;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    ENTER(cuDevicePrimaryCtxRetain);
    if (card_of(device) == NULL) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *context = (CUcontext)(void *)&context_of[device - 100];
    context_of[device - 100]++;
    mock_counts.live++;
    return CUDA_SUCCESS;
}

/* What releases is done even when the context is lost. */
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    if (card_of(device) == NULL || context_of[device - 100] == 0) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    mock_counts.live--;
    if (--context_of[device - 100] == 0) {
        mock_current = NULL;
        mock_lost = CUDA_SUCCESS;
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    ENTER(cuCtxSetCurrent);
    mock_current = context;
    return CUDA_SUCCESS;
}
