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
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "backends/cuda/driver.h"
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/mock/hooks.h"
#include "tests/cuda/mock/ptx.h"

#define EXPORT __attribute__((visibility("default")))
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- cards ---- */

typedef struct card {
    const char *id, *name;
    int capability, units, shared, memory_gib, l2_mib, clock, memory_clock, bus;
} card;
static const card known_cards[] = {
#define LK_CARD(id, name, capability, units, shared, memory, l2, clock, memory_clock, bus) \
    {#id, name, capability, units, shared, memory, l2, clock, memory_clock, bus},
#include "tests/cuda/cards.def"
#undef LK_CARD
};
enum { MAX_CARDS = 8 };
static const card *cards[MAX_CARDS];
static int num_cards;

static void read_cards(void) {
    const char *list = getenv("LK_MOCK_CUDA_CARDS");
    list = list != NULL ? list : "A100";
    num_cards = 0;
    while (*list != '\0' && num_cards < MAX_CARDS) {
        size_t length = strcspn(list, ",");
        for (size_t i = 0; i < COUNT(known_cards); i++) {
            if (strlen(known_cards[i].id) == length && memcmp(known_cards[i].id, list, length) == 0) {
                cards[num_cards++] = &known_cards[i];
            }
        }
        list += length + (list[length] == ',');
    }
}

/* ---- planned failures ---- */

static CUresult lost; /* what every call returns once the context is lost */
static bool initialised;
static void *current;
static int context_of[MAX_CARDS]; /* how often each is retained */
static unsigned long num_kernels, num_launches, num_graph_launches, num_captures, num_failures, num_heuristics;

static CUresult planned(const char *what) {
    static char counted[96];
    static long calls;
    const char *plan = getenv("LK_MOCK_CUDA_FAIL");
    if (plan == NULL) {
        counted[0] = '\0';
        return CUDA_SUCCESS;
    }
    if (strcmp(plan, counted) != 0) {
        snprintf(counted, sizeof counted, "%s", plan);
        calls = 0;
    }
    size_t length = strcspn(plan, ":");
    long nth = 1;
    int code = CUDA_ERROR_UNKNOWN;
    if (strlen(what) != length || memcmp(plan, what, length) != 0 ||
        sscanf(plan + length, ":%ld:%d", &nth, &code) < 1 || ++calls != nth) {
        return CUDA_SUCCESS;
    }
    num_failures++;
    if (code >= CUDA_ERROR_ILLEGAL_ADDRESS || code == CUDA_ERROR_ECC_UNCORRECTABLE) {
        lost = code;
    }
    return code;
}

#define ENTER(name)                      \
    do {                                 \
        CUresult entered = enter(#name); \
        if (entered != CUDA_SUCCESS) {   \
            return entered;              \
        }                                \
    } while (0)
static CUresult enter_before_init(const char *name) {
    CUresult error = planned(name);
    return error != CUDA_SUCCESS ? error : lost;
}
static CUresult enter(const char *name) {
    CUresult error = enter_before_init(name);
    return error != CUDA_SUCCESS ? error : initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}
#define ENTER_CONTEXT(name)                \
    ENTER(name);                           \
    if (current == NULL) {                 \
        return CUDA_ERROR_INVALID_CONTEXT; \
    }

/* ---- device memory ---- */

typedef struct block {
    char *pages; /* then one page that is never open */
    size_t page_bytes;
    char *start;
    size_t bytes;
    struct block *next;
} block;
static block *blocks;
static size_t memory_used;
static int live; /* objects of any kind that were made and not destroyed */

static void protect(int flags) {
    for (block *b = blocks; b != NULL; b = b->next) {
        mprotect(b->pages, b->page_bytes, flags);
    }
}

static bool is_device(CUdeviceptr memory, size_t bytes) {
    for (const block *b = blocks; b != NULL; b = b->next) {
        uintptr_t start = (uintptr_t)b->start;
        if (memory >= start && memory - start <= b->bytes && bytes <= b->bytes - (memory - start)) {
            return true;
        }
    }
    return false;
}

/* ---- streams: what is to be done, in order ---- */

enum { ARGUMENT_BYTES = 8 * EMULATOR_MAX_PARAMETERS };
typedef enum kind { KERNEL, LIBRARY, TO_DEVICE, TO_HOST, SET, RECORD, GRAPH } kind;
typedef struct operation {
    kind kind;
    const emulator_kernel *kernel;
    unsigned grid[3], lanes, shared_bytes;
    unsigned char *arguments; /* 8 bytes each; what a library gave */
    void (*work)(const void *);
    void *to;
    const void *from;
    size_t bytes;
    unsigned char value;
    struct CUevent_st *event;
    struct CUgraphExec_st *graph;
} operation;

typedef struct list {
    operation *items;
    size_t count, capacity;
} list;

struct CUgraph_st {
    list list;
};
struct CUgraphExec_st {
    list list;
};
struct CUstream_st {
    list list;
    size_t done; /* of them */
    struct CUgraph_st *capture;
    struct CUstream_st *next;
};
static struct CUstream_st *streams;
struct CUevent_st {
    struct CUstream_st *stream; /* where it was recorded and is not reached yet */
    bool reached, timed;
    double time;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static operation *push(list *to, kind kind) {
    if (to->count == to->capacity) {
        to->capacity = to->capacity * 2 + 16;
        to->items = realloc(to->items, to->capacity * sizeof *to->items);
        if (to->items == NULL) {
            abort();
        }
    }
    operation *added = &to->items[to->count++];
    memset(added, 0, sizeof *added);
    added->kind = kind;
    return added;
}

static void clear(list *of) {
    for (size_t i = 0; i < of->count; i++) {
        free(of->items[i].arguments);
    }
    of->count = 0;
}

static CUresult execute(const operation *op) {
    switch (op->kind) {
    case KERNEL: {
        CUresult error = planned("kernel");
        if (error != CUDA_SUCCESS) {
            return error;
        }
        void *arguments[EMULATOR_MAX_PARAMETERS];
        for (int i = 0; i < op->kernel->num_parameters; i++) {
            arguments[i] = op->arguments + 8 * i;
        }
        num_kernels++;
        if (mock_ptx_is_wanted()) {
            return mock_ptx_run(op->kernel->name, op->grid, op->lanes, op->shared_bytes, arguments,
                                op->kernel->num_parameters, is_device)
                       ? CUDA_SUCCESS
                       : (lost = CUDA_ERROR_LAUNCH_FAILED);
        }
        emulator_report report;
        emulator_run(op->kernel, op->grid, op->lanes, op->shared_bytes, arguments, NULL, &report);
        if (report.problems > 0) {
            fprintf(stderr, "mock CUDA: %s\n", report.first);
            return lost = CUDA_ERROR_LAUNCH_FAILED;
        }
        return CUDA_SUCCESS;
    }
    case LIBRARY:
        op->work(op->arguments);
        return CUDA_SUCCESS;
    case TO_DEVICE:
    case TO_HOST:
        memcpy(op->to, op->from, op->bytes);
        return CUDA_SUCCESS;
    case SET:
        memset(op->to, op->value, op->bytes);
        return CUDA_SUCCESS;
    case RECORD:
        op->event->reached = true;
        op->event->stream = NULL;
        op->event->time = now();
        return CUDA_SUCCESS;
    case GRAPH:
        for (size_t i = 0; i < op->graph->list.count; i++) {
            CUresult error = execute(&op->graph->list.items[i]);
            if (error != CUDA_SUCCESS) {
                return error;
            }
        }
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_UNKNOWN;
}

/* Does what is left of a stream, up to an event if one is given. */
static CUresult drain(struct CUstream_st *stream, const struct CUevent_st *until) {
    CUresult error = CUDA_SUCCESS;
    protect(PROT_READ | PROT_WRITE);
    while (stream->done < stream->list.count && error == CUDA_SUCCESS) {
        const operation *op = &stream->list.items[stream->done++];
        error = execute(op);
        if (op->kind == RECORD && op->event == until) {
            break;
        }
    }
    protect(PROT_NONE);
    if (stream->done == stream->list.count || error != CUDA_SUCCESS) {
        clear(&stream->list);
        stream->done = 0;
    }
    return error;
}

/* What releases waits for everything first; after a failure nothing more is done. */
static void drain_all(void) {
    for (struct CUstream_st *stream = streams; stream != NULL; stream = stream->next) {
        if (lost != CUDA_SUCCESS) {
            clear(&stream->list);
            stream->done = 0;
        } else {
            drain(stream, NULL);
        }
    }
}

/* ---- the interface ---- */

EXPORT CUresult cuInit(unsigned flags) {
    CUresult error = enter_before_init("cuInit");
    if (error != CUDA_SUCCESS) {
        return error;
    }
    read_cards();
    initialised = flags == 0 && num_cards > 0;
    return flags != 0 ? CUDA_ERROR_INVALID_VALUE : num_cards > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
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
    *count = num_cards;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER(cuDeviceGet);
    *device = ordinal + 100; /* handles are not ordinals */
    return ordinal >= 0 && ordinal < num_cards ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static const card *card_of(CUdevice device) {
    return device >= 100 && device < 100 + num_cards ? cards[device - 100] : NULL;
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
    live++;
    return CUDA_SUCCESS;
}

/* What releases is done even when the context is lost. */
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    if (card_of(device) == NULL || context_of[device - 100] == 0) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    live--;
    if (--context_of[device - 100] == 0) {
        current = NULL;
        lost = CUDA_SUCCESS;
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    ENTER(cuCtxSetCurrent);
    current = context;
    return CUDA_SUCCESS;
}

/* ---- modules ---- */

struct CUmod_st {
    const char *image;
    size_t bytes;
};

EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    ENTER_CONTEXT(cuModuleLoadData);
    uint32_t magic;
    uint16_t header;
    uint64_t bytes;
    memcpy(&magic, image, sizeof magic);
    memcpy(&header, (const char *)image + 6, sizeof header);
    memcpy(&bytes, (const char *)image + 8, sizeof bytes);
    if (magic != 0xBA55ED50u) { /* of a fatbin */
        return CUDA_ERROR_INVALID_IMAGE;
    }
    *module = malloc(sizeof **module);
    **module = (struct CUmod_st){image, header + (size_t)bytes};
    live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleUnload(CUmodule module) {
    free(module);
    live--;
    return lost;
}

static bool has_name(const struct CUmod_st *module, const char *name) {
    size_t length = strlen(name) + 1;
    const char *at = module->image, *end = at + module->bytes;
    while (at != NULL && (size_t)(end - at) >= length) {
        if (memcmp(at, name, length) == 0) {
            return true;
        }
        at = memchr(at + 1, name[0], (size_t)(end - at - 1));
    }
    return false;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    ENTER_CONTEXT(cuModuleGetFunction);
    const emulator_kernel *kernel = emulator_find(name);
    *function = (CUfunction)(void *)(uintptr_t)kernel;
    return kernel != NULL && has_name(module, name) ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

EXPORT CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
    ENTER_CONTEXT(cuFuncSetAttribute);
    (void)function;
    return attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value >= 0 ? CUDA_SUCCESS
                                                                                      : CUDA_ERROR_INVALID_VALUE;
}

/* ---- memory ---- */

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *memory, size_t bytes) {
    ENTER_CONTEXT(cuMemAlloc_v2);
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (bytes == 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    size_t rounded = (bytes + 255) / 256 * 256, pages = (rounded + page - 1) / page * page;
    if (rounded < bytes || memory_used + pages > (size_t)cards[0]->memory_gib << 30) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    char *start = mmap(NULL, pages + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    block *made = malloc(sizeof *made);
    if (start == MAP_FAILED || made == NULL) {
        abort();
    }
    *made = (block){start, pages, start + pages - rounded, bytes, blocks};
    blocks = made;
    memory_used += pages;
    live++;
    mprotect(start, pages, PROT_READ | PROT_WRITE);
    memset(made->start, 0xff, bytes);
    mprotect(start, pages, PROT_NONE);
    emulator_allow(made->start, bytes);
    *memory = (CUdeviceptr)(uintptr_t)made->start;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr memory) {
    drain_all();
    for (block **b = &blocks; *b != NULL; b = &(*b)->next) {
        block *found = *b;
        if ((uintptr_t)found->start == memory) {
            *b = found->next;
            emulator_forbid(found->start);
            memory_used -= found->page_bytes;
            munmap(found->pages, found->page_bytes + (size_t)sysconf(_SC_PAGESIZE));
            free(found);
            live--;
            return lost;
        }
    }
    return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuMemAllocHost_v2(void **memory, size_t bytes) {
    ENTER_CONTEXT(cuMemAllocHost_v2);
    *memory = malloc(bytes);
    live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFreeHost(void *memory) {
    drain_all();
    free(memory);
    live--;
    return lost;
}

/* What a stream is given while it is captured goes to the graph. */
static list *target_of(CUstream stream) {
    return stream->capture != NULL ? &stream->capture->list : &stream->list;
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    ENTER_CONTEXT(cuMemcpyHtoDAsync_v2);
    if (!is_device(to, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    operation *op = push(target_of(stream), TO_DEVICE);
    op->to = (void *)(uintptr_t)to;
    op->from = from;
    op->bytes = bytes;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER_CONTEXT(cuMemcpyDtoHAsync_v2);
    if (!is_device(from, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    operation *op = push(target_of(stream), TO_HOST);
    op->to = to;
    op->from = (const void *)(uintptr_t)from;
    op->bytes = bytes;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    ENTER_CONTEXT(cuMemsetD8Async);
    if (!is_device(to, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    operation *op = push(target_of(stream), SET);
    op->to = (void *)(uintptr_t)to;
    op->value = value;
    op->bytes = bytes;
    return CUDA_SUCCESS;
}

/* ---- streams, graphs, events ---- */

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    ENTER_CONTEXT(cuStreamCreate);
    (void)flags;
    *stream = calloc(1, sizeof **stream);
    (*stream)->next = streams;
    streams = *stream;
    live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
    drain_all();
    struct CUstream_st **at = &streams;
    while (*at != stream) {
        at = &(*at)->next;
    }
    *at = stream->next;
    clear(&stream->list);
    free(stream->list.items);
    free(stream);
    live--;
    return lost;
}

EXPORT CUresult cuStreamSynchronize(CUstream stream) {
    ENTER_CONTEXT(cuStreamSynchronize);
    if (stream->capture != NULL) {
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return drain(stream, NULL);
}

EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream, int mode) {
    ENTER_CONTEXT(cuStreamBeginCapture_v2);
    (void)mode;
    if (stream->capture != NULL) {
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    stream->capture = calloc(1, sizeof *stream->capture);
    num_captures++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    CUgraph made = stream->capture;
    *graph = NULL;
    stream->capture = NULL;
    CUresult error = enter("cuStreamEndCapture");
    if (made != NULL && error != CUDA_SUCCESS) {
        clear(&made->list);
        free(made->list.items);
        free(made);
    } else if (made != NULL) {
        *graph = made;
        live++;
    }
    return error != CUDA_SUCCESS ? error : made != NULL ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}

static CUresult destroy_list(list *of, void *owner) {
    clear(of);
    free(of->items);
    free(owner);
    live--;
    return lost;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    ENTER_CONTEXT(cuGraphInstantiateWithFlags);
    (void)flags;
    *exec = calloc(1, sizeof **exec);
    for (size_t i = 0; i < graph->list.count; i++) {
        operation *copy = push(&(*exec)->list, graph->list.items[i].kind);
        *copy = graph->list.items[i];
        if (copy->arguments != NULL) {
            copy->arguments = malloc(ARGUMENT_BYTES);
            memcpy(copy->arguments, graph->list.items[i].arguments, ARGUMENT_BYTES);
        }
    }
    live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    ENTER_CONTEXT(cuGraphLaunch);
    push(&stream->list, GRAPH)->graph = exec;
    num_graph_launches++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec exec) {
    drain_all();
    return destroy_list(&exec->list, exec);
}

EXPORT CUresult cuGraphDestroy(CUgraph graph) {
    return destroy_list(&graph->list, graph);
}

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
    ENTER_CONTEXT(cuEventCreate);
    *event = calloc(1, sizeof **event);
    (*event)->timed = (flags & CU_EVENT_DISABLE_TIMING) == 0;
    live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventDestroy_v2(CUevent event) {
    drain_all();
    free(event);
    live--;
    return lost;
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) {
    ENTER_CONTEXT(cuEventRecord);
    push(target_of(stream), RECORD)->event = event;
    event->stream = stream;
    event->reached = false;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventSynchronize(CUevent event) {
    ENTER_CONTEXT(cuEventSynchronize);
    return event->stream != NULL ? drain(event->stream, event) : CUDA_SUCCESS;
}

EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    ENTER_CONTEXT(cuEventElapsedTime);
    if (!start->timed || !end->timed) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!start->reached || !end->reached) {
        return CUDA_ERROR_NOT_READY;
    }
    *milliseconds = (float)((end->time - start->time) * 1e3);
    return CUDA_SUCCESS;
}

/* ---- kernels ---- */

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                               unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,
                               void **parameters, void **extra) {
    ENTER_CONTEXT(cuLaunchKernel);
    const emulator_kernel *kernel = (const emulator_kernel *)(const void *)function;
    if (kernel == NULL || parameters == NULL || extra != NULL || grid_x == 0 || grid_y == 0 || grid_y > 65535 ||
        grid_z != 1 || block_y != 1 || block_z != 1 || shared_bytes > (unsigned)cards[0]->shared ||
        kernel->num_parameters > EMULATOR_MAX_PARAMETERS) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if ((int)block_x > kernel->group) { /* __launch_bounds__ */
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    }
    operation *op = push(target_of(stream), KERNEL);
    op->kernel = kernel;
    op->grid[0] = grid_x;
    op->grid[1] = grid_y;
    op->grid[2] = grid_z;
    op->lanes = block_x;
    op->shared_bytes = shared_bytes;
    op->arguments = calloc(1, ARGUMENT_BYTES);
    for (int i = 0; i < kernel->num_parameters; i++) {
        memcpy(op->arguments + 8 * i, parameters[i], kernel->sizes[i]);
    }
    num_launches += stream->capture == NULL;
    return CUDA_SUCCESS;
}

/* ---- for libraries' mocks ---- */

static void change_live(int change) {
    live += change;
}

static void count_heuristic(void) {
    num_heuristics++;
}

static void enqueue(CUstream stream, void (*work)(const void *), const void *data, size_t bytes) {
    operation *op = push(target_of(stream), LIBRARY);
    if (bytes > ARGUMENT_BYTES) {
        abort();
    }
    op->work = work;
    op->arguments = calloc(1, ARGUMENT_BYTES);
    memcpy(op->arguments, data, bytes);
}

EXPORT const mock_hooks lk_mock_cuda_hooks = {planned, change_live, count_heuristic, is_device, enqueue};

/* ---- for the tests ---- */

EXPORT void lk_mock_cuda_counts(unsigned long counts[7]) {
    counts[0] = (unsigned long)live;
    counts[1] = num_kernels;
    counts[2] = num_launches;
    counts[3] = num_graph_launches;
    counts[4] = num_captures;
    counts[5] = num_failures;
    counts[6] = num_heuristics;
}
