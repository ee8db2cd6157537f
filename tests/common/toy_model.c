#include "tests/common/toy_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* No allocation but the library's, and no assertion: the model is built while memory fails, too. */
typedef struct builder {
    lk_context *context;
    lk_variables *variables;
    const toy_options *options;
    toy_model *model;
    lk_status status;
    uint64_t stream;
} builder;

enum { MAX_ELEMENTS = 128 };

static void set_value(lk_dtype dtype, void *bytes, int64_t i, double value) {
    if (dtype == LK_DTYPE_F64) {
        ((double *)bytes)[i] = value;
    } else if (dtype == LK_DTYPE_F32) {
        ((float *)bytes)[i] = (float)value;
    } else {
        ((int32_t *)bytes)[i] = (int32_t)value;
    }
}

/* The variable of this name, made at the first call with values offset + scale * normal, or from `integers`. */
static lk_tensor *variable(builder *self, const char *name, lk_role role, bool train, int64_t rows, int64_t columns,
                           double offset, double scale, const int32_t *integers) {
    if (self->status != LK_OK) {
        return NULL;
    }
    lk_variable *found = lk_variables_find(self->variables, name);
    if (found == NULL) {
        double bytes[MAX_ELEMENTS];
        const int64_t shape[] = {rows, columns};
        lk_dtype dtype = integers != NULL ? LK_DTYPE_I32 : self->options->dtype;
        self->status = lk_variables_add(self->variables, name, role, "test", dtype, columns > 0 ? 2 : 1, shape, &found);
        for (int64_t i = 0; i < rows * (columns > 0 ? columns : 1); i++) {
            uint32_t words[4];
            double pair[2];
            lk_philox4x32(self->options->seed, self->stream, (uint64_t)i, words);
            lk_normal_pair_from_bits(words[0], words[1], pair);
            set_value(dtype, bytes, i, integers != NULL ? (double)integers[i] : offset + scale * pair[0]);
        }
        self->stream++;
        if (self->status == LK_OK) {
            self->status = lk_variable_upload(found, bytes);
        }
    }
    lk_graph_fail(self->model->graph, self->status); /* later calls do nothing, and the message stays */
    lk_tensor *tensor = self->status == LK_OK ? lk_graph_variable(self->model->graph, found) : NULL;
    for (int i = 0; i < self->model->num_trained && train; i++) {
        train = self->model->trained[i] != tensor;
    }
    if (train && tensor != NULL) {
        self->model->trained[self->model->num_trained++] = tensor;
    }
    return tensor;
}

static lk_tensor *norm(builder *self, const char *name, lk_tensor *x) {
    lk_tensor *weight = variable(self, name, self->options->train_norms ? LK_ROLE_STATE : LK_ROLE_WEIGHT,
                                 self->options->train_norms, TOY_HIDDEN, 0, 1.0, 0.2, NULL);
    return lk_build_rms_norm(self->model->graph, x, weight, 1e-5f);
}

static lk_tensor *linear(builder *self, int layer, toy_linear which, lk_tensor *x) {
    static const char *const names[] = {"q", "k", "v", "o", "gate", "up", "down"};
    static const int64_t outs[] = {TOY_HEADS * TOY_HEAD_DIM,
                                   TOY_KV_HEADS * TOY_HEAD_DIM,
                                   TOY_KV_HEADS * TOY_HEAD_DIM,
                                   TOY_HIDDEN,
                                   TOY_INNER,
                                   TOY_INNER,
                                   TOY_HIDDEN};
    int64_t in = which == TOY_DOWN ? TOY_INNER : TOY_HIDDEN, out = outs[which];
    lk_graph *graph = self->model->graph;
    const toy_options *options = self->options;
    char name[64];
    snprintf(name, sizeof name, "layers.%d.%s.weight", layer, names[which]);
    lk_tensor *weight = variable(self, name, LK_ROLE_WEIGHT, false, out, in, 0.0, 0.25, NULL), *bias = NULL;
    if (which == TOY_Q) {
        snprintf(name, sizeof name, "layers.%d.%s.bias", layer, names[which]);
        bias = variable(self, name, options->train_biases ? LK_ROLE_STATE : LK_ROLE_WEIGHT, options->train_biases, out,
                        0, 0.0, 0.3, NULL);
    }
    if ((options->adapted[layer] >> which & 1u) == 0) {
        return lk_build_linear(graph, x, weight, bias);
    }
    snprintf(name, sizeof name, "layers.%d.%s.lora_A", layer, names[which]);
    lk_tensor *a = variable(self, name, LK_ROLE_STATE, true, TOY_RANK, in, 0.0, 0.25, NULL);
    snprintf(name, sizeof name, "layers.%d.%s.lora_B", layer, names[which]);
    lk_tensor *b = variable(self, name, LK_ROLE_STATE, true, out, TOY_RANK, 0.0, 0.25, NULL);
    static const int32_t state[] = {7, 1, 3, 0};
    lk_tensor *rng = options->dropout > 0.0f ? variable(self, "rng", LK_ROLE_INPUT, false, 4, 0, 0, 0, state) : NULL;
    const lk_lora_attributes attributes = {1.5f, options->dropout, (uint32_t)(layer * TOY_LINEARS) + (uint32_t)which,
                                           LK_LORA_FACTORED, false};
    return lk_build_lora_linear(graph, x, weight, bias, a, b, rng, &attributes);
}

static lk_tensor *layer_of(builder *self, int layer, lk_tensor *x, lk_tensor *cos, lk_tensor *sin,
                           lk_tensor *cu_seqlens) {
    lk_graph *graph = self->model->graph;
    char name[64];
    snprintf(name, sizeof name, "layers.%d", layer);
    lk_graph_set_scope(graph, name);
    snprintf(name, sizeof name, "layers.%d.norm1.weight", layer);
    lk_tensor *h = norm(self, name, x);
    lk_tensor *q = lk_build_rope(graph, linear(self, layer, TOY_Q, h), cos, sin, TOY_HEAD_DIM, false);
    lk_tensor *k = lk_build_rope(graph, linear(self, layer, TOY_K, h), cos, sin, TOY_HEAD_DIM, false);
    lk_tensor *v = linear(self, layer, TOY_V, h);
    const lk_attention_attributes attention = {TOY_HEADS, TOY_KV_HEADS, TOY_HEAD_DIM, 0.5f, true, 0, false};
    lk_tensor *o = lk_build_attention(graph, q, k, v, cu_seqlens, NULL, NULL, &attention);
    x = lk_build_add(graph, x, linear(self, layer, TOY_O, o));
    snprintf(name, sizeof name, "layers.%d.norm2.weight", layer);
    h = norm(self, name, x);
    lk_tensor *gate = linear(self, layer, TOY_GATE, h), *up = linear(self, layer, TOY_UP, h);
    return lk_build_add(graph, x, linear(self, layer, TOY_DOWN, lk_build_swiglu(graph, gate, up)));
}

lk_status toy_build(lk_context *context, lk_variables *variables, const toy_options *options, toy_model *out) {
    static const int32_t ids[TOY_TOKENS] = {1, 5, 12, 5, 0, 3, 3, 9, 2, 7};
    static const int32_t targets[TOY_TOKENS] = {5, 12, -100, 0, 3, 3, 9, 2, 7, 4};
    static const int32_t positions[TOY_TOKENS] = {0, 1, 2, 3, 0, 1, 2, 3, 4, 5};
    static const int32_t cu_seqlens[] = {0, 4, TOY_TOKENS, TOY_TOKENS};
    *out = (toy_model){0};
    builder self = {context, variables, options, out, LK_OK, 1};
    LK_TRY(lk_graph_create(context, &out->graph));
    lk_graph *graph = out->graph;
    lk_tensor *ids_tensor = variable(&self, "ids", LK_ROLE_INPUT, false, TOY_TOKENS, 0, 0, 0, ids);
    lk_tensor *table = variable(&self, "table", options->train_table ? LK_ROLE_STATE : LK_ROLE_WEIGHT,
                                options->train_table, TOY_VOCAB, TOY_HIDDEN, 0.0, 0.7, NULL);
    lk_tensor *x = lk_build_embedding(graph, ids_tensor, table), *cos, *sin;
    lk_build_rope_table(graph, variable(&self, "positions", LK_ROLE_INPUT, false, TOY_TOKENS, 0, 0, 0, positions),
                        variable(&self, "inv_freq", LK_ROLE_WEIGHT, false, TOY_HEAD_DIM / 2, 0, 0.6, 0.1, NULL), &cos,
                        &sin);
    lk_tensor *cu = variable(&self, "cu_seqlens", LK_ROLE_INPUT, false, 4, 0, 0, 0, cu_seqlens);
    for (int layer = 0; layer < TOY_LAYERS; layer++) {
        x = layer_of(&self, layer, x, cos, sin, cu);
    }
    lk_graph_set_scope(graph, "head");
    x = norm(&self, "norm.weight", x);
    lk_tensor *head =
        options->tied ? table
                      : variable(&self, "head.weight", LK_ROLE_WEIGHT, false, TOY_VOCAB, TOY_HIDDEN, 0.0, 0.5, NULL);
    out->loss = lk_build_linear_cross_entropy(
        graph, x, head, variable(&self, "targets", LK_ROLE_INPUT, false, TOY_TOKENS, 0, 0, 0, targets),
        variable(&self, "loss_scale", LK_ROLE_INPUT, false, 1, 0, 0.25, 0.0, NULL));
    lk_graph_set_scope(graph, "");
    out->num_forward_nodes = lk_graph_num_nodes(graph);
    lk_status status = self.status != LK_OK ? self.status : lk_graph_status(graph);
    if (status != LK_OK) {
        lk_graph_destroy(graph);
        out->graph = NULL;
    }
    return status;
}

lk_status toy_backward(toy_model *model) {
    LK_TRY(lk_graph_backward(model->graph, model->loss, model->num_trained, model->trained, model->gradients));
    lk_graph_mark_output(model->graph, model->loss);
    for (int i = 0; i < model->num_trained; i++) {
        lk_graph_mark_output(model->graph, model->gradients[i]);
    }
    return LK_OK;
}
