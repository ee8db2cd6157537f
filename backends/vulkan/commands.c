/* A command list is recorded once and submitted at every run, in parts that are each expected to be shorter than what
 * watchdogs allow. A barrier stands only before a launch that touches what an earlier one has written. */
#include <string.h>

#include "backends/vulkan/hazards.h"
#include "backends/vulkan/vulkan.h"

typedef struct part {
    VkCommandBuffer buffer;
    int32_t first, last; /* commands */
} part;

typedef struct parts {
    part *parts;
    int32_t count;
} parts;

struct lk_commands {
    const lk_command *commands;
    int32_t num_commands;
    VkCommandPool pool;
    VkDescriptorPool sets;
    VkQueryPool queries;
    uint64_t *ticks;     /* num_commands + 1 */
    parts plain, timed;  /* the second takes times, between barriers */
    uint64_t before_run; /* submissions of the device before the run that is pending */
};

/* A launch with what it needs to be recorded. */
typedef struct call {
    VkPipeline pipeline;
    VkPipelineLayout layout;
    VkDescriptorSet set;
    lk_vk_access accesses[LK_LAUNCH_BUFFERS];
    int32_t command;
} call;

typedef struct recording {
    lk_vk_device *device;
    lk_commands *list;
    lk_recorder recorder;
    call *calls; /* one per launch */
} recording;

static lk_status fail_at(const recording *self, lk_status status, int32_t command) {
    const lk_node *node = self->list->commands[command].node;
    return lk_fail_within(self->device->device.context, status, "%s at %s", lk_op_name(node->op), node->scope);
}

/* ---- launches ---- */

static lk_status describe(recording *self) {
    LK_TRY(lk_record_commands(&self->recorder, self->list->commands, self->list->num_commands));
    self->calls = lk_calloc(self->recorder.context, (size_t)self->recorder.count + 1, sizeof *self->calls);
    if (self->calls == NULL) {
        return lk_out_of_memory(self->recorder.context, (size_t)self->recorder.count * sizeof *self->calls,
                                "a command list");
    }
    for (int32_t i = 0; i < self->recorder.count; i++) {
        self->calls[i].command = self->recorder.launches[i].command;
    }
    return LK_OK;
}

static lk_status make_pools(recording *self) {
    lk_vk_device *device = self->device;
    uint32_t buffers = 0;
    for (int32_t i = 0; i < self->recorder.count; i++) {
        buffers += (uint32_t)self->recorder.launches[i].num_buffers;
    }
    VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, LK_MAX(buffers, 1u)};
    VkDescriptorPoolCreateInfo sets = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                       .maxSets = (uint32_t)self->recorder.count,
                                       .poolSizeCount = 1,
                                       .pPoolSizes = &size};
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .queueFamilyIndex = device->family};
    VkResult error = device->api.vkCreateDescriptorPool(device->vk, &sets, NULL, &self->list->sets);
    if (error == VK_SUCCESS) {
        error = device->api.vkCreateCommandPool(device->vk, &pool, NULL, &self->list->pool);
    }
    VkQueryPoolCreateInfo queries = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                     .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                     .queryCount = (uint32_t)self->list->num_commands + 1};
    if (error == VK_SUCCESS && device->tick > 0.0) {
        error = device->api.vkCreateQueryPool(device->vk, &queries, NULL, &self->list->queries);
    }
    return error == VK_SUCCESS ? LK_OK : lk_vk_fail(device, error, "making a command list");
}

static lk_status check_buffer(const recording *self, const VkDescriptorBufferInfo *info) {
    const VkPhysicalDeviceLimits *limits = &self->device->limits;
    lk_context *context = self->device->device.context;
    if (info->offset % limits->minStorageBufferOffsetAlignment != 0) {
        return lk_fail(context, LK_STATUS_INTERNAL, "a buffer starts at byte %llu, not a multiple of %llu",
                       (unsigned long long)info->offset, (unsigned long long)limits->minStorageBufferOffsetAlignment);
    }
    if (info->range > limits->maxStorageBufferRange) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "a buffer has %llu bytes, the device addresses %u",
                       (unsigned long long)info->range, (unsigned)limits->maxStorageBufferRange);
    }
    return LK_OK;
}

static lk_status bind(recording *self, const lk_launch *launch, const lk_spirv *kernel, VkDescriptorSetLayout layout,
                      call *out) {
    lk_vk_device *device = self->device;
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorPool = self->list->sets,
                                        .descriptorSetCount = 1,
                                        .pSetLayouts = &layout};
    VkResult error = device->api.vkAllocateDescriptorSets(device->vk, &info, &out->set);
    if (error != VK_SUCCESS) {
        return lk_vk_fail(device, error, "vkAllocateDescriptorSets");
    }
    VkDescriptorBufferInfo buffers[LK_LAUNCH_BUFFERS];
    for (int32_t i = 0; i < launch->num_buffers; i++) {
        const lk_binding *binding = &launch->buffers[i];
        const lk_buffer *buffer = binding->buffer;
        if (buffer == NULL) {
            return lk_fail(device->device.context, LK_STATUS_INTERNAL, "%s has no buffer at all", launch->entry);
        }
        VkDeviceSize room = buffer->reserved - LK_MIN(binding->offset, buffer->reserved);
        size_t offset = room > 0 ? binding->offset : 0; /* of an empty part */
        buffers[i] =
            (VkDescriptorBufferInfo){buffer->block->buffer, buffer->offset + offset, LK_MAX(binding->bytes, (size_t)4)};
        LK_TRY(check_buffer(self, &buffers[i]));
        out->accesses[i] = (lk_vk_access){buffer->block, (size_t)buffers[i].offset,
                                          (size_t)(buffers[i].offset + buffers[i].range), (kernel->writes >> i & 1u)};
    }
    VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                  .dstSet = out->set,
                                  .descriptorCount = (uint32_t)launch->num_buffers,
                                  .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  .pBufferInfo = buffers};
    device->api.vkUpdateDescriptorSets(device->vk, 1, &write, 0, NULL);
    return LK_OK;
}

static lk_status prepare(recording *self, const lk_launch *launch, call *out) {
    const VkPhysicalDeviceLimits *limits = &self->device->limits;
    const lk_spirv *kernel;
    VkDescriptorSetLayout set_layout;
    for (int i = 0; i < 2; i++) {
        if ((uint32_t)launch->groups[i] > limits->maxComputeWorkGroupCount[i]) {
            return lk_fail(self->device->device.context, LK_STATUS_UNSUPPORTED, "%s needs %d groups, the limit is %u",
                           launch->entry, launch->groups[i], (unsigned)limits->maxComputeWorkGroupCount[i]);
        }
    }
    if (launch->constants[0].value > self->device->device.caps.max_group_size) {
        return lk_fail(self->device->device.context, LK_STATUS_UNSUPPORTED,
                       "%s needs groups of %d lanes, the limit is %d", launch->entry, launch->constants[0].value,
                       self->device->device.caps.max_group_size);
    }
    if ((uint32_t)launch->num_buffers > limits->maxPerStageDescriptorStorageBuffers) {
        return lk_fail(self->device->device.context, LK_STATUS_UNSUPPORTED, "%s needs %d buffers, the limit is %u",
                       launch->entry, launch->num_buffers, (unsigned)limits->maxPerStageDescriptorStorageBuffers);
    }
    LK_TRY(lk_vk_pipeline_get(self->device, launch, &kernel, &out->pipeline));
    LK_TRY(lk_vk_layout_get(self->device, launch->num_buffers, &out->layout, &set_layout));
    return bind(self, launch, kernel, set_layout, out);
}

/* ---- command buffers ---- */

static void barrier(lk_vk_device *device, VkCommandBuffer buffer, VkPipelineStageFlags from, VkAccessFlags written,
                    VkPipelineStageFlags to, VkAccessFlags accessed) {
    VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = written, .dstAccessMask = accessed};
    device->api.vkCmdPipelineBarrier(buffer, from, to, 0, 1, &memory, 0, NULL, 0, NULL);
}

static void barrier_between(lk_vk_device *device, VkCommandBuffer buffer) {
    barrier(device, buffer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

static lk_status begin_part(recording *self, parts *target, int32_t command) {
    lk_vk_device *device = self->device;
    part *grown = lk_realloc(device->device.context, target->parts, (size_t)target->count + 1, sizeof *target->parts);
    if (grown == NULL) {
        return lk_out_of_memory(device->device.context, sizeof *grown, "a command list");
    }
    target->parts = grown;
    part *added = &target->parts[target->count++];
    *added = (part){.first = command, .last = command};
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = self->list->pool,
                                        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                        .commandBufferCount = 1};
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VkResult error = device->api.vkAllocateCommandBuffers(device->vk, &info, &added->buffer);
    if (error == VK_SUCCESS) {
        error = device->api.vkBeginCommandBuffer(added->buffer, &begin);
    }
    if (error == VK_SUCCESS && target->count == 1) { /* what ran before on the queue */
        barrier(device, added->buffer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
    }
    return error == VK_SUCCESS ? LK_OK : lk_vk_fail(device, error, "recording commands");
}

static lk_status end_part(recording *self, parts *target, bool is_last) {
    lk_vk_device *device = self->device;
    VkCommandBuffer buffer = target->parts[target->count - 1].buffer;
    if (is_last) {
        barrier(device, buffer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
    }
    VkResult error = device->api.vkEndCommandBuffer(buffer);
    return error == VK_SUCCESS ? LK_OK : lk_vk_fail(device, error, "recording commands");
}

static void take_time(recording *self, const parts *target, int32_t index) {
    lk_vk_device *device = self->device;
    VkCommandBuffer buffer = target->parts[target->count - 1].buffer;
    if (index == 0) {
        device->api.vkCmdResetQueryPool(buffer, self->list->queries, 0, (uint32_t)self->list->num_commands + 1);
    }
    barrier_between(device, buffer);
    device->api.vkCmdWriteTimestamp(buffer, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, self->list->queries, (uint32_t)index);
}

static lk_status record_launch(recording *self, const parts *target, int32_t index, lk_vk_hazards *hazards) {
    lk_vk_device *device = self->device;
    const lk_launch *launch = &self->recorder.launches[index];
    const call *c = &self->calls[index];
    VkCommandBuffer buffer = target->parts[target->count - 1].buffer;
    bool needs_barrier;
    LK_TRY(lk_vk_hazards_add(hazards, c->accesses, launch->num_buffers, &needs_barrier));
    if (needs_barrier) {
        barrier_between(device, buffer);
    }
    device->api.vkCmdBindPipeline(buffer, VK_PIPELINE_BIND_POINT_COMPUTE, c->pipeline);
    device->api.vkCmdBindDescriptorSets(buffer, VK_PIPELINE_BIND_POINT_COMPUTE, c->layout, 0, 1, &c->set, 0, NULL);
    if (launch->num_parameters > 0) {
        device->api.vkCmdPushConstants(buffer, c->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                       (uint32_t)launch->num_parameters * (uint32_t)sizeof launch->parameters[0],
                                       launch->parameters);
    }
    uint32_t first_column = (uint32_t)-LK_MIN(launch->first, 0), first_row = (uint32_t)LK_MAX(launch->first, 0);
    uint32_t columns = (uint32_t)launch->groups[0], rows = (uint32_t)launch->groups[1];
    if (first_column == 0 && first_row == 0) { /* validation layers do not follow the other */
        device->api.vkCmdDispatch(buffer, columns, rows, 1);
    } else {
        device->api.vkCmdDispatchBase(buffer, first_column, first_row, 0, columns, rows, 1);
    }
    return LK_OK;
}

/* Begins another part where this launch would make the last one too long. */
static lk_status make_room(recording *self, parts *target, int32_t command, double more, double *seconds) {
    double most = self->recorder.most_seconds;
    if (target->count == 0 || (most > 0.0 && *seconds > 0.0 && *seconds + more > most)) {
        if (target->count > 0) {
            LK_TRY(end_part(self, target, false));
        }
        LK_TRY(begin_part(self, target, command));
        *seconds = 0.0;
    }
    *seconds += more;
    target->parts[target->count - 1].last = command;
    return LK_OK;
}

static lk_status record_all(recording *self, parts *target, lk_vk_hazards *hazards) {
    bool is_timed = target == &self->list->timed;
    double seconds = 0.0;
    int32_t next = 0;
    for (int32_t i = 0; i < self->list->num_commands; i++) {
        bool begins = true;
        for (; next < self->recorder.count && self->calls[next].command == i; next++) {
            LK_TRY(make_room(self, target, i, self->recorder.launches[next].seconds, &seconds));
            if (is_timed && begins) {
                take_time(self, target, i);
                lk_vk_hazards_clear(hazards);
            }
            begins = false;
            LK_TRY(record_launch(self, target, next, hazards));
        }
        if (is_timed && begins) { /* a command without launches takes no time, but has its place in the list */
            LK_TRY(make_room(self, target, i, 0.0, &seconds));
            take_time(self, target, i);
        }
    }
    if (is_timed) {
        take_time(self, target, self->list->num_commands);
    }
    return end_part(self, target, true);
}

static lk_status record(recording *self, parts *target) {
    lk_vk_hazards hazards;
    lk_vk_hazards_init(&hazards, self->device->device.context);
    lk_status status = record_all(self, target, &hazards);
    lk_vk_hazards_free(&hazards);
    return status;
}

static lk_status build(recording *self) {
    lk_commands *list = self->list;
    LK_TRY(describe(self));
    if (self->recorder.count == 0) {
        return LK_OK;
    }
    LK_TRY(make_pools(self));
    for (int32_t i = 0; i < self->recorder.count; i++) {
        lk_status status = prepare(self, &self->recorder.launches[i], &self->calls[i]);
        if (status != LK_OK) {
            return fail_at(self, status, self->calls[i].command);
        }
    }
    lk_vk_cache_save(self->device);
    LK_TRY(record(self, &list->plain));
    if (list->queries == VK_NULL_HANDLE) {
        return LK_OK;
    }
    list->ticks = lk_calloc(self->device->device.context, (size_t)list->num_commands + 1, sizeof *list->ticks);
    return list->ticks != NULL
               ? record(self, &list->timed)
               : lk_out_of_memory(self->device->device.context, sizeof *list->ticks, "the times of commands");
}

lk_status lk_vulkan_compile(lk_device *device, const lk_command *commands, int count, lk_commands **out) {
    lk_vk_device *self = (lk_vk_device *)device;
    *out = NULL;
    lk_commands *list = lk_calloc(device->context, 1, sizeof *list);
    if (list == NULL) {
        return lk_out_of_memory(device->context, sizeof *list, "a command list");
    }
    list->commands = commands;
    list->num_commands = count;
    recording work = {.device = self, .list = list};
    lk_recorder_init(&work.recorder, device->context, &self->shape);
    work.recorder.most_seconds = lk_submit_seconds(&device->caps); /* the shape says it is no processor */
    lk_status status = build(&work);
    lk_free(device->context, work.calls);
    lk_recorder_free(&work.recorder);
    if (status != LK_OK) {
        lk_vulkan_release(device, list);
        return status;
    }
    *out = list;
    return LK_OK;
}

void lk_vulkan_release(lk_device *device, lk_commands *commands) {
    lk_vk_device *self = (lk_vk_device *)device;
    if (commands == NULL) {
        return;
    }
    lk_vk_wait(self); /* a failure of it has been told, or will be */
    self->pending = self->pending == commands ? NULL : self->pending;
    self->api.vkDestroyCommandPool(self->vk, commands->pool, NULL);
    self->api.vkDestroyDescriptorPool(self->vk, commands->sets, NULL);
    self->api.vkDestroyQueryPool(self->vk, commands->queries, NULL);
    lk_free(device->context, commands->plain.parts);
    lk_free(device->context, commands->timed.parts);
    lk_free(device->context, commands->ticks);
    lk_free(device->context, commands);
}

/* ---- runs ---- */

/* Says between which ops it happened; Vulkan tells no more. */
static lk_status run_failed(lk_vk_device *self, const lk_commands *list, const part *failed, VkResult error,
                            const char *what) {
    lk_status status = lk_vk_fail(self, error, what);
    const lk_node *first = list->commands[failed->first].node, *last = list->commands[failed->last].node;
    if (failed->first == failed->last) {
        return lk_fail_within(self->device.context, status, "%s at %s", lk_op_name(first->op), first->scope);
    }
    return lk_fail_within(self->device.context, status, "between %s at %s and %s at %s", lk_op_name(first->op),
                          first->scope, lk_op_name(last->op), last->scope);
}

lk_status lk_vulkan_run(lk_device *device, lk_commands *commands, double *seconds) {
    lk_vk_device *self = (lk_vk_device *)device;
    if (self->pending != NULL) {
        LK_TRY(lk_vulkan_wait(device));
    }
    if (seconds != NULL) {
        memset(seconds, 0, (size_t)commands->num_commands * sizeof *seconds);
    }
    bool is_timed = seconds != NULL && commands->timed.count > 0;
    const parts *run = is_timed ? &commands->timed : &commands->plain;
    commands->before_run = self->submitted;
    for (int32_t i = 0; i < run->count; i++) {
        VkResult error = lk_vk_submit(self, run->parts[i].buffer, i == run->count - 1);
        if (error != VK_SUCCESS) {
            self->api.vkDeviceWaitIdle(self->vk); /* for the parts before */
            return run_failed(self, commands, &run->parts[i], error, "vkQueueSubmit");
        }
    }
    self->pending = run->count > 0 ? commands : NULL;
    self->seconds = is_timed ? seconds : NULL;
    return LK_OK;
}

/* The part that was being run when the device failed: the first that is not known to have ended. */
static const part *failed_part(lk_vk_device *self, const lk_commands *list, const parts *run) {
    uint64_t done = 0;
    if (self->timeline == VK_NULL_HANDLE ||
        self->api.vkGetSemaphoreCounterValueKHR(self->vk, self->timeline, &done) != VK_SUCCESS ||
        done < list->before_run || done - list->before_run >= (uint64_t)run->count) {
        return &run->parts[0];
    }
    return &run->parts[done - list->before_run];
}

static lk_status take_times(lk_vk_device *self, lk_commands *list) {
    uint32_t count = (uint32_t)list->num_commands + 1;
    VkResult error =
        self->api.vkGetQueryPoolResults(self->vk, list->queries, 0, count, count * sizeof *list->ticks, list->ticks,
                                        sizeof *list->ticks, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
    if (error != VK_SUCCESS) {
        return lk_vk_fail(self, error, "vkGetQueryPoolResults");
    }
    for (int32_t i = 0; i < list->num_commands; i++) {
        self->seconds[i] = (double)((list->ticks[i + 1] - list->ticks[i]) & self->tick_mask) * self->tick;
    }
    return LK_OK;
}

lk_status lk_vulkan_wait(lk_device *device) {
    lk_vk_device *self = (lk_vk_device *)device;
    lk_commands *list = self->pending;
    self->pending = NULL;
    VkResult error = lk_vk_wait(self);
    if (error != VK_SUCCESS && list != NULL) {
        const parts *run = self->seconds != NULL ? &list->timed : &list->plain;
        return run_failed(self, list, failed_part(self, list, run), error, "waiting for the device");
    }
    if (error != VK_SUCCESS) {
        return lk_vk_fail(self, error, "waiting for the device");
    }
    return list != NULL && self->seconds != NULL ? take_times(self, list) : LK_OK;
}
