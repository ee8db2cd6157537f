/* An interpreter of PTX (NVIDIA's Parallel Thread Execution ISA 9.0), a tool for development: it executes what nvcc
 * made of a kernel, so inline assembly, operand order and address arithmetic are executed without a GPU. Not executed:
 * ptxas' machine code, timing, weak memory order.
 *
 * A warp's 32 lanes go on together; lanes that part go on from the lowest instruction. It is stricter than a GPU:
 * shared memory and registers begin as NaNs, asynchronous copies arrive when they are waited for and their target is
 * NaN until then, and these are faults: accesses out of bounds or misaligned, two lanes that touch the same shared
 * bytes without a barrier between, one of them writing, lanes that part at a barrier or a warp's collective, copies
 * that nobody waits for. Instructions that it does not know are faults, too. */
#ifndef LK_TESTS_CUDA_PTX_H
#define LK_TESTS_CUDA_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PTX_MESSAGE = 512 };

typedef struct ptx_module ptx_module;
typedef struct ptx_kernel ptx_kernel;

/* NULL with a message when the text is not understood. */
ptx_module *ptx_module_parse(const char *text, char message[PTX_MESSAGE]);
ptx_module *ptx_module_read(const char *path, char message[PTX_MESSAGE]);
void ptx_module_free(ptx_module *module);
const ptx_kernel *ptx_module_find(const ptx_module *module, const char *name); /* NULL: there is none */

int ptx_num_parameters(const ptx_kernel *kernel);
size_t ptx_parameter_bytes(const ptx_kernel *kernel, int index);
int ptx_max_lanes(const ptx_kernel *kernel); /* of a group, by .maxntid; 1024 without it */

typedef struct ptx_counts {
    uint64_t instructions; /* of warps */
    uint64_t mma, ldmatrix, async_copies;
    uint64_t ldmatrix_rows; /* of 8 x 16 bytes that ldmatrix read ... */
    uint64_t ldmatrix_ways; /* ... and in how many passes over the banks: equal where nothing conflicts */
} ptx_counts;

typedef struct ptx_launch {
    unsigned grid[3], lanes;                                       /* lanes: of a group, in one dimension */
    size_t shared_bytes;                                           /* dynamic */
    void *const *arguments;                                        /* one pointer to each parameter */
    bool (*is_memory)(void *user, uint64_t address, size_t bytes); /* what may be accessed */
    void *user;
    ptx_counts *counts; /* added to; may be NULL */
} ptx_launch;

/* Runs all groups, one after the other. False with a message that names the instruction and the lane. */
bool ptx_run(const ptx_kernel *kernel, const ptx_launch *launch, char message[PTX_MESSAGE]);

#endif
