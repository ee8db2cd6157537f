/* lk_tune: measures the kernels for the shapes of a training step. */
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/train/trainer.h"
#include "dispatch/node_case.h"

/* Nodes that are alike, over both programs. */
typedef struct tune_group {
    uint64_t key;
    const lk_program *program;
    int32_t example, count;
} tune_group;

typedef struct tuning {
    lk_context *context;
    lk_device *device;
    lk_tuned *records;
    tune_group *groups;
    int32_t count;
    double before, after; /* seconds of a step's kernels, as they were chosen and as they are now */
} tuning;

static lk_status collect(tuning *self, const lk_program *program) {
    for (int32_t i = 0; i < lk_program_num_commands(program); i++) {
        lk_placement placement = lk_program_placement(program, i);
        if (placement.device != self->device) {
            continue;
        }
        uint64_t key = lk_node_key(placement.node);
        int32_t g = 0;
        while (g < self->count && self->groups[g].key != key) {
            g++;
        }
        if (g == self->count) {
            tune_group *grown = lk_realloc(self->context, self->groups, (size_t)g + 1, sizeof *grown);
            if (grown == NULL) {
                return lk_out_of_memory(self->context, sizeof *grown, "what is to be measured");
            }
            self->groups = grown;
            self->groups[self->count++] = (tune_group){key, program, i, 0};
        }
        self->groups[g].count++;
    }
    return LK_OK;
}

static json_t *shapes_of(const lk_node *node) {
    json_t *list = json_array();
    for (int i = 0; i < LK_MIN(node->num_inputs, 8); i++) { /* an optimizer has hundreds */
        json_t *shape = node->inputs[i] ? json_array() : json_null();
        for (int d = 0; node->inputs[i] != NULL && d < node->inputs[i]->rank; d++) {
            json_array_append_new(shape, json_integer(node->inputs[i]->shape[d]));
        }
        json_array_append_new(list, shape);
    }
    return list;
}

/* Measures one group, keeps the records, and describes what was found. */
static lk_status tune_group_of(tuning *self, const tune_group *group, json_t *rows) {
    lk_placement placement = lk_program_placement(group->program, group->example);
    lk_candidate candidates[LK_MAX_CANDIDATES];
    int count = lk_program_candidates(group->program, group->example, candidates);
    LK_TRY(lk_tune_node(self->device, placement.node, candidates, count));
    const lk_candidate *best = NULL;
    double before = 0.0;
    json_t *measured = json_array();
    for (int i = 0; i < count; i++) {
        if (!candidates[i].tuned) {
            continue;
        }
        LK_TRY(lk_tuned_set(self->records, candidates[i].kernel, placement.node, candidates[i].seconds));
        best = best == NULL || candidates[i].seconds < best->seconds ? &candidates[i] : best;
        before = candidates[i].kernel == placement.kernel ? candidates[i].seconds : before;
        json_array_append_new(
            measured, json_pack("{s:s, s:f}", "kernel", candidates[i].kernel->name, "seconds", candidates[i].seconds));
    }
    if (best == NULL) {
        json_decref(measured);
        return LK_OK; /* none can run alone; the estimates stay */
    }
    self->before += before * group->count;
    self->after += best->seconds * group->count;
    json_array_append_new(
        rows, json_pack("{s:s, s:i, s:o, s:s, s:f, s:s, s:f, s:f, s:o}", "op", lk_op_name(placement.node->op), "count",
                        (int)group->count, "input_shapes", shapes_of(placement.node), "kernel", best->kernel->name,
                        "seconds", best->seconds, "kernel_before", placement.kernel->name, "seconds_before", before,
                        "estimated_before", placement.estimated_seconds, "measured", measured));
    return LK_OK;
}

static lk_status tune_all(tuning *self, lk_progress_function progress, void *user, json_t *rows) {
    for (int32_t g = 0; g < self->count; g++) {
        LK_TRY(tune_group_of(self, &self->groups[g], rows));
        if (progress != NULL) {
            progress(user, g + 1, self->count);
        }
    }
    return lk_tuned_save(self->records);
}

/* ---- for people ---- */

static double number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static const char *string(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static void print_row(const json_t *row, lk_text *text) {
    size_t i, d;
    json_t *item, *extent;
    lk_text_printf(text, "%10.3f ms %5d x  %-34s", 1e3 * number(row, "seconds"), (int)number(row, "count"),
                   string(row, "kernel"));
    json_array_foreach(json_object_get(row, "input_shapes"), i, item) {
        lk_text_printf(text, " %s", json_is_null(item) ? "-" : "");
        json_array_foreach(item, d, extent) {
            lk_text_printf(text, "%s%lld", d ? "x" : "", (long long)json_integer_value(extent));
        }
    }
    lk_text_printf(text, "\n");
    json_array_foreach(json_object_get(row, "measured"), i, item) {
        if (strcmp(string(item, "kernel"), string(row, "kernel")) != 0) {
            bool before = strcmp(string(item, "kernel"), string(row, "kernel_before")) == 0;
            lk_text_printf(text, "%10.3f ms          not %s%s\n", 1e3 * number(item, "seconds"), string(item, "kernel"),
                           before ? ", which was chosen before" : "");
        }
    }
}

static void print(const json_t *root, lk_text *text) {
    size_t i;
    json_t *row;
    lk_text_printf(text, "device %s\n      each     count  kernel                             inputs\n",
                   string(root, "device"));
    json_array_foreach(json_object_get(root, "nodes"), i, row) {
        print_row(row, text);
    }
    lk_text_printf(text, "kernels of a micro-batch and an update: %.3f ms as chosen before, %.3f ms now\n",
                   1e3 * number(root, "seconds_before"), 1e3 * number(root, "seconds"));
    lk_text_printf(text, "kept in %s\n", string(root, "file"));
}

static lk_status render(const json_t *root, bool json, lk_context *context, char **out) {
    lk_text text;
    lk_text_init(&text, context);
    if (json) {
        lk_json_print(&text, root, JSON_INDENT(2));
        lk_text_append(&text, "\n", 1);
    } else {
        print(root, &text);
    }
    lk_status status = lk_text_status(&text);
    if (status != LK_OK) {
        lk_text_free(&text);
        return status;
    }
    *out = text.data;
    return LK_OK;
}

lk_status lk_tune(lk_model *model, lk_adapter *adapter, const lk_data_options *data, const lk_train_options *train,
                  lk_progress_function progress, void *user, bool json, char **text) {
    lk_data shape;
    lk_trainer *trainer;
    lk_session *session = model->session;
    *text = NULL;
    LK_TRY(lk_data_shape(model, data, &shape));
    LK_TRY(lk_trainer_create_plan(model, adapter, &shape, train, &trainer));
    tuning work = {.context = model->context, .device = lk_session_main_device(session), .records = session->tuned[0]};
    json_t *rows = json_array();
    lk_status status = collect(&work, trainer->micro);
    if (status == LK_OK) {
        status = collect(&work, trainer->update);
    }
    if (status == LK_OK) {
        status = tune_all(&work, progress, user, rows);
    }
    json_t *root =
        json_pack("{s:s, s:s, s:f, s:f, s:o}", "device", lk_session_device_name(session), "file",
                  lk_tuned_path(work.records), "seconds_before", work.before, "seconds", work.after, "nodes", rows);
    if (status == LK_OK) {
        status =
            root != NULL ? render(root, json, model->context, text) : lk_out_of_memory(model->context, 0, "a table");
    }
    json_decref(root);
    lk_free(model->context, work.groups);
    lk_trainer_destroy(trainer);
    return status;
}
