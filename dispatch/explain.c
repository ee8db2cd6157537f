#include "dispatch/explain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct explain_group {
    int32_t first, count; /* an example command, and how many are like it */
    double estimated, measured;
} explain_group;

static bool same_tensor(const lk_tensor *a, const lk_tensor *b) {
    if (a == NULL || b == NULL) {
        return a == b;
    }
    return a->dtype == b->dtype && a->rank == b->rank && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

static bool alike(const lk_placement *a, const lk_placement *b) {
    if (a->kernel != b->kernel || a->device != b->device || a->node->num_inputs != b->node->num_inputs) {
        return false;
    }
    for (int i = 0; i < a->node->num_inputs; i++) {
        if (!same_tensor(a->node->inputs[i], b->node->inputs[i])) {
            return false;
        }
    }
    for (int i = 0; i < a->node->num_outputs; i++) {
        if (!same_tensor(a->node->outputs[i], b->node->outputs[i])) {
            return false;
        }
    }
    return true;
}

static int by_time(const void *a, const void *b) {
    const explain_group *x = a, *y = b;
    double first = x->measured > 0.0 ? x->measured : x->estimated;
    double second = y->measured > 0.0 ? y->measured : y->estimated;
    return (first < second) - (first > second);
}

static int32_t make_groups(const lk_program *program, explain_group *groups) {
    int32_t count = 0;
    for (int32_t i = 0; i < lk_program_num_commands(program); i++) {
        lk_placement placement = lk_program_placement(program, i);
        int32_t g = 0;
        for (; g < count; g++) {
            lk_placement example = lk_program_placement(program, groups[g].first);
            if (alike(&placement, &example)) {
                break;
            }
        }
        if (g == count) {
            groups[count++] = (explain_group){.first = i};
        }
        groups[g].count++;
        groups[g].estimated += placement.estimated_seconds;
        groups[g].measured += placement.measured_seconds;
    }
    qsort(groups, (size_t)count, sizeof *groups, by_time);
    return count;
}

static json_t *shapes_of(lk_tensor *const *tensors, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        json_t *shape = tensors[i] ? json_array() : json_null();
        for (int d = 0; tensors[i] != NULL && d < tensors[i]->rank; d++) {
            json_array_append_new(shape, json_integer(tensors[i]->shape[d]));
        }
        json_array_append_new(list, shape);
    }
    return list;
}

static json_t *explain_one(const lk_program *program, const explain_group *group) {
    lk_placement placement = lk_program_placement(program, group->first);
    const lk_node *node = placement.node;
    json_t *others = json_array();
    lk_candidate candidates[LK_MAX_CANDIDATES];
    int count = lk_program_candidates(program, group->first, candidates);
    for (int i = 0; i < count; i++) {
        if (candidates[i].kernel == placement.kernel) {
            continue;
        }
        json_t *other = json_pack("{s:s}", "kernel", candidates[i].kernel->name);
        if (candidates[i].refused) {
            json_object_set_new(other, "refused", json_string(candidates[i].why.reason));
        } else {
            json_object_set_new(other, "estimated_seconds", json_real(candidates[i].seconds));
        }
        json_array_append_new(others, other);
    }
    json_t *row =
        json_pack("{s:s, s:s, s:s, s:s, s:i, s:f, s:s, s:f, s:f, s:o}", "op", lk_op_name(node->op), "kernel",
                  placement.kernel->name, "device", placement.device->caps.backend, "rule", placement.rule, "count",
                  (int)group->count, "estimated_seconds", group->estimated, "example", node->scope, "flops",
                  lk_node_flops(node) * group->count, "bytes", lk_node_bytes(node) * group->count, "others", others);
    if (row != NULL) {
        int shown = LK_MIN(node->num_inputs, 8); /* an optimizer has hundreds */
        json_object_set_new(row, "input_shapes", shapes_of(node->inputs, shown));
        json_object_set_new(row, "output_shapes", shapes_of(node->outputs, node->num_outputs));
        if (group->measured > 0.0) {
            json_object_set_new(row, "measured_seconds", json_real(group->measured));
        }
    }
    return row;
}

lk_status lk_explain_program(const lk_program *program, const char *title, json_t **out) {
    lk_context *context = lk_program_context(program);
    int32_t commands = lk_program_num_commands(program);
    *out = NULL;
    explain_group *groups = lk_calloc(context, (size_t)commands + 1, sizeof *groups);
    if (groups == NULL) {
        return lk_out_of_memory(context, (size_t)commands * sizeof *groups, "a plan");
    }
    int32_t count = make_groups(program, groups);
    double measured = 0.0;
    json_t *rows = json_array();
    for (int32_t g = 0; g < count; g++) {
        json_array_append_new(rows, explain_one(program, &groups[g]));
        measured += groups[g].measured;
    }
    lk_free(context, groups);
    lk_program_memory memory = lk_program_memory_of(program);
    lk_program_estimate estimate = lk_program_estimate_of(program);
    *out = json_pack("{s:s, s:i, s:f, s:{s:i, s:I, s:f}, s:I, s:I, s:o}", "program", title, "commands", (int)commands,
                     "estimated_seconds", estimate.seconds, "copies", "count", (int)estimate.copies, "bytes",
                     (json_int_t)estimate.copied_bytes, "estimated_seconds", estimate.copy_seconds, "arena_bytes",
                     (json_int_t)memory.arena_bytes, "arena_lower_bound_bytes", (json_int_t)memory.lower_bound_bytes,
                     "kernels", rows);
    if (*out == NULL) {
        return lk_out_of_memory(context, (size_t)commands, "a plan");
    }
    if (measured > 0.0) {
        json_object_set_new(*out, "measured_seconds", json_real(measured));
    }
    return LK_OK;
}

/* ---- the table ---- */

static void print_shapes(const json_t *shapes, lk_text *text) {
    size_t i, d;
    json_t *shape, *extent;
    json_array_foreach(shapes, i, shape) {
        lk_text_printf(text, "%s", i ? " " : "");
        if (json_is_null(shape)) {
            lk_text_printf(text, "-");
            continue;
        }
        json_array_foreach(shape, d, extent) {
            lk_text_printf(text, "%s%lld", d ? "x" : "", (long long)json_integer_value(extent));
        }
    }
}

static double number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static const char *string(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static void print_row(const json_t *row, double total, bool measured, lk_text *text) {
    double seconds = number(row, measured ? "measured_seconds" : "estimated_seconds");
    lk_text_printf(text, "%6.1f%% %10.3f ms %5d x  %-34s ", total > 0.0 ? 100.0 * seconds / total : 0.0, 1e3 * seconds,
                   (int)number(row, "count"), string(row, "kernel"));
    print_shapes(json_object_get(row, "input_shapes"), text);
    if (measured && number(row, "flops") > 0.0 && seconds > 0.0) {
        lk_text_printf(text, "  %.1f GFLOP/s", number(row, "flops") / seconds * 1e-9);
    }
    if (strcmp(string(row, "rule"), "cost") != 0) {
        lk_text_printf(text, "  (chosen by %s)", string(row, "rule"));
    }
    lk_text_printf(text, "\n");
    size_t i;
    json_t *other;
    json_array_foreach(json_object_get(row, "others"), i, other) {
        if (json_object_get(other, "refused") != NULL) {
            lk_text_printf(text, "%33snot %s: %s\n", "", string(other, "kernel"), string(other, "refused"));
        } else {
            lk_text_printf(text, "%33snot %s: estimated %.3f ms each\n", "", string(other, "kernel"),
                           1e3 * number(other, "estimated_seconds"));
        }
    }
}

void lk_explain_print(const json_t *explained, lk_text *text) {
    bool measured = json_object_get(explained, "measured_seconds") != NULL;
    double total = number(explained, measured ? "measured_seconds" : "estimated_seconds");
    lk_text_printf(text, "%s: %d commands, %.3f ms %s\n", string(explained, "program"),
                   (int)number(explained, "commands"), 1e3 * total, measured ? "measured" : "estimated");
    const json_t *copies = json_object_get(explained, "copies");
    if (number(copies, "count") > 0.0) {
        lk_text_printf(text, "%.0f copies between devices, %.2f MiB, %.3f ms of the estimate\n",
                       number(copies, "count"), number(copies, "bytes") / 1048576.0,
                       1e3 * number(copies, "estimated_seconds"));
    }
    lk_text_printf(text, "   share       time    count  kernel                             inputs\n");
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(explained, "kernels"), i, row) {
        print_row(row, total, measured, text);
    }
}
