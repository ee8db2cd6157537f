/* What the files of the mock driver share. */
#ifndef LK_TESTS_CUDA_MOCK_STATE_H
#define LK_TESTS_CUDA_MOCK_STATE_H

#include <stdbool.h>
#include <stddef.h>

#include "backends/cuda/driver.h"
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/mock/hooks.h"

#define EXPORT __attribute__((visibility("default")))
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- cards (libcuda.c) ---- */

typedef struct card {
    const char *id, *name;
    int capability, units, shared, memory_gib, l2_mib, clock, memory_clock, bus;
} card;
enum { MAX_CARDS = 8 };
extern const card *mock_cards[MAX_CARDS];
extern int mock_num_cards;

/* ---- what every call begins with (faults.c) ---- */

extern CUresult mock_lost; /* what every call returns once the context is lost */
extern bool mock_initialised;
extern void *mock_current; /* the context */
extern mock_counts_of mock_counts;

/* The error that this call shall fail with, by LK_MOCK_CUDA_FAIL. */
CUresult mock_planned(const char *what);
CUresult mock_enter_before_init(const char *name);
CUresult mock_enter(const char *name);
#define ENTER(name)                           \
    do {                                      \
        CUresult entered = mock_enter(#name); \
        if (entered != CUDA_SUCCESS) {        \
            return entered;                   \
        }                                     \
    } while (0)
#define ENTER_CONTEXT(name)                \
    ENTER(name);                           \
    if (mock_current == NULL) {            \
        return CUDA_ERROR_INVALID_CONTEXT; \
    }

/* ---- memory (memory.c) ---- */

/* Opens all device memory, or shuts it. */
void mock_protect(bool open);
bool mock_is_device(CUdeviceptr memory, size_t bytes);

/* ---- streams: what is to be done, in order (stream.c) ---- */

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

/* What a stream is given while it is captured goes to the graph. */
list *mock_target_of(CUstream stream);
bool mock_is_captured(CUstream stream);
operation *mock_push(list *to, kind of);
/* What releases waits for everything first; after a failure nothing more is done. */
void mock_drain_all(void);

/* ---- kernels (kernels.c) ---- */

CUresult mock_run_kernel(const operation *op);

#endif
