/* The kernels of shaders/ in SPIR-V, as the build made them: one row per entry and choice of words. */
#ifndef LK_BACKENDS_VULKAN_SPIRV_H
#define LK_BACKENDS_VULKAN_SPIRV_H

#include <stddef.h>
#include <stdint.h>

typedef struct lk_spirv {
    const char *entry;     /* "cast" */
    const char *choice;    /* " X_TYPE=f32 Y_TYPE=bf16": those that the kernel depends on */
    const char *constants; /* " GROUP=0 LANES=1": names and numbers of the specialization constants */
    const uint32_t *words;
    size_t bytes;
    int32_t num_buffers, num_parameters;
    uint32_t writes; /* bit i: buffer i may be written */
} lk_spirv;
extern const lk_spirv lk_spirv_kernels[]; /* the last has entry NULL */

#endif
