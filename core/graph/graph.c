#include "core/graph/graph.h"

#include <string.h>

#include "core/graph/ops.h"

lk_status lk_graph_fail(lk_graph *graph, lk_status status) {
    if (graph->status == LK_OK) {
        graph->status = status;
    }
    return graph->status;
}

lk_status lk_graph_out_of_memory(lk_graph *graph) {
    if (graph->status != LK_OK) {
        return graph->status;
    }
    return lk_graph_fail(graph, lk_out_of_memory(graph->context, sizeof(lk_node), "a graph"));
}

lk_status lk_graph_create(lk_context *context, lk_graph **out) {
    *out = lk_calloc(context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(context, sizeof **out, "a graph");
    }
    (*out)->context = context;
    (*out)->scope = "";
    lk_arena_init(&(*out)->arena, context);
    return LK_OK;
}

void lk_graph_destroy(lk_graph *graph) {
    if (graph != NULL) {
        lk_arena_free(&graph->arena);
        lk_free(graph->context, graph->tensors);
        lk_free(graph->context, graph);
    }
}

lk_status lk_graph_status(const lk_graph *graph) {
    return graph->status;
}

int32_t lk_graph_num_nodes(const lk_graph *graph) {
    return graph->num_nodes;
}

const lk_node *lk_graph_node(const lk_graph *graph, int32_t position) {
    return position >= 0 && position < graph->num_nodes ? graph->nodes[position] : NULL;
}

int32_t lk_graph_num_tensors(const lk_graph *graph) {
    return graph->num_tensors;
}

lk_tensor *lk_graph_tensor(const lk_graph *graph, int32_t id) {
    return id >= 0 && id < graph->num_tensors ? graph->tensors[id] : NULL;
}

void lk_graph_set_scope(lk_graph *graph, const char *scope) {
    const char *copy = lk_arena_printf(&graph->arena, "%s", scope);
    if (copy == NULL) {
        lk_graph_out_of_memory(graph);
        copy = "";
    }
    graph->scope = copy;
}

int64_t lk_tensor_elements(const lk_tensor *tensor) {
    return tensor->shape[0] * tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
}

size_t lk_tensor_bytes(const lk_tensor *tensor) {
    size_t bytes;
    lk_dtype_size(tensor->dtype, lk_tensor_elements(tensor), &bytes);
    return bytes;
}

int64_t lk_tensor_columns(const lk_tensor *tensor) {
    return tensor->rank > 0 ? tensor->shape[tensor->rank - 1] : 1;
}

int64_t lk_tensor_rows(const lk_tensor *tensor) {
    int64_t columns = lk_tensor_columns(tensor);
    return columns > 0 ? lk_tensor_elements(tensor) / columns : 0;
}

bool lk_node_mutates(const lk_node *node) {
    return lk_op_info_of(node->op)->mutates;
}

static lk_tensor *new_tensor(lk_graph *graph, const lk_shape *shape) {
    int64_t elements;
    size_t bytes;
    if (!lk_shape_elements(shape->extent, LK_MAX_RANK, &elements) || !lk_dtype_size(shape->dtype, elements, &bytes)) {
        lk_graph_fail(graph,
                      lk_fail(graph->context, LK_STATUS_INVALID_ARGUMENT, "a tensor at %s is too large", graph->scope));
        return NULL;
    }
    if (graph->num_tensors == graph->capacity_tensors) {
        int32_t capacity = LK_MAX(64, graph->capacity_tensors * 2);
        lk_tensor **tensors = lk_realloc(graph->context, graph->tensors, (size_t)capacity, sizeof(lk_tensor *));
        if (tensors == NULL) {
            lk_graph_out_of_memory(graph);
            return NULL;
        }
        graph->tensors = tensors;
        graph->capacity_tensors = capacity;
    }
    lk_tensor *tensor = lk_arena_alloc(&graph->arena, sizeof *tensor);
    if (tensor == NULL) {
        lk_graph_out_of_memory(graph);
        return NULL;
    }
    tensor->id = graph->num_tensors;
    tensor->dtype = shape->dtype;
    tensor->rank = shape->rank;
    memcpy(tensor->shape, shape->extent, sizeof tensor->shape);
    tensor->name = "";
    graph->tensors[graph->num_tensors++] = tensor;
    return tensor;
}

static lk_tensor *tensor_of(lk_graph *graph, lk_variable *variable, bool is_constant) {
    if (graph->status != LK_OK || variable == NULL) {
        return NULL;
    }
    for (int32_t i = 0; i < graph->num_tensors; i++) {
        if (graph->tensors[i]->variable == variable && graph->tensors[i]->is_constant == is_constant) {
            return graph->tensors[i];
        }
    }
    lk_shape shape = {variable->dtype, variable->rank, {1, 1, 1, 1}};
    memcpy(shape.extent, variable->shape, sizeof shape.extent);
    lk_tensor *tensor = new_tensor(graph, &shape);
    if (tensor != NULL) {
        tensor->role = variable->role;
        tensor->name = variable->name;
        tensor->variable = variable;
        tensor->is_constant = is_constant;
    }
    return tensor;
}

lk_tensor *lk_graph_variable(lk_graph *graph, lk_variable *variable) {
    return tensor_of(graph, variable, false);
}

lk_tensor *lk_graph_constant(lk_graph *graph, lk_variable *variable) {
    return tensor_of(graph, variable, true);
}

lk_status lk_graph_append_node(lk_graph *graph, lk_node *node) {
    if (graph->num_nodes == graph->capacity_nodes) {
        int32_t capacity = LK_MAX(64, graph->capacity_nodes * 2);
        /* old lists stay in the arena: passes keep walking them while they append to the new one */
        lk_node **nodes = lk_arena_alloc(&graph->arena, (size_t)capacity * sizeof *nodes);
        if (nodes == NULL) {
            return lk_graph_out_of_memory(graph);
        }
        if (graph->num_nodes > 0) {
            memcpy(nodes, graph->nodes, (size_t)graph->num_nodes * sizeof *nodes);
        }
        graph->nodes = nodes;
        graph->capacity_nodes = capacity;
    }
    graph->nodes[graph->num_nodes++] = node;
    return LK_OK;
}

lk_status lk_graph_take_nodes(lk_graph *graph, lk_node ***nodes, int32_t *count) {
    *nodes = graph->nodes;
    *count = graph->num_nodes;
    graph->nodes = NULL;
    graph->num_nodes = graph->capacity_nodes = 0;
    return graph->status;
}

void lk_graph_replace_output(lk_tensor *tensor, lk_tensor *with) {
    lk_node *node = with->producer;
    for (int i = 0; i < node->num_outputs; i++) {
        if (node->outputs[i] == with) {
            node->outputs[i] = tensor;
        }
    }
    tensor->producer = node;
    with->producer = NULL;
}

/* The per-tensor arrays of ADAMW are the only attributes that point anywhere. */
static lk_status copy_attributes(lk_graph *graph, lk_node *node, const lk_attributes *attributes) {
    if (attributes == NULL) {
        return LK_OK;
    }
    node->attributes = *attributes;
    if (node->op == LK_OP_ADAMW) {
        lk_adamw_attributes *adamw = &node->attributes.adamw;
        const float **arrays[] = {&adamw->learning_rate_scales, &adamw->weight_decay_scales};
        for (size_t i = 0; i < LK_COUNT(arrays); i++) {
            if (*arrays[i] != NULL && adamw->count > 0) {
                size_t bytes = (size_t)adamw->count * sizeof(float);
                float *copy = lk_arena_alloc(&graph->arena, bytes);
                if (copy == NULL) {
                    return lk_graph_out_of_memory(graph);
                }
                memcpy(copy, *arrays[i], bytes);
                *arrays[i] = copy;
            }
        }
    }
    return LK_OK;
}

lk_tensor *lk_graph_add(lk_graph *graph, lk_op op, int num_inputs, lk_tensor *const *inputs,
                        const lk_attributes *attributes, uint32_t wanted, int num_outputs, lk_tensor **outputs) {
    for (int i = 0; i < num_outputs && outputs != NULL; i++) {
        outputs[i] = NULL;
    }
    if (graph->status != LK_OK) {
        return NULL;
    }
    lk_node *node = lk_arena_alloc(&graph->arena, sizeof *node);
    lk_tensor **kept = lk_arena_alloc(&graph->arena, (size_t)LK_MAX(1, num_inputs) * sizeof *kept);
    if (node == NULL || kept == NULL) {
        lk_graph_out_of_memory(graph);
        return NULL;
    }
    if (num_inputs > 0) {
        memcpy(kept, inputs, (size_t)num_inputs * sizeof *kept);
    }
    node->id = graph->next_node_id++;
    node->op = op;
    node->num_inputs = num_inputs;
    node->inputs = kept;
    node->scope = graph->scope;
    lk_shape shapes[LK_MAX_OUTPUTS];
    if (copy_attributes(graph, node, attributes) != LK_OK ||
        lk_graph_fail(graph, lk_op_info_of(op)->infer(graph->context, node, shapes, &node->num_outputs)) != LK_OK) {
        return NULL;
    }
    for (int i = 0; i < node->num_outputs; i++) {
        if (wanted & (1u << i)) {
            node->outputs[i] = new_tensor(graph, &shapes[i]);
            if (node->outputs[i] == NULL) {
                return NULL;
            }
            node->outputs[i]->producer = node;
        }
        if (i < num_outputs && outputs != NULL) {
            outputs[i] = node->outputs[i];
        }
    }
    if (lk_graph_append_node(graph, node) != LK_OK) {
        return NULL;
    }
    return node->outputs[0];
}

void lk_graph_mark_output(lk_graph *graph, lk_tensor *tensor) {
    if (graph->status == LK_OK && tensor != NULL) {
        tensor->is_output = true;
    }
}
