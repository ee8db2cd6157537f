/* GRAD_NORM, ADAMW, IMPORTANCE. */
#include "backends/shaders/rows.h"

enum { SPAN = 16384 }; /* elements that one group of grad_norm sums */

static int64_t parts_of(const lk_tensor *tensor) {
    return (lk_count_of(tensor) + SPAN - 1) / SPAN;
}

size_t lk_scratch_grad_norm(const lk_device_caps *caps, const lk_node *node) {
    (void)caps;
    int64_t parts = 0;
    for (int i = 0; i < node->num_inputs; i++) {
        parts += parts_of(node->inputs[i]);
    }
    return (size_t)LK_MAX(parts, (int64_t)1) * sizeof(float);
}

void lk_record_grad_norm(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t parts = 0;
    for (int i = 0; i < node->num_inputs; i++) {
        lk_launch *launch = lk_launch_rows(recorder, "grad_norm", "grad_norm", lk_lanes_for_row(recorder->caps));
        lk_launch_buffer(launch, &command->inputs[i]);
        lk_launch_buffer(launch, &command->scratch);
        lk_launch_int(launch, lk_count_of(node->inputs[i]));
        lk_launch_int(launch, SPAN);
        lk_launch_int(launch, parts);
        lk_launch_groups(launch, parts_of(node->inputs[i]));
        parts += parts_of(node->inputs[i]);
    }
    lk_record_sum(recorder, &command->scratch, parts, &command->scratch, true, &command->outputs[0]);
}

void lk_record_adamw(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    const lk_adamw_attributes *adamw = &node->attributes.adamw;
    bool has_norm = lk_has_input(node, 1);
    for (int32_t g = 0; g < adamw->count; g++) {
        int first = 2 + 4 * g;
        int64_t count = lk_count_of(node->inputs[first]);
        lk_launch *launch = lk_launch_elements(recorder, "adamw");
        lk_launch_buffer(launch, &command->inputs[0]);
        lk_launch_buffer(launch, &command->inputs[has_norm ? 1 : 0]);
        for (int i = 0; i < 4; i++) {
            lk_launch_buffer(launch, &command->inputs[first + i]);
        }
        lk_launch_int(launch, count);
        lk_launch_int(launch, has_norm);
        lk_launch_float(launch, adamw->learning_rate_scales != NULL ? adamw->learning_rate_scales[g] : 1.0f);
        lk_launch_float(launch, adamw->weight_decay_scales != NULL ? adamw->weight_decay_scales[g] : 1.0f);
        lk_launch_cover(launch, recorder, count);
    }
}

void lk_record_importance(lk_recorder *recorder, const lk_command *command) {
    int64_t count = lk_count_of(command->node->inputs[2]);
    lk_launch *launch = lk_launch_elements(recorder, "importance");
    for (int i = 0; i < 6; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_int(launch, count);
    lk_launch_cover(launch, recorder, count);
}
