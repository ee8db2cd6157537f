#include <string.h>

#include "core/graph/ops.h"
#include "core/ops/cayley.h"

lk_status lk_op_cayley_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    const lk_cayley_attributes *cayley = &node->attributes.cayley;
    LK_TRY(lk_expect_attribute(context, node, cayley->size >= 2 && cayley->size <= 1 << 20 && cayley->terms >= 0,
                               "blocks have 2 rows or more, and the number of terms is not negative"));
    LK_TRY(lk_expect(context, node, 0, "triangles", LK_KIND_FLOAT, 2, -1, lk_cayley_triangle(cayley->size)));
    const lk_tensor *triangles = node->inputs[0];
    shapes[0] = lk_shape_make(triangles->dtype, 2, triangles->shape[0] * cayley->size, cayley->size);
    *num_outputs = 1;
    return LK_OK;
}

double lk_op_cayley_flops(const lk_node *node) {
    const lk_cayley_attributes *cayley = &node->attributes.cayley;
    double size = (double)cayley->size, blocks = (double)node->inputs[0]->shape[0];
    return 2.0 * blocks * size * size * size * (double)LK_MAX(lk_cayley_degree(cayley->terms), 1);
}

lk_status lk_op_cayley_reference(const lk_reference_call *call) {
    const lk_cayley_attributes *cayley = &call->node->attributes.cayley;
    int64_t size = cayley->size, triangle = lk_cayley_triangle(size);
    double *scratch = lk_calloc(call->context, 2 * (size_t)(size * size), sizeof *scratch);
    if (scratch == NULL) {
        return lk_out_of_memory(call->context, 2 * (size_t)(size * size) * sizeof *scratch, "cayley");
    }
    for (int64_t g = 0; g < call->node->inputs[0]->shape[0]; g++) {
        lk_cayley_block(call->inputs[0] + g * triangle, size, cayley->terms, scratch,
                        call->outputs[0] + g * size * size);
    }
    lk_free(call->context, scratch);
    return LK_OK;
}

lk_status lk_op_cayley_gradient(lk_graph *graph, const lk_node *node, lk_tensor *const *d_outputs, const bool *needed,
                                lk_tensor **d_inputs) {
    if (needed[0]) {
        lk_tensor *inputs[] = {d_outputs[0], node->inputs[0]};
        d_inputs[0] = lk_graph_add(graph, LK_OP_CAYLEY_BACKWARD, 2, inputs, &node->attributes, 1, 0, NULL);
    }
    return lk_graph_status(graph);
}

lk_tensor *lk_build_cayley(lk_graph *graph, lk_tensor *triangles, int64_t size, int32_t terms) {
    lk_attributes attributes = {.cayley = {size, terms}};
    return lk_graph_add(graph, LK_OP_CAYLEY, 1, &triangles, &attributes, 1, 0, NULL);
}
