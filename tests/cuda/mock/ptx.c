#include "tests/cuda/mock/ptx.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/ptx/ptx.h"

enum { MAX_MODULES = 64 };
static ptx_module *modules[MAX_MODULES];
static int num_modules = -1; /* not read yet */

bool mock_ptx_is_wanted(void) {
    const char *folder = getenv("LK_MOCK_CUDA_PTX");
    return folder != NULL && folder[0] != '\0';
}

static void read_folder(const char *folder) {
    DIR *open = opendir(folder);
    char path[4096], message[PTX_MESSAGE];
    num_modules = 0;
    for (struct dirent *entry; open != NULL && (entry = readdir(open)) != NULL;) {
        const char *end = strrchr(entry->d_name, '.');
        if (end == NULL || strcmp(end, ".ptx") != 0 || num_modules == MAX_MODULES) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        modules[num_modules] = ptx_module_read(path, message);
        if (modules[num_modules] == NULL) {
            fprintf(stderr, "mock CUDA: %s: %s\n", path, message);
        } else {
            num_modules++;
        }
    }
    if (open != NULL) {
        closedir(open);
    }
}

static const ptx_kernel *find(const char *name) {
    if (num_modules < 0) {
        read_folder(getenv("LK_MOCK_CUDA_PTX"));
    }
    for (int i = 0; i < num_modules; i++) {
        const ptx_kernel *kernel = ptx_module_find(modules[i], name);
        if (kernel != NULL) {
            return kernel;
        }
    }
    return NULL;
}

/* With LK_MOCK_CUDA_PTX_COUNTS=1 a process that ends says what its kernels did. */
enum { MAX_COUNTED = 256 };
static struct {
    const char *name;
    ptx_counts counts;
} counted[MAX_COUNTED];
static int num_counted;

static void print_counts(void) {
    for (int i = 0; i < num_counted; i++) {
        const ptx_counts *c = &counted[i].counts;
        printf("%-48s %10llu instructions %8llu mma %8llu ldmatrix: %llu passes for %llu matrices\n", counted[i].name,
               (unsigned long long)c->instructions, (unsigned long long)c->mma, (unsigned long long)c->ldmatrix,
               (unsigned long long)c->ldmatrix_ways, (unsigned long long)c->ldmatrix_rows);
    }
}

static ptx_counts *counts_of(const char *name) {
    if (getenv("LK_MOCK_CUDA_PTX_COUNTS") == NULL) {
        return NULL;
    }
    for (int i = 0; i < num_counted; i++) {
        if (strcmp(counted[i].name, name) == 0) {
            return &counted[i].counts;
        }
    }
    if (num_counted == MAX_COUNTED) {
        return NULL;
    }
    if (num_counted == 0) {
        atexit(print_counts);
    }
    counted[num_counted].name = name;
    return &counted[num_counted++].counts;
}

typedef struct permission {
    bool (*is_memory)(unsigned long long address, size_t bytes);
} permission;

static bool is_allowed(void *user, uint64_t address, size_t bytes) {
    return ((const permission *)user)->is_memory(address, bytes);
}

bool mock_ptx_run(const char *name, const unsigned grid[3], unsigned lanes, size_t shared_bytes, void *const *arguments,
                  int num_arguments, bool (*is_memory)(unsigned long long address, size_t bytes)) {
    char message[PTX_MESSAGE];
    const ptx_kernel *kernel = find(name);
    if (kernel == NULL || ptx_num_parameters(kernel) != num_arguments) {
        fprintf(stderr, "mock CUDA: there is no PTX of %s with %d parameters\n", name, num_arguments);
        return false;
    }
    permission allowed = {is_memory};
    ptx_launch launch = {.grid = {grid[0], grid[1], grid[2]},
                         .lanes = lanes,
                         .shared_bytes = shared_bytes,
                         .arguments = arguments,
                         .is_memory = is_allowed,
                         .user = &allowed,
                         .counts = counts_of(name)};
    if (!ptx_run(kernel, &launch, message)) {
        fprintf(stderr, "mock CUDA: %s\n", message);
        return false;
    }
    return true;
}
