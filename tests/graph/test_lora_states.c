/* The states of an adapted layer: A and B frozen, either trained, or both, with and without a layer below that needs a
 * gradient. Each graph has exactly the outputs that are needed, and reads, thus keeps alive, only what they are made
 * of. */
#include <check.h>
#include <stdlib.h>

#include "core/graph/build.h"
#include "tests/common/fixture.h"
#include "tests/common/runner.h"

enum { TOKENS = 6, IN = 5, OUT = 4, RANK = 2 };
enum { X, A, B, NUM_TARGETS };

static const lk_node *only_node(const lk_graph *graph, lk_op op) {
    const lk_node *found = NULL;
    for (int32_t i = 0; i < lk_graph_num_nodes(graph); i++) {
        const lk_node *node = lk_graph_node(graph, i);
        if (node->op == op) {
            ck_assert_ptr_null(found);
            found = node;
        }
    }
    return found;
}

static lk_tensor *variable(fixture *self, lk_graph *graph, int64_t rows, int64_t columns) {
    uint64_t seed = (uint64_t)(rows * 100 + columns);
    double *values = random_values(&seed, rows * columns, 1.0);
    lk_variable *made = fixture_variable(self, LK_ROLE_STATE, LK_DTYPE_F32, 2, rows, columns, values);
    free(values);
    return lk_graph_variable(graph, made);
}

START_TEST(test_a_state_does_only_what_it_needs) {
    bool needed[NUM_TARGETS] = {(_i & 1) != 0, (_i & 2) != 0, (_i & 4) != 0};
    fixture self;
    lk_graph *graph;
    fixture_open(&self);
    ck_assert_int_eq(lk_graph_create(self.context, &graph), LK_OK);
    lk_tensor *all[] = {variable(&self, graph, TOKENS, IN), variable(&self, graph, RANK, IN),
                        variable(&self, graph, OUT, RANK)};
    lk_lora_attributes lora = {.scale = 2.0f, .order = LK_LORA_FACTORED};
    lk_tensor *y =
        lk_build_lora_linear(graph, all[X], variable(&self, graph, OUT, IN), NULL, all[A], all[B], NULL, &lora);
    const int64_t row[] = {1, TOKENS}, column[] = {OUT, 1};
    lk_tensor *sums =
        lk_build_matmul(graph, lk_build_fill(graph, LK_DTYPE_F32, 2, row, 1.0f), false, y, false, 1.0f, NULL);
    lk_tensor *loss =
        lk_build_matmul(graph, sums, false, lk_build_fill(graph, LK_DTYPE_F32, 2, column, 1.0f), false, 1.0f, NULL);
    lk_graph_mark_output(graph, loss);
    lk_tensor *targets[NUM_TARGETS], *gradients[NUM_TARGETS];
    int count = 0;
    for (int i = 0; i < NUM_TARGETS; i++) {
        if (needed[i]) {
            targets[count++] = all[i];
        }
    }
    ck_assert_int_eq(lk_graph_backward(graph, loss, count, targets, gradients), LK_OK);
    for (int i = 0; i < count; i++) {
        ck_assert_ptr_nonnull(gradients[i]);
        lk_graph_mark_output(graph, gradients[i]);
    }
    ck_assert_int_eq(lk_graph_optimize(graph), LK_OK);
    const lk_node *forward = only_node(graph, LK_OP_LORA_LINEAR);
    const lk_node *backward = only_node(graph, LK_OP_LORA_LINEAR_BACKWARD);
    ck_assert_ptr_nonnull(forward);
    ck_assert_int_eq(forward->num_outputs > 1 && forward->outputs[1] != NULL, needed[B]); /* s = x A' */
    ck_assert_int_eq(backward != NULL, count > 0);
    if (backward != NULL) {
        enum { READS_X = 1, READS_S = 5 };
        ck_assert_int_eq(backward->outputs[0] != NULL, needed[X]);
        ck_assert_int_eq(backward->outputs[1] != NULL, needed[A]);
        ck_assert_int_eq(backward->outputs[2] != NULL, needed[B]);
        ck_assert_int_eq(backward->inputs[READS_X] != NULL, needed[A]);
        ck_assert_int_eq(backward->inputs[READS_S] != NULL, needed[B]);
    } else { /* two fills, the layer, two products */
        ck_assert_int_eq(lk_graph_num_nodes(graph), 5);
    }
    lk_graph_destroy(graph);
    fixture_close(&self);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("lora_states");
    tcase_add_loop_test(tests, test_a_state_does_only_what_it_needs, 0, 8);
    return run_case("lora_states", tests);
}
