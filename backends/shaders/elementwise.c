/* Ops whose elements do not meet. */
#include "backends/shaders/rows.h"

/* y = function(a, b); how b lies along a shows in its size. */
static void record_function(lk_recorder *recorder, const char *function, const lk_binding *a, const lk_binding *b,
                            const lk_binding *y, int64_t count, int64_t count_b, float value) {
    lk_launch *launch = lk_launch_elements(recorder, "elementwise");
    lk_launch_constant(launch, "SPREAD", count_b == count ? 0 : count_b == 1 ? 1 : 2);
    lk_launch_word(launch, "FUNCTION", function);
    lk_launch_buffer(launch, a);
    lk_launch_buffer(launch, b);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, count);
    lk_launch_int(launch, count_b);
    lk_launch_float(launch, value);
    lk_launch_cover(launch, recorder, count);
}

static void record_unary(lk_recorder *recorder, const lk_command *command, const char *function, float value) {
    int64_t count = lk_count_of(command->node->inputs[0]);
    record_function(recorder, function, &command->inputs[0], &command->inputs[0], &command->outputs[0], count, count,
                    value);
}

static void record_binary(lk_recorder *recorder, const lk_command *command, const char *function) {
    int64_t count = lk_count_of(command->node->inputs[0]), count_b = lk_count_of(command->node->inputs[1]);
    record_function(recorder, function, &command->inputs[0], &command->inputs[1], &command->outputs[0], count, count_b,
                    0.0f);
}

/* RELU, TANH */
void lk_record_unary(lk_recorder *recorder, const lk_command *command) {
    record_unary(recorder, command, lk_op_name(command->node->op), 0.0f);
}

/* SWIGLU, TANH_BACKWARD, RELU_BACKWARD */
void lk_record_binary(lk_recorder *recorder, const lk_command *command) {
    record_binary(recorder, command, lk_op_name(command->node->op));
}

/* ADD, ADD_BIAS */
void lk_record_add(lk_recorder *recorder, const lk_command *command) {
    record_binary(recorder, command, "add");
}

/* MUL, MUL_SCALAR, MUL_COLUMNS */
void lk_record_mul(lk_recorder *recorder, const lk_command *command) {
    record_binary(recorder, command, "mul");
}

void lk_record_scale(lk_recorder *recorder, const lk_command *command) {
    record_unary(recorder, command, "scale", command->node->attributes.scale.value);
}

void lk_record_gelu(lk_recorder *recorder, const lk_command *command) {
    record_unary(recorder, command, command->node->attributes.gelu.tanh_approximation ? "gelu_tanh" : "gelu", 0.0f);
}

void lk_record_gelu_backward(lk_recorder *recorder, const lk_command *command) {
    bool approximate = command->node->attributes.gelu.tanh_approximation;
    record_binary(recorder, command, approximate ? "gelu_tanh_backward" : "gelu_backward");
}

void lk_record_sum_into(lk_recorder *recorder, const lk_binding *sum, const lk_binding *x, int64_t count) {
    record_function(recorder, "add", sum, x, sum, count, count, 0.0f);
}

void lk_record_accumulate(lk_recorder *recorder, const lk_command *command) {
    lk_record_sum_into(recorder, &command->inputs[0], &command->inputs[1], lk_count_of(command->node->inputs[0]));
}

/* dx = dy scale by columns, dscale by sum_rows.lk */
void lk_record_mul_columns_backward(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    if (node->outputs[1] != NULL) {
        lk_record_column_sums(recorder, "product", (const lk_binding *[]){&command->inputs[0], &command->inputs[1]}, 2,
                              &command->outputs[1], node->inputs[0]->shape[0], node->inputs[0]->shape[1]);
    }
    if (node->outputs[0] != NULL) {
        record_function(recorder, "mul", &command->inputs[0], &command->inputs[2], &command->outputs[0],
                        lk_count_of(node->inputs[0]), lk_count_of(node->inputs[2]), 0.0f);
    }
}

static void add_slice(lk_launch *launch, const lk_slice_attributes *slice, int64_t count, int64_t columns) {
    lk_launch_int(launch, count);
    lk_launch_int(launch, columns);
    lk_launch_int(launch, slice->first);
    lk_launch_int(launch, slice->count);
}

void lk_record_slice_columns(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t count = lk_count_of(node->outputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "slice_columns");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->outputs[0]);
    add_slice(launch, &node->attributes.slice, count, node->inputs[0]->shape[1]);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_slice_columns_backward(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t count = lk_count_of(node->outputs[0]);
    bool has_sum = lk_has_input(node, 1);
    lk_launch *launch =
        lk_launch_begin(recorder, "slice_columns", "slice_columns_backward", lk_lanes_for_elements(recorder->caps));
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, has_sum ? &command->inputs[1] : &command->outputs[0]);
    lk_launch_buffer(launch, &command->outputs[0]);
    add_slice(launch, &node->attributes.slice, count, node->attributes.slice.columns);
    lk_launch_int(launch, has_sum);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_transpose(lk_recorder *recorder, const lk_command *command) {
    const lk_transpose_attributes *transpose = &command->node->attributes.transpose;
    int64_t count = lk_count_of(command->node->outputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "transpose");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_int(launch, transpose->rows);
    lk_launch_int(launch, transpose->columns);
    lk_launch_int(launch, transpose->inner);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_block_linear(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t count = lk_count_of(node->outputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "block_linear");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_int(launch, node->inputs[0]->shape[1]);
    lk_launch_int(launch, node->inputs[1]->shape[1]);
    lk_launch_int(launch, node->attributes.matmul.transpose_b);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_block_outer(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t count = lk_count_of(node->outputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "block_outer");
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_int(launch, node->inputs[0]->shape[0]);
    lk_launch_int(launch, node->inputs[0]->shape[1]);
    lk_launch_int(launch, node->attributes.block.size);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_dora_norm(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t count = lk_count_of(node->outputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "dora_norm");
    for (int i = 0; i < 4; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_int(launch, node->inputs[3]->shape[1]);
    lk_launch_float(launch, node->attributes.lora.scale);
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

void lk_record_cast_into(lk_recorder *recorder, const lk_binding *x, lk_dtype x_type, const lk_binding *y,
                         lk_dtype y_type, int64_t count) {
    lk_launch *launch = lk_launch_elements(recorder, "cast");
    lk_launch_type(launch, "X_TYPE", x_type);
    lk_launch_type(launch, "Y_TYPE", y_type);
    lk_launch_buffer(launch, x);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, count);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_cast(lk_recorder *recorder, const lk_command *command) {
    const lk_tensor *x = command->node->inputs[0], *y = command->node->outputs[0];
    lk_record_cast_into(recorder, &command->inputs[0], x->dtype, &command->outputs[0], y->dtype, lk_count_of(x));
}

bool lk_supports_fill(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    (void)caps;
    LK_REQUIRE(why, is_plain(node->outputs[0]->dtype), "only f32, 16-bit floats, i32");
    LK_REQUIRE(why, lk_count_of(node->outputs[0]) <= INT32_MAX, "indices are 32 bits");
    return true;
}

void lk_record_fill_with(lk_recorder *recorder, const lk_binding *y, lk_dtype y_type, int64_t count, float value) {
    lk_launch *launch = lk_launch_elements(recorder, "fill");
    lk_launch_type(launch, "Y_TYPE", y_type);
    lk_launch_buffer(launch, y);
    lk_launch_int(launch, count);
    lk_launch_float(launch, value);
    lk_launch_cover(launch, recorder, count);
}

void lk_record_fill(lk_recorder *recorder, const lk_command *command) {
    const lk_tensor *y = command->node->outputs[0];
    lk_record_fill_with(recorder, &command->outputs[0], y->dtype, lk_count_of(y),
                        command->node->attributes.shape.value);
}

void lk_record_clear(lk_recorder *recorder, const lk_command *command) {
    for (int i = 0; i < command->node->num_inputs; i++) {
        const lk_tensor *x = command->node->inputs[i];
        lk_record_fill_with(recorder, &command->inputs[i], x->dtype, lk_count_of(x), 0.0f);
    }
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
