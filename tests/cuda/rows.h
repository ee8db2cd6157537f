/* What tests of the CUDA backend share. */
#ifndef LK_TESTS_CUDA_ROWS_H
#define LK_TESTS_CUDA_ROWS_H

#include "lorikeet_backend.h"

const lk_kernel *cuda_row_called(const char *name); /* NULL: there is none */

#endif
