#include "tests/cuda/rows.h"

#include <dlfcn.h>
#include <stdlib.h>
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

mock_counts_of cuda_mock_counted(void) {
    void (*read)(mock_counts_of *);
    void *library = dlopen(getenv("LORIKEET_CUDA_DRIVER"), RTLD_NOW), *symbol = dlsym(library, "lk_mock_cuda_counts");
    mock_counts_of now;
    memcpy(&read, &symbol, sizeof read);
    read(&now);
    dlclose(library);
    return now;
}
