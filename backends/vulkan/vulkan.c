/* The Vulkan backend: devices found through the loader at run time, kernels of shaders/ in SPIR-V from the build. */
#include "backends/vulkan/vulkan.h"

#include "backends/shaders/rows.h"

/* What Vulkan asks beyond the row itself. */
static bool supports(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    for (int i = 0; i < node->num_inputs + node->num_outputs; i++) {
        const lk_tensor *tensor = i < node->num_inputs ? node->inputs[i] : node->outputs[i - node->num_inputs];
        if (tensor == NULL) {
            continue;
        }
        bool is_narrow = tensor->dtype == LK_DTYPE_BF16 || tensor->dtype == LK_DTYPE_F16;
        LK_REQUIRE(why, !is_narrow || (caps->features & LK_VK_STORAGE_16) != 0, "the device has no 16-bit storage");
        LK_REQUIRE(why, lk_tensor_bytes(tensor) <= caps->max_buffer_bytes,
                   "a tensor is larger than the range that a kernel can address here");
    }
    return true;
}

/* Cost and scratch of the dialect's own kernels. */
#define LK_VK_SHAPED(row, cost_function, scratch_function)                         \
    static double cost_##row(const lk_device_caps *caps, const lk_node *node) {    \
        lk_device_caps shape = lk_vk_shape_of(caps);                               \
        return cost_function(&shape, node);                                        \
    }                                                                              \
    static size_t scratch_##row(const lk_device_caps *caps, const lk_node *node) { \
        lk_device_caps shape = lk_vk_shape_of(caps);                               \
        return scratch_function(&shape, node);                                     \
    }
#define LK_SHADER_KERNEL(row, OP, supports_function, cost_function, scratch_function, in_place_input, record) \
    static bool supports_##row(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {            \
        lk_device_caps shape = lk_vk_shape_of(caps);                                                          \
        return supports(caps, node, why) && supports_function(&shape, node, why);                             \
    }                                                                                                         \
    LK_VK_SHAPED(row, cost_function, scratch_function)
#include "backends/shaders/kernels.def"
#undef LK_SHADER_KERNEL

static bool supports_subgroups(const lk_device_caps *shape, lk_refusal *why) {
    int32_t size = shape->subgroup_size;
    LK_REQUIRE(why, (shape->features & LK_VK_SUBGROUPS) != 0,
               "the device does not exchange within subgroups of known size");
    LK_REQUIRE(why, size > 1 && size <= lk_lanes_for_row(shape) && (size & (size - 1)) == 0,
               "a subgroup is not a part of the groups that reduce rows");
    return true;
}

/* Ops of shaders/ whose products are made by others. */
#define LK_VK_PRODUCTS(row, OP, by, weight, supports_function, cost_function, scratch_function, in_place_input, \
                       recorded)                                                                                \
    static bool supports_##row(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {              \
        lk_device_caps shape = lk_vk_shape_of(caps);                                                            \
        return supports(caps, node, why) && lk_vk_supports_##by(&shape, node, weight, why) &&                   \
               supports_function(&shape, node, why);                                                            \
    }                                                                                                           \
    static double cost_##row(const lk_device_caps *caps, const lk_node *node) {                                 \
        lk_device_caps shape = lk_vk_shape_of(caps);                                                            \
        return cost_function(&lk_vk_products_##by, &shape, node);                                               \
    }                                                                                                           \
    static size_t scratch_##row(const lk_device_caps *caps, const lk_node *node) {                              \
        lk_device_caps shape = lk_vk_shape_of(caps);                                                            \
        return scratch_function(&lk_vk_products_##by, &shape, node);                                            \
    }                                                                                                           \
    static void record_##row(lk_recorder *recorder, const lk_command *command) {                                \
        recorder->products = &lk_vk_products_##by;                                                              \
        recorded(recorder, command);                                                                            \
        recorder->products = NULL;                                                                              \
    }
#define LK_VK_SUBGROUPS(row, OP, supports_function, cost_function, scratch_function, in_place_input, recorded)       \
    static bool supports_##row(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {                   \
        lk_device_caps shape = lk_vk_shape_of(caps);                                                                 \
        return supports(caps, node, why) && supports_subgroups(&shape, why) && supports_function(&shape, node, why); \
    }                                                                                                                \
    LK_VK_SHAPED(row, cost_function, scratch_function)                                                               \
    static void record_##row(lk_recorder *recorder, const lk_command *command) {                                     \
        recorder->by_subgroups = true;                                                                               \
        recorded(recorder, command);                                                                                 \
        recorder->by_subgroups = false;                                                                              \
    }
#include "backends/vulkan/kernels.def"
#undef LK_VK_SUBGROUPS
#undef LK_VK_PRODUCTS

#define LK_ROW(row, OP, in_place_input, record_function) \
    {.name = "vulkan_" #row,                             \
     .op = LK_OP_##OP,                                   \
     .supports = supports_##row,                         \
     .cost = cost_##row,                                 \
     .scratch = scratch_##row,                           \
     .in_place = in_place_input,                         \
     .run = (void (*)(void))record_function},
static const lk_kernel rows[] = {
#define LK_VK_PRODUCTS(row, OP, by, weight, supports_function, cost_function, scratch_function, in_place, recorded) \
    LK_ROW(row, OP, in_place, record_##row)
#define LK_VK_SUBGROUPS(row, OP, supports_function, cost_function, scratch_function, in_place, recorded) \
    LK_ROW(row, OP, in_place, record_##row)
#define LK_SHADER_KERNEL(row, OP, supports_function, cost_function, scratch_function, in_place, recorded) \
    LK_ROW(row, OP, in_place, recorded)
#include "backends/vulkan/kernels.def"
/* the portable rows come last */
#include "backends/shaders/kernels.def"
#undef LK_SHADER_KERNEL
#undef LK_VK_SUBGROUPS
#undef LK_VK_PRODUCTS
};

static const char *const features[] = {
    "storage_16", "timeline_semaphores", "unified_memory", "cooperative_matrix", "cooperative_matrix_8", "subgroups",
    NULL};

static const lk_kernel *kernels(int *count) {
    *count = (int)LK_COUNT(rows);
    return rows;
}

const lk_backend lk_backend_vulkan = {
    .abi_version = LK_BACKEND_ABI_VERSION,
    .struct_size = sizeof(lk_backend),
    .name = "vulkan",
    .summary = "Vulkan devices, through the loader found at run time",
    .features = features,
    .by_drivers = true,
    .probe = lk_vulkan_probe,
    .open = lk_vulkan_open,
    .close = lk_vulkan_close,
    .kernels = kernels,
    .alloc = lk_vulkan_alloc,
    .wrap = lk_vulkan_wrap,
    .free = lk_vulkan_free,
    .map = lk_vulkan_map,
    .upload = lk_vulkan_upload,
    .download = lk_vulkan_download,
    .compile = lk_vulkan_compile,
    .release = lk_vulkan_release,
    .run = lk_vulkan_run,
    .wait = lk_vulkan_wait,
};
