#include "backends/shaders/launch.h"

#include <math.h>
#include <stdlib.h>
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

double lk_submit_seconds(const lk_device_caps *caps) {
    const char *setting = getenv("LORIKEET_SUBMIT_MS");
    double milliseconds = setting != NULL ? strtod(setting, NULL) : 0.0;
    return milliseconds > 0.0 ? milliseconds * 1e-3 : caps->is_cpu ? 0.0 : 0.1;
}

bool lk_fits_submission(const lk_device_caps *caps, double seconds) {
    double most = lk_submit_seconds(caps);
    return most <= 0.0 || seconds <= most;
}

void lk_recorder_init(lk_recorder *recorder, lk_context *context, const lk_device_caps *caps) {
    *recorder = (lk_recorder){.context = context, .caps = caps, .most_seconds = lk_submit_seconds(caps)};
}

void lk_recorder_free(lk_recorder *recorder) {
    lk_free(recorder->context, recorder->launches);
    *recorder = (lk_recorder){.context = recorder->context};
}

/* ---- parts ---- */

static int64_t parts_of(const lk_launch *launch, int64_t wanted) {
    return LK_MIN(wanted, (int64_t)(launch->groups[1] > 1 ? launch->groups[1] : launch->groups[0]));
}

static lk_status reserve(lk_recorder *recorder, int32_t more) {
    if (recorder->count + more > recorder->capacity) {
        int32_t capacity = recorder->capacity * 2 + more;
        lk_launch *grown = lk_realloc(recorder->context, recorder->launches, (size_t)capacity, sizeof *grown);
        if (grown == NULL) {
            return lk_out_of_memory(recorder->context, (size_t)capacity * sizeof *grown, "launches");
        }
        recorder->launches = grown;
        recorder->capacity = capacity;
    }
    return LK_OK;
}

/* Part `index` of `parts` of a launch. */
static lk_launch part_of(const lk_launch *launch, int64_t parts, int64_t index) {
    int axis = launch->groups[1] > 1 ? 1 : 0;
    int64_t groups = launch->groups[axis], first = groups * index / parts, end = groups * (index + 1) / parts;
    lk_launch part = *launch;
    part.first = (int32_t)(axis == 1 ? first : -first);
    part.groups[axis] = (int32_t)(end - first);
    part.seconds = launch->seconds / (double)parts;
    return part;
}

/* Which launch of a command takes its time is not known, so each is cut as if it took all of it. */
static lk_status divide(lk_recorder *recorder, int32_t first, double seconds) {
    int32_t count = recorder->count - first;
    bool fits = recorder->most_seconds <= 0.0 || seconds <= recorder->most_seconds;
    int64_t wanted = fits ? 1 : (int64_t)LK_MIN(ceil(seconds / recorder->most_seconds), 1e6), total = 0;
    for (int32_t i = first; i < recorder->count; i++) {
        recorder->launches[i].seconds = fits ? seconds / count : seconds;
        total += parts_of(&recorder->launches[i], wanted);
    }
    if (total == count || total > INT32_MAX / 2) {
        return LK_OK;
    }
    LK_TRY(reserve(recorder, (int32_t)total));
    int32_t end = first + (int32_t)total;
    for (int32_t i = recorder->count - 1; i >= first; i--) { /* from behind, in place */
        lk_launch whole = recorder->launches[i];
        int64_t parts = parts_of(&whole, wanted);
        for (int64_t p = parts - 1; p >= 0; p--) {
            recorder->launches[--end] = part_of(&whole, parts, p);
        }
    }
    recorder->count = first + (int32_t)total;
    return LK_OK;
}

lk_status lk_record_commands(lk_recorder *recorder, const lk_command *commands, int count) {
    for (int i = 0; i < count; i++) {
        const lk_node *node = commands[i].node;
        int32_t first = recorder->count;
        recorder->command = i;
        ((lk_record_function)commands[i].kernel->run)(recorder, &commands[i]);
        if (recorder->status == LK_OK) {
            double seconds = commands[i].kernel->cost != NULL ? commands[i].kernel->cost(recorder->caps, node) : 0.0;
            recorder->status = divide(recorder, first, seconds);
        }
        if (recorder->status != LK_OK) {
            return lk_fail_within(recorder->context, recorder->status, "%s at %s", lk_op_name(node->op), node->scope);
        }
    }
    return LK_OK;
}

lk_launch *lk_launch_begin(lk_recorder *recorder, const char *file, const char *entry, int32_t group) {
    if (recorder->status != LK_OK) {
        return NULL;
    }
    recorder->status = reserve(recorder, recorder->count == recorder->capacity ? 16 : 0);
    if (recorder->status != LK_OK) {
        return NULL;
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
