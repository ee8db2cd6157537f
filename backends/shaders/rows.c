#include "backends/shaders/rows.h"

enum { ELEMENTS_PER_GROUP_CPU = 1024, ELEMENTS_PER_GROUP = 256, ROW_GROUP = 64 };

int64_t lk_count_of(const lk_tensor *tensor) {
    return tensor != NULL ? lk_tensor_elements(tensor) : 0;
}

/* The largest power of two that is allowed. */
static int32_t at_most(int32_t wanted, const lk_device_caps *caps) {
    while (wanted > 1 && caps->max_group_size > 0 && wanted > caps->max_group_size) {
        wanted /= 2;
    }
    return wanted;
}

int32_t lk_lanes_for_elements(const lk_device_caps *caps) {
    return at_most(caps->is_cpu ? ELEMENTS_PER_GROUP_CPU : ELEMENTS_PER_GROUP, caps);
}

int32_t lk_lanes_for_row(const lk_device_caps *caps) {
    return caps->is_cpu ? 1 : at_most(ROW_GROUP, caps);
}

int32_t lk_row_vector(const lk_device_caps *caps) {
    return caps->is_cpu ? 16 : 1;
}

int32_t lk_vector_width(const lk_device_caps *caps) {
    if (!caps->is_cpu) {
        return 1;
    }
    return caps->subgroup_size >= 16 ? 16 : caps->subgroup_size >= 8 ? 8 : 4;
}

lk_launch *lk_launch_rows(lk_recorder *recorder, const char *file, const char *entry, int32_t group) {
    lk_launch *launch = lk_launch_begin(recorder, file, entry, group);
    lk_launch_constant(launch, "LANES", lk_row_vector(recorder->caps));
    if (recorder->by_subgroups) {
        lk_launch_word(launch, "REDUCTION", "subgroup");
        lk_launch_constant(launch, "SUBGROUP", recorder->caps->subgroup_size);
    }
    return launch;
}

lk_launch *lk_launch_elements(lk_recorder *recorder, const char *entry) {
    return lk_launch_begin(recorder, entry, entry, lk_lanes_for_elements(recorder->caps));
}

void lk_launch_cover(lk_launch *launch, const lk_recorder *recorder, int64_t count) {
    int64_t lanes = lk_lanes_for_elements(recorder->caps);
    lk_launch_groups(launch, (count + lanes - 1) / lanes);
}

static bool supports_type(lk_dtype dtype, bool half) {
    return dtype == LK_DTYPE_F32 || dtype == LK_DTYPE_I32 ||
           (half && (dtype == LK_DTYPE_BF16 || dtype == LK_DTYPE_F16));
}

bool lk_supports_f32_but(const lk_node *node, int index, lk_refusal *why) {
    for (int i = 0; i < node->num_inputs; i++) {
        const lk_tensor *tensor = node->inputs[i];
        LK_REQUIRE(why, tensor == NULL || supports_type(tensor->dtype, i == index), "only f32 tensors");
        LK_REQUIRE(why, lk_count_of(tensor) <= INT32_MAX, "indices are 32 bits");
    }
    for (int i = 0; i < node->num_outputs; i++) {
        const lk_tensor *tensor = node->outputs[i];
        LK_REQUIRE(why, tensor == NULL || supports_type(tensor->dtype, false), "only f32 tensors");
        LK_REQUIRE(why, lk_count_of(tensor) <= INT32_MAX, "indices are 32 bits");
    }
    return true;
}

bool lk_supports_f32(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    (void)caps;
    return lk_supports_f32_but(node, -1, why);
}

double lk_cost(const lk_device_caps *caps, const lk_node *node, double efficiency) {
    double arithmetic = lk_node_flops(node) / (caps->flops_f32 * efficiency);
    double memory = lk_node_bytes(node) / caps->bandwidth;
    return caps->launch_seconds + LK_MAX(arithmetic, memory);
}

double lk_cost_memory(const lk_device_caps *caps, const lk_node *node) {
    return lk_cost(caps, node, 0.1);
}

size_t lk_scratch_none(const lk_device_caps *caps, const lk_node *node) {
    (void)caps;
    (void)node;
    return 0;
}
