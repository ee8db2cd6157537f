#include "core/train/step_inputs.h"

lk_status lk_step_inputs_add(lk_variables *variables, lk_task task, int64_t tokens, int64_t max_sequences,
                             lk_step_inputs *out) {
    bool classify = task == LK_TASK_CLASSIFY;
    const int64_t one = 1, four = 4, entries = max_sequences + 1;
    const struct {
        lk_variable **variable;
        const char *name;
        lk_dtype dtype;
        const int64_t *extent; /* NULL: not of this task */
    } rows[] = {
        {&out->input_ids, "input.input_ids", LK_DTYPE_I32, &tokens},
        {&out->targets, "input.targets", LK_DTYPE_I32, classify ? &max_sequences : &tokens},
        {&out->positions, "input.positions", LK_DTYPE_I32, &tokens},
        {&out->cu_seqlens, "input.cu_seqlens", LK_DTYPE_I32, &entries},
        {&out->first_tokens, "input.first_tokens", LK_DTYPE_I32, classify ? &max_sequences : NULL},
        {&out->token_types, "input.token_types", LK_DTYPE_I32, classify ? &tokens : NULL},
        {&out->loss_scale, "input.loss_scale", LK_DTYPE_F32, &one},
        {&out->rng, "input.rng", LK_DTYPE_I32, &four},
    };
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        *rows[i].variable = NULL;
        if (rows[i].extent != NULL) {
            LK_TRY(lk_variables_add(variables, rows[i].name, LK_ROLE_INPUT, "inputs", rows[i].dtype, 1, rows[i].extent,
                                    rows[i].variable));
        }
    }
    return LK_OK;
}

lk_status lk_step_inputs_upload(lk_step_inputs *inputs, const lk_batch *batch, float loss_scale) {
    LK_TRY(lk_variable_upload(inputs->input_ids, batch->input_ids));
    bool classify = inputs->first_tokens != NULL;
    LK_TRY(lk_variable_upload(inputs->targets, classify ? batch->class_labels : batch->targets));
    if (classify) { /* the ends after the last sequence lie beyond the rows: they read as zeros */
        LK_TRY(lk_variable_upload(inputs->first_tokens, batch->cu_seqlens));
    }
    LK_TRY(lk_variable_upload(inputs->positions, batch->positions));
    LK_TRY(lk_variable_upload(inputs->cu_seqlens, batch->cu_seqlens));
    return lk_variable_upload(inputs->loss_scale, &loss_scale);
}

lk_forward lk_step_inputs_forward(const lk_step_inputs *inputs, lk_model *model, lk_adapter *adapter, lk_graph *graph,
                                  bool train) {
    return (lk_forward){.model = model,
                        .adapter = adapter,
                        .graph = graph,
                        .input_ids = lk_graph_variable(graph, inputs->input_ids),
                        .positions = lk_graph_variable(graph, inputs->positions),
                        .cu_seqlens = lk_graph_variable(graph, inputs->cu_seqlens),
                        .first_tokens = lk_graph_variable(graph, inputs->first_tokens),
                        .token_types = lk_graph_variable(graph, inputs->token_types),
                        .rng = train ? lk_graph_variable(graph, inputs->rng) : NULL};
}
