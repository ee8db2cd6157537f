#include "tests/cuda/rows.h"

#include <string.h>

#include "dispatch/dispatch.h"

const lk_kernel *cuda_row_called(const char *name) {
    int count;
    const lk_kernel *rows = lk_backend_cuda.kernels(&count);
    for (int i = 0; i < count; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}
