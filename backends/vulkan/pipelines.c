/* Kernels become pipelines: one per variant and set of constants. The driver's pipeline cache is kept on disk. */
#include <stdio.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "core/base/disk_cache.h"

enum { FULL_SUBGROUPS = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT_EXT };

/* ---- finding the kernel ---- */

/* The number after " name=" in a list, or -1. */
static int32_t number_in(const char *list, const char *name) {
    char wanted[40];
    snprintf(wanted, sizeof wanted, " %.36s=", name);
    const char *found = strstr(list, wanted);
    int32_t number = -1;
    return found != NULL && sscanf(found + strlen(wanted), "%d", &number) == 1 ? number : -1;
}

static bool has_words(const lk_spirv *kernel, const lk_launch *launch) {
    for (int32_t i = 0; i < launch->num_words; i++) {
        char wanted[40];
        snprintf(wanted, sizeof wanted, " %.15s=", launch->words[i].name);
        const char *found = strstr(kernel->choice, wanted);
        size_t length = strlen(launch->words[i].word);
        if (found == NULL) {
            continue; /* the kernel does not depend on it */
        }
        found += strlen(wanted);
        if (strncmp(found, launch->words[i].word, length) != 0 || (found[length] != ' ' && found[length] != '\0')) {
            return false;
        }
    }
    return true;
}

static const lk_spirv *find_kernel(const lk_launch *launch) {
    for (const lk_spirv *kernel = lk_spirv_kernels; kernel->entry != NULL; kernel++) {
        if (strcmp(kernel->entry, launch->entry) == 0 && has_words(kernel, launch)) {
            return kernel;
        }
    }
    return NULL;
}

static lk_status check_kernel(lk_vk_device *self, const lk_launch *launch, const lk_spirv *kernel) {
    lk_context *context = self->device.context;
    if (kernel == NULL) {
        return lk_fail(context, LK_STATUS_INTERNAL, "there is no SPIR-V of %s for %s=%s", launch->entry,
                       launch->num_words > 0 ? launch->words[0].name : "any word",
                       launch->num_words > 0 ? launch->words[0].word : "");
    }
    if (kernel->num_buffers != launch->num_buffers || kernel->num_parameters != launch->num_parameters) {
        return lk_fail(context, LK_STATUS_INTERNAL, "%s takes %d buffers and %d parameters, but is given %d and %d",
                       launch->entry, kernel->num_buffers, kernel->num_parameters, launch->num_buffers,
                       launch->num_parameters);
    }
    size_t bytes = (size_t)launch->num_parameters * sizeof launch->parameters[0];
    if (bytes > LK_VK_MAX_PUSH_BYTES || bytes > self->limits.maxPushConstantsSize) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s has %zu bytes of parameters, the device takes %u",
                       launch->entry, bytes, (unsigned)self->limits.maxPushConstantsSize);
    }
    return LK_OK;
}

/* ---- layouts: by the number of buffers ---- */

lk_status lk_vk_layout_get(lk_vk_device *device, int32_t num_buffers, VkPipelineLayout *layout,
                           VkDescriptorSetLayout *set_layout) {
    VkResult error = VK_SUCCESS;
    if (device->set_layouts[num_buffers] == VK_NULL_HANDLE) {
        VkDescriptorSetLayoutBinding bindings[LK_LAUNCH_BUFFERS];
        for (int32_t i = 0; i < num_buffers; i++) {
            bindings[i] = (VkDescriptorSetLayoutBinding){(uint32_t)i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1,
                                                         VK_SHADER_STAGE_COMPUTE_BIT, NULL};
        }
        VkDescriptorSetLayoutCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                                .bindingCount = (uint32_t)num_buffers,
                                                .pBindings = bindings};
        error = device->api.vkCreateDescriptorSetLayout(device->vk, &info, NULL, &device->set_layouts[num_buffers]);
    }
    if (error == VK_SUCCESS && device->layouts[num_buffers] == VK_NULL_HANDLE) {
        VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, LK_VK_MAX_PUSH_BYTES};
        VkPipelineLayoutCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                           .setLayoutCount = 1,
                                           .pSetLayouts = &device->set_layouts[num_buffers],
                                           .pushConstantRangeCount = 1,
                                           .pPushConstantRanges = &push};
        error = device->api.vkCreatePipelineLayout(device->vk, &info, NULL, &device->layouts[num_buffers]);
    }
    *layout = device->layouts[num_buffers];
    *set_layout = device->set_layouts[num_buffers];
    return error == VK_SUCCESS ? LK_OK : lk_vk_fail(device, error, "making a pipeline's layout");
}

/* ---- pipelines ---- */

static lk_status specialize(lk_vk_device *self, const lk_launch *launch, const lk_spirv *kernel,
                            VkSpecializationMapEntry entries[LK_LAUNCH_CONSTANTS], int32_t values[LK_LAUNCH_CONSTANTS],
                            VkSpecializationInfo *info) {
    uint32_t count = 0;
    for (int32_t i = 0; i < launch->num_constants; i++) {
        const char *name = launch->constants[i].name;
        int32_t id = number_in(kernel->constants, name), value = launch->constants[i].value;
        if (id < 0 && strcmp(name, "VECTOR") == 0 && value == 1) {
            continue; /* the kernels' vectors are compiled as single floats */
        }
        if (id < 0) {
            return lk_fail(self->device.context, LK_STATUS_INTERNAL, "%s has no constant %s that can be %d",
                           launch->entry, name, value);
        }
        values[count] = value;
        entries[count] = (VkSpecializationMapEntry){(uint32_t)id, count * (uint32_t)sizeof value, sizeof value};
        count++;
    }
    *info = (VkSpecializationInfo){count, entries, count * sizeof values[0], values};
    return LK_OK;
}

static VkResult make_pipeline(lk_vk_device *self, const lk_spirv *kernel, const VkSpecializationInfo *constants,
                              VkPipelineLayout layout, VkPipeline *out) {
    VkShaderModuleCreateInfo code = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = kernel->bytes, .pCode = kernel->words};
    VkShaderModule module = VK_NULL_HANDLE;
    VkResult error = self->api.vkCreateShaderModule(self->vk, &code, NULL, &module);
    if (error != VK_SUCCESS) {
        return error;
    }
    /* lanes exchange: the subgroup must be of the size that the kernel was given, and whole */
    bool exchanges = strstr(kernel->choice, " REDUCTION=subgroup") != NULL;
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfoEXT size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO_EXT,
        .requiredSubgroupSize = (uint32_t)self->device.caps.subgroup_size};
    VkComputePipelineCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
                                        .flags = VK_PIPELINE_CREATE_DISPATCH_BASE,
                                        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                                                  .pNext = exchanges ? &size : NULL,
                                                  .flags = exchanges ? FULL_SUBGROUPS : 0,
                                                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                                                  .module = module,
                                                  .pName = "main",
                                                  .pSpecializationInfo = constants},
                                        .layout = layout};
    error = self->api.vkCreateComputePipelines(self->vk, self->cache, 1, &info, NULL, out);
    self->api.vkDestroyShaderModule(self->vk, module, NULL);
    return error;
}

static lk_status keep(lk_vk_device *self, uint64_t key, VkPipeline pipeline) {
    lk_vk_pipeline *grown =
        lk_realloc(self->device.context, self->pipelines, (size_t)self->num_pipelines + 1, sizeof *grown);
    if (grown == NULL) {
        self->api.vkDestroyPipeline(self->vk, pipeline, NULL);
        return lk_out_of_memory(self->device.context, sizeof *grown, "a pipeline");
    }
    self->pipelines = grown;
    self->pipelines[self->num_pipelines++] = (lk_vk_pipeline){key, pipeline};
    self->cache_is_stale = true;
    return LK_OK;
}

lk_status lk_vk_pipeline_get(lk_vk_device *device, const lk_launch *launch, const lk_spirv **kernel, VkPipeline *out) {
    VkSpecializationMapEntry entries[LK_LAUNCH_CONSTANTS];
    int32_t values[LK_LAUNCH_CONSTANTS];
    VkSpecializationInfo constants;
    *kernel = find_kernel(launch);
    LK_TRY(check_kernel(device, launch, *kernel));
    LK_TRY(specialize(device, launch, *kernel, entries, values, &constants));
    uint64_t key = lk_hash64(values, constants.dataSize, (uint64_t)(*kernel - lk_spirv_kernels));
    key = lk_hash64(entries, constants.mapEntryCount * sizeof entries[0], key);
    for (int32_t i = 0; i < device->num_pipelines; i++) {
        if (device->pipelines[i].key == key) {
            *out = device->pipelines[i].pipeline;
            return LK_OK;
        }
    }
    VkPipelineLayout layout;
    VkDescriptorSetLayout set_layout;
    LK_TRY(lk_vk_layout_get(device, launch->num_buffers, &layout, &set_layout));
    VkResult error = make_pipeline(device, *kernel, &constants, layout, out);
    if (error != VK_SUCCESS) {
        lk_status status = lk_vk_fail(device, error, "making a pipeline");
        return lk_fail_within(device->device.context, status, "kernel %s", launch->entry);
    }
    return keep(device, key, *out);
}

void lk_vk_pipelines_destroy(lk_vk_device *device) {
    for (int32_t i = 0; i < device->num_pipelines; i++) {
        device->api.vkDestroyPipeline(device->vk, device->pipelines[i].pipeline, NULL);
    }
    for (size_t i = 0; i < LK_COUNT(device->layouts); i++) {
        device->api.vkDestroyPipelineLayout(device->vk, device->layouts[i], NULL);
        device->api.vkDestroyDescriptorSetLayout(device->vk, device->set_layouts[i], NULL);
    }
    device->api.vkDestroyPipelineCache(device->vk, device->cache, NULL);
    lk_free(device->device.context, device->pipelines);
}

/* ---- the cache on disk: one file per device and driver ---- */

lk_status lk_vk_cache_open(lk_vk_device *device) {
    lk_disk_cache_entry entry = {0};
    device->cache_was_read = lk_disk_cache_open(device->device.context, "vulkan", device->identity, &entry);
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                      .initialDataSize = entry.bytes,
                                      .pInitialData = entry.data};
    VkResult error = device->api.vkCreatePipelineCache(device->vk, &info, NULL, &device->cache);
    if (device->cache_was_read) {
        lk_disk_cache_close(&entry);
    }
    return error == VK_SUCCESS ? LK_OK : lk_vk_fail(device, error, "vkCreatePipelineCache");
}

void lk_vk_cache_save(lk_vk_device *device) {
    size_t bytes = 0;
    if (!device->cache_is_stale ||
        device->api.vkGetPipelineCacheData(device->vk, device->cache, &bytes, NULL) != VK_SUCCESS || bytes == 0) {
        return;
    }
    void *data = lk_alloc(device->device.context, bytes);
    if (data != NULL && device->api.vkGetPipelineCacheData(device->vk, device->cache, &bytes, data) == VK_SUCCESS) {
        lk_disk_cache_store(device->device.context, "vulkan", device->identity, data, bytes);
        device->cache_is_stale = false;
    }
    lk_free(device->device.context, data);
}
