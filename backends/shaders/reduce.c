/* Norms and sums over rows. */
#include "backends/shaders/rows.h"

static lk_launch *begin_row(lk_recorder *recorder, const char *entry) {
    lk_launch *launch = lk_launch_begin(recorder, entry, entry, lk_lanes_for_row(recorder->caps));
    lk_launch_constant(launch, "LANES", lk_row_vector(recorder->caps));
    return launch;
}

void lk_record_rms_norm(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t width = lk_count_of(node->inputs[1]), rows = lk_count_of(node->inputs[0]) / width;
    lk_launch *launch = begin_row(recorder, "rms_norm");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_buffer(launch, &command->outputs[1]);
    lk_launch_int(launch, rows);
    lk_launch_int(launch, width);
    lk_launch_float(launch, node->attributes.norm.epsilon);
    lk_launch_int(launch, node->outputs[0] != NULL);
    lk_launch_int(launch, node->outputs[1] != NULL);
    lk_launch_groups(launch, rows);
}

static void record_dweight(lk_recorder *recorder, const lk_command *command, int64_t rows, int64_t width) {
    lk_launch *launch =
        lk_launch_begin(recorder, "rms_norm_backward", "rms_norm_dweight", lk_lanes_for_elements(recorder->caps));
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, &command->inputs[3]);
    lk_launch_buffer(launch, &command->outputs[1]);
    lk_launch_int(launch, rows);
    lk_launch_int(launch, width);
    lk_launch_cover(launch, recorder, width);
}

void lk_record_rms_norm_backward(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t width = lk_count_of(node->inputs[2]), rows = lk_count_of(node->inputs[1]) / width;
    bool has_sum = lk_has_input(node, 4);
    if (node->outputs[1] != NULL) {
        record_dweight(recorder, command, rows, width);
    }
    if (node->outputs[0] == NULL) {
        return;
    }
    lk_launch *launch = begin_row(recorder, "rms_norm_backward");
    for (int i = 0; i < 4; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_buffer(launch, has_sum ? &command->inputs[4] : &command->outputs[0]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, rows);
    lk_launch_int(launch, width);
    lk_launch_int(launch, has_sum);
    lk_launch_groups(launch, rows);
}

void lk_record_sum_rows(lk_recorder *recorder, const lk_command *command) {
    const lk_tensor *x = command->node->inputs[0];
    lk_launch *launch = lk_launch_elements(recorder, "sum_rows");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, x->shape[0]);
    lk_launch_int(launch, x->shape[1]);
    lk_launch_cover(launch, recorder, x->shape[1]);
}
