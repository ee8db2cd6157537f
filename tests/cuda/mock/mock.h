/* The parts of the mock driver: libcuda.c is the driver's interface, lanes.c runs a kernel, kernels are registered by
 * the generated .cu files, which the host's compiler takes with include/cuda_fp16.h. */
#ifndef LK_TESTS_CUDA_MOCK_H
#define LK_TESTS_CUDA_MOCK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MOCK_MAX_PARAMETERS = 48 };

typedef struct mock_kernel {
    const char *name;
    int group; /* lanes that it was compiled for */
    int num_parameters;
    const unsigned char *sizes; /* of the parameters */
    void (*call)(void *const *arguments);
    struct mock_kernel *next;
} mock_kernel;
void mock_register(mock_kernel *kernel);
const mock_kernel *mock_find(const char *name); /* NULL: there is none */

/* Where the running lane is, as CUDA names it. */
typedef struct mock_position {
    unsigned x, y, z;
} mock_position;
extern mock_position threadIdx, blockIdx, gridDim;
void mock_barrier(void);

/* Runs a kernel over its grid, one group after the other. 0, with a line on stderr, when lanes of a group part at a
 * barrier. */
int mock_run(const mock_kernel *kernel, const unsigned grid[3], unsigned lanes, void *const *arguments);

#ifdef __cplusplus
}
#endif
#endif
