#include "core/train/step_parts.h"

#include <string.h>

#include "core/adapters/mixed.h"
#include "core/train/trainer.h"

lk_status lk_step_parts_create(lk_trainer *trainer, lk_data *const *data, size_t count) {
    lk_context *context = trainer->context;
    if (!lk_adapter_is_mixed(trainer->adapter) || (size_t)lk_adapter_num_parts(trainer->adapter) != count) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "%zu data sets: expected a mixed adapter and as many as it has parts", count);
    }
    if (trainer->options.max_grad_norm > 0.0) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED,
                       "max_grad_norm is %g, but the gradients of mixed adapters are not clipped",
                       trainer->options.max_grad_norm);
    }
    trainer->parts = lk_calloc(context, count, sizeof *trainer->parts);
    if (trainer->parts == NULL) {
        return lk_out_of_memory(context, count * sizeof *trainer->parts, "a trainer");
    }
    trainer->num_parts = (int32_t)count;
    trainer->all_parts = (lk_data){.context = context, .options = data[0]->options};
    for (size_t i = 0; i < count; i++) {
        lk_step_part *part = &trainer->parts[i];
        if (lk_dataset_get_info(data[i]->dataset).targets == 0) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "data set %zu has no token with a loss", i);
        }
        *part = (lk_step_part){.data = data[i],
                               .first_token = trainer->all_parts.tokens,
                               .first_sequence = trainer->all_parts.max_sequences};
        trainer->all_parts.tokens += data[i]->tokens;
        trainer->all_parts.max_sequences += data[i]->max_sequences;
        LK_TRY(lk_data_iterate(data[i], false, &part->iterator));
    }
    trainer->data = &trainer->all_parts;
    return LK_OK;
}

void lk_step_parts_destroy(lk_trainer *trainer) {
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_batch_iterator_destroy(trainer->parts[i].iterator);
    }
    lk_free(trainer->context, trainer->parts);
}

static lk_status add_variable(lk_trainer *trainer, const char *name, int32_t part, lk_dtype dtype, int64_t size,
                              lk_variable **out) {
    lk_text text;
    lk_text_init(&text, trainer->context);
    lk_text_printf(&text, "input.%s.%d", name, part);
    lk_status status = lk_text_status(&text);
    if (status == LK_OK) {
        status = lk_variables_add(trainer->variables, text.data, LK_ROLE_INPUT, "inputs", dtype, 1, &size, out);
    }
    lk_text_free(&text);
    return status;
}

/* What never changes: which rows belong to which part. */
static lk_status upload_rows(lk_trainer *trainer) {
    int64_t tokens = trainer->data->tokens;
    int32_t *rows = lk_calloc(trainer->context, 2 * (size_t)tokens, sizeof *rows), *owners = rows + tokens;
    if (rows == NULL) {
        return lk_out_of_memory(trainer->context, 2 * (size_t)tokens * sizeof *rows, "rows of adapters");
    }
    lk_status status = LK_OK;
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        const lk_step_part *part = &trainer->parts[i];
        for (int64_t t = part->first_token; t < part->first_token + part->data->tokens; t++) {
            rows[t] = (int32_t)t;
            owners[t] = i;
        }
        status = status == LK_OK ? lk_variable_upload(part->rows, rows + part->first_token) : status;
    }
    status = status == LK_OK ? lk_variable_upload(trainer->adapter_rows, owners) : status;
    lk_free(trainer->context, rows);
    return status;
}

lk_status lk_step_parts_add_variables(lk_trainer *trainer) {
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        LK_TRY(add_variable(trainer, "rows", i, LK_DTYPE_I32, part->data->tokens, &part->rows));
        LK_TRY(add_variable(trainer, "part_targets", i, LK_DTYPE_I32, part->data->tokens, &part->targets));
        LK_TRY(add_variable(trainer, "part_loss_scale", i, LK_DTYPE_F32, 1, &part->loss_scale));
    }
    LK_TRY(add_variable(trainer, "adapter_rows", trainer->num_parts, LK_DTYPE_I32, trainer->data->tokens,
                        &trainer->adapter_rows));
    return upload_rows(trainer);
}

lk_tensor *lk_step_parts_loss(lk_trainer *trainer, lk_forward *forward, lk_tensor *hidden) {
    lk_graph *graph = forward->graph;
    lk_tensor *sum = NULL;
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        lk_tensor *rows = lk_build_embedding(graph, lk_graph_variable(graph, part->rows), hidden); /* these of it */
        part->loss = lk_forward_loss(forward, rows, lk_graph_variable(graph, part->targets),
                                     lk_graph_variable(graph, part->loss_scale));
        if (part->loss == NULL) {
            return NULL;
        }
        lk_graph_mark_output(graph, part->loss);
        sum = sum != NULL ? lk_build_add(graph, sum, part->loss) : part->loss;
    }
    return sum;
}

void lk_step_parts_next(lk_trainer *trainer, lk_batch *to) {
    *to = (lk_batch){.tokens = trainer->data->tokens,
                     .max_sequences = trainer->data->max_sequences,
                     .input_ids = to->input_ids,
                     .targets = to->targets,
                     .positions = to->positions,
                     .cu_seqlens = to->cu_seqlens,
                     .class_labels = to->class_labels};
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        const lk_batch *from;
        lk_batch_iterator_next(part->iterator, &from);
        size_t bytes = (size_t)from->tokens * sizeof(int32_t);
        memcpy(to->input_ids + part->first_token, from->input_ids, bytes);
        memcpy(to->targets + part->first_token, from->targets, bytes);
        memcpy(to->positions + part->first_token, from->positions, bytes);
        for (int64_t s = 0; s <= from->max_sequences; s++) {
            to->cu_seqlens[part->first_sequence + s] = (int32_t)part->first_token + from->cu_seqlens[s];
        }
        to->num_sequences += from->num_sequences;
        to->num_tokens += from->num_tokens;
        to->num_targets += from->num_targets;
        part->num_targets += from->num_targets;
    }
}

lk_status lk_step_parts_upload(lk_trainer *trainer, const lk_batch *batch) {
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        const lk_step_part *part = &trainer->parts[i];
        float scale = part->num_targets > 0 ? (float)(1.0 / (double)part->num_targets) : 0.0f;
        LK_TRY(lk_variable_upload(part->targets, batch->targets + part->first_token));
        LK_TRY(lk_variable_upload(part->loss_scale, &scale));
    }
    return LK_OK;
}

lk_status lk_step_parts_read(lk_trainer *trainer) {
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        lk_step_part *part = &trainer->parts[i];
        float loss;
        LK_TRY(lk_program_read(trainer->micro, part->loss, &loss, sizeof loss));
        part->step_loss += (double)loss;
    }
    return LK_OK;
}
