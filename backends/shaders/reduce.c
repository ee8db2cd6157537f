/* Norms and sums over rows. */
#include "backends/shaders/rows.h"

static lk_launch *begin_row(lk_recorder *recorder, const char *entry) {
    return lk_launch_rows(recorder, entry, entry, lk_lanes_for_row(recorder->caps));
}

void lk_record_sum(lk_recorder *recorder, const lk_binding *x, int64_t count, const lk_binding *factor, bool takes_root,
                   const lk_binding *y) {
    lk_launch *launch = begin_row(recorder, "sum");
    lk_launch_buffer(launch, x);
    lk_launch_buffer(launch, factor);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, count);
    lk_launch_int(launch, takes_root);
    lk_launch_groups(launch, 1);
}

void lk_record_column_sums(lk_recorder *recorder, const char *function, const lk_binding *const *operands,
                           int num_operands, const lk_binding *y, int64_t rows, int64_t columns) {
    lk_launch *launch = lk_launch_elements(recorder, "sum_rows");
    lk_launch_word(launch, "FUNCTION", function);
    for (int i = 0; i < 4; i++) {
        lk_launch_buffer(launch, operands[LK_MIN(i, num_operands - 1)]);
    }
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, rows);
    lk_launch_int(launch, columns);
    lk_launch_cover(launch, recorder, columns);
}

void lk_record_sum_rows(lk_recorder *recorder, const lk_command *command) {
    const lk_binding *x = &command->inputs[0];
    lk_record_column_sums(recorder, "x", &x, 1, &command->outputs[0], command->node->inputs[0]->shape[0],
                          command->node->inputs[0]->shape[1]);
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

void lk_record_layer_norm(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t rows = node->inputs[0]->shape[0];
    lk_launch *launch = begin_row(recorder, "layer_norm");
    for (int i = 0; i < 3; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    for (int i = 0; i < 3; i++) {
        lk_launch_buffer(launch, &command->outputs[i]);
    }
    lk_launch_int(launch, rows);
    lk_launch_int(launch, node->inputs[0]->shape[1]);
    lk_launch_float(launch, node->attributes.norm.epsilon);
    for (int i = 0; i < 3; i++) {
        lk_launch_int(launch, node->outputs[i] != NULL);
    }
    lk_launch_groups(launch, rows);
}

/* dx of a norm over rows of `width`: its inputs, of which `sum` is optional, then dx. */
static void record_dx(lk_recorder *recorder, const lk_command *command, const char *entry, int64_t width, int sum) {
    bool has_sum = lk_has_input(command->node, sum);
    int64_t rows = lk_count_of(command->node->inputs[0]) / width;
    lk_launch *launch = begin_row(recorder, entry);
    for (int i = 0; i < sum; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_buffer(launch, has_sum ? &command->inputs[sum] : &command->outputs[0]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, rows);
    lk_launch_int(launch, width);
    lk_launch_int(launch, has_sum);
    lk_launch_groups(launch, rows);
}

void lk_record_rms_norm_backward(lk_recorder *recorder, const lk_command *command) {
    enum { DY, X, WEIGHT, RSTD, DX_SUM };
    const lk_node *node = command->node;
    const lk_binding *in = command->inputs;
    int64_t width = lk_count_of(node->inputs[WEIGHT]);
    if (node->outputs[1] != NULL) { /* first: dx may take the place of dx_sum only */
        lk_record_column_sums(recorder, "scaled", (const lk_binding *[]){&in[DY], &in[X], &in[RSTD]}, 3,
                              &command->outputs[1], lk_count_of(node->inputs[X]) / width, width);
    }
    if (node->outputs[0] != NULL) {
        record_dx(recorder, command, "rms_norm_backward", width, DX_SUM);
    }
}

void lk_record_layer_norm_backward(lk_recorder *recorder, const lk_command *command) {
    enum { DY, X, WEIGHT, MEAN, RSTD, DX_SUM };
    const lk_node *node = command->node;
    const lk_binding *in = command->inputs;
    int64_t rows = node->inputs[X]->shape[0], width = node->inputs[X]->shape[1];
    if (node->outputs[1] != NULL) {
        lk_record_column_sums(recorder, "normed", (const lk_binding *[]){&in[DY], &in[X], &in[MEAN], &in[RSTD]}, 4,
                              &command->outputs[1], rows, width);
    }
    if (node->outputs[2] != NULL) {
        lk_record_column_sums(recorder, "x", (const lk_binding *[]){&in[DY]}, 1, &command->outputs[2], rows, width);
    }
    if (node->outputs[0] != NULL) {
        record_dx(recorder, command, "layer_norm_backward", width, DX_SUM);
    }
}

/* ORTHOGONALITY and its backward: the inputs, then the output. */
void lk_record_orthogonality(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    lk_launch *launch =
        lk_launch_rows(recorder, "orthogonality", lk_op_name(node->op), lk_lanes_for_row(recorder->caps));
    for (int i = 0; i < node->num_inputs; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, node->inputs[node->num_inputs - 1]->shape[0]);
    lk_launch_groups(launch, 1);
}
