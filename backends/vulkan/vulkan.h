/* The Vulkan backend's own types. */
#ifndef LK_BACKENDS_VULKAN_H
#define LK_BACKENDS_VULKAN_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#include "backends/shaders/launch.h"
#include "backends/vulkan/cooperative_matrix.h"
#include "backends/vulkan/spirv.h"
#include "dispatch/dispatch.h"

/* ---- the loader (loader.c) ---- */

/* Functions of the one instance that a process has. */
typedef struct lk_vk_instance {
    VkInstance instance;
#define LK_VK_INSTANCE(function) PFN_##function function;
#define LK_VK_INSTANCE_OPTIONAL(function) PFN_##function function;
#define LK_VK_DEVICE(function)
#define LK_VK_DEVICE_OPTIONAL(function)
#include "backends/vulkan/symbols.def"
#undef LK_VK_INSTANCE
#undef LK_VK_INSTANCE_OPTIONAL
#undef LK_VK_DEVICE
#undef LK_VK_DEVICE_OPTIONAL
} lk_vk_instance;

/* Functions of one open device. */
typedef struct lk_vk_api {
#define LK_VK_INSTANCE(function)
#define LK_VK_INSTANCE_OPTIONAL(function)
#define LK_VK_DEVICE(function) PFN_##function function;
#define LK_VK_DEVICE_OPTIONAL(function) PFN_##function function;
#include "backends/vulkan/symbols.def"
#undef LK_VK_INSTANCE
#undef LK_VK_INSTANCE_OPTIONAL
#undef LK_VK_DEVICE
#undef LK_VK_DEVICE_OPTIONAL
} lk_vk_api;

/* Loads Vulkan and makes the instance, once per process; UNAVAILABLE with what to install where there is none. */
lk_status lk_vk_load(lk_context *context, const lk_vk_instance **out);
lk_status lk_vk_load_device(lk_context *context, const lk_vk_instance *instance, VkDevice device, lk_vk_api *api);
const char *lk_vk_error_name(VkResult error); /* "VK_ERROR_DEVICE_LOST" */

/* ---- devices (probe.c, device.c) ---- */

enum { LK_VK_MAX_DEVICES = 16, LK_VK_MAX_PUSH_BYTES = 128 };

/* Bits of lk_device_caps.features; a device that is opened without one of them does without it.
 * UNIFIED: tensors lie where the host can read and write them, as on processors and GPUs without memory of their own.
 * MATRIX_16, MATRIX_8: cooperative matrices of fp16 with fp32 sums, 16 x 16 x 16 and 8 x 16 x 16.
 * SUBGROUPS: lanes of a subgroup, whose size can be asked for, exchange numbers.
 * MATRIX_EMULATED: kernels for cooperative matrices compute without; no device says so, it is for tests. */
enum {
    LK_VK_STORAGE_16 = 1,
    LK_VK_TIMELINE = 2,
    LK_VK_UNIFIED = 4,
    LK_VK_MATRIX_16 = 8,
    LK_VK_MATRIX_8 = 16,
    LK_VK_SUBGROUPS = 32,
    LK_VK_MATRIX_EMULATED = 64
};

/* ---- features (features.c) ---- */

/* The structures that ask for features, or switch them on, chained from `storage` on; and their extensions. */
typedef struct lk_vk_features {
    VkPhysicalDevice16BitStorageFeatures storage;
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline;
    VkPhysicalDeviceShaderFloat16Int8Features float16;
    VkPhysicalDeviceVulkanMemoryModelFeatures memory_model;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
    VkPhysicalDeviceSubgroupSizeControlFeaturesEXT subgroups;
    void *last;
    const char *extensions[5];
    uint32_t num_extensions;
} lk_vk_features;

/* Must stay where it is. */
void lk_vk_features_init(lk_vk_features *self, uint64_t bits, VkBool32 value);
bool lk_vk_has_extension(lk_context *context, const lk_vk_instance *instance, VkPhysicalDevice device,
                         const char *name);
/* The bits of a device, of which name, driver and index are known; UNIFIED is left to the caller. */
uint64_t lk_vk_features_of(lk_context *context, const lk_vk_instance *instance, VkPhysicalDevice device,
                           const lk_device_caps *caps);
/* MATRIX_16 and MATRIX_8, if they are among what a driver lists. */
uint64_t lk_vk_matrix_bits(const VkCooperativeMatrixPropertiesKHR *sizes, uint32_t count);

/* ---- products by cooperative matrices (matrix.c) ---- */

extern const struct lk_products lk_vk_products_matrix;
bool lk_vk_supports_matrix(const lk_device_caps *caps, const lk_node *node, int weight, lk_refusal *why);
bool lk_vk_matrices_are_built(void); /* the build had a compiler for them */

/* ---- probe.c ---- */

/* The devices that can compute with version 1.1, in the loader's order. */
lk_status lk_vk_find(lk_context *context, const lk_vk_instance *instance, VkPhysicalDevice found[LK_VK_MAX_DEVICES],
                     int *count);
lk_status lk_vulkan_probe(lk_context *context, lk_device_caps *caps, int capacity, int *count);
/* A family of queues that compute, without graphics where there is one; UINT32_MAX: there is none. */
uint32_t lk_vk_queue_family(const lk_vk_instance *instance, VkPhysicalDevice device, VkQueueFamilyProperties *out);
/* The description that chooses shapes: Vulkan's processors run a group's lanes as the lanes of their vectors, so they
 * get the shapes of GPUs. */
lk_device_caps lk_vk_shape_of(const lk_device_caps *caps);

typedef struct lk_vk_pipeline {
    uint64_t key; /* hash of the kernel's variant and its constants */
    VkPipeline pipeline;
} lk_vk_pipeline;

/* Memory that the driver gave, with one buffer over all of it; parts of it are lk_buffers. */
typedef struct lk_vk_block {
    VkDeviceMemory memory;
    VkBuffer buffer;
    char *host; /* mapped, or NULL */
    VkDeviceSize bytes;
    lk_buffer *first; /* in the order of their offsets */
    struct lk_vk_block *next;
} lk_vk_block;

struct lk_buffer {
    lk_vk_block *block;
    VkDeviceSize offset;
    size_t bytes;    /* asked for */
    size_t reserved; /* a multiple of LK_BUFFER_ALIGNMENT */
    lk_buffer *next; /* within the block */
};

typedef struct lk_vk_device {
    lk_device device;
    lk_vk_api api;
    lk_device_caps shape; /* lk_vk_shape_of(device.caps) */
    VkPhysicalDevice physical;
    VkDevice vk;
    VkQueue queue;
    uint32_t family;
    VkPhysicalDeviceLimits limits;
    uint32_t memory_type, staging_type; /* tensors', and that of transfers where tensors' is not mapped */
    bool is_mapped;
    double tick;        /* seconds per unit of a timestamp; 0: there are none */
    uint64_t tick_mask; /* its valid bits */
    VkDeviceSize max_allocation;
    uint64_t identity; /* hash of what the driver says of itself */

    VkSemaphore timeline; /* counts submissions; null: the fence is used */
    uint64_t submitted;
    VkFence fence;
    bool fence_pending;

    lk_vk_block *blocks;
    lk_vk_block *staging;
    VkCommandPool transfer_pool;
    VkCommandBuffer transfer;

    VkPipelineCache cache;
    VkDescriptorSetLayout set_layouts[LK_LAUNCH_BUFFERS + 1]; /* by the number of buffers */
    VkPipelineLayout layouts[LK_LAUNCH_BUFFERS + 1];
    lk_vk_pipeline *pipelines;
    int32_t num_pipelines;
    bool cache_is_stale, cache_was_read; /* pipelines were made since; the file was good */

    lk_commands *pending; /* of the last run */
    double *seconds;      /* where its times go; NULL: it is not timed */
} lk_vk_device;

lk_status lk_vk_fail(lk_vk_device *device, VkResult error, const char *what);

lk_status lk_vulkan_open(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                         lk_device **out);
void lk_vulkan_close(lk_device *device);
/* Submits; the last submission is what lk_vk_wait waits for. */
VkResult lk_vk_submit(lk_vk_device *device, VkCommandBuffer commands, bool is_last);
VkResult lk_vk_wait(lk_vk_device *device);

/* ---- memory (memory.c), transfers (transfer.c) ---- */

lk_status lk_vulkan_alloc(lk_device *device, size_t bytes, lk_buffer **out);
lk_status lk_vulkan_wrap(lk_device *device, const void *host, size_t bytes, lk_buffer **out);
void lk_vulkan_free(lk_device *device, lk_buffer *buffer);
void *lk_vulkan_map(lk_buffer *buffer);
lk_status lk_vk_block_create(lk_vk_device *device, VkDeviceSize bytes, uint32_t type, bool is_mapped,
                             lk_vk_block **out);
void lk_vk_block_destroy(lk_vk_device *device, lk_vk_block *block); /* NULL is allowed */
lk_status lk_vulkan_upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes);
lk_status lk_vulkan_download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes);
/* Writes zeros over a whole buffer. */
lk_status lk_vk_clear(lk_vk_device *device, const lk_buffer *buffer);

/* ---- pipelines (pipelines.c) ---- */

/* The device keeps it. Also checks that the launch gives what the kernel's text asks for. */
lk_status lk_vk_pipeline_get(lk_vk_device *device, const lk_launch *launch, const lk_spirv **kernel, VkPipeline *out);
lk_status lk_vk_layout_get(lk_vk_device *device, int32_t num_buffers, VkPipelineLayout *layout,
                           VkDescriptorSetLayout *set_layout);
/* The pipeline cache is read from the disk when the device is opened, and written when pipelines were made since. */
lk_status lk_vk_cache_open(lk_vk_device *device);
void lk_vk_cache_save(lk_vk_device *device);
void lk_vk_pipelines_destroy(lk_vk_device *device);

/* ---- commands (commands.c) ---- */

lk_status lk_vulkan_compile(lk_device *device, const lk_command *commands, int count, lk_commands **out);
void lk_vulkan_release(lk_device *device, lk_commands *commands);
lk_status lk_vulkan_run(lk_device *device, lk_commands *commands, double *seconds);
lk_status lk_vulkan_wait(lk_device *device);

#endif
