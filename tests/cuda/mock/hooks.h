/* What the mock driver (libcuda.c) offers to the mocks of libraries that work on its streams, and to the tests. */
#ifndef LK_TESTS_CUDA_MOCK_HOOKS_H
#define LK_TESTS_CUDA_MOCK_HOOKS_H

#include <stdbool.h>
#include <stddef.h>

#include "backends/cuda/driver.h"

typedef struct mock_hooks {
    CUresult (*planned)(const char *function); /* the error that this call shall fail with; 0: none */
    void (*live)(int change);                  /* objects that were made and not destroyed */
    void (*count_heuristic)(void);
    bool (*is_device)(CUdeviceptr memory, size_t bytes);
    /* Work for a stream, or for the graph that it is captured into; the data are copied. */
    void (*enqueue)(CUstream stream, void (*work)(const void *data), const void *data, size_t bytes);
} mock_hooks;
/* exported as the object lk_mock_cuda_hooks */

/* exported by the function lk_mock_cuda_counts(mock_counts_of *) */
typedef struct mock_counts_of {
    unsigned long live; /* objects of any kind that were made and not destroyed */
    unsigned long kernels, launches, graph_launches, captures, failures, heuristics;
} mock_counts_of;

#endif
