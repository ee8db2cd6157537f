/* CROSS_ENTROPY, its backward, and LINEAR_CROSS_ENTROPY in chunks of tokens whose logits fit a bounded scratch. */
#include "backends/shaders/rows.h"

#define MAX_LOGITS_BYTES ((int64_t)128 << 20)

static size_t aligned(size_t bytes) {
    return (bytes + LK_BUFFER_ALIGNMENT - 1) / LK_BUFFER_ALIGNMENT * LK_BUFFER_ALIGNMENT;
}

typedef struct rows_call {
    const lk_binding *logits, *targets, *loss_scale, *losses, *lse;
    int64_t rows, width, first_row;
    bool wants_lse, wants_gradient;
} rows_call;

static void record_rows(lk_recorder *recorder, const rows_call *call) {
    lk_launch *launch = lk_launch_rows(recorder, "cross_entropy", "cross_entropy",
                                       recorder->caps->is_cpu ? 1 : lk_lanes_for_elements(recorder->caps));
    lk_launch_buffer(launch, call->logits);
    lk_launch_buffer(launch, call->targets);
    lk_launch_buffer(launch, call->loss_scale);
    lk_launch_buffer(launch, call->losses);
    lk_launch_buffer(launch, call->wants_lse ? call->lse : call->losses);
    lk_launch_int(launch, call->rows);
    lk_launch_int(launch, call->width);
    lk_launch_int(launch, call->first_row);
    lk_launch_int(launch, call->wants_lse);
    lk_launch_int(launch, call->wants_gradient);
    lk_launch_groups(launch, call->rows);
}

size_t lk_scratch_cross_entropy(const lk_device_caps *caps, const lk_node *node) {
    (void)caps;
    return (size_t)node->inputs[0]->shape[0] * sizeof(float);
}

void lk_record_cross_entropy(lk_recorder *recorder, const lk_command *command) {
    const lk_tensor *logits = command->node->inputs[0];
    rows_call call = {&command->inputs[0],
                      &command->inputs[1],
                      &command->inputs[2],
                      &command->scratch,
                      &command->outputs[1],
                      logits->shape[0],
                      logits->shape[1],
                      0,
                      command->node->outputs[1] != NULL,
                      false};
    record_rows(recorder, &call);
    if (command->node->outputs[0] != NULL) {
        lk_record_sum(recorder, &command->scratch, logits->shape[0], &command->inputs[2], false, &command->outputs[0]);
    }
}

void lk_record_cross_entropy_backward(lk_recorder *recorder, const lk_command *command) {
    const lk_tensor *logits = command->node->inputs[1];
    lk_launch *launch = lk_launch_begin(recorder, "cross_entropy", "cross_entropy_backward",
                                        recorder->caps->is_cpu ? 1 : lk_lanes_for_elements(recorder->caps));
    for (int i = 0; i < 5; i++) {
        lk_launch_buffer(launch, &command->inputs[i]);
    }
    lk_launch_buffer(launch, &command->outputs[0]);
    lk_launch_int(launch, logits->shape[0]);
    lk_launch_int(launch, logits->shape[1]);
    lk_launch_groups(launch, logits->shape[0]);
}

/* ---- LINEAR_CROSS_ENTROPY ---- */

static int64_t chunk_of(const lk_node *node) {
    int64_t tokens = node->inputs[0]->shape[0], row = node->inputs[1]->shape[0] * (int64_t)sizeof(float);
    int64_t most = LK_MAX((int64_t)1, MAX_LOGITS_BYTES / row);
    int64_t chunks = LK_MAX((int64_t)1, (tokens + most - 1) / most);
    int64_t even = (tokens + chunks - 1) / chunks;
    return LK_MIN(tokens, (even + 63) / 64 * 64); /* 64 rows of floats are a multiple of LK_BUFFER_ALIGNMENT */
}

static size_t product_scratch(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    int64_t chunk = chunk_of(node), vocab = node->inputs[1]->shape[0], width = node->inputs[1]->shape[1];
    lk_dtype dtype = node->inputs[1]->dtype;
    return LK_MAX(by->scratch(caps, chunk, vocab, width, dtype, false),
                  by->scratch(caps, chunk, width, vocab, dtype, false));
}

bool lk_supports_linear_cross_entropy(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    return (caps->is_cpu || lk_supports_tiles(caps, why)) && lk_supports_f32_but(node, 1, why);
}

double lk_cost_linear_cross_entropy_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    int64_t tokens = node->inputs[0]->shape[0], vocab = node->inputs[1]->shape[0], width = node->inputs[1]->shape[1];
    lk_dtype dtype = node->inputs[1]->dtype;
    double seconds = by->cost(caps, tokens, vocab, width, dtype, false);
    seconds += node->outputs[1] != NULL ? by->cost(caps, tokens, width, vocab, dtype, false) : 0.0;
    return seconds + 12.0 * (double)tokens * (double)vocab / caps->bandwidth;
}

double lk_cost_linear_cross_entropy(const lk_device_caps *caps, const lk_node *node) {
    return lk_cost_linear_cross_entropy_by(&lk_products_dialect, caps, node);
}

size_t lk_scratch_linear_cross_entropy_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node) {
    size_t logits = (size_t)chunk_of(node) * (size_t)node->inputs[1]->shape[0] * sizeof(float);
    size_t losses = (size_t)node->inputs[0]->shape[0] * sizeof(float);
    return aligned(logits) + aligned(losses) + product_scratch(by, caps, node);
}

size_t lk_scratch_linear_cross_entropy(const lk_device_caps *caps, const lk_node *node) {
    return lk_scratch_linear_cross_entropy_by(&lk_products_dialect, caps, node);
}

void lk_record_linear_cross_entropy(lk_recorder *recorder, const lk_command *command) {
    const lk_node *node = command->node;
    int64_t tokens = node->inputs[0]->shape[0], width = node->inputs[0]->shape[1], vocab = node->inputs[1]->shape[0];
    int64_t chunk = chunk_of(node);
    size_t logits_bytes = (size_t)chunk * (size_t)vocab * sizeof(float), losses_bytes = (size_t)tokens * sizeof(float);
    lk_binding logits = lk_binding_part(&command->scratch, 0, logits_bytes);
    lk_binding losses = lk_binding_part(&command->scratch, aligned(logits_bytes), losses_bytes);
    size_t used = aligned(logits_bytes) + aligned(losses_bytes);
    lk_binding scratch =
        lk_binding_part(&command->scratch, used, product_scratch(lk_products_of(recorder), recorder->caps, node));
    for (int64_t first = 0; first < tokens; first += chunk) {
        int64_t rows = LK_MIN(chunk, tokens - first);
        size_t offset = (size_t)(first * width) * sizeof(float), bytes = (size_t)(rows * width) * sizeof(float);
        lk_product p = {.M = rows,
                        .N = vocab,
                        .K = width,
                        .a = lk_binding_part(&command->inputs[0], offset, bytes),
                        .b = command->inputs[1],
                        .y = logits,
                        .scratch = scratch,
                        .a_row = width,
                        .a_inner = 1,
                        .b_inner = 1,
                        .b_column = width,
                        .b_type = node->inputs[1]->dtype,
                        .alpha = 1.0f};
        lk_record_product(recorder, &p);
        rows_call call = {&logits, &command->inputs[2],     &command->inputs[3], &losses, NULL, rows, vocab, first,
                          false,   node->outputs[1] != NULL};
        record_rows(recorder, &call);
        if (node->outputs[1] != NULL) {
            lk_product back = {.M = rows,
                               .N = width,
                               .K = vocab,
                               .a = logits,
                               .b = command->inputs[1],
                               .y = lk_binding_part(&command->outputs[1], offset, bytes),
                               .scratch = scratch,
                               .a_row = vocab,
                               .a_inner = 1,
                               .b_inner = width,
                               .b_column = 1,
                               .b_type = node->inputs[1]->dtype,
                               .alpha = 1.0f};
            lk_record_product(recorder, &back);
        }
    }
    if (node->outputs[0] != NULL) {
        lk_record_sum(recorder, &losses, tokens, &command->inputs[3], false, &command->outputs[0]);
    }
}
