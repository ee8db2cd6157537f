#include <string.h>

#include "core/graph/ops.h"
#include "core/ops/cayley.h"

lk_status lk_op_cayley_backward_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    int64_t size = node->attributes.cayley.size;
    LK_TRY(lk_expect(context, node, 1, "triangles", LK_KIND_FLOAT, 2, -1, lk_cayley_triangle(size)));
    LK_TRY(lk_expect(context, node, 0, "dblocks", LK_KIND_FLOAT, 2, node->inputs[1]->shape[0] * size, size));
    shapes[0] = lk_shape_of(node->inputs[1]);
    *num_outputs = 1;
    return LK_OK;
}

double lk_op_cayley_backward_flops(const lk_node *node) {
    const lk_cayley_attributes *cayley = &node->attributes.cayley;
    double size = (double)cayley->size, blocks = (double)node->inputs[1]->shape[0];
    return 6.0 * blocks * size * size * size * (double)LK_MAX(lk_cayley_degree(cayley->terms), 1);
}

/* With H_p = c_p I + Q H_p+1 and R = H_0: dQ = sum of G_p H_p+1', G_0 = dR, G_p+1 = Q' G_p. */
static void series_backward(const double *d_r, const double *triangle, int64_t size, int degree, double *scratch,
                            double *d_q) {
    int64_t area = size * size;
    double *minus = scratch, *g = minus + area, *next = g + area, *h = next + area; /* h: degree matrices, transposed */
    lk_cayley_matrix(triangle, size, 0.0, -1.0, minus);
    memcpy(g, d_r, (size_t)area * sizeof *g);
    memset(d_q, 0, (size_t)area * sizeof *d_q);
    for (int p = degree; p >= 1; p--) {
        double *made = h + (p - 1) * area, c = lk_cayley_coefficient(degree, p);
        if (p == degree) {
            for (int64_t i = 0; i < area; i++) {
                made[i] = i % (size + 1) == 0 ? c : 0.0;
            }
        } else {
            lk_cayley_product(minus, made + area, size, 1.0, c, made);
        }
    }
    for (int p = 0; p < degree; p++) {
        lk_cayley_product(g, h + p * area, size, 1.0, 0.0, next);
        for (int64_t i = 0; i < area; i++) {
            d_q[i] += next[i];
        }
        lk_cayley_product(minus, g, size, 1.0, 0.0, next);
        memcpy(g, next, (size_t)area * sizeof *g);
    }
}

lk_status lk_op_cayley_backward_reference(const lk_reference_call *call) {
    const lk_cayley_attributes *cayley = &call->node->attributes.cayley;
    int64_t size = cayley->size, area = size * size, triangle = lk_cayley_triangle(size);
    size_t matrices = 4 + (size_t)LK_MAX(lk_cayley_degree(cayley->terms), 1);
    double *d_q = lk_calloc(call->context, matrices * (size_t)area, sizeof *d_q);
    if (d_q == NULL) {
        return lk_out_of_memory(call->context, matrices * (size_t)area * sizeof *d_q, "cayley_backward");
    }
    for (int64_t g = 0; g < call->node->inputs[1]->shape[0]; g++) {
        const double *d_r = call->inputs[0] + g * area, *from = call->inputs[1] + g * triangle;
        double *out = call->outputs[0] + g * triangle;
        if (cayley->terms == 0) {
            lk_cayley_exact_backward(d_r, from, size, d_q + area, d_q);
        } else {
            series_backward(d_r, from, size, lk_cayley_degree(cayley->terms), d_q + area, d_q);
        }
        for (int64_t i = 0; i < size; i++) {
            for (int64_t j = i + 1; j < size; j++) {
                *out++ = d_q[i * size + j] - d_q[j * size + i];
            }
        }
    }
    lk_free(call->context, d_q);
    return LK_OK;
}
