/* Ops whose elements do not meet. */
#include "backends/shaders/rows.h"

/* Two inputs of the op's own kernel, no attributes: ADD, MUL, MUL_SCALAR, SWIGLU. */
void lk_record_binary(lk_recorder *recorder, const lk_command *command) {
    int64_t count = lk_count_of(command->node->inputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, lk_op_name(command->node->op));
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_scale(lk_recorder *recorder, const lk_command *command) {
    int64_t count = lk_count_of(command->node->inputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "scale");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_float(launch, command->node->attributes.scale.value);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_add_bias(lk_recorder *recorder, const lk_command *command) {
    int64_t count = lk_count_of(command->node->inputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "add_bias");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_int(launch, command->node->inputs[0]->shape[1]);
    lk_launch_cover(launch, recorder, count);
}

static bool is_plain(lk_dtype dtype) {
    return dtype == LK_DTYPE_F32 || dtype == LK_DTYPE_BF16 || dtype == LK_DTYPE_F16 || dtype == LK_DTYPE_I32;
}

bool lk_supports_cast(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    (void)caps;
    LK_REQUIRE(why, is_plain(node->inputs[0]->dtype) && is_plain(node->outputs[0]->dtype),
               "only f32, 16-bit floats, i32");
    LK_REQUIRE(why, lk_count_of(node->inputs[0]) <= INT32_MAX, "indices are 32 bits");
    return true;
}

void lk_record_cast(lk_recorder *recorder, const lk_command *command) {
    int64_t count = lk_count_of(command->node->inputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "cast");
    lk_launch_type(launch, "X_TYPE", command->node->inputs[0]->dtype);
    lk_launch_type(launch, "Y_TYPE", command->node->outputs[0]->dtype);
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_cover(launch, recorder, count);
}

bool lk_supports_fill(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    (void)caps;
    LK_REQUIRE(why, is_plain(node->outputs[0]->dtype), "only f32, 16-bit floats, i32");
    LK_REQUIRE(why, lk_count_of(node->outputs[0]) <= INT32_MAX, "indices are 32 bits");
    return true;
}

static void record_fill(lk_recorder *recorder, const lk_binding *y, const lk_tensor *tensor, float value) {
    int64_t count = lk_count_of(tensor);
    lk_launch *launch = lk_launch_elements(recorder, "fill");
    lk_launch_type(launch, "Y_TYPE", tensor->dtype);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, count);
    lk_launch_float(launch, value);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_fill(lk_recorder *recorder, const lk_command *command) {
    record_fill(recorder, &command->outputs[0], command->node->outputs[0], command->node->attributes.shape.value);
}

void lk_record_clear(lk_recorder *recorder, const lk_command *command) {
    for (int i = 0; i < command->node->num_inputs; i++) {
        record_fill(recorder, &command->inputs[i], command->node->inputs[i], 0.0f);
    }
}

void lk_record_accumulate(lk_recorder *recorder, const lk_command *command) {
    int64_t count = lk_count_of(command->node->inputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "accumulate");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_int(launch, count);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_swiglu_backward(lk_recorder *recorder, const lk_command *command) {
    int64_t count = lk_count_of(command->node->inputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "swiglu_backward");
    for (int i = 0; i < 3; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_buffer(launch, &command->outputs[1]);
    lk_launch_int(launch, count);
    lk_launch_int(launch, command->node->outputs[0] != NULL);
    lk_launch_int(launch, command->node->outputs[1] != NULL);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_dropout(lk_recorder *recorder, const lk_command *command) {
    const lk_dropout_attributes *dropout = &command->node->attributes.dropout;
    int64_t count = lk_count_of(command->node->inputs[0]);
    lk_binding rng =
        command->node->num_inputs > 1 && command->node->inputs[1] != NULL ? command->inputs[1] : command->inputs[0];
    lk_record_mask(recorder, &command->inputs[0], &rng, &command->outputs[0], count, dropout->probability,
                   dropout->stream);
}

void lk_record_mask(lk_recorder *recorder, const lk_binding *x, const lk_binding *rng, const lk_binding *y,
                    int64_t count, float probability, uint32_t stream) {
    lk_launch *launch = lk_launch_elements(recorder, "dropout");
    lk_launch_buffer(launch, x);
    lk_launch_buffer(launch, rng);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, count);
    lk_launch_float(launch, probability);
    lk_launch_float(launch, (float)(1.0 / (1.0 - (double)probability)));
    lk_launch_int(launch, stream);
    lk_launch_cover(launch, recorder, (count + 3) / 4);
}

void lk_record_rope_table(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t half_dim = lk_count_of(node->inputs[1]), count = lk_count_of(node->inputs[0]) * half_dim;
    lk_launch *launch = lk_launch_elements(recorder, "rope_table");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_buffer(launch, &command->outputs[1]);
    lk_launch_int(launch, count);
    lk_launch_int(launch, half_dim);
    lk_launch_int(launch, node->outputs[0] != NULL);
    lk_launch_int(launch, node->outputs[1] != NULL);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_rope(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t head_dim = node->attributes.rope.head_dim, half_dim = node->inputs[1]->shape[1];
    int64_t heads = node->inputs[0]->shape[1] / head_dim;
    int64_t count = node->inputs[0]->shape[0] * heads * (head_dim - half_dim);
    lk_launch *launch = lk_launch_elements(recorder, "rope");
    for (int i = 0; i < 3; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_int(launch, heads);
    lk_launch_int(launch, head_dim);
    lk_launch_int(launch, half_dim);
    lk_launch_float(launch, node->attributes.rope.inverse ? -1.0f : 1.0f);
    lk_launch_cover(launch, recorder, count);
}
