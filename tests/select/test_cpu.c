/* What the CPU backend's real rows choose on processors that this machine need not be: every op of the graph, with the
 * features of each instruction set, must go to that set's kernel. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/ops/cases.h"

static const lk_kernel *row_called(const lk_kernel *rows, int num_rows, lk_op op, const char *isa) {
    char name[96];
    snprintf(name, sizeof name, "cpu_%s_%s", lk_op_name(op), isa);
    for (int i = 0; i < num_rows; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            ck_assert_int_eq(rows[i].op, op);
            return &rows[i];
        }
    }
    return NULL;
}

/* The case's node on variables without storage. */
static const lk_node *node_of(lk_variables *variables, lk_graph *graph, const op_case *self) {
    lk_tensor *inputs[MAX_CASE_INPUTS] = {NULL};
    for (int i = 0; i < self->num_inputs; i++) {
        const case_input *input = &self->inputs[i];
        if (input->present) {
            char name[32];
            lk_variable *variable;
            snprintf(name, sizeof name, "%d", (int)lk_variables_count(variables));
            ck_assert_int_eq(lk_variables_add(variables, name, input->role, "test", input->dtype, input->rank,
                                              input->shape, &variable),
                             LK_OK);
            inputs[i] = lk_graph_variable(graph, variable);
        }
    }
    lk_graph_add(graph, self->op, self->num_inputs, inputs, &self->attributes, self->wanted, 0, NULL);
    ck_assert_int_eq(lk_graph_status(graph), LK_OK);
    return lk_graph_node(graph, lk_graph_num_nodes(graph) - 1);
}

static const char *const isas[] = {"amxbf16", "avx512bf16", "avx512", "avx2", "neonbf16", "neon", "generic"};
enum { AMXBF16, AVX512BF16, AVX512, AVX2, NEONBF16, NEON, GENERIC };

static void check_case(const lk_kernel *rows, int num_rows, const lk_device_caps *real, const lk_node *node,
                       int *chosen) {
    for (size_t i = 0; i < LK_COUNT(isas); i++) {
        const lk_kernel *expected = row_called(rows, num_rows, node->op, isas[i]);
        if (expected == NULL) {
            continue;
        }
        lk_device_caps caps = *real;
        caps.features = expected->required_features;
        lk_candidate candidates[LK_MAX_CANDIDATES];
        int count;
        lk_selection selection = lk_select(rows, num_rows, &caps, node, NULL, candidates, &count);
        ck_assert_msg(selection.kernel == expected, "%s with the features of %s: found %s, expected %s",
                      lk_op_name(node->op), isas[i], selection.kernel ? selection.kernel->name : "none",
                      expected->name);
        ck_assert_str_eq(selection.rule, "cost");
        for (int c = 0; c < count; c++) { /* those it cannot run are refused for that */
            bool lacks = (candidates[c].kernel->required_features & ~caps.features) != 0;
            ck_assert(!lacks || candidates[c].refused);
        }
        for (uint64_t rest = expected->required_features; rest != 0; rest &= rest - 1) { /* without one of them */
            caps.features = expected->required_features & ~(rest & (~rest + 1));
            ck_assert_ptr_ne(lk_select(rows, num_rows, &caps, node, NULL, NULL, NULL).kernel, expected);
        }
        chosen[i]++;
    }
}

START_TEST(test_masked_features) {
    const lk_backend *cpu = lk_backend_find("cpu");
    if (cpu == NULL) {
        printf("skipped: this build has no cpu backend\n");
        return;
    }
    lk_context *context;
    lk_device_caps caps;
    lk_variables *variables;
    lk_graph *graph;
    int found, num_rows, num_cases, chosen[LK_COUNT(isas)] = {0};
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    ck_assert_int_eq(cpu->probe(context, &caps, 1, &found), LK_OK);
    ck_assert_int_eq(lk_variables_create(context, NULL, &variables), LK_OK);
    ck_assert_int_eq(lk_graph_create(context, &graph), LK_OK);
    const lk_kernel *rows = cpu->kernels(&num_rows);
    const op_case *cases = op_cases(&num_cases);
    for (int c = 0; c < num_cases; c++) {
        check_case(rows, num_rows, &caps, node_of(variables, graph, &cases[c]), chosen);
    }
    for (size_t i = 0; i < LK_COUNT(isas); i++) {
        printf("%s chosen %d times\n", isas[i], chosen[i]);
    }
    ck_assert_int_ge(chosen[GENERIC], num_cases / 2); /* the portable kernels are there on every architecture */
#if defined(__x86_64__)
    ck_assert_int_eq(chosen[AVX512BF16], chosen[GENERIC]);
    ck_assert_int_eq(chosen[AVX512], chosen[GENERIC]);
    ck_assert_int_eq(chosen[AVX2], chosen[GENERIC]);
    ck_assert_int_gt(chosen[AMXBF16], num_cases / 4); /* the products */
#elif defined(__aarch64__)
    ck_assert_int_eq(chosen[NEONBF16], chosen[GENERIC]);
    ck_assert_int_eq(chosen[NEON], chosen[GENERIC]);
#endif
    lk_graph_destroy(graph);
    lk_variables_destroy(variables);
    lk_context_destroy(context);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("cpu");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_masked_features);
    return run_case("cpu", tests);
}
