#include "backends/shaders/launch.h"

#include <string.h>

enum { MAX_GROUPS = 32768 }; /* in one dimension: Vulkan promises 65535 */

const lk_shader_text *lk_shader_text_find(const char *name) {
    for (const lk_shader_text *text = lk_shader_texts; text->name != NULL; text++) {
        if (strcmp(text->name, name) == 0) {
            return text;
        }
    }
    return NULL;
}

void lk_recorder_init(lk_recorder *recorder, lk_context *context, const lk_device_caps *caps) {
    *recorder = (lk_recorder){.context = context, .caps = caps};
}

void lk_recorder_free(lk_recorder *recorder) {
    lk_free(recorder->context, recorder->launches);
    *recorder = (lk_recorder){.context = recorder->context};
}

lk_status lk_record_commands(lk_recorder *recorder, const lk_command *commands, int count) {
    for (int i = 0; i < count; i++) {
        recorder->command = i;
        ((lk_record_function)commands[i].kernel->run)(recorder, &commands[i]);
        if (recorder->status != LK_OK) {
            const lk_node *node = commands[i].node;
            return lk_fail_within(recorder->context, recorder->status, "%s at %s", lk_op_name(node->op), node->scope);
        }
    }
    return LK_OK;
}

lk_launch *lk_launch_begin(lk_recorder *recorder, const char *file, const char *entry, int32_t group) {
    if (recorder->status != LK_OK) {
        return NULL;
    }
    if (recorder->count == recorder->capacity) {
        int32_t capacity = recorder->capacity * 2 + 16;
        lk_launch *grown = lk_realloc(recorder->context, recorder->launches, (size_t)capacity, sizeof *grown);
        if (grown == NULL) {
            recorder->status = lk_out_of_memory(recorder->context, (size_t)capacity * sizeof *grown, "launches");
            return NULL;
        }
        recorder->launches = grown;
        recorder->capacity = capacity;
    }
    lk_launch *launch = &recorder->launches[recorder->count++];
    *launch =
        (lk_launch){.file = file, .entry = entry, .groups = {1, 1}, .command = recorder->command, .recorder = recorder};
    lk_launch_constant(launch, "GROUP", group);
    return launch;
}

/* False, and an error, where the launch has as many of a thing as it can hold. */
static bool has_room(lk_launch *launch, int32_t count, int32_t capacity, const char *what) {
    if (launch == NULL || count < capacity) {
        return launch != NULL;
    }
    lk_recorder *recorder = launch->recorder;
    if (recorder != NULL && recorder->status == LK_OK) {
        recorder->status = lk_fail(recorder->context, LK_STATUS_INTERNAL, "kernel %s of %s.lk is given more than %d %s",
                                   launch->entry, launch->file, capacity, what);
    }
    return false;
}

void lk_launch_word(lk_launch *launch, const char *name, const char *word) {
    if (has_room(launch, launch ? launch->num_words : 0, LK_LAUNCH_WORDS, "words")) {
        launch->words[launch->num_words].name = name;
        launch->words[launch->num_words++].word = word;
    }
}

void lk_launch_type(lk_launch *launch, const char *name, lk_dtype dtype) {
    lk_launch_word(launch, name, lk_dtype_name(dtype));
}

void lk_launch_constant(lk_launch *launch, const char *name, int32_t value) {
    if (has_room(launch, launch ? launch->num_constants : 0, LK_LAUNCH_CONSTANTS, "constants")) {
        launch->constants[launch->num_constants].name = name;
        launch->constants[launch->num_constants++].value = value;
    }
}

void lk_launch_buffer(lk_launch *launch, const lk_binding *binding) {
    if (has_room(launch, launch ? launch->num_buffers : 0, LK_LAUNCH_BUFFERS, "buffers")) {
        launch->buffers[launch->num_buffers++] = *binding;
    }
}

void lk_launch_int(lk_launch *launch, int64_t value) {
    if (has_room(launch, launch ? launch->num_parameters : 0, LK_LAUNCH_PARAMETERS, "parameters")) {
        launch->parameters[launch->num_parameters++] = (uint32_t)value;
    }
}

void lk_launch_float(lk_launch *launch, float value) {
    lk_launch_int(launch, (int64_t)lk_f32_bits(value));
}

void lk_launch_groups(lk_launch *launch, int64_t count) {
    int64_t rows = (count + MAX_GROUPS - 1) / MAX_GROUPS;
    rows = rows > 0 ? rows : 1;
    lk_launch_grid(launch, (count + rows - 1) / rows, rows);
}

void lk_launch_grid(lk_launch *launch, int64_t x, int64_t y) {
    if (launch != NULL) {
        launch->groups[0] = (int32_t)(x > 0 ? x : 1);
        launch->groups[1] = (int32_t)(y > 0 ? y : 1);
        const lk_binding *present = NULL;
        for (int32_t i = 0; i < launch->num_buffers; i++) {
            present = launch->buffers[i].buffer != NULL ? &launch->buffers[i] : present;
        }
        for (int32_t i = 0; i < launch->num_buffers && present != NULL; i++) {
            if (launch->buffers[i].buffer == NULL) {
                launch->buffers[i] = *present;
            }
        }
    }
}

lk_binding lk_binding_part(const lk_binding *binding, size_t offset, size_t bytes) {
    return (lk_binding){binding->buffer, binding->offset + offset, bytes};
}
