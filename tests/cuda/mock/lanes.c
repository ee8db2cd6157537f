/* A group of lanes on one processor: each lane is a stack of its own, and goes on until it ends or comes to a barrier.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/cuda/mock/mock.h"

enum { STACK_BYTES = 64 * 1024, MAX_LANES = 1024 };

mock_position threadIdx, blockIdx, gridDim;

static mock_kernel *kernels;

void mock_register(mock_kernel *kernel) {
    kernel->next = kernels;
    kernels = kernel;
}

const mock_kernel *mock_find(const char *name) {
    const mock_kernel *kernel = kernels;
    while (kernel != NULL && strcmp(kernel->name, name) != 0) {
        kernel = kernel->next;
    }
    return kernel;
}

/* ---- switching between stacks ---- */

#if defined(__x86_64__)
typedef void *place; /* a stack pointer; the registers that calls keep lie above it */
void mock_switch(place *from, place to);
__asm__(".text\n.globl mock_switch\n.hidden mock_switch\nmock_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n    ret\n");
static void place_at(place *lane, char *stack, void (*entry)(void)) {
    uintptr_t *top = (uintptr_t *)(void *)(stack + STACK_BYTES);
    *--top = 0; /* so that the entry's stack is aligned as after a call */
    *--top = (uintptr_t)entry;
    for (int i = 0; i < 6; i++) {
        *--top = 0;
    }
    *lane = top;
}
#define SWITCH(from, to) mock_switch(&(from), (to))
#else
#include <ucontext.h>
typedef ucontext_t place;
static void place_at(place *lane, char *stack, void (*entry)(void)) {
    getcontext(lane);
    lane->uc_stack.ss_sp = stack;
    lane->uc_stack.ss_size = STACK_BYTES;
    lane->uc_link = NULL;
    makecontext(lane, entry, 0);
}
#define SWITCH(from, to) swapcontext(&(from), &(to))
#endif

/* ---- a group ---- */

static char *stacks;
static place lanes[MAX_LANES], scheduler;
static unsigned char ended[MAX_LANES];
static unsigned current;
static const mock_kernel *running;
static void *const *given;

static void lane_entry(void) {
    running->call(given);
    ended[current] = 1;
    SWITCH(lanes[current], scheduler);
    abort(); /* nobody goes on with a lane that has ended */
}

void mock_barrier(void) {
    SWITCH(lanes[current], scheduler);
    threadIdx.x = current;
}

static int run_group(unsigned count) {
    memset(ended, 0, count);
    for (unsigned i = 0; i < count; i++) {
        place_at(&lanes[i], stacks + (size_t)i * STACK_BYTES, lane_entry);
    }
    for (unsigned live = count; live > 0;) {
        for (unsigned i = 0; i < count; i++) { /* all come to the same barrier, or all end */
            current = i;
            threadIdx.x = i;
            SWITCH(scheduler, lanes[i]);
            live -= ended[i];
        }
        if (live != 0 && live != count) {
            fprintf(stderr, "mock CUDA: %s: %u of %u lanes wait at a barrier, the others have ended\n", running->name,
                    live, count);
            return 0;
        }
    }
    return 1;
}

int mock_run(const mock_kernel *kernel, const unsigned grid[3], unsigned count, void *const *arguments) {
    if (stacks == NULL) {
        stacks = mmap(NULL, (size_t)MAX_LANES * STACK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) {
            stacks = NULL;
            return 0;
        }
    }
    running = kernel;
    given = arguments;
    gridDim = (mock_position){grid[0], grid[1], grid[2]};
    for (unsigned y = 0; y < grid[1]; y++) {
        for (unsigned x = 0; x < grid[0]; x++) {
            blockIdx = (mock_position){x, y, 0};
            if (!run_group(count)) {
                return 0;
            }
        }
    }
    return 1;
}
