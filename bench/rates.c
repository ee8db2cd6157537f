/* What a device can do at most, measured: products that reuse what they read, a sum that does not, and on the CPU
 * multiplications that touch no memory at all. */
#include <string.h>

#include "bench/bench.h"
#include "bench/registers.h"
#include "core/graph/build.h"

typedef lk_tensor *(*rate_build)(lk_graph *graph, lk_tensor *a, lk_tensor *b);

static lk_tensor *build_product(lk_graph *graph, lk_tensor *a, lk_tensor *b) {
    return lk_build_linear(graph, a, b, NULL);
}

static lk_tensor *build_sum(lk_graph *graph, lk_tensor *a, lk_tensor *b) {
    return lk_build_add(graph, a, b);
}

/* The fastest of the runs that fit into the time, at least three. */
static lk_status fastest_run(lk_program *program, double limit, double *seconds) {
    LK_TRY(lk_program_profile(program)); /* not counted */
    double begin = lk_seconds();
    *seconds = 0.0;
    for (int runs = 0; runs < 3 || lk_seconds() - begin < limit; runs++) {
        LK_TRY(lk_program_profile(program));
        double taken = 0.0;
        for (int32_t i = 0; i < lk_program_num_commands(program); i++) {
            taken += lk_program_placement(program, i).measured_seconds;
        }
        *seconds = runs == 0 || taken < *seconds ? taken : *seconds;
    }
    return LK_OK;
}

static lk_status operand(lk_session *session, lk_variables *variables, lk_graph *graph, const char *name,
                         lk_dtype dtype, int64_t rows, int64_t columns, lk_tensor **out) {
    int64_t shape[2] = {rows, columns};
    lk_variable *variable;
    LK_TRY(lk_variables_add(variables, name, LK_ROLE_INPUT, "operand", dtype, 2, shape, &variable));
    LK_TRY(lk_bench_fill(session->context, variable, 1.0f, 0));
    *out = lk_graph_variable(graph, variable);
    return lk_graph_status(graph);
}

static lk_status build(lk_session *session, lk_variables *variables, lk_graph *graph, rate_build function,
                       lk_dtype dtype, int64_t rows, int64_t columns) {
    lk_tensor *a, *b;
    LK_TRY(operand(session, variables, graph, "a", LK_DTYPE_F32, rows, columns, &a));
    LK_TRY(operand(session, variables, graph, "b", dtype, rows, columns, &b));
    lk_tensor *y = function(graph, a, b);
    LK_TRY(lk_graph_status(graph));
    lk_graph_mark_output(graph, y);
    return lk_graph_status(graph);
}

static lk_status time_one(lk_session *session, rate_build function, lk_dtype dtype, int64_t rows, int64_t columns,
                          double limit, double *seconds) {
    lk_variables *variables;
    lk_graph *graph;
    lk_program *program = NULL;
    LK_TRY(lk_variables_create(session->context, lk_session_main_device(session), &variables));
    lk_status status = lk_graph_create(session->context, &graph);
    if (status == LK_OK) {
        status = build(session, variables, graph, function, dtype, rows, columns);
        if (status == LK_OK) {
            status = lk_session_compile(session, graph, false, &program);
        } else {
            lk_graph_destroy(graph);
        }
    }
    if (status == LK_OK) {
        status = fastest_run(program, limit, seconds);
    }
    lk_program_destroy(program);
    lk_variables_destroy(variables);
    return status;
}

lk_status lk_bench_measure_rates(lk_session *session, double seconds, lk_bench_rates *out) {
    *out = (lk_bench_rates){0};
    const lk_device_caps *caps = &lk_session_main_device(session)->caps;
    /* so much that a launch does not show, so little that a run fits into the time */
    int64_t most = 8192;
    while (most > 256 && 2.0 * (double)most * (double)most * (double)most > caps->flops_f32 * (0.02 + seconds)) {
        most /= 2;
    }
    for (int64_t n = most; n >= most / 4; n /= 2) {
        for (int bf16 = 0; bf16 < 2; bf16++) {
            double taken, *rate = bf16 ? &out->flops_bf16 : &out->flops_f32;
            LK_TRY(time_one(session, build_product, bf16 ? LK_DTYPE_BF16 : LK_DTYPE_F32, n, n, seconds / 3.0, &taken));
            double found = taken > 0.0 ? 2.0 * (double)n * (double)n * (double)n / taken : 0.0;
            *rate = found > *rate ? found : *rate;
        }
    }
    double taken;
    int64_t rows = most * 8;
    LK_TRY(time_one(session, build_sum, LK_DTYPE_F32, rows, 2048, seconds, &taken));
    out->bandwidth = taken > 0.0 ? 3.0 * sizeof(float) * (double)rows * 2048.0 / taken : 0.0;
    if (strcmp(caps->backend, "cpu") == 0) {
        out->flops_registers = lk_bench_register_rate(caps->features, caps->threads, false, seconds);
        out->flops_registers_bf16 = lk_bench_register_rate(caps->features, caps->threads, true, seconds);
    }
    return LK_OK;
}
