/* Runs CUDA kernels on the host: every lane of a group is a stack of its own, and goes on until it comes to a barrier
 * or to an operation of its whole warp. The kernels are compiled by the host's C++ compiler; what they may say of a GPU
 * is in device.h (native kernels) and in tests/cuda/mock/include (the dialect's).
 *
 * It looks for mistakes that a GPU would hide most of the time. Shared memory has a shadow that knows who wrote and
 * read each word, between which barriers; bytes that nobody wrote; and copies that are under way, whose data arrive
 * when they are waited for and not before. Global memory may be touched where emulator_allow() says. Lanes of a warp
 * that part at one of its operations, lanes of a group that part at a barrier, and copies that nobody waits for are
 * reported. */
#ifndef LK_TESTS_CUDA_EMULATOR_H
#define LK_TESTS_CUDA_EMULATOR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { EMULATOR_MAX_PARAMETERS = 48, EMULATOR_MAX_SHARED = 232448 };

typedef struct emulator_kernel {
    const char *name;
    int group; /* lanes that it was compiled for */
    int num_parameters;
    const unsigned char *sizes; /* of the parameters */
    void (*call)(void *const *arguments);
    struct emulator_kernel *next;
} emulator_kernel;
void emulator_register(emulator_kernel *kernel);
const emulator_kernel *emulator_find(const char *name); /* NULL: there is none */

/* Global memory that kernels may touch, from an address on. None, as at the start: any. */
void emulator_allow(const void *start, size_t bytes);
void emulator_forbid(const void *start);

typedef struct emulator_options {
    int eager;    /* copies arrive at once, the other extreme of what a GPU may do */
    int reversed; /* groups, warps and lanes go in the other order */
} emulator_options;

typedef struct emulator_report {
    unsigned problems;
    char first[256];                                                  /* "race: ..., line 12, group (0, 1), lane 33" */
    unsigned long products, copies, matrix_loads, matrix_load_cycles; /* eight rows in one cycle if banks do not meet */
} emulator_report;

/* Runs a kernel over its grid, one group after the other. `options` NULL: none. */
void emulator_run(const emulator_kernel *kernel, const unsigned grid[3], unsigned lanes, unsigned shared_bytes,
                  void *const *arguments, const emulator_options *options, emulator_report *report);

/* Where the running lane is, as CUDA names it. */
typedef struct emulator_position {
    unsigned x, y, z;
} emulator_position;
extern emulator_position threadIdx, blockIdx, gridDim;

/* ---- what device.h calls for the running lane; `line` is of the kernel's text ---- */
void emulator_barrier(int line);
void emulator_store_shared(unsigned to, unsigned value, int line);
unsigned emulator_load_shared(unsigned from, int line);
void emulator_copy(unsigned to, const void *from, int bytes, int line);
void emulator_copy_commit(void);
void emulator_copy_wait(int pending);
void emulator_load_matrices(unsigned *to, unsigned row, int transposed, int line);
void emulator_mma(float *c, const unsigned *a, unsigned b0, unsigned b1, int line);
float emulator_shuffle_xor(float value, int mask, int line);
/* Whether global memory may be touched there; a report where not. */
int emulator_may_touch(const void *at, size_t bytes, int line);

#ifdef __cplusplus
}
#endif

#endif
