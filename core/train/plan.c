/* lk_plan and lk_trainer_profile: what a step does, and where its memory and time go. */
#include <string.h>

#include "core/base/json.h"
#include "core/train/trainer.h"
#include "dispatch/explain.h"

static json_t *memory_of(const lk_trainer *trainer) {
    lk_memory_report memory;
    lk_trainer_get_memory(trainer, &memory);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weights", (json_int_t)memory.weights, "adapter",
                     (json_int_t)memory.adapter, "optimizer", (json_int_t)memory.optimizer, "inputs",
                     (json_int_t)memory.inputs, "activations", (json_int_t)memory.activations,
                     "activations_lower_bound", (json_int_t)memory.activations_lower_bound, "total",
                     (json_int_t)memory.total);
}

static json_t *recompute_of(const lk_trainer *trainer) {
    static const char *const names[] = {"none", "cheap", "products", "layers"};
    const lk_recompute_cost *cost = &trainer->recompute_cost;
    return json_pack("{s:s, s:i, s:f, s:f}", "level", names[trainer->recompute], "operations", (int)cost->nodes,
                     "flops", cost->flops, "share_of_step",
                     cost->step_flops > 0.0 ? cost->flops / cost->step_flops : 0.0);
}

/* What is trained, and what full fine-tuning would keep for every parameter: a gradient and two moments in fp32. */
static json_t *trained_of(const lk_trainer *trainer) {
    enum { BYTES_PER_PARAMETER = 3 * sizeof(float) };
    lk_adapter_info adapter;
    lk_adapter_get_info(trainer->parts[0].adapter, &adapter);
    int64_t all = trainer->model->num_parameters;
    return json_pack("{s:I, s:I, s:I, s:I}", "parameters", (json_int_t)adapter.num_parameters, "of_model",
                     (json_int_t)all, "gradients_and_moments", (json_int_t)adapter.num_parameters * BYTES_PER_PARAMETER,
                     "of_full_fine_tuning", (json_int_t)all * BYTES_PER_PARAMETER);
}

static void print_trained(const json_t *trained, lk_text *text) {
    double parameters = (double)json_integer_value(json_object_get(trained, "parameters"));
    double all = (double)json_integer_value(json_object_get(trained, "of_model"));
    lk_text_printf(text, "trained: %.0f parameters, %.3g %% of the model's %.0f\n", parameters,
                   all > 0.0 ? 100.0 * parameters / all : 0.0, all);
    lk_text_printf(text, "saved: %.1f MiB of gradients and moments, of the %.1f MiB that full fine-tuning would keep\n",
                   (double)(json_integer_value(json_object_get(trained, "of_full_fine_tuning")) -
                            json_integer_value(json_object_get(trained, "gradients_and_moments"))) /
                       1048576.0,
                   (double)json_integer_value(json_object_get(trained, "of_full_fine_tuning")) / 1048576.0);
}

static void print_memory(const json_t *memory, lk_text *text) {
    const char *key;
    json_t *value;
    lk_text_printf(text, "memory\n");
    json_object_foreach((json_t *)(uintptr_t)memory, key, value) {
        lk_text_printf(text, "%14.2f MiB  %s\n", (double)json_integer_value(value) / 1048576.0, key);
    }
}

static lk_status describe(lk_trainer *trainer, json_t **out) {
    json_t *micro = NULL, *update = NULL, *live = NULL;
    *out = NULL;
    lk_status status = lk_explain_program(trainer->micro, "micro-batch", &micro);
    if (status == LK_OK) {
        status = lk_explain_program(trainer->update, "update", &update);
    }
    if (status == LK_OK) {
        status = lk_explain_memory(trainer->micro, trainer->loss, &live);
    }
    if (status != LK_OK) {
        json_decref(micro);
        json_decref(update);
        return status;
    }
    lk_session *session = trainer->model->session;
    *out = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:[o, o]}", "device", lk_session_device_name(session), "reason",
                     lk_session_reason(session), "memory", memory_of(trainer), "live_bytes", live, "trained",
                     trained_of(trainer), "recompute", recompute_of(trainer), "programs", micro, update);
    return *out ? LK_OK : lk_out_of_memory(trainer->context, 0, "a plan");
}

static lk_status render(lk_trainer *trainer, bool as_json, char **out) {
    json_t *root;
    lk_text text;
    LK_TRY(describe(trainer, &root));
    lk_text_init(&text, trainer->context);
    if (as_json) {
        lk_json_print(&text, root, JSON_INDENT(2));
        lk_text_append(&text, "\n", 1);
    } else {
        size_t i;
        json_t *program;
        lk_text_printf(&text, "device %s: %s\n\n", json_string_value(json_object_get(root, "device")),
                       json_string_value(json_object_get(root, "reason")));
        json_array_foreach(json_object_get(root, "programs"), i, program) {
            lk_explain_print(program, &text);
            lk_text_printf(&text, "\n");
        }
        print_memory(json_object_get(root, "memory"), &text);
        print_trained(json_object_get(root, "trained"), &text);
        if (trainer->recompute != LK_RECOMPUTE_NONE) {
            const json_t *again = json_object_get(root, "recompute");
            lk_text_printf(&text, "recomputed: %s; %d operations, %.1f %% more arithmetic in a step\n",
                           json_string_value(json_object_get(again, "level")),
                           (int)json_integer_value(json_object_get(again, "operations")),
                           100.0 * json_real_value(json_object_get(again, "share_of_step")));
        }
    }
    json_decref(root);
    lk_status status = lk_text_status(&text);
    if (status != LK_OK) {
        lk_text_free(&text);
        return status;
    }
    *out = text.data;
    return LK_OK;
}

lk_status lk_data_shape(lk_model *model, const lk_data_options *options, lk_data *out) {
    lk_data_options chosen = lk_data_options_for(model, options);
    LK_TRY(lk_data_options_check(model, &chosen));
    *out = (lk_data){.context = model->context,
                     .options = chosen,
                     .tokens = chosen.batch * chosen.seq,
                     .max_sequences = (chosen.pack ? 17 : 2) * chosen.batch};
    return LK_OK;
}

lk_status lk_trainer_create_plan(lk_model *model, lk_adapter *adapter, lk_data *shape, const lk_train_options *train,
                                 lk_trainer **out) {
    lk_train_options chosen;
    lk_train_options_init(&chosen);
    *out = NULL;
    if (train != NULL) {
        memcpy(&chosen, train, LK_MIN(train->struct_size, sizeof chosen));
    }
    chosen.total_steps = LK_MAX((int64_t)1, chosen.total_steps);
    return lk_trainer_create_plan_only(model, adapter, shape, &chosen, out);
}

lk_status lk_plan(lk_model *model, lk_adapter *adapter, const lk_data_options *data, const lk_train_options *train,
                  bool json, char **text) {
    lk_data shape;
    lk_trainer *trainer;
    *text = NULL;
    LK_TRY(lk_data_shape(model, data, &shape));
    LK_TRY(lk_trainer_create_plan(model, adapter, &shape, train, &trainer));
    lk_status status = render(trainer, json, text);
    lk_trainer_destroy(trainer);
    return status;
}

lk_status lk_trainer_profile(lk_trainer *trainer, bool json, char **text) {
    *text = NULL;
    /* The last step's inputs are still there, and a micro-batch writes nothing but gradient sums. The update is not
     * timed: it would change the adapter. */
    LK_TRY(lk_program_profile(trainer->micro));
    LK_TRY(lk_trainer_clear_gradients(trainer));
    return render(trainer, json, text);
}
