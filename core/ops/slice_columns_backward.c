#include "core/graph/ops.h"

lk_status lk_op_slice_columns_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes,
                                             int *num_outputs) {
    const lk_slice_attributes *slice = &node->attributes.slice;
    LK_TRY(lk_expect(context, node, 0, "dy", LK_KIND_FLOAT, 2, -1, slice->count));
    LK_TRY(lk_expect_attribute(context, node,
                               slice->first >= 0 && slice->count > 0 && slice->count <= slice->columns &&
                                   slice->first <= slice->columns - slice->count,
                               "the slice must lie within the columns of dx"));
    if (lk_has_input(node, 1)) {
        LK_TRY(lk_expect(context, node, 1, "dx_sum", LK_KIND_FLOAT, 2, node->inputs[0]->shape[0], slice->columns));
    }
    shapes[0] = lk_shape_make(node->inputs[0]->dtype, 2, node->inputs[0]->shape[0], slice->columns);
    *num_outputs = 1;
    return LK_OK;
}

lk_status lk_op_slice_columns_backward_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    const lk_slice_attributes *slice = &node->attributes.slice;
    int64_t rows = node->inputs[0]->shape[0], columns = slice->columns;
    for (int64_t i = 0; i < rows * columns; i++) {
        call->outputs[0][i] = lk_has_input(node, 1) ? call->inputs[1][i] : 0.0;
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < slice->count; j++) {
            call->outputs[0][i * columns + slice->first + j] += call->inputs[0][i * slice->count + j];
        }
    }
    return LK_OK;
}

lk_status lk_op_slice_columns_backward_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs,
                                                const bool *needed, lk_tensor **d_inputs) {
    const lk_slice_attributes *slice = &node->attributes.slice;
    d_inputs[0] = needed[0] ? lk_build_slice_columns(graph, d_outputs[0], slice->first, slice->count) : NULL;
    if (lk_has_input(node, 1) && needed[1]) {
        d_inputs[1] = d_outputs[0];
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_place_columns(lk_graph *graph, lk_tensor *x, int64_t first, int64_t columns, lk_tensor *sum) {
    lk_tensor *inputs[] = {x, sum};
    lk_attributes attributes = {.slice = {.first = first, .columns = columns}};
    attributes.slice.count = x != NULL ? x->shape[1] : 0;
    return lk_graph_add(graph, LK_OP_SLICE_COLUMNS_BACKWARD, 2, inputs, &attributes, 1, 0, NULL);
}
