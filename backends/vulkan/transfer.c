/* Transfers: memory that is mapped is copied by the host, other memory through a staging block. */
#include <string.h>

#include "backends/vulkan/vulkan.h"

enum { STAGING_BYTES = 4 << 20 };

static VkResult begin(lk_vk_device *self) {
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    VkResult error = lk_vk_wait(self); /* for kernels that still work on the buffer */
    if (error == VK_SUCCESS) {
        error = self->api.vkResetCommandPool(self->vk, self->transfer_pool, 0);
    }
    return error == VK_SUCCESS ? self->api.vkBeginCommandBuffer(self->transfer, &info) : error;
}

static void barrier(lk_vk_device *self, VkPipelineStageFlags from, VkAccessFlags written, VkPipelineStageFlags to,
                    VkAccessFlags accessed) {
    VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = written, .dstAccessMask = accessed};
    self->api.vkCmdPipelineBarrier(self->transfer, from, to, 0, 1, &memory, 0, NULL, 0, NULL);
}

/* Everything before and after on the queue sees the transfer whole. */
static void before(lk_vk_device *self) {
    barrier(self, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
            VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT,
            VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT);
}

static VkResult finish(lk_vk_device *self) {
    barrier(self, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_HOST_BIT,
            VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_HOST_READ_BIT);
    VkResult error = self->api.vkEndCommandBuffer(self->transfer);
    if (error == VK_SUCCESS) {
        error = lk_vk_submit(self, self->transfer, true);
    }
    return error == VK_SUCCESS ? lk_vk_wait(self) : error;
}

static VkResult copy(lk_vk_device *self, VkBuffer from, VkDeviceSize from_offset, VkBuffer to, VkDeviceSize to_offset,
                     size_t bytes) {
    VkBufferCopy region = {from_offset, to_offset, bytes};
    VkResult error = begin(self);
    if (error != VK_SUCCESS) {
        return error;
    }
    before(self);
    self->api.vkCmdCopyBuffer(self->transfer, from, to, 1, &region);
    return finish(self);
}

lk_status lk_vk_clear(lk_vk_device *device, const lk_buffer *buffer) {
    if (buffer->block->host != NULL) {
        memset(buffer->block->host + buffer->offset, 0, buffer->reserved);
        return LK_OK;
    }
    VkResult error = begin(device);
    if (error == VK_SUCCESS) {
        before(device);
        device->api.vkCmdFillBuffer(device->transfer, buffer->block->buffer, buffer->offset, buffer->reserved, 0);
        error = finish(device);
    }
    return error == VK_SUCCESS ? LK_OK : lk_vk_fail(device, error, "clearing a buffer");
}

static lk_status prepare(lk_vk_device *self, const lk_buffer *buffer, size_t offset, size_t bytes, const char *what) {
    if (offset > buffer->bytes || bytes > buffer->bytes - offset) {
        return lk_fail(self->device.context, LK_STATUS_INVALID_ARGUMENT, "%s outside the buffer", what);
    }
    if (buffer->block->host == NULL && self->staging == NULL) {
        return lk_vk_block_create(self, STAGING_BYTES, self->staging_type, true, &self->staging);
    }
    return LK_OK;
}

lk_status lk_vulkan_upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes) {
    lk_vk_device *self = (lk_vk_device *)device;
    LK_TRY(prepare(self, buffer, offset, bytes, "upload"));
    if (buffer->block->host != NULL) {
        memcpy(buffer->block->host + buffer->offset + offset, host, bytes);
        return LK_OK;
    }
    for (size_t done = 0; done < bytes; done += STAGING_BYTES) {
        size_t part = LK_MIN(bytes - done, (size_t)STAGING_BYTES);
        memcpy(self->staging->host, (const char *)host + done, part);
        VkResult error =
            copy(self, self->staging->buffer, 0, buffer->block->buffer, buffer->offset + offset + done, part);
        if (error != VK_SUCCESS) {
            return lk_vk_fail(self, error, "upload");
        }
    }
    return LK_OK;
}

lk_status lk_vulkan_download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes) {
    lk_vk_device *self = (lk_vk_device *)device;
    LK_TRY(prepare(self, buffer, offset, bytes, "download"));
    if (buffer->block->host != NULL) {
        memcpy(host, buffer->block->host + buffer->offset + offset, bytes);
        return LK_OK;
    }
    for (size_t done = 0; done < bytes; done += STAGING_BYTES) {
        size_t part = LK_MIN(bytes - done, (size_t)STAGING_BYTES);
        VkResult error =
            copy(self, buffer->block->buffer, buffer->offset + offset + done, self->staging->buffer, 0, part);
        if (error != VK_SUCCESS) {
            return lk_vk_fail(self, error, "download");
        }
        memcpy((char *)host + done, self->staging->host, part);
    }
    return LK_OK;
}
