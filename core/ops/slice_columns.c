#include <string.h>

#include "core/graph/ops.h"

lk_status lk_op_slice_columns_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    const lk_slice_attributes *slice = &node->attributes.slice;
    LK_TRY(lk_expect(context, node, 0, "x", LK_KIND_FLOAT, 2, -1, -1));
    int64_t columns = node->inputs[0]->shape[1];
    LK_TRY(lk_expect_attribute(context, node,
                               slice->first >= 0 && slice->count > 0 && slice->count <= columns &&
                                   slice->first <= columns - slice->count,
                               "the slice must lie within the columns of x"));
    shapes[0] = lk_shape_make(node->inputs[0]->dtype, 2, node->inputs[0]->shape[0], slice->count);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_slice_columns_reference(const lk_reference_call *call) {
    const lk_slice_attributes *slice = &call->node->attributes.slice;
    int64_t rows = call->node->inputs[0]->shape[0], columns = call->node->inputs[0]->shape[1];
    for (int64_t i = 0; i < rows; i++) {
        memcpy(call->outputs[0] + i * slice->count, call->inputs[0] + i * columns + slice->first,
               (size_t)slice->count * sizeof(double));
    }
    return LK_OK;
}

lk_status lk_op_slice_columns_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                       const bool *needed, lk_tensor **d_inputs) {
    if (needed[0]) {
        lk_tensor *inputs[] = {d_outputs[0], NULL};
        lk_attributes attributes = node->attributes;
        attributes.slice.columns = node->inputs[0]->shape[1];
        d_inputs[0] = lk_graph_add(graph, LK_OP_SLICE_COLUMNS_BACKWARD, 2, inputs, &attributes, 1, 0, NULL);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_slice_columns(lk_graph *graph, lk_tensor *x, int64_t first, int64_t count) {
    lk_attributes attributes = {.slice = {.first = first, .count = count}};
    return lk_graph_add(graph, LK_OP_SLICE_COLUMNS, 1, &x, &attributes, 1, 0, NULL);
}
