#include <stdio.h>
#include <unistd.h>

#include "backends/vulkan/vulkan.h"

uint32_t lk_vk_queue_family(const lk_vk_instance *instance, VkPhysicalDevice device, VkQueueFamilyProperties *out) {
    enum { MAX_FAMILIES = 16 };
    VkQueueFamilyProperties families[MAX_FAMILIES];
    uint32_t count = MAX_FAMILIES, best = UINT32_MAX;
    instance->vkGetPhysicalDeviceQueueFamilyProperties(device, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        bool computes = (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) != 0;
        bool draws = (families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT) != 0;
        if (computes && (best == UINT32_MAX || (!draws && (families[best].queueFlags & VK_QUEUE_GRAPHICS_BIT)))) {
            best = i;
        }
    }
    if (best != UINT32_MAX && out != NULL) {
        *out = families[best];
    }
    return best;
}

lk_status lk_vk_find(lk_context *context, const lk_vk_instance *instance, VkPhysicalDevice found[LK_VK_MAX_DEVICES],
                     int *count) {
    VkPhysicalDevice all[LK_VK_MAX_DEVICES];
    uint32_t num_all = LK_VK_MAX_DEVICES;
    *count = 0;
    VkResult error = instance->vkEnumeratePhysicalDevices(instance->instance, &num_all, all);
    num_all = error == VK_SUCCESS || error == VK_INCOMPLETE ? num_all : 0;
    for (uint32_t i = 0; i < num_all; i++) {
        VkPhysicalDeviceProperties properties;
        instance->vkGetPhysicalDeviceProperties(all[i], &properties);
        if (properties.apiVersion < VK_API_VERSION_1_1 || lk_vk_queue_family(instance, all[i], NULL) == UINT32_MAX) {
            lk_log(context, LK_LOG_DEBUG, "Vulkan device %s is passed over: it is older than 1.1 or cannot compute",
                   properties.deviceName);
            continue;
        }
        found[(*count)++] = all[i];
    }
    return *count > 0 ? LK_OK
                      : lk_fail(context, LK_STATUS_UNAVAILABLE,
                                "the Vulkan loader finds no device of version 1.1: install a driver, e.g. "
                                "mesa-vulkan-drivers, which has one for the processor too");
}

static const char *type_name(VkPhysicalDeviceType type) {
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return "processor";
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return "integrated GPU";
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return "discrete GPU";
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return "virtual GPU";
    default:
        return "device of unknown kind";
    }
}

/* Rates that Vulkan does not tell: typical ones of the device's kind, so that kinds are ranked. A processor's are what
 * drivers for processors reach, far below the cpu backend. */
static void estimate(VkPhysicalDeviceType type, lk_device_caps *caps) {
    if (type == VK_PHYSICAL_DEVICE_TYPE_CPU) {
        long processors = sysconf(_SC_NPROCESSORS_ONLN);
        caps->threads = processors > 0 && processors < 4096 ? (int32_t)processors : 1;
        caps->flops_f32 = 2e9 * caps->threads;
        caps->bandwidth = 5e9;
        caps->launch_seconds = 1.5e-5;
    } else {
        bool discrete = type == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
        caps->threads = discrete ? 32 : 8;
        caps->flops_f32 = discrete ? 8e12 : 1e12;
        caps->bandwidth = discrete ? 3e11 : 4e10;
        caps->launch_seconds = 5e-6;
        caps->flops_16 = (caps->features & (LK_VK_MATRIX_16 | LK_VK_MATRIX_8)) != 0 ? 4.0 * caps->flops_f32 : 0.0;
    }
}

static void describe(lk_context *context, const lk_vk_instance *instance, VkPhysicalDevice device, int index,
                     lk_device_caps *caps) {
    VkPhysicalDeviceSubgroupProperties subgroup = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                              .pNext = &subgroup};
    if (lk_vk_has_extension(context, instance, device, VK_KHR_DRIVER_PROPERTIES_EXTENSION_NAME)) {
        subgroup.pNext = &driver;
    }
    instance->vkGetPhysicalDeviceProperties2(device, &properties);
    VkPhysicalDeviceMemoryProperties memory;
    instance->vkGetPhysicalDeviceMemoryProperties(device, &memory);
    const VkPhysicalDeviceLimits *limits = &properties.properties.limits;
    uint32_t version = properties.properties.apiVersion;
    *caps = (lk_device_caps){.struct_size = sizeof *caps, .backend = "vulkan", .index = index};
    snprintf(caps->name, sizeof caps->name, "%s", properties.properties.deviceName);
    snprintf(caps->driver, sizeof caps->driver, "%s, Vulkan %u.%u.%u, %.31s %.47s (%x)",
             type_name(properties.properties.deviceType), VK_VERSION_MAJOR(version), VK_VERSION_MINOR(version),
             VK_VERSION_PATCH(version), driver.driverName[0] != '\0' ? driver.driverName : "driver", driver.driverInfo,
             (unsigned)properties.properties.driverVersion);
    caps->is_cpu = properties.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    caps->features = lk_vk_features_of(context, instance, device, caps);
    if (caps->is_cpu || properties.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU) {
        caps->features |= LK_VK_UNIFIED;
    }
    caps->shared_bytes = limits->maxComputeSharedMemorySize;
    caps->subgroup_size = (int32_t)subgroup.subgroupSize;
    caps->max_group_size = (int32_t)LK_MIN(limits->maxComputeWorkGroupInvocations, limits->maxComputeWorkGroupSize[0]);
    caps->max_buffer_bytes = limits->maxStorageBufferRange;
    for (uint32_t i = 0; i < memory.memoryHeapCount; i++) {
        if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) {
            caps->memory_bytes = LK_MAX(caps->memory_bytes, (size_t)memory.memoryHeaps[i].size);
        }
    }
    estimate(properties.properties.deviceType, caps);
}

lk_device_caps lk_vk_shape_of(const lk_device_caps *caps) {
    lk_device_caps shape = *caps;
    shape.is_cpu = false;
    return shape;
}

lk_status lk_vulkan_probe(lk_context *context, lk_device_caps *caps, int capacity, int *count) {
    const lk_vk_instance *instance;
    VkPhysicalDevice found[LK_VK_MAX_DEVICES];
    *count = 0;
    LK_TRY(lk_vk_load(context, &instance));
    LK_TRY(lk_vk_find(context, instance, found, count));
    for (int i = 0; i < *count && i < capacity; i++) {
        describe(context, instance, found[i], i, &caps[i]);
    }
    return LK_OK;
}
