/* What tests of the CUDA backend share. */
#ifndef LK_TESTS_CUDA_ROWS_H
#define LK_TESTS_CUDA_ROWS_H

#include "lorikeet_backend.h"
#include "tests/cuda/mock/hooks.h"

const lk_kernel *cuda_row_called(const char *name); /* NULL: there is none */
mock_counts_of cuda_mock_counted(void);             /* by the mock driver that LORIKEET_CUDA_DRIVER names */

#endif
