#include "core/graph/ops.h"

#include <string.h>

lk_status lk_op_fill_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    const lk_shape_attributes *shape = &node->attributes.shape;
    LK_TRY(lk_expect_attribute(context, node, shape->rank >= 1 && shape->rank <= LK_MAX_RANK, "rank must be 1 to 4"));
    shapes[0] = (lk_shape){shape->dtype, shape->rank, {1, 1, 1, 1}};
    memcpy(shapes[0].extent, shape->shape, (size_t)shape->rank * sizeof shape->shape[0]);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_fill_reference(const lk_reference_call *call) {
    for (int64_t i = 0; i < lk_tensor_elements(call->node->outputs[0]); i++) {
        call->outputs[0][i] = (double)call->node->attributes.shape.value;
    }
    return LK_OK;
}

lk_tensor *lk_build_fill(lk_graph *graph, lk_dtype dtype, int rank, const int64_t *shape, float value) {
    lk_attributes attributes = {.shape = {dtype, rank, {1, 1, 1, 1}, value}};
    memcpy(attributes.shape.shape, shape, (size_t)rank * sizeof *shape);
    return lk_graph_add(graph, LK_OP_FILL, 0, NULL, &attributes, 1, 0, NULL);
}
