/* What each pass changes, what it must leave alone, and that results stay the same. */
#include <check.h>
#include <stdlib.h>

#include "core/graph/passes/passes.h"
#include "tests/common/fixture.h"
#include "tests/common/runner.h"

typedef struct setting {
    fixture fixture;
    lk_graph *graph;
    lk_tensor *a, *b, *c; /* 3x3, variables */
} setting;

static lk_tensor *square(fixture *self, lk_graph *graph, lk_role role, uint64_t seed) {
    uint64_t state = seed;
    double *values = random_values(&state, 9, 1.0);
    lk_tensor *tensor = lk_graph_variable(graph, fixture_variable(self, role, LK_DTYPE_F64, 2, 3, 3, values));
    free(values);
    return tensor;
}

static setting open_setting(void) {
    setting self;
    fixture_open(&self.fixture);
    ck_assert_int_eq(lk_graph_create(self.fixture.context, &self.graph), LK_OK);
    self.a = square(&self.fixture, self.graph, LK_ROLE_WEIGHT, test_seed());
    self.b = square(&self.fixture, self.graph, LK_ROLE_WEIGHT, test_seed() + 1);
    self.c = square(&self.fixture, self.graph, LK_ROLE_STATE, test_seed() + 2);
    return self;
}

static void close_setting(setting *self) {
    lk_graph_destroy(self->graph);
    fixture_close(&self->fixture);
}

static lk_tensor *product(setting *self, lk_tensor *x, lk_tensor *y) {
    return lk_build_matmul(self->graph, x, false, y, false, 1.0f, NULL);
}

/* ---- dead code ---- */

START_TEST(test_dead_code) {
    setting self = open_setting();
    double ones[] = {1.0, 1.0, 1.0};
    lk_tensor *weight =
        lk_graph_variable(self.graph, fixture_variable(&self.fixture, LK_ROLE_WEIGHT, LK_DTYPE_F64, 1, 3, 0, ones));
    lk_tensor *unread = product(&self, self.a, self.b);
    lk_build_scale(self.graph, unread, 2.0f); /* a chain that nobody reads */
    lk_tensor *read = lk_build_rms_norm(self.graph, self.a, weight, 1e-5f);
    lk_tensor *rstd = read->producer->outputs[1];
    lk_tensor *sum = lk_build_scale(self.graph, read, 3.0f); /* read only by an effect */
    lk_build_accumulate(self.graph, self.c, sum);
    lk_tensor *output = lk_build_add(self.graph, self.a, self.b); /* read by the caller */
    lk_graph_mark_output(self.graph, output);
    ck_assert_ptr_nonnull(rstd);
    ck_assert_int_eq(lk_pass_dead_code(self.graph), LK_OK);
    static const lk_op left[] = {LK_OP_RMS_NORM, LK_OP_SCALE, LK_OP_ACCUMULATE, LK_OP_ADD};
    ck_assert_int_eq(lk_graph_num_nodes(self.graph), (int)LK_COUNT(left));
    for (int i = 0; i < (int)LK_COUNT(left); i++) {
        ck_assert_int_eq(lk_graph_node(self.graph, i)->op, left[i]);
    }
    ck_assert_ptr_eq(read->producer->outputs[0], read);
    ck_assert_ptr_null(read->producer->outputs[1]);
    ck_assert_ptr_null(rstd->producer);
    close_setting(&self);
}
END_TEST

/* The first output unread and the second read: only the second stays. */
START_TEST(test_dead_first_output) {
    setting self = open_setting();
    double ones[] = {1.0, 1.0, 1.0};
    lk_tensor *weight =
        lk_graph_variable(self.graph, fixture_variable(&self.fixture, LK_ROLE_WEIGHT, LK_DTYPE_F64, 1, 3, 0, ones));
    const lk_node *node = lk_build_rms_norm(self.graph, self.a, weight, 1e-5f)->producer;
    lk_tensor *rstd = node->outputs[1];
    lk_graph_mark_output(self.graph, rstd);
    lk_program *program = fixture_compile(&self.fixture, self.graph);
    self.graph = NULL;
    ck_assert_ptr_null(node->outputs[0]);
    fixture_run(program);
    free(fixture_output(program, rstd));
    lk_program_destroy(program);
    close_setting(&self);
}
END_TEST

/* ---- sums that go into the op before ---- */

typedef lk_tensor *(*make_sum)(setting *self);

static lk_tensor *both_products(setting *self) {
    return lk_build_add(self->graph, product(self, self->a, self->b), product(self, self->b, self->a));
}

static lk_tensor *earlier_operand_is_second(setting *self) {
    lk_tensor *first = lk_build_scale(self->graph, self->a, 2.0f);
    return lk_build_add(self->graph, product(self, self->a, self->b), first);
}

static lk_tensor *chain_of_sums(setting *self) {
    lk_tensor *sum = product(self, self->a, self->a);
    sum = lk_build_add(self->graph, sum, product(self, self->a, self->b));
    sum = lk_build_add(self->graph, product(self, self->b, self->a), sum);
    return lk_build_add(self->graph, sum, product(self, self->b, self->b));
}

static lk_tensor *norm_backward(setting *self) {
    double ones[] = {1.0, 0.5, 2.0};
    lk_tensor *weight =
        lk_graph_variable(self->graph, fixture_variable(&self->fixture, LK_ROLE_WEIGHT, LK_DTYPE_F64, 1, 3, 0, ones));
    lk_tensor *early = lk_build_scale(self->graph, self->b, -1.0f);
    lk_tensor *y = lk_build_rms_norm(self->graph, self->a, weight, 1e-5f), *outputs[2];
    lk_tensor *inputs[] = {y, self->a, weight, y->producer->outputs[1], NULL};
    const lk_attributes epsilon = {.norm = {1e-5f}};
    lk_graph_add(self->graph, LK_OP_RMS_NORM_BACKWARD, 5, inputs, &epsilon, 3, 2, outputs);
    return lk_build_add(self->graph, early, outputs[0]);
}

/* A variable may be written between the product and the sum. */
static lk_tensor *variable_operand(setting *self) {
    lk_tensor *y = product(self, self->a, self->b);
    lk_build_accumulate(self->graph, self->c, self->a);
    return lk_build_add(self->graph, y, self->c);
}

static lk_tensor *used_twice(setting *self) {
    lk_tensor *y = product(self, self->a, self->b), *early = lk_build_scale(self->graph, self->a, 2.0f);
    lk_tensor *z = product(self, early, y);
    return lk_build_mul(self->graph, lk_build_add(self->graph, early, y), lk_build_scale(self->graph, z, 1.0f));
}

static lk_tensor *added_to_itself(setting *self) {
    lk_tensor *y = product(self, self->a, self->b);
    return lk_build_add(self->graph, y, y);
}

static lk_tensor *other_operand_is_later(setting *self) {
    lk_tensor *y = product(self, self->a, self->b);
    return lk_build_add(self->graph, y, lk_build_scale(self->graph, self->a, 2.0f));
}

static lk_tensor *has_its_sum_already(setting *self) {
    lk_tensor *early = lk_build_scale(self->graph, self->a, 2.0f), *other = lk_build_scale(self->graph, self->b, 2.0f);
    lk_tensor *y = lk_build_matmul(self->graph, self->a, false, self->b, false, 1.0f, other);
    return lk_build_add(self->graph, y, early);
}

static lk_tensor *operand_is_an_output(setting *self) {
    lk_tensor *early = lk_build_scale(self->graph, self->a, 2.0f), *y = product(self, self->a, self->b);
    lk_graph_mark_output(self->graph, y);
    return lk_build_add(self->graph, early, y);
}

/* The product would be rounded, or not be rounded, where it was not before. */
static lk_tensor *other_dtype(setting *self) {
    lk_tensor *early = lk_build_scale(self->graph, self->a, 1.0f / 3.0f);
    lk_tensor *narrow = lk_build_cast(self->graph, self->a, LK_DTYPE_F32);
    return lk_build_add(self->graph, early, product(self, narrow, narrow));
}

static const struct {
    make_sum make;
    int adds_before, adds_after;
} sums[] = {
    {both_products, 1, 0},       {earlier_operand_is_second, 1, 0},
    {chain_of_sums, 3, 0},       {norm_backward, 1, 0},
    {variable_operand, 1, 1},    {used_twice, 1, 1},
    {added_to_itself, 1, 1},     {other_operand_is_later, 1, 1},
    {has_its_sum_already, 1, 1}, {operand_is_an_output, 1, 1},
    {other_dtype, 1, 1},
};

START_TEST(test_fuse_accumulation) {
    setting plain = open_setting(), fused = open_setting();
    lk_tensor *expected = sums[_i].make(&plain), *found = sums[_i].make(&fused);
    /* a multiplication by one, so that what the program is asked for is not what is fused */
    expected = lk_build_scale(plain.graph, expected, 1.0f);
    found = lk_build_scale(fused.graph, found, 1.0f);
    lk_graph_mark_output(plain.graph, expected);
    lk_graph_mark_output(fused.graph, found);
    ck_assert_int_eq(count_nodes(fused.graph, LK_OP_ADD), sums[_i].adds_before);
    ck_assert_int_eq(lk_pass_fuse_accumulation(fused.graph), LK_OK);
    ck_assert_int_eq(count_nodes(fused.graph, LK_OP_ADD), sums[_i].adds_after);
    for (int32_t i = 0; i < lk_graph_num_nodes(fused.graph); i++) { /* everything is made before it is read */
        const lk_node *node = lk_graph_node(fused.graph, i);
        for (int j = 0; j < node->num_inputs; j++) {
            const lk_node *producer = node->inputs[j] != NULL ? node->inputs[j]->producer : NULL;
            bool earlier = producer == NULL;
            for (int32_t k = 0; k < i; k++) {
                earlier = earlier || lk_graph_node(fused.graph, k) == producer;
            }
            ck_assert(earlier);
        }
    }
    for (int32_t i = 0; i < lk_graph_num_nodes(plain.graph); i++) {
        const lk_node *node = lk_graph_node(plain.graph, i);
        for (int j = 0; j < node->num_outputs; j++) { /* read by the caller: compiling fuses none of them */
            lk_graph_mark_output(plain.graph, node->outputs[j]);
        }
    }
    lk_program *first = fixture_compile(&plain.fixture, plain.graph);
    lk_program *second = fixture_compile(&fused.fixture, fused.graph);
    plain.graph = fused.graph = NULL;
    ck_assert_int_eq(count_nodes(lk_program_graph(first), LK_OP_ADD), sums[_i].adds_before);
    fixture_run(first);
    fixture_run(second);
    double *a = fixture_output(first, expected), *b = fixture_output(second, found);
    ck_assert_double_lt(relative_difference(b, a, 9), 1e-14);
    free(a);
    free(b);
    lk_program_destroy(first);
    lk_program_destroy(second);
    close_setting(&plain);
    close_setting(&fused);
}
END_TEST

/* ---- the order of LoRA products ---- */

static lk_node *lora_node(fixture *self, lk_graph *graph, lk_dtype dtype, int64_t tokens, int64_t in, int64_t out,
                          float dropout, uint32_t wanted, bool backward) {
    lk_tensor *x = lk_graph_variable(graph, fixture_variable(self, LK_ROLE_INPUT, LK_DTYPE_F32, 2, tokens, in, NULL));
    lk_tensor *dy = lk_graph_variable(graph, fixture_variable(self, LK_ROLE_INPUT, LK_DTYPE_F32, 2, tokens, out, NULL));
    lk_tensor *w = lk_graph_variable(graph, fixture_variable(self, LK_ROLE_WEIGHT, dtype, 2, out, in, NULL));
    lk_tensor *a = lk_graph_variable(graph, fixture_variable(self, LK_ROLE_STATE, LK_DTYPE_F32, 2, 4, in, NULL));
    lk_tensor *b = lk_graph_variable(graph, fixture_variable(self, LK_ROLE_STATE, LK_DTYPE_F32, 2, out, 4, NULL));
    lk_tensor *s = lk_graph_variable(graph, fixture_variable(self, LK_ROLE_INPUT, LK_DTYPE_F32, 2, tokens, 4, NULL));
    lk_tensor *rng = lk_graph_variable(graph, fixture_variable(self, LK_ROLE_INPUT, LK_DTYPE_I32, 1, 4, 0, NULL));
    lk_attributes attributes = {.lora = {1.0f, dropout, 0, LK_LORA_FACTORED, false}};
    lk_tensor *forward_inputs[] = {x, w, NULL, a, b, rng}, *backward_inputs[] = {dy, x, w, a, b, s, rng, NULL};
    if (backward) {
        lk_graph_add(graph, LK_OP_LORA_LINEAR_BACKWARD, 8, backward_inputs, &attributes, wanted, 0, NULL);
    } else {
        lk_graph_add(graph, LK_OP_LORA_LINEAR, 6, forward_inputs, &attributes, wanted, 0, NULL);
    }
    ck_assert_msg(lk_graph_status(graph) == LK_OK, "%s", lk_error_message(self->context));
    return (lk_node *)(uintptr_t)lk_graph_node(graph, lk_graph_num_nodes(graph) - 1);
}

/* Merged pays where T tokens times what the factored order still has to do (T r (K + N), less what is made anyway for
 * the gradients) exceed K N r. */
static const struct {
    int64_t tokens, in, out;
    float dropout;
    lk_dtype dtype;
    uint32_t wanted;
    bool backward;
    lk_lora_order expected;
} orders[] = {
    {15, 32, 32, 0.0f, LK_DTYPE_F32, 1, false, LK_LORA_FACTORED}, /* 15 * 64 < 1024 */
    {17, 32, 32, 0.0f, LK_DTYPE_F32, 1, false, LK_LORA_MERGED},   /* 17 * 64 > 1024 */
    {17, 32, 32, 0.0f, LK_DTYPE_F32, 3, false, LK_LORA_FACTORED}, /* s is made anyway: 17 * 32 < 1024 */
    {33, 32, 64, 0.0f, LK_DTYPE_F32, 3, false, LK_LORA_MERGED},   /* 33 * 64 > 2048 */
    {31, 32, 64, 0.0f, LK_DTYPE_F32, 3, false, LK_LORA_FACTORED},
    {500, 32, 32, 0.1f, LK_DTYPE_F32, 1, false, LK_LORA_FACTORED}, /* dropout acts on x before A alone */
    {500, 32, 32, 0.0f, LK_DTYPE_BF16, 1, false, LK_LORA_FACTORED},
    {500, 32, 32, 0.0f, LK_DTYPE_F16, 1, false, LK_LORA_FACTORED},
    {500, 32, 32, 0.0f, LK_DTYPE_Q8_0, 1, false, LK_LORA_FACTORED},
    {500, 32, 32, 0.0f, LK_DTYPE_F64, 1, false, LK_LORA_MERGED},
    {17, 32, 32, 0.0f, LK_DTYPE_F32, 1, true, LK_LORA_MERGED},
    {17, 32, 32, 0.0f, LK_DTYPE_F32, 7, true, LK_LORA_FACTORED}, /* z is made anyway */
    {65, 32, 64, 0.0f, LK_DTYPE_F32, 7, true, LK_LORA_MERGED},
    {63, 32, 64, 0.0f, LK_DTYPE_F32, 7, true, LK_LORA_FACTORED},
    {500, 32, 32, 0.1f, LK_DTYPE_F32, 7, true, LK_LORA_FACTORED},
    {500, 32, 32, 0.0f, LK_DTYPE_BF16, 7, true, LK_LORA_FACTORED},
};

START_TEST(test_lora_order) {
    fixture self;
    fixture_open(&self);
    lk_graph *graph;
    ck_assert_int_eq(lk_graph_create(self.context, &graph), LK_OK);
    lk_node *node = lora_node(&self, graph, orders[_i].dtype, orders[_i].tokens, orders[_i].in, orders[_i].out,
                              orders[_i].dropout, orders[_i].wanted, orders[_i].backward);
    for (int start = 0; start < 2; start++) { /* whatever it was before */
        node->attributes.lora.order = start ? LK_LORA_MERGED : LK_LORA_FACTORED;
        ck_assert_int_eq(lk_pass_lora_order(graph), LK_OK);
        ck_assert_int_eq(node->attributes.lora.order, orders[_i].expected);
    }
    /* the choice has the fewer operations, where it is free */
    bool is_free = orders[_i].dropout == 0.0f && (orders[_i].dtype == LK_DTYPE_F32 || orders[_i].dtype == LK_DTYPE_F64);
    double chosen = lk_node_flops(node);
    node->attributes.lora.order = orders[_i].expected == LK_LORA_MERGED ? LK_LORA_FACTORED : LK_LORA_MERGED;
    ck_assert(!is_free || chosen <= lk_node_flops(node));
    lk_graph_destroy(graph);
    fixture_close(&self);
}
END_TEST

int main(void) {
    test_seed();
    TCase *tests = tcase_create("passes");
    tcase_add_test(tests, test_dead_code);
    tcase_add_test(tests, test_dead_first_output);
    tcase_add_loop_test(tests, test_fuse_accumulation, 0, (int)LK_COUNT(sums));
    tcase_add_loop_test(tests, test_lora_order, 0, (int)LK_COUNT(orders));
    return run_case("passes", tests);
}
