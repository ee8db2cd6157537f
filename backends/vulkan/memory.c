/* Memory: blocks from the driver, which promises only some thousand of them, and buffers in them, first fit. The
 * planner asks for whole arenas, so there are few and fragments hardly matter. */
#include <string.h>

#include "backends/vulkan/vulkan.h"

enum { BLOCK_BYTES = 16 << 20 }; /* for what is smaller; larger buffers have blocks of their own */

lk_status lk_vk_block_create(lk_vk_device *device, VkDeviceSize bytes, uint32_t type, bool is_mapped,
                             lk_vk_block **out) {
    *out = NULL;
    lk_vk_block *block = lk_calloc(device->device.context, 1, sizeof *block);
    if (block == NULL) {
        return lk_out_of_memory(device->device.context, sizeof *block, "a block of device memory");
    }
    VkBufferCreateInfo buffer = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                 .size = bytes,
                                 .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                          VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VkMemoryRequirements needs = {0};
    VkResult error = device->api.vkCreateBuffer(device->vk, &buffer, NULL, &block->buffer);
    if (error == VK_SUCCESS) {
        device->api.vkGetBufferMemoryRequirements(device->vk, block->buffer, &needs);
        VkMemoryAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .allocationSize = needs.size, .memoryTypeIndex = type};
        bool possible = (needs.memoryTypeBits >> type & 1u) != 0 && needs.size <= device->max_allocation;
        error = possible ? device->api.vkAllocateMemory(device->vk, &info, NULL, &block->memory)
                         : VK_ERROR_OUT_OF_DEVICE_MEMORY;
    }
    if (error == VK_SUCCESS) {
        error = device->api.vkBindBufferMemory(device->vk, block->buffer, block->memory, 0);
    }
    if (error == VK_SUCCESS && is_mapped) {
        void *host = NULL;
        error = device->api.vkMapMemory(device->vk, block->memory, 0, VK_WHOLE_SIZE, 0, &host);
        block->host = host;
    }
    if (error != VK_SUCCESS) {
        lk_vk_block_destroy(device, block);
        lk_status status = lk_vk_fail(device, error, "allocating memory");
        return lk_fail_within(device->device.context, status, "%llu bytes", (unsigned long long)bytes);
    }
    block->bytes = bytes;
    *out = block;
    return LK_OK;
}

void lk_vk_block_destroy(lk_vk_device *device, lk_vk_block *block) {
    if (block != NULL) {
        device->api.vkDestroyBuffer(device->vk, block->buffer, NULL);
        device->api.vkFreeMemory(device->vk, block->memory, NULL);
        lk_free(device->device.context, block);
    }
}

/* Puts the buffer into the block's first gap that is large enough. */
static bool place(lk_vk_block *block, lk_buffer *buffer) {
    VkDeviceSize at = 0;
    lk_buffer **link = &block->first;
    while (*link != NULL && (*link)->offset - at < buffer->reserved) {
        at = (*link)->offset + (*link)->reserved;
        link = &(*link)->next;
    }
    if (*link == NULL && block->bytes - at < buffer->reserved) {
        return false;
    }
    buffer->block = block;
    buffer->offset = at;
    buffer->next = *link;
    *link = buffer;
    return true;
}

static lk_status find_place(lk_vk_device *self, lk_buffer *buffer) {
    for (lk_vk_block *block = self->blocks; block != NULL; block = block->next) {
        if (place(block, buffer)) {
            return LK_OK;
        }
    }
    lk_vk_block *block = NULL;
    VkDeviceSize wanted = buffer->reserved;
    if (wanted < BLOCK_BYTES &&
        lk_vk_block_create(self, BLOCK_BYTES, self->memory_type, self->is_mapped, &block) != LK_OK) {
        block = NULL; /* perhaps there is room for this one still */
    }
    if (block == NULL) {
        LK_TRY(lk_vk_block_create(self, wanted, self->memory_type, self->is_mapped, &block));
    }
    block->next = self->blocks;
    self->blocks = block;
    place(block, buffer);
    return LK_OK;
}

lk_status lk_vulkan_alloc(lk_device *device, size_t bytes, lk_buffer **out) {
    lk_vk_device *self = (lk_vk_device *)device;
    *out = NULL;
    size_t reserved;
    if (!lk_add_size(LK_MAX(bytes, (size_t)1), LK_BUFFER_ALIGNMENT - 1, &reserved)) {
        return lk_out_of_memory(device->context, bytes, "a buffer");
    }
    lk_buffer *buffer = lk_calloc(device->context, 1, sizeof *buffer);
    if (buffer == NULL) {
        return lk_out_of_memory(device->context, sizeof *buffer, "a buffer");
    }
    buffer->reserved = reserved / LK_BUFFER_ALIGNMENT * LK_BUFFER_ALIGNMENT;
    buffer->bytes = LK_MAX(bytes, (size_t)1);
    lk_status status = find_place(self, buffer);
    if (status != LK_OK) {
        lk_free(device->context, buffer);
        return status;
    }
    status = lk_vk_clear(self, buffer);
    if (status != LK_OK) {
        lk_vulkan_free(device, buffer);
        return status;
    }
    *out = buffer;
    return LK_OK;
}

/* Host memory that was not made for it cannot be used. */
lk_status lk_vulkan_wrap(lk_device *device, const void *host, size_t bytes, lk_buffer **out) {
    (void)host;
    (void)bytes;
    *out = NULL;
    return lk_fail(device->context, LK_STATUS_UNSUPPORTED, "vulkan:%d %s works on memory of its own",
                   device->caps.index, device->caps.name);
}

void lk_vulkan_free(lk_device *device, lk_buffer *buffer) {
    lk_vk_device *self = (lk_vk_device *)device;
    if (buffer == NULL) {
        return;
    }
    lk_vk_block *block = buffer->block;
    lk_buffer **link = &block->first;
    while (*link != buffer) {
        link = &(*link)->next;
    }
    *link = buffer->next;
    lk_free(device->context, buffer);
    if (block->first == NULL) {
        lk_vk_block **at = &self->blocks;
        while (*at != block) {
            at = &(*at)->next;
        }
        *at = block->next;
        lk_vk_block_destroy(self, block);
    }
}

void *lk_vulkan_map(lk_buffer *buffer) {
    return buffer->block->host != NULL ? buffer->block->host + buffer->offset : NULL;
}
