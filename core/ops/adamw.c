#include "core/graph/ops.h"

#include <math.h>

enum { HYPER, NORM, FIRST_GROUP, GROUP = 4 };

lk_status lk_op_adamw_infer(lk_context *context, const lk_node *node, lk_shape *shapes, int *num_outputs) {
    (void)shapes;
    int32_t count = node->attributes.adamw.count;
    LK_TRY(lk_expect(context, node, HYPER, "hyper", LK_KIND_FLOAT, 1, LK_ADAMW_HYPER_COUNT, 0));
    if (lk_has_input(node, NORM)) {
        LK_TRY(lk_expect(context, node, NORM, "norm", LK_KIND_FLOAT, 1, 1, 0));
    }
    LK_TRY(lk_expect_attribute(context, node, count >= 0 && node->num_inputs == FIRST_GROUP + GROUP * count,
                               "inputs must come in groups of four"));
    for (int i = FIRST_GROUP; i < node->num_inputs; i++) {
        static const char *const names[GROUP] = {"parameter", "gradient", "m", "v"};
        int member = (i - FIRST_GROUP) % GROUP;
        LK_TRY(lk_expect_like(context, node, i, names[member], i - member));
    }
    *num_outputs = 0;
    return LK_OK;
}

lk_status lk_op_adamw_reference(const lk_reference_call *call) {
    const lk_node *node = call->node;
    const double *hyper = call->inputs[HYPER];
    double beta1 = hyper[LK_ADAMW_BETA1], beta2 = hyper[LK_ADAMW_BETA2], epsilon = hyper[LK_ADAMW_EPSILON];
    double clip = 1.0;
    if (lk_has_input(node, NORM) && !isfinite(call->inputs[NORM][0])) {
        return LK_OK; /* a step whose gradients overflowed changes nothing */
    }
    if (lk_has_input(node, NORM) && hyper[LK_ADAMW_MAX_NORM] > 0.0) {
        clip = fmin(1.0, hyper[LK_ADAMW_MAX_NORM] / (call->inputs[NORM][0] + 1e-6));
    }
    for (int32_t g = 0; g < node->attributes.adamw.count; g++) {
        int at = FIRST_GROUP + GROUP * g;
        const float *lr_scales = node->attributes.adamw.learning_rate_scales;
        const float *decay_scales = node->attributes.adamw.weight_decay_scales;
        double rate = hyper[LK_ADAMW_LEARNING_RATE] * (lr_scales ? (double)lr_scales[g] : 1.0);
        double decay = hyper[LK_ADAMW_WEIGHT_DECAY] * (decay_scales ? (double)decay_scales[g] : 1.0);
        double *p = call->inputs[at], *m = call->inputs[at + 2], *v = call->inputs[at + 3];
        for (int64_t i = 0; i < lk_tensor_elements(node->inputs[at]); i++) {
            double d = clip * call->inputs[at + 1][i];
            m[i] = beta1 * m[i] + (1.0 - beta1) * d;
            v[i] = beta2 * v[i] + (1.0 - beta2) * d * d;
            double m_hat = m[i] / hyper[LK_ADAMW_BIAS_CORRECTION1];
            double root = sqrt(v[i] / hyper[LK_ADAMW_BIAS_CORRECTION2]);
            p[i] = p[i] * (1.0 - rate * decay) - rate * m_hat / (root + epsilon);
        }
    }
    return LK_OK;
}

void lk_build_adamw(lk_graph *graph, lk_tensor *hyper, lk_tensor *norm, int count, lk_tensor *const *parameters,
                    lk_tensor *const *gradients, lk_tensor *const *first, lk_tensor *const *second,
                    const float *learning_rate_scales, const float *weight_decay_scales) {
    size_t num_inputs = FIRST_GROUP + GROUP * (size_t)count;
    lk_tensor **inputs = lk_arena_alloc(&graph->arena, num_inputs * sizeof(lk_tensor *));
    if (inputs == NULL) {
        lk_graph_out_of_memory(graph);
        return;
    }
    inputs[HYPER] = hyper;
    inputs[NORM] = norm;
    for (int g = 0; g < count; g++) {
        lk_tensor **group = inputs + FIRST_GROUP + GROUP * (size_t)g;
        group[0] = parameters[g];
        group[1] = gradients[g];
        group[2] = first[g];
        group[3] = second[g];
    }
    lk_attributes attributes = {.adamw = {count, learning_rate_scales, weight_decay_scales}};
    lk_graph_add(graph, LK_OP_ADAMW, (int)num_inputs, inputs, &attributes, 0, 0, NULL);
}
