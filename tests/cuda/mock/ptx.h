/* Kernels of the mock driver from nvcc's PTX, instead of from the same text compiled for the host. */
#ifndef LK_TESTS_CUDA_MOCK_PTX_H
#define LK_TESTS_CUDA_MOCK_PTX_H

#include <stdbool.h>
#include <stddef.h>

bool mock_ptx_is_wanted(void); /* LK_MOCK_CUDA_PTX names the folder with the .ptx files */
/* False, with a line on stderr, after a fault. `is_memory` says what lanes may access. */
bool mock_ptx_run(const char *name, const unsigned grid[3], unsigned lanes, size_t shared_bytes, void *const *arguments,
                  int num_arguments, bool (*is_memory)(unsigned long long address, size_t bytes));

#endif
