/* From a launch to the driver's function: the variant's name, and the image that has it. */
#include <stdio.h>
#include <string.h>

#include "backends/cuda/cuda.h"

void lk_cuda_variant_name(const lk_launch *launch, char name[LK_CUDA_NAME]) {
    size_t used = (size_t)snprintf(name, LK_CUDA_NAME, "%s", launch->entry);
    for (int32_t i = 0; i < launch->num_constants && used < LK_CUDA_NAME; i++) {
        used += (size_t)snprintf(name + used, LK_CUDA_NAME - used, "_%d", launch->constants[i].value);
    }
    for (int32_t i = 0; i < launch->num_words && used < LK_CUDA_NAME; i++) {
        used += (size_t)snprintf(name + used, LK_CUDA_NAME - used, "_%s", launch->words[i].word);
    }
}

static lk_status load_failed(lk_cuda_device *self, CUresult error, const char *file) {
    if (error == CUDA_ERROR_NO_BINARY_FOR_GPU || error == CUDA_ERROR_UNSUPPORTED_PTX_VERSION ||
        error == CUDA_ERROR_INVALID_IMAGE) {
        return lk_fail(
            self->device.context, LK_STATUS_DEVICE,
            "cuda:%d %s: the kernels of %s were compiled by nvcc %s, which this card or its driver (%s) does "
            "not take: %s (%d)",
            self->device.caps.index, self->device.caps.name, file, lk_cuda_toolkit, self->device.caps.driver,
            lk_cu_error_name(self->api, error), error);
    }
    return lk_cuda_fail(self, error, file);
}

static lk_status module_of(lk_cuda_device *self, const char *file, CUmodule *out) {
    for (int32_t i = 0; i < self->num_images; i++) {
        if (strcmp(lk_cuda_images[i].name, file) != 0) {
            continue;
        }
        if (self->modules[i] == NULL) {
            CUresult error = self->api->cuModuleLoadData(&self->modules[i], lk_cuda_images[i].start);
            if (error != CUDA_SUCCESS) {
                self->modules[i] = NULL;
                return load_failed(self, error, file);
            }
        }
        *out = self->modules[i];
        return LK_OK;
    }
    return lk_fail(self->device.context, LK_STATUS_INTERNAL, "there is no CUDA image of %s", file);
}

lk_status lk_cuda_function(lk_cuda_device *self, const lk_launch *launch, CUfunction *out) {
    char name[LK_CUDA_NAME];
    CUmodule module = NULL;
    lk_cuda_variant_name(launch, name);
    LK_TRY(module_of(self, launch->file, &module));
    CUresult error = self->api->cuModuleGetFunction(out, module, name);
    if (error == CUDA_SUCCESS && launch->shared_bytes > LK_CUDA_STATIC_SHARED) {
        error = self->api->cuFuncSetAttribute(*out, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                              (int)launch->shared_bytes);
    }
    return error == CUDA_SUCCESS ? LK_OK : lk_cuda_fail(self, error, name);
}
