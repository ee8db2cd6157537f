/* Self-attention of one head, trained in full or by LoRA on queries and keys, built of the operations that models are
 * built of. The loss is the sum of the output: two products with ones, so that its gradient is not known beforehand. */
#include <math.h>
#include <stdio.h>

#include "bench/bench.h"
#include "core/graph/build.h"

enum { FULL, LORA, KINDS, MAX_TRAINED = 4 };

struct lk_bench_attention {
    lk_context *context;
    lk_variables *variables;
    lk_program *programs[KINDS];
    lk_tensor *gradients[KINDS][MAX_TRAINED];
    int64_t b, e, h, r;
};

static lk_status tensor(lk_bench_attention *self, lk_graph *graph, const char *name, lk_dtype dtype, int64_t rows,
                        int64_t columns, float scale, lk_tensor **out) {
    lk_variable *variable = lk_variables_find(self->variables, name);
    if (variable == NULL) {
        int64_t shape[2] = {rows, columns};
        LK_TRY(lk_variables_add(self->variables, name, LK_ROLE_INPUT, "input", dtype, columns > 0 ? 2 : 1, shape,
                                &variable));
        LK_TRY(lk_bench_fill(self->context, variable, scale, self->b));
    }
    *out = lk_graph_variable(graph, variable);
    return lk_graph_status(graph);
}

/* x W', with a low-rank pair where it is adapted; adds what is trained to the list. */
static lk_status project(lk_bench_attention *self, lk_graph *graph, lk_tensor *x, char which, bool lora,
                         lk_tensor **trained, int *count, lk_tensor **out) {
    char name[16];
    lk_tensor *weight, *low[2];
    float scale = 1.0f / sqrtf((float)self->e);
    snprintf(name, sizeof name, "W%c", which);
    LK_TRY(tensor(self, graph, name, LK_DTYPE_F32, self->h, self->e, scale, &weight));
    if (!lora) {
        *out = lk_build_linear(graph, x, weight, NULL);
        trained[(*count)++] = weight;
    } else if (which == 'v') {
        *out = lk_build_linear(graph, x, weight, NULL);
    } else {
        snprintf(name, sizeof name, "A%c", which);
        LK_TRY(tensor(self, graph, name, LK_DTYPE_F32, self->r, self->e, scale, &low[0]));
        snprintf(name, sizeof name, "B%c", which);
        LK_TRY(tensor(self, graph, name, LK_DTYPE_F32, self->h, self->r, 0.1f, &low[1]));
        *out = lk_build_lora_linear(graph, x, weight, NULL, low[0], low[1], NULL, &(lk_lora_attributes){.scale = 1.0f});
        trained[(*count)++] = low[0];
        trained[(*count)++] = low[1];
    }
    return lk_graph_status(graph);
}

static lk_status build(lk_bench_attention *self, lk_graph *graph, int kind) {
    lk_tensor *x, *cu_seqlens, *ones[2], *qkv[3], *trained[MAX_TRAINED];
    int count = 0;
    LK_TRY(tensor(self, graph, "x", LK_DTYPE_F32, self->b, self->e, 1.0f, &x));
    LK_TRY(tensor(self, graph, "cu_seqlens", LK_DTYPE_I32, 2, 0, 0.0f, &cu_seqlens));
    LK_TRY(tensor(self, graph, "ones_b", LK_DTYPE_F32, 1, self->b, 0.0f, &ones[0]));
    LK_TRY(tensor(self, graph, "ones_h", LK_DTYPE_F32, self->h, 1, 0.0f, &ones[1]));
    for (int i = 0; i < 3; i++) {
        LK_TRY(project(self, graph, x, "qkv"[i], kind == LORA, trained, &count, &qkv[i]));
    }
    lk_attention_attributes attributes = {.num_attention_heads = 1,
                                          .num_key_value_heads = 1,
                                          .head_dim = (int32_t)self->h,
                                          .scale = 1.0f / sqrtf((float)self->h)};
    lk_tensor *o = lk_build_attention(graph, qkv[0], qkv[1], qkv[2], cu_seqlens, NULL, NULL, &attributes);
    lk_tensor *sums = lk_build_matmul(graph, ones[0], false, o, false, 1.0f, NULL);
    lk_tensor *loss = lk_build_matmul(graph, sums, false, ones[1], false, 1.0f, NULL);
    LK_TRY(lk_graph_status(graph));
    LK_TRY(lk_graph_backward(graph, loss, count, trained, self->gradients[kind]));
    lk_graph_mark_output(graph, loss);
    for (int i = 0; i < count; i++) {
        lk_graph_mark_output(graph, self->gradients[kind][i]);
    }
    return lk_graph_status(graph);
}

static lk_status create(lk_bench_attention *self, lk_session *session) {
    LK_TRY(lk_variables_create(self->context, lk_session_main_device(session), &self->variables));
    for (int kind = 0; kind < KINDS; kind++) {
        lk_graph *graph;
        LK_TRY(lk_graph_create(self->context, &graph));
        lk_status status = build(self, graph, kind);
        if (status != LK_OK) {
            lk_graph_destroy(graph);
            return status;
        }
        LK_TRY(lk_session_compile(session, graph, false, &self->programs[kind]));
    }
    return LK_OK;
}

lk_status lk_bench_attention_create(lk_session *session, int64_t b, int64_t e, int64_t h, int64_t r,
                                    lk_bench_attention **out) {
    *out = NULL;
    lk_context *context = session->context;
    const int64_t most = 1 << 16;
    if (b < 1 || e < 1 || h < 1 || r < 1 || b > most || e > most || h > most || r > most) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT,
                       "b is %lld, e %lld, h %lld, r %lld; expected 1 to %lld for each", (long long)b, (long long)e,
                       (long long)h, (long long)r, (long long)most);
    }
    lk_bench_attention *self = lk_calloc(context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(context, sizeof *self, "a measurement");
    }
    *self = (lk_bench_attention){.context = context, .b = b, .e = e, .h = h, .r = r};
    lk_status status = create(self, session);
    if (status != LK_OK) {
        lk_bench_attention_destroy(self);
        return status;
    }
    *out = self;
    return LK_OK;
}

void lk_bench_attention_destroy(lk_bench_attention *attention) {
    if (attention != NULL) {
        lk_program_destroy(attention->programs[FULL]);
        lk_program_destroy(attention->programs[LORA]);
        lk_variables_destroy(attention->variables);
        lk_free(attention->context, attention);
    }
}

lk_status lk_bench_attention_run(lk_bench_attention *attention, double seconds, lk_bench_attention_report *report) {
    enum { FEWEST = 3, MOST = 2001 };
    *report = (lk_bench_attention_report){0};
    double *times[KINDS];
    double *memory = lk_alloc(attention->context, (size_t)KINDS * MOST * sizeof *memory);
    if (memory == NULL) {
        return lk_out_of_memory(attention->context, (size_t)KINDS * MOST * sizeof *memory, "times");
    }
    times[FULL] = memory;
    times[LORA] = memory + MOST;
    lk_status status = LK_OK;
    double begin = 0.0;
    int runs = -1; /* the first is not counted: caches and clocks settle */
    while (status == LK_OK && runs < MOST && (runs < FEWEST || lk_seconds() - begin < seconds)) {
        double taken[KINDS];
        begin = runs == -1 ? lk_seconds() : begin;
        for (int i = 0; i < KINDS && status == LK_OK; i++) {
            int kind = runs % 2 == 0 ? i : KINDS - 1 - i; /* neither always follows the other */
            double before = lk_seconds();
            status = lk_program_run(attention->programs[kind]);
            taken[kind] = lk_seconds() - before;
        }
        for (int kind = 0; kind < KINDS && runs >= 0 && status == LK_OK; kind++) {
            times[kind][runs] = taken[kind];
        }
        runs++;
    }
    if (status == LK_OK) {
        report->runs = runs;
        report->full_seconds = lk_bench_median(times[FULL], runs);
        report->lora_seconds = lk_bench_median(times[LORA], runs);
        report->full_fastest = times[FULL][0]; /* they are sorted now */
        report->lora_fastest = times[LORA][0];
    }
    lk_free(attention->context, memory);
    return status;
}

lk_status lk_bench_attention_gradient(lk_bench_attention *attention, bool lora, int index, float *values) {
    int kind = lora ? LORA : FULL, count = lora ? 4 : 3;
    if (index < 0 || index >= count) {
        return lk_fail(attention->context, LK_STATUS_INVALID_ARGUMENT, "gradient %d, expected 0 to %d", index,
                       count - 1);
    }
    const lk_tensor *gradient = attention->gradients[kind][index];
    return lk_program_read(attention->programs[kind], gradient, values, lk_tensor_bytes(gradient));
}
