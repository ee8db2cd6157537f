/* Every op that decomposes: the simpler nodes give what the op gives, in double precision, for every case, both orders
 * of LoRA products, and every subset of outputs. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/graph/passes/passes.h"
#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/ops/cases.h"

static bool keep_nothing(void *user, const lk_node *node) {
    (void)user;
    (void)node;
    return false;
}

static bool keep_all_but(void *user, const lk_node *node) {
    return node->op != *(const lk_op *)user;
}

/* The op's node on variables with the case's values, but for the inputs in the mask `without`. */
static lk_graph *make_graph(fixture *self, const op_case *one, const lk_attributes *attributes, uint32_t wanted,
                            uint32_t without, lk_tensor **outputs) {
    double *values[MAX_CASE_INPUTS];
    lk_tensor *inputs[MAX_CASE_INPUTS] = {NULL};
    lk_graph *graph;
    ck_assert_int_eq(lk_graph_create(self->context, &graph), LK_OK);
    for (int i = 0; i < one->num_inputs; i++) {
        values[i] = calloc((size_t)case_input_elements(&one->inputs[i]) + 1, sizeof(double));
    }
    op_case_fill(one, test_seed(), values);
    for (int i = 0; i < one->num_inputs; i++) {
        const case_input *input = &one->inputs[i];
        if (input->present && (without >> i & 1u) == 0) {
            lk_dtype dtype = input->dtype != LK_DTYPE_I32 ? LK_DTYPE_F64 : input->dtype;
            inputs[i] = lk_graph_variable(graph, fixture_variable(self, LK_ROLE_INPUT, dtype, input->rank,
                                                                  input->shape[0], input->shape[1], values[i]));
        }
        free(values[i]);
    }
    lk_graph_add(graph, one->op, one->num_inputs, inputs, attributes, wanted, LK_MAX_OUTPUTS, outputs);
    ck_assert_msg(lk_graph_status(graph) == LK_OK, "%s: %s", one->name, lk_error_message(self->context));
    for (int i = 0; i < LK_MAX_OUTPUTS; i++) {
        lk_graph_mark_output(graph, outputs[i]);
    }
    return graph;
}

static int check_variant(const op_case *one, const lk_attributes *attributes, uint32_t wanted, uint32_t without) {
    fixture self;
    fixture_open(&self);
    lk_tensor *whole[LK_MAX_OUTPUTS], *parts[LK_MAX_OUTPUTS];
    lk_graph *graph = make_graph(&self, one, attributes, wanted, without, whole);
    lk_graph *lowered = make_graph(&self, one, attributes, wanted, without, parts);
    ck_assert_int_eq(lk_pass_decompose(lowered, keep_nothing, NULL), LK_OK);
    ck_assert_int_eq(count_nodes(lowered, one->op), 0);
    for (int32_t i = 0; i < lk_graph_num_nodes(lowered); i++) {
        const lk_node *node = lk_graph_node(lowered, i);
        ck_assert_msg(lk_op_info_of(node->op)->decompose == NULL, "%s is left", lk_op_name(node->op));
        for (int j = 0; j < node->num_outputs; j++) {
            ck_assert(node->outputs[j] == NULL || node->outputs[j]->producer == node);
        }
    }
    lk_program *expected = fixture_compile(&self, graph), *found = fixture_compile(&self, lowered);
    fixture_run(expected);
    fixture_run(found);
    int compared = 0;
    for (int i = 0; i < LK_MAX_OUTPUTS; i++) {
        ck_assert((whole[i] == NULL) == (parts[i] == NULL));
        if (whole[i] != NULL) {
            double *a = fixture_output(expected, whole[i]), *b = fixture_output(found, parts[i]);
            double difference = relative_difference(b, a, lk_tensor_elements(whole[i]));
            ck_assert_msg(difference <= 1e-12, "%s wanted=%u: output %d differs by %g (seed %llu)", one->name, wanted,
                          i, difference, (unsigned long long)test_seed());
            compared++;
            free(a);
            free(b);
        }
    }
    lk_program_destroy(expected);
    lk_program_destroy(found);
    fixture_close(&self);
    return compared;
}

/* Inputs that a subset of outputs does not read may be absent: gradients leave them out to free their memory. */
static uint32_t unread_inputs(lk_op op, uint32_t wanted) {
    enum { X = 1, S = 5 };
    if (op != LK_OP_LORA_LINEAR_BACKWARD) {
        return 0;
    }
    return ((wanted & 2u) ? 0u : 1u << X) | ((wanted & 4u) ? 0u : 1u << S);
}

static int check_case(const op_case *one) {
    static const uint32_t all_outputs = 7;
    int compared = 0;
    bool lora = one->op == LK_OP_LORA_LINEAR || one->op == LK_OP_LORA_LINEAR_BACKWARD;
    for (int order = 0; order < (lora && one->attributes.lora.dropout == 0.0f ? 2 : 1); order++) {
        lk_attributes attributes = one->attributes;
        if (lora) {
            attributes.lora.order = order ? LK_LORA_MERGED : LK_LORA_FACTORED;
        }
        if (one->op == LK_OP_LORA_LINEAR_BACKWARD) { /* the cases have every subset already */
            compared += check_variant(one, &attributes, one->wanted, 0);
            compared += check_variant(one, &attributes, one->wanted, unread_inputs(one->op, one->wanted));
            continue;
        }
        for (uint32_t wanted = 1; wanted <= all_outputs; wanted++) {
            compared += check_variant(one, &attributes, wanted, 0);
        }
    }
    return compared;
}

START_TEST(test_decomposition) {
    int count, compared = 0;
    const op_case *cases = op_cases(&count);
    if (lk_op_info_of((lk_op)_i)->decompose == NULL) {
        return;
    }
    for (int i = 0; i < count; i++) {
        compared += cases[i].op == (lk_op)_i ? check_case(&cases[i]) : 0;
    }
    ck_assert_msg(compared > 0, "%s: no case", lk_op_name((lk_op)_i));
}
END_TEST

/* Only what `keep` refuses is lowered, and everything else stays where it was. */
START_TEST(test_keep) {
    fixture self;
    fixture_open(&self);
    lk_graph *graph;
    ck_assert_int_eq(lk_graph_create(self.context, &graph), LK_OK);
    uint64_t state = test_seed();
    double *values = random_values(&state, 64, 1.0);
    lk_tensor *x = lk_graph_variable(graph, fixture_variable(&self, LK_ROLE_INPUT, LK_DTYPE_F64, 2, 4, 4, values));
    lk_tensor *w =
        lk_graph_variable(graph, fixture_variable(&self, LK_ROLE_WEIGHT, LK_DTYPE_F64, 2, 4, 4, values + 16));
    lk_tensor *a =
        lk_graph_variable(graph, fixture_variable(&self, LK_ROLE_WEIGHT, LK_DTYPE_F64, 2, 2, 4, values + 32));
    lk_tensor *b =
        lk_graph_variable(graph, fixture_variable(&self, LK_ROLE_WEIGHT, LK_DTYPE_F64, 2, 4, 2, values + 40));
    const lk_lora_attributes lora = {0.5f, 0.0f, 0, LK_LORA_FACTORED, false};
    lk_graph_set_scope(graph, "first");
    lk_tensor *y = lk_build_linear(graph, x, w, NULL);
    lk_graph_set_scope(graph, "second");
    y = lk_build_lora_linear(graph, y, w, NULL, a, b, NULL, &lora);
    y = lk_build_scale(graph, y, 2.0f);
    lk_graph_mark_output(graph, y);
    lk_op op = LK_OP_LORA_LINEAR;
    ck_assert_int_eq(lk_pass_decompose(graph, keep_all_but, &op), LK_OK);
    ck_assert_int_eq(lk_graph_num_nodes(graph), 5);
    ck_assert_int_eq(lk_graph_node(graph, 0)->op, LK_OP_LINEAR);
    for (int i = 1; i < 4; i++) {
        ck_assert_int_eq(lk_graph_node(graph, i)->op, LK_OP_MATMUL);
        ck_assert_str_eq(lk_graph_node(graph, i)->scope, "second");
    }
    ck_assert_int_eq(lk_graph_node(graph, 4)->op, LK_OP_SCALE);
    lk_graph_destroy(graph);
    free(values);
    fixture_close(&self);
}
END_TEST

int main(void) {
    test_seed();
    TCase *tests = tcase_create("decomposition");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, test_decomposition, 0, LK_OP_COUNT);
    tcase_add_test(tests, test_keep);
    return run_case("decomposition", tests);
}
