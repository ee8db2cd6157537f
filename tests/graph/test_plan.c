/* The memory plan: as a function, over random sets of items; and through whole programs, whose results would show an
 * overlap. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/faults/fake_device.h"

enum { MAX_ITEMS = 60, SETS = 4000, PROGRAMS = 150, MAX_NODES = 40, SIDE = 6 };

/* ---- the function ---- */

static int32_t root_of(const lk_plan_item *items, int32_t i) {
    while (items[i].shares >= 0) {
        i = items[i].shares;
    }
    return i;
}

static int32_t make_items(uint64_t *state, lk_plan_item *items) {
    int32_t count = (int32_t)random_below(state, MAX_ITEMS + 1), commands = 1 + (int32_t)random_below(state, 40);
    bool taken[MAX_ITEMS] = {false};
    for (int32_t i = 0; i < count; i++) {
        int32_t first = (int32_t)random_below(state, commands);
        int32_t length = (int32_t)random_below(state, random_below(state, 4) == 0 ? commands : 4);
        size_t bytes = (size_t)random_below(state, random_below(state, 3) == 0 ? 100000 : 700);
        items[i] = (lk_plan_item){bytes, first, LK_MIN(first + length, commands - 1), -1, SIZE_MAX};
        if (i > 0 && random_below(state, 3) == 0) { /* takes over what ends where it begins, once */
            int32_t from = (int32_t)random_below(state, i);
            if (!taken[from]) {
                taken[from] = true;
                items[i].shares = from;
                items[i].first = items[from].last;
                items[i].last = LK_MAX(items[i].first, items[i].last);
                items[i].bytes = items[from].bytes;
            }
        }
    }
    return count;
}

static void check_plan(const lk_plan_item *items, int32_t count, size_t total, size_t lower_bound, uint64_t seed) {
    size_t alive[64] = {0}, most = 0;
    for (int32_t i = 0; i < count; i++) {
        const lk_plan_item *a = &items[i];
        require_msg(a->offset % LK_BUFFER_ALIGNMENT == 0, "seed %llu: item %d at %zu", (unsigned long long)seed, i,
                    a->offset);
        require_msg(a->offset <= total && a->bytes <= total - a->offset, "seed %llu: item %d", (unsigned long long)seed,
                    i);
        for (int32_t t = a->first; t <= a->last; t++) {
            /* the byte counts of items that share count once: a chain of shares never lives twice at one time but where
             * one takes over from the other */
            alive[t] += a->shares >= 0 && t == a->first ? 0 : a->bytes;
            most = LK_MAX(most, alive[t]);
        }
        for (int32_t j = 0; j < i; j++) {
            const lk_plan_item *b = &items[j];
            if (root_of(items, i) == root_of(items, j)) {
                require_msg(a->offset == b->offset, "seed %llu: items %d and %d share", (unsigned long long)seed, i, j);
                continue;
            }
            bool in_time = a->first <= b->last && b->first <= a->last;
            bool in_space = a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
            require_msg(!(in_time && in_space), "seed %llu: items %d and %d overlap", (unsigned long long)seed, i, j);
        }
    }
    require_msg(total >= lower_bound && lower_bound >= most, "seed %llu: total %zu, bound %zu, alive %zu",
                (unsigned long long)seed, total, lower_bound, most);
}

START_TEST(test_random_items) {
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    size_t totals = 0, bounds = 0, sums = 0;
    for (uint64_t set = 0; set < SETS; set++) {
        uint64_t seed = test_seed() + set, state = seed;
        lk_plan_item items[MAX_ITEMS];
        int32_t count = make_items(&state, items);
        size_t total, lower_bound;
        ck_assert_int_eq(lk_plan_memory(context, items, count, &total, &lower_bound), LK_OK);
        check_plan(items, count, total, lower_bound, seed);
        totals += total;
        bounds += lower_bound;
        for (int32_t i = 0; i < count; i++) {
            sums += items[i].bytes;
        }
    }
    printf("%d sets: total %.3f of the lower bound, %.3f of the sum\n", SETS, (double)totals / (double)bounds,
           (double)totals / (double)sums);
    ck_assert_uint_lt(totals, sums); /* memory is reused at all */
    lk_context_destroy(context);
}
END_TEST

START_TEST(test_chain_of_shares) {
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    /* 0 -> 1 -> 2 in place; 3 lives beside all of them; 4 begins after them */
    lk_plan_item items[] = {
        {1000, 0, 2, -1, 0}, {1000, 2, 4, 0, 0}, {1000, 4, 6, 1, 0}, {500, 0, 6, -1, 0}, {900, 7, 8, -1, 0}};
    size_t total, lower_bound;
    ck_assert_int_eq(lk_plan_memory(context, items, 5, &total, &lower_bound), LK_OK);
    ck_assert_uint_eq(items[0].offset, items[1].offset);
    ck_assert_uint_eq(items[0].offset, items[2].offset);
    ck_assert_uint_eq(items[4].offset, 0);
    ck_assert_uint_eq(total, 1024 + 512);
    ck_assert_uint_eq(lower_bound, total);
    ck_assert_int_eq(lk_plan_memory(context, items, 0, &total, &lower_bound), LK_OK);
    ck_assert_uint_eq(total, 0);
    lk_context_destroy(context);
}
END_TEST

START_TEST(test_sizes_that_overflow) {
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    lk_plan_item huge[] = {{SIZE_MAX - 10, 0, 1, -1, 0}};
    lk_plan_item two[] = {{SIZE_MAX / 2, 0, 1, -1, 0}, {SIZE_MAX / 2, 0, 1, -1, 0}, {SIZE_MAX / 2, 0, 1, -1, 0}};
    size_t total, lower_bound;
    ck_assert_int_eq(lk_plan_memory(context, huge, 1, &total, &lower_bound), LK_STATUS_OUT_OF_MEMORY);
    ck_assert_int_eq(lk_plan_memory(context, two, 3, &total, &lower_bound), LK_STATUS_OUT_OF_MEMORY);
    lk_context_destroy(context);
}
END_TEST

/* ---- whole programs ---- */

typedef struct random_program {
    lk_graph *graph;
    int count;
    lk_tensor *tensors[MAX_NODES + 8]; /* variables first */
    double values[MAX_NODES + 8][SIDE * SIDE];
    lk_variable *sum; /* STATE, accumulated into by some nodes */
    double sum_value[SIDE * SIDE];
    bool marked[MAX_NODES + 8];
} random_program;

static void evaluate(const lk_node *node, const double *x, const double *y, const double *z, double *out) {
    for (int i = 0; i < SIDE * SIDE; i++) {
        double sum = 0.0;
        switch (node->op) {
        case LK_OP_ADD:
            out[i] = x[i] + y[i];
            break;
        case LK_OP_MUL:
            out[i] = x[i] * y[i];
            break;
        case LK_OP_SCALE:
            out[i] = (double)node->attributes.scale.value * x[i];
            break;
        default:
            for (int k = 0; k < SIDE; k++) {
                sum += x[i / SIDE * SIDE + k] * y[k * SIDE + i % SIDE];
            }
            out[i] = 0.25 * sum + (z != NULL ? z[i] : 0.0);
        }
    }
}

/* Products grow; what a narrow type could not hold is not asked of a device. */
static bool fits_f32(const random_program *self) {
    for (int i = 0; i < self->count; i++) {
        for (int j = 0; j < SIDE * SIDE; j++) {
            if (!(fabs(self->values[i][j]) < 1e12) || !(fabs(self->sum_value[j]) < 1e12)) {
                return false;
            }
        }
    }
    return true;
}

static int pick(const random_program *self, uint64_t *state) {
    int recent = (int)random_below(state, 2); /* recent tensors more often, so that lives end */
    int from = recent ? LK_MAX(0, self->count - 4) : 0;
    return from + (int)random_below(state, self->count - from);
}

static void add_node(random_program *self, uint64_t *state) {
    int a = pick(self, state), b = pick(self, state), c = pick(self, state), kind = (int)random_below(state, 6);
    lk_tensor **t = self->tensors, *made = NULL;
    const double *z = NULL;
    switch (kind) {
    case 0:
        made = lk_build_add(self->graph, t[a], t[b]);
        break;
    case 1:
        made = lk_build_mul(self->graph, t[a], t[b]);
        break;
    case 2:
        made = lk_build_scale(self->graph, t[a], 0.5f);
        break;
    case 3:
        lk_build_accumulate(self->graph, lk_graph_variable(self->graph, self->sum), t[a]);
        for (int i = 0; i < SIDE * SIDE; i++) {
            self->sum_value[i] += self->values[a][i];
        }
        return;
    case 4:
        z = self->values[c]; /* fall through: with a sum */
        made = lk_build_matmul(self->graph, t[a], false, t[b], false, 0.25f, t[c]);
        break;
    default:
        made = lk_build_matmul(self->graph, t[a], false, t[b], false, 0.25f, NULL);
    }
    ck_assert_ptr_nonnull(made);
    evaluate(made->producer, self->values[a], self->values[b], z, self->values[self->count]);
    self->marked[self->count] = random_below(state, 8) == 0;
    if (self->marked[self->count]) {
        lk_graph_mark_output(self->graph, made);
    }
    t[self->count++] = made;
}

static random_program *make_program(fixture *fix, uint64_t seed, lk_dtype dtype) {
    random_program *self = calloc(1, sizeof *self);
    uint64_t state = seed;
    ck_assert_int_eq(lk_graph_create(fix->context, &self->graph), LK_OK);
    for (int v = 0; v < 4; v++) {
        double *values = random_values(&state, SIDE * SIDE, 1.0);
        for (int i = 0; i < SIDE * SIDE; i++) {
            self->values[v][i] = values[i] = (double)(float)values[i];
        }
        self->tensors[self->count++] =
            lk_graph_variable(self->graph, fixture_variable(fix, v < 2 ? LK_ROLE_WEIGHT : LK_ROLE_INPUT, LK_DTYPE_F64,
                                                            2, SIDE, SIDE, values));
        free(values);
    }
    self->sum = fixture_variable(fix, LK_ROLE_STATE, dtype, 2, SIDE, SIDE, NULL);
    int nodes = 1 + (int)random_below(&state, MAX_NODES);
    for (int i = 0; i < nodes; i++) {
        add_node(self, &state);
    }
    if (self->tensors[self->count - 1]->producer != NULL) { /* the last node's result, often */
        self->marked[self->count - 1] = true;
        lk_graph_mark_output(self->graph, self->tensors[self->count - 1]);
    }
    return self;
}

static void check_results(random_program *self, lk_program *program, double tolerance, uint64_t seed) {
    for (int i = 0; i < self->count; i++) {
        if (self->marked[i]) {
            double *found = fixture_output(program, self->tensors[i]);
            double difference = relative_difference(found, self->values[i], SIDE * SIDE);
            ck_assert_msg(difference < tolerance, "seed %llu: tensor %d differs by %g", (unsigned long long)seed, i,
                          difference);
            free(found);
        }
    }
}

/* Compiles and runs twice. False where the values do not fit the dtype. */
static bool check_program(lk_context *context, lk_device *main, uint64_t seed, lk_dtype dtype) {
    double tolerance = dtype == LK_DTYPE_F64 ? 1e-12 : 1e-3; /* rounding; an overlap is no small error */
    fixture fix;
    fixture_open_on(&fix, context, main);
    random_program *self = make_program(&fix, seed, dtype);
    bool fits = dtype == LK_DTYPE_F64 || fits_f32(self);
    lk_program *program = fixture_compile(&fix, self->graph);
    lk_program_memory memory = lk_program_memory_of(program);
    ck_assert_uint_ge(memory.arena_bytes, memory.lower_bound_bytes);
    for (int run = 1; run <= 2 && fits; run++) {
        double sum[SIDE * SIDE], expected[SIDE * SIDE];
        fixture_run(program);
        check_results(self, program, tolerance, seed);
        fixture_read(self->sum, sum);
        for (int i = 0; i < SIDE * SIDE; i++) {
            expected[i] = run * self->sum_value[i];
        }
        double difference = relative_difference(sum, expected, SIDE * SIDE);
        ck_assert_msg(difference < tolerance, "seed %llu: run %d: the sum differs by %g", (unsigned long long)seed, run,
                      difference);
    }
    for (int v = 0; v < 4; v++) { /* what is only read is unchanged */
        double values[SIDE * SIDE];
        fixture_read(self->tensors[v]->variable, values);
        ck_assert_mem_eq(values, self->values[v], sizeof values);
    }
    lk_program_destroy(program);
    free(self);
    fixture_close(&fix);
    return fits;
}

/* On the reference device; on one that works in place and spoils its scratch memory; and spread over both. */
START_TEST(test_random_programs) {
    const uint64_t matrices = fake_op(LK_OP_MATMUL), sums = fake_op(LK_OP_ADD) | fake_op(LK_OP_ACCUMULATE);
    const uint64_t ops[] = {0, fake_all_ops(), matrices, fake_all_ops() & ~matrices, sums, fake_all_ops() & ~sums};
    for (uint64_t i = 0; i < PROGRAMS; i++) {
        lk_context *context;
        lk_device *main = NULL;
        ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
        if (ops[_i] != 0) {
            ck_assert_int_eq(fake_device_open(context, ops[_i], &main), LK_OK);
            if (i % 2 == 1) {
                fake_device_share_memory(main);
            }
        }
        check_program(context, main, test_seed() + i, LK_DTYPE_F64);
    }
}
END_TEST

/* The first device of every backend that computes. */
START_TEST(test_random_programs_on_real_devices) {
    int num_backends, fitted = 0, tried = 0;
    const lk_backend *backend = lk_backends(&num_backends)[_i];
    if (strcmp(backend->name, "null") == 0) { /* every op falls back: covered by the fake device */
        return;
    }
    for (uint64_t i = 0; i < PROGRAMS / 3; i++) {
        lk_context *context;
        lk_device_caps caps;
        lk_device *main;
        int count = 0;
        lk_device_options options = {sizeof options, 2};
        ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
        lk_status status = backend->probe(context, &caps, 1, &count);
        if (status == LK_STATUS_UNAVAILABLE || count == 0) {
            printf("skipped: %s: %s\n", backend->name, lk_error_message(context));
            lk_context_destroy(context);
            return;
        }
        ck_assert_int_eq(status, LK_OK);
        ck_assert_int_eq(backend->open(context, &caps, &options, &main), LK_OK);
        fitted += check_program(context, main, test_seed() + i, LK_DTYPE_F32);
        tried++;
    }
    printf("%s: %d of %d random programs\n", backend->name, fitted, tried);
    ck_assert_int_gt(2 * fitted, tried);
}
END_TEST

int main(void) {
    test_seed();
    TCase *tests = tcase_create("plan");
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, test_random_items);
    tcase_add_test(tests, test_chain_of_shares);
    tcase_add_test(tests, test_sizes_that_overflow);
    tcase_add_loop_test(tests, test_random_programs, 0, 6);
    int num_backends;
    lk_backends(&num_backends);
    tcase_add_loop_test(tests, test_random_programs_on_real_devices, 0, num_backends);
    return run_case("plan", tests);
}
