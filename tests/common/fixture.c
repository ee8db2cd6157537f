#include "tests/common/fixture.h"

#include <check.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

lk_device *fixture_open_reference(lk_context *context) {
    lk_device_caps caps;
    int count;
    lk_device *device;
    lk_device_options options = {sizeof options, 1};
    ck_assert_int_eq(lk_backend_reference.probe(context, &caps, 1, &count), LK_OK);
    ck_assert_int_eq(count, 1);
    ck_assert_int_eq(lk_backend_reference.open(context, &caps, &options, &device), LK_OK);
    return device;
}

void fixture_open_on(fixture *self, lk_context *context, lk_device *main) {
    *self = (fixture){.context = context};
    if (main != NULL) {
        self->devices[self->num_devices++] = main;
    }
    self->devices[self->num_devices++] = fixture_open_reference(context);
    ck_assert_int_eq(lk_variables_create(context, self->devices[0], &self->variables), LK_OK);
}

void fixture_open(fixture *self) {
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    fixture_open_on(self, context, NULL);
}

void fixture_close(fixture *self) {
    lk_variables_destroy(self->variables);
    for (int i = 0; i < self->num_devices; i++) {
        self->devices[i]->backend->close(self->devices[i]);
    }
    lk_context_destroy(self->context);
    *self = (fixture){0};
}

static int64_t elements_of(const lk_variable *variable) {
    return variable->shape[0] * variable->shape[1] * variable->shape[2] * variable->shape[3];
}

static void to_bytes(lk_dtype dtype, const double *values, int64_t count, void *bytes) {
    ck_assert(dtype == LK_DTYPE_F64 || dtype == LK_DTYPE_F32 || dtype == LK_DTYPE_I32);
    for (int64_t i = 0; i < count; i++) {
        if (dtype == LK_DTYPE_F64) {
            ((double *)bytes)[i] = values[i];
        } else if (dtype == LK_DTYPE_F32) {
            ((float *)bytes)[i] = (float)values[i];
        } else {
            ((int32_t *)bytes)[i] = (int32_t)values[i];
        }
    }
}

static void from_bytes(lk_dtype dtype, const void *bytes, int64_t count, double *values) {
    ck_assert(dtype == LK_DTYPE_F64 || dtype == LK_DTYPE_F32 || dtype == LK_DTYPE_I32);
    for (int64_t i = 0; i < count; i++) {
        values[i] = dtype == LK_DTYPE_F64   ? ((const double *)bytes)[i]
                    : dtype == LK_DTYPE_F32 ? (double)((const float *)bytes)[i]
                                            : (double)((const int32_t *)bytes)[i];
    }
}

lk_variable *fixture_variable(fixture *self, lk_role role, lk_dtype dtype, int rank, int64_t extent0, int64_t extent1,
                              const double *values) {
    char name[32];
    snprintf(name, sizeof name, "variable%d", (int)lk_variables_count(self->variables));
    const int64_t shape[] = {extent0, extent1};
    lk_variable *variable;
    lk_status status = lk_variables_add(self->variables, name, role, "test", dtype, rank, shape, &variable);
    ck_assert_msg(status == LK_OK, "%s", lk_error_message(self->context));
    if (values != NULL) {
        fixture_write(variable, values);
    }
    return variable;
}

void fixture_write(const lk_variable *variable, const double *values) {
    void *bytes = malloc(variable->bytes + 1);
    to_bytes(variable->dtype, values, elements_of(variable), bytes);
    lk_device *home = lk_variable_home(variable);
    ck_assert_int_eq(home->backend->upload(home, lk_variable_buffer(variable), 0, bytes, variable->bytes), LK_OK);
    free(bytes);
}

void fixture_read(const lk_variable *variable, double *values) {
    void *bytes = malloc(variable->bytes + 1);
    lk_device *home = lk_variable_home(variable);
    ck_assert_int_eq(home->backend->download(home, lk_variable_buffer(variable), 0, bytes, variable->bytes), LK_OK);
    from_bytes(variable->dtype, bytes, elements_of(variable), values);
    free(bytes);
}

lk_status fixture_try_compile(fixture *self, lk_graph *graph, lk_program **program) {
    lk_program_options options = {.devices = self->devices, .num_devices = self->num_devices};
    return lk_program_compile(self->context, graph, &options, program);
}

lk_program *fixture_compile(fixture *self, lk_graph *graph) {
    lk_program *program;
    lk_status status = fixture_try_compile(self, graph, &program);
    ck_assert_msg(status == LK_OK, "%s", lk_error_message(self->context));
    return program;
}

void fixture_run(lk_program *program) {
    ck_assert_int_eq(lk_program_run(program), LK_OK);
}

double *fixture_output(lk_program *program, const lk_tensor *tensor) {
    int64_t count = lk_tensor_elements(tensor);
    double *values = malloc((size_t)(count + 1) * sizeof *values);
    if (tensor->variable != NULL) { /* the gradient of a sum's operand is the sum's own gradient: an input, maybe */
        fixture_read(tensor->variable, values);
        return values;
    }
    void *bytes = malloc(lk_tensor_bytes(tensor) + 1);
    ck_assert_int_eq(lk_program_read(program, tensor, bytes, lk_tensor_bytes(tensor)), LK_OK);
    from_bytes(tensor->dtype, bytes, count, values);
    free(bytes);
    return values;
}

int count_nodes(const lk_graph *graph, lk_op op) {
    int count = 0;
    for (int32_t i = 0; i < lk_graph_num_nodes(graph); i++) {
        count += lk_graph_node(graph, i)->op == op;
    }
    return count;
}

/* ---- random numbers ---- */

uint64_t test_seed(void) {
    static uint64_t seed;
    static bool known;
    if (!known) {
        const char *text = getenv("LK_TEST_SEED");
        seed = text != NULL ? strtoull(text, NULL, 10) : 20260101;
        known = true;
        printf("seed %" PRIu64 "\n", seed);
        fflush(stdout); /* before Check forks */
    }
    return seed;
}

uint64_t random_bits(uint64_t *state) {
    uint32_t words[4];
    lk_philox4x32(*state, 0, 0, words);
    uint64_t bits = (uint64_t)words[0] << 32 | words[1];
    *state += 0x9e3779b97f4a7c15u;
    return bits;
}

int64_t random_below(uint64_t *state, int64_t bound) {
    return (int64_t)(random_bits(state) % (uint64_t)bound);
}

double random_normal(uint64_t *state) {
    uint64_t bits = random_bits(state);
    double pair[2];
    lk_normal_pair_from_bits((uint32_t)bits, (uint32_t)(bits >> 32), pair);
    return pair[0];
}

double *random_values(uint64_t *state, int64_t count, double scale) {
    double *values = malloc((size_t)(count + 1) * sizeof *values);
    for (int64_t i = 0; i < count; i++) {
        values[i] = scale * random_normal(state);
    }
    return values;
}

double relative_difference(const double *found, const double *expected, int64_t count) {
    double largest = 0.0, worst = 0.0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(found[i]) || !isfinite(expected[i])) {
            return INFINITY;
        }
        largest = fmax(largest, fabs(expected[i]));
        worst = fmax(worst, fabs(found[i] - expected[i]));
    }
    return largest > 0.0 ? worst / largest : worst;
}
