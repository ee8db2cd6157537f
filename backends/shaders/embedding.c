/* Rows picked by number: EMBEDDING, its backward, KV_CACHE_WRITE. */
#include "backends/shaders/rows.h"

bool lk_supports_embedding(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    (void)caps;
    lk_dtype dtype = node->inputs[1]->dtype;
    LK_REQUIRE(why, dtype == LK_DTYPE_F32 || dtype == LK_DTYPE_BF16 || dtype == LK_DTYPE_F16,
               "only f32 and 16-bit floats");
    LK_REQUIRE(why, lk_count_of(node->inputs[1]) <= INT32_MAX && lk_count_of(node->outputs[0]) <= INT32_MAX,
               "indices are 32 bits");
    return true;
}

void lk_record_embedding(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t count = lk_count_of(node->outputs[0]);
    lk_launch *launch = lk_launch_elements(recorder, "embedding");
    lk_launch_type(launch, "W_TYPE", node->inputs[1]->dtype);
    lk_launch_type(launch, "Y_TYPE", node->outputs[0]->dtype);
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, count);
    lk_launch_int(launch, node->inputs[1]->shape[1]);
    lk_launch_int(launch, node->inputs[1]->shape[0]);
    lk_launch_cover(launch, recorder, count);
}

double lk_cost_embedding_backward(const lk_device_caps *caps, const lk_node *node) {
    double tokens = (double)node->inputs[0]->shape[0]; /* each looks at the ids of all */
    return lk_cost_memory(caps, node) + tokens * tokens / (caps->flops_f32 * 0.01);
}

void lk_record_embedding_backward(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t tokens = node->inputs[0]->shape[0], count = lk_count_of(node->outputs[0]);
    lk_launch *clear = lk_launch_elements(recorder, "fill");
    lk_launch_type(clear, "Y_TYPE", LK_DTYPE_F32);
    lk_launch_buffer(clear, &command->outputs[0]);
    lk_launch_int(clear, count);
    lk_launch_float(clear, 0.0f);
    lk_launch_cover(clear, recorder, count);
    lk_launch *launch =
        lk_launch_begin(recorder, "embedding_backward", "embedding_backward", lk_lanes_for_row(recorder->caps));
    lk_launch_buffer(launch, &command->inputs[0]);
    lk_launch_buffer(launch, &command->inputs[1]);
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, tokens);
    lk_launch_int(launch, node->outputs[0]->shape[1]);
    lk_launch_int(launch, node->outputs[0]->shape[0]);
    lk_launch_groups(launch, tokens);
}

void lk_record_kv_cache_write(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t count = lk_count_of(node->inputs[1]);
    lk_launch *launch = lk_launch_elements(recorder, "kv_cache_write");
    for (int i = 0; i < 3; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_int(launch, count);
    lk_launch_int(launch, node->inputs[0]->shape[1]);
    lk_launch_int(launch, node->inputs[0]->shape[0]);
    lk_launch_cover(launch, recorder, count);
}
