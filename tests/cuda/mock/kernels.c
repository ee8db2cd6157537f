/* The mock driver's modules and kernels. */
#include "tests/cuda/mock/state.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/mock/ptx.h"

struct CUmod_st {
    const char *image;
    size_t bytes;
};

EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    ENTER_CONTEXT(cuModuleLoadData);
    uint32_t magic;
    uint16_t header;
    uint64_t bytes;
    memcpy(&magic, image, sizeof magic);
    memcpy(&header, (const char *)image + 6, sizeof header);
    memcpy(&bytes, (const char *)image + 8, sizeof bytes);
    if (magic != 0xBA55ED50u) { /* of a fatbin */
        return CUDA_ERROR_INVALID_IMAGE;
    }
    *module = malloc(sizeof **module);
    **module = (struct CUmod_st){image, header + (size_t)bytes};
    mock_counts.live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleUnload(CUmodule module) {
    free(module);
    mock_counts.live--;
    return mock_lost;
}

static bool has_name(const struct CUmod_st *module, const char *name) {
    size_t length = strlen(name) + 1;
    const char *at = module->image, *end = at + module->bytes;
    while (at != NULL && (size_t)(end - at) >= length) {
        if (memcmp(at, name, length) == 0) {
            return true;
        }
        at = memchr(at + 1, name[0], (size_t)(end - at - 1));
    }
    return false;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    ENTER_CONTEXT(cuModuleGetFunction);
    const emulator_kernel *kernel = emulator_find(name);
    *function = (CUfunction)(void *)(uintptr_t)kernel;
    return kernel != NULL && has_name(module, name) ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

EXPORT CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
    ENTER_CONTEXT(cuFuncSetAttribute);
    (void)function;
    return attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value >= 0 ? CUDA_SUCCESS
                                                                                      : CUDA_ERROR_INVALID_VALUE;
}

CUresult mock_run_kernel(const operation *op) {
    CUresult error = mock_planned("kernel");
    if (error != CUDA_SUCCESS) {
        return error;
    }
    void *arguments[EMULATOR_MAX_PARAMETERS];
    for (int i = 0; i < op->kernel->num_parameters; i++) {
        arguments[i] = op->arguments + 8 * i;
    }
    mock_counts.kernels++;
    if (mock_ptx_is_wanted()) {
        return mock_ptx_run(op->kernel->name, op->grid, op->lanes, op->shared_bytes, arguments,
                            op->kernel->num_parameters, mock_is_device)
                   ? CUDA_SUCCESS
                   : (mock_lost = CUDA_ERROR_LAUNCH_FAILED);
    }
    emulator_report report;
    emulator_run(op->kernel, op->grid, op->lanes, op->shared_bytes, arguments, NULL, &report);
    if (report.problems > 0) {
        fprintf(stderr, "mock CUDA: %s\n", report.first);
        return mock_lost = CUDA_ERROR_LAUNCH_FAILED;
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                               unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,
                               void **parameters, void **extra) {
    ENTER_CONTEXT(cuLaunchKernel);
    const emulator_kernel *kernel = (const emulator_kernel *)(const void *)function;
    if (kernel == NULL || parameters == NULL || extra != NULL || grid_x == 0 || grid_y == 0 || grid_y > 65535 ||
        grid_z != 1 || block_y != 1 || block_z != 1 || shared_bytes > (unsigned)mock_cards[0]->shared ||
        kernel->num_parameters > EMULATOR_MAX_PARAMETERS) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if ((int)block_x > kernel->group) { /* __launch_bounds__ */
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    }
    operation *op = mock_push(mock_target_of(stream), KERNEL);
    op->kernel = kernel;
    op->grid[0] = grid_x;
    op->grid[1] = grid_y;
    op->grid[2] = grid_z;
    op->lanes = block_x;
    op->shared_bytes = shared_bytes;
    op->arguments = calloc(1, ARGUMENT_BYTES);
    for (int i = 0; i < kernel->num_parameters; i++) {
        memcpy(op->arguments + 8 * i, parameters[i], kernel->sizes[i]);
    }
    mock_counts.launches += !mock_is_captured(stream);
    return CUDA_SUCCESS;
}
