/* What devices may have beyond version 1.1, and how it is asked for and switched on: the bits of
 * lk_device_caps.features. */
#include <string.h>

#include "backends/vulkan/vulkan.h"

enum { MATRICES = LK_VK_MATRIX_16 | LK_VK_MATRIX_8 };

/* Appends a structure to the chain. */
static void add(lk_vk_features *self, void *structure) {
    ((VkBaseOutStructure *)self->last)->pNext = structure;
    self->last = structure;
}

static void add_extension(lk_vk_features *self, const char *name) {
    self->extensions[self->num_extensions++] = name;
}

void lk_vk_features_init(lk_vk_features *self, uint64_t bits, VkBool32 value) {
    *self = (lk_vk_features){
        .storage = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES,
                    .storageBuffer16BitAccess = (bits & LK_VK_STORAGE_16) != 0 ? value : VK_FALSE},
        .timeline = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
                     .timelineSemaphore = value},
        .float16 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES, .shaderFloat16 = value},
        .memory_model = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES,
                         .vulkanMemoryModel = value},
        .matrix = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
                   .cooperativeMatrix = value},
        .subgroups = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES_EXT,
                      .subgroupSizeControl = value,
                      .computeFullSubgroups = value}};
    self->last = &self->storage;
    if ((bits & LK_VK_TIMELINE) != 0) {
        add(self, &self->timeline);
        add_extension(self, VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME);
    }
    if ((bits & (MATRICES | LK_VK_MATRIX_EMULATED)) != 0) {
        add(self, &self->float16);
        add_extension(self, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME);
    }
    if ((bits & MATRICES) != 0) { /* kernels with such matrices are compiled to Vulkan's memory model */
        add(self, &self->memory_model);
        add(self, &self->matrix);
        add_extension(self, VK_KHR_VULKAN_MEMORY_MODEL_EXTENSION_NAME);
        add_extension(self, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
    }
    if ((bits & LK_VK_SUBGROUPS) != 0) {
        add(self, &self->subgroups);
        add_extension(self, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    }
}

bool lk_vk_has_extension(lk_context *context, const lk_vk_instance *instance, VkPhysicalDevice device,
                         const char *name) {
    uint32_t count = 0;
    bool found = false;
    if (instance->vkEnumerateDeviceExtensionProperties(device, NULL, &count, NULL) != VK_SUCCESS || count == 0) {
        return false;
    }
    VkExtensionProperties *extensions = lk_calloc(context, count, sizeof *extensions);
    if (extensions == NULL) {
        return false; /* what is optional is gone without */
    }
    VkResult error = instance->vkEnumerateDeviceExtensionProperties(device, NULL, &count, extensions);
    for (uint32_t i = 0; error == VK_SUCCESS && i < count && !found; i++) {
        found = strcmp(extensions[i].extensionName, name) == 0;
    }
    lk_free(context, extensions);
    return found;
}

/* Whether the device has all extensions that these features need. */
static bool has_extensions(lk_context *context, const lk_vk_instance *instance, VkPhysicalDevice device,
                           uint64_t bits) {
    lk_vk_features needed;
    lk_vk_features_init(&needed, bits, VK_FALSE);
    bool all = true;
    for (uint32_t i = 0; i < needed.num_extensions && all; i++) {
        all = lk_vk_has_extension(context, instance, device, needed.extensions[i]);
    }
    return all;
}

uint64_t lk_vk_matrix_bits(const VkCooperativeMatrixPropertiesKHR *sizes, uint32_t count) {
    uint64_t bits = 0;
    for (uint32_t i = 0; i < count; i++) {
        const VkCooperativeMatrixPropertiesKHR *s = &sizes[i];
        if (s->AType == VK_COMPONENT_TYPE_FLOAT16_KHR && s->BType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
            s->CType == VK_COMPONENT_TYPE_FLOAT32_KHR && s->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
            s->scope == VK_SCOPE_SUBGROUP_KHR && s->NSize == 16 && s->KSize == 16) {
            bits |= s->MSize == 16 ? (uint64_t)LK_VK_MATRIX_16 : s->MSize == 8 ? (uint64_t)LK_VK_MATRIX_8 : 0;
        }
    }
    return bits;
}

/* The sizes of matrices are asked for only where the deny list lets it: there are drivers that crash. */
static uint64_t matrix_bits(lk_context *context, const lk_vk_instance *instance, VkPhysicalDevice device,
                            const lk_device_caps *caps) {
    enum { MAX_SIZES = 128 };
    const char *denied = lk_denied(caps, "cooperative_matrix");
    if (denied != NULL) {
        lk_log(context, LK_LOG_DEBUG, "vulkan:%d %s: cooperative matrices are not asked for: %s", caps->index,
               caps->name, denied);
        return 0;
    }
    uint32_t count = MAX_SIZES;
    VkCooperativeMatrixPropertiesKHR *sizes = lk_calloc(context, MAX_SIZES, sizeof *sizes);
    if (sizes == NULL || instance->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR == NULL) {
        lk_free(context, sizes);
        return 0;
    }
    for (uint32_t i = 0; i < MAX_SIZES; i++) {
        sizes[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    }
    VkResult error = instance->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(device, &count, sizes);
    uint64_t bits = error == VK_SUCCESS || error == VK_INCOMPLETE ? lk_vk_matrix_bits(sizes, count) : 0;
    lk_free(context, sizes);
    return bits;
}

/* Some devices run what they call a subgroup of 32 as less: kernels that exchange must be able to ask for the size. */
static bool has_subgroups(const lk_vk_instance *instance, VkPhysicalDevice device) {
    VkPhysicalDeviceSubgroupSizeControlPropertiesEXT control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES_EXT};
    VkPhysicalDeviceSubgroupProperties subgroup = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES,
                                                   .pNext = &control};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                              .pNext = &subgroup};
    instance->vkGetPhysicalDeviceProperties2(device, &properties);
    const VkSubgroupFeatureFlags needed = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    const VkShaderStageFlags stages = subgroup.supportedStages & control.requiredSubgroupSizeStages;
    return (subgroup.supportedOperations & needed) == needed && (stages & VK_SHADER_STAGE_COMPUTE_BIT) != 0 &&
           subgroup.subgroupSize >= control.minSubgroupSize && subgroup.subgroupSize <= control.maxSubgroupSize;
}

uint64_t lk_vk_features_of(lk_context *context, const lk_vk_instance *instance, VkPhysicalDevice device,
                           const lk_device_caps *caps) {
    uint64_t possible = LK_VK_STORAGE_16, found = 0;
    possible |= has_extensions(context, instance, device, LK_VK_TIMELINE) ? (uint64_t)LK_VK_TIMELINE : 0;
    possible |= has_extensions(context, instance, device, MATRICES) ? (uint64_t)MATRICES : 0;
    possible |= has_extensions(context, instance, device, LK_VK_SUBGROUPS) ? (uint64_t)LK_VK_SUBGROUPS : 0;
    lk_vk_features answer;
    lk_vk_features_init(&answer, possible, VK_FALSE);
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &answer.storage};
    instance->vkGetPhysicalDeviceFeatures2(device, &features);
    found |= answer.storage.storageBuffer16BitAccess ? (uint64_t)LK_VK_STORAGE_16 : 0;
    found |= answer.timeline.timelineSemaphore ? (uint64_t)LK_VK_TIMELINE : 0;
    if (answer.storage.storageBuffer16BitAccess && answer.float16.shaderFloat16 &&
        answer.memory_model.vulkanMemoryModel && answer.matrix.cooperativeMatrix) {
        found |= matrix_bits(context, instance, device, caps);
    }
    if (answer.subgroups.subgroupSizeControl && answer.subgroups.computeFullSubgroups &&
        has_subgroups(instance, device)) {
        found |= LK_VK_SUBGROUPS;
    }
    return found;
}
