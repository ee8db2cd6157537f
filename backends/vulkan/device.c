/* Opening a device, and its submissions. */
#include <string.h>

#include "backends/vulkan/vulkan.h"

lk_status lk_vk_fail(lk_vk_device *device, VkResult error, const char *what) {
    lk_status status = LK_STATUS_DEVICE;
    if (error == VK_ERROR_OUT_OF_DEVICE_MEMORY || error == VK_ERROR_OUT_OF_HOST_MEMORY ||
        error == VK_ERROR_TOO_MANY_OBJECTS || error == VK_ERROR_OUT_OF_POOL_MEMORY ||
        error == VK_ERROR_FRAGMENTED_POOL) {
        status = LK_STATUS_OUT_OF_MEMORY;
    }
    return lk_fail(device->device.context, status, "vulkan:%d %s: %s: %s (%d)", device->device.caps.index,
                   device->device.caps.name, what, lk_vk_error_name(error), (int)error);
}

/* ---- memory types ---- */

/* The first type with all of `wanted`, of those with `also` if there are such; UINT32_MAX: none. */
static uint32_t find_type(const VkPhysicalDeviceMemoryProperties *memory, uint32_t wanted, uint32_t also) {
    for (int pass = 0; pass < 2; pass++) {
        uint32_t flags = pass == 0 ? wanted | also : wanted;
        for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
            if ((memory->memoryTypes[i].propertyFlags & flags) == flags) {
                return i;
            }
        }
    }
    return UINT32_MAX;
}

static bool uses(const lk_vk_device *self, uint64_t feature) {
    return (self->device.caps.features & feature) != 0;
}

/* On devices whose memory is the host's, tensors are mapped, and cached, because reading memory that is not crawls. */
static lk_status choose_memory(lk_vk_device *self, const lk_vk_instance *instance) {
    VkPhysicalDeviceMemoryProperties memory;
    instance->vkGetPhysicalDeviceMemoryProperties(self->physical, &memory);
    const uint32_t local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    const uint32_t visible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const uint32_t cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    self->memory_type = uses(self, LK_VK_UNIFIED) ? find_type(&memory, local | visible | cached, 0) : UINT32_MAX;
    self->is_mapped = self->memory_type != UINT32_MAX;
    if (!self->is_mapped) {
        self->memory_type = find_type(&memory, local, 0);
    }
    self->staging_type = find_type(&memory, visible, cached);
    return self->memory_type != UINT32_MAX && self->staging_type != UINT32_MAX
               ? LK_OK
               : lk_fail(self->device.context, LK_STATUS_DEVICE, "vulkan:%d %s: no usable type of memory",
                         self->device.caps.index, self->device.caps.name);
}

/* ---- opening ---- */

static lk_status make_device(lk_vk_device *self, const lk_vk_instance *instance) {
    float priority = 1.0f;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = self->family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    lk_vk_features features;
    lk_vk_features_init(&features, self->device.caps.features, VK_TRUE);
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = &features.storage,
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue,
                               .enabledExtensionCount = features.num_extensions,
                               .ppEnabledExtensionNames = features.extensions};
    VkResult error = instance->vkCreateDevice(self->physical, &info, NULL, &self->vk);
    if (error != VK_SUCCESS) {
        self->vk = VK_NULL_HANDLE;
        return lk_vk_fail(self, error, "vkCreateDevice");
    }
    lk_status status = lk_vk_load_device(self->device.context, instance, self->vk, &self->api);
    if (status != LK_OK && self->api.vkDestroyDevice == NULL) {
        self->vk = VK_NULL_HANDLE;
    }
    return status;
}

static lk_status make_objects(lk_vk_device *self) {
    self->api.vkGetDeviceQueue(self->vk, self->family, 0, &self->queue);
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .queueFamilyIndex = self->family};
    bool timeline = uses(self, LK_VK_TIMELINE) && self->api.vkWaitSemaphoresKHR != NULL &&
                    self->api.vkGetSemaphoreCounterValueKHR != NULL;
    VkResult error = timeline ? self->api.vkCreateSemaphore(self->vk, &semaphore, NULL, &self->timeline)
                              : self->api.vkCreateFence(self->vk, &fence, NULL, &self->fence);
    if (error == VK_SUCCESS) {
        error = self->api.vkCreateCommandPool(self->vk, &pool, NULL, &self->transfer_pool);
    }
    VkCommandBufferAllocateInfo buffers = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                           .commandPool = self->transfer_pool,
                                           .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                           .commandBufferCount = 1};
    if (error == VK_SUCCESS) {
        error = self->api.vkAllocateCommandBuffers(self->vk, &buffers, &self->transfer);
    }
    return error == VK_SUCCESS ? lk_vk_cache_open(self) : lk_vk_fail(self, error, "opening the device");
}

static lk_status open_physical(lk_vk_device *self, const lk_vk_instance *instance) {
    VkPhysicalDeviceIDProperties id = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES};
    VkPhysicalDeviceMaintenance3Properties maintenance = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES, .pNext = &id};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                              .pNext = &maintenance};
    instance->vkGetPhysicalDeviceProperties2(self->physical, &properties);
    const VkPhysicalDeviceProperties *p = &properties.properties;
    self->limits = p->limits;
    self->max_allocation = maintenance.maxMemoryAllocationSize;
    uint64_t seed = ((uint64_t)p->vendorID << 32 | p->deviceID) ^ p->driverVersion;
    self->identity =
        lk_hash64(p->pipelineCacheUUID, sizeof p->pipelineCacheUUID,
                  lk_hash64(id.driverUUID, sizeof id.driverUUID, lk_hash64(id.deviceUUID, sizeof id.deviceUUID, seed)));
    VkQueueFamilyProperties family;
    self->family = lk_vk_queue_family(instance, self->physical, &family);
    self->tick = family.timestampValidBits > 0 ? (double)p->limits.timestampPeriod * 1e-9 : 0.0;
    self->tick_mask = family.timestampValidBits < 64 ? (UINT64_C(1) << family.timestampValidBits) - 1 : UINT64_MAX;
    LK_TRY(choose_memory(self, instance));
    LK_TRY(make_device(self, instance));
    return make_objects(self);
}

lk_status lk_vulkan_open(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                         lk_device **out) {
    (void)options; /* how many threads a processor's driver uses is the driver's own affair */
    *out = NULL;
    const lk_vk_instance *instance;
    VkPhysicalDevice found[LK_VK_MAX_DEVICES];
    int count;
    LK_TRY(lk_vk_load(context, &instance));
    LK_TRY(lk_vk_find(context, instance, found, &count));
    if (caps->index < 0 || caps->index >= count) {
        return lk_fail(context, LK_STATUS_NOT_FOUND, "vulkan:%d: there are %d Vulkan devices", caps->index, count);
    }
    lk_vk_device *self = lk_calloc(context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(context, sizeof *self, "a device");
    }
    self->device = (lk_device){&lk_backend_vulkan, context, *caps};
    self->shape = lk_vk_shape_of(caps);
    self->physical = found[caps->index];
    lk_status status = open_physical(self, instance);
    if (status != LK_OK) {
        lk_vulkan_close(&self->device);
        return status;
    }
    *out = &self->device;
    return LK_OK;
}

void lk_vulkan_close(lk_device *device) {
    lk_vk_device *self = (lk_vk_device *)device;
    if (self == NULL) {
        return;
    }
    if (self->vk != VK_NULL_HANDLE) {
        self->api.vkDeviceWaitIdle(self->vk);
        lk_vk_pipelines_destroy(self);
        while (self->blocks != NULL) {
            lk_vk_block *block = self->blocks;
            self->blocks = block->next;
            lk_vk_block_destroy(self, block);
        }
        lk_vk_block_destroy(self, self->staging);
        self->api.vkDestroyCommandPool(self->vk, self->transfer_pool, NULL);
        self->api.vkDestroySemaphore(self->vk, self->timeline, NULL);
        self->api.vkDestroyFence(self->vk, self->fence, NULL);
        self->api.vkDestroyDevice(self->vk, NULL);
    }
    lk_free(device->context, self);
}

/* ---- submissions ---- */

VkResult lk_vk_submit(lk_vk_device *device, VkCommandBuffer commands, bool is_last) {
    uint64_t value = device->submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = {.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                              .signalSemaphoreValueCount = 1,
                                              .pSignalSemaphoreValues = &value};
    VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands};
    VkFence fence = VK_NULL_HANDLE;
    if (device->timeline != VK_NULL_HANDLE) {
        info.pNext = &timeline;
        info.signalSemaphoreCount = 1;
        info.pSignalSemaphores = &device->timeline;
    } else if (is_last) {
        if (device->fence_pending) { /* the one fence still stands for an earlier run */
            VkResult error = lk_vk_wait(device);
            if (error != VK_SUCCESS) {
                return error;
            }
        }
        fence = device->fence;
    }
    VkResult error = device->api.vkQueueSubmit(device->queue, 1, &info, fence);
    if (error == VK_SUCCESS) {
        device->submitted = value;
        device->fence_pending = device->fence_pending || fence != VK_NULL_HANDLE;
    }
    return error;
}

VkResult lk_vk_wait(lk_vk_device *device) {
    if (device->timeline != VK_NULL_HANDLE) {
        VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                    .semaphoreCount = 1,
                                    .pSemaphores = &device->timeline,
                                    .pValues = &device->submitted};
        return device->submitted > 0 ? device->api.vkWaitSemaphoresKHR(device->vk, &info, UINT64_MAX) : VK_SUCCESS;
    }
    if (!device->fence_pending) {
        return VK_SUCCESS;
    }
    VkResult error = device->api.vkWaitForFences(device->vk, 1, &device->fence, VK_TRUE, UINT64_MAX);
    if (error == VK_SUCCESS) {
        device->fence_pending = false;
        error = device->api.vkResetFences(device->vk, 1, &device->fence);
    }
    return error;
}
