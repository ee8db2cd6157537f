/* lk_select as a pure function: made-up rows and a made-up device, so that the rules hold on any machine. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/fixture.h"
#include "tests/common/runner.h"

enum { FEATURE_A = 1, FEATURE_B = 2, FEATURE_C = 4 };

static double cost_1(const lk_device_caps *caps, const lk_node *node) {
    (void)node;
    return 1.0 / caps->flops_f32;
}

static double cost_2(const lk_device_caps *caps, const lk_node *node) {
    (void)node;
    return 2.0 / caps->flops_f32;
}

static double cost_by_bandwidth(const lk_device_caps *caps, const lk_node *node) {
    return lk_node_bytes(node) / caps->bandwidth;
}

static bool only_wide(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    (void)caps;
    LK_REQUIRE(why, node->inputs[0]->shape[1] >= 64, "fewer than 64 columns");
    return true;
}

static bool never(const lk_device_caps *caps, const lk_node *node, lk_refusal *why) {
    (void)node;
    LK_REQUIRE(why, caps->features == 0, "never");
    LK_REQUIRE(why, false, "really never");
    return true;
}

static const lk_kernel rows[] = {
    {.name = "add_of_others", .op = LK_OP_ADD, .cost = cost_1, .in_place = -1},
    {.name = "swiglu_c", .op = LK_OP_SWIGLU, .required_features = FEATURE_A | FEATURE_C, .cost = cost_1},
    {.name = "swiglu_wide", .op = LK_OP_SWIGLU, .required_features = FEATURE_B, .supports = only_wide, .cost = cost_1},
    {.name = "swiglu_never", .op = LK_OP_SWIGLU, .supports = never, .cost = cost_1},
    {.name = "swiglu_slow", .op = LK_OP_SWIGLU, .cost = cost_2},
    {.name = "swiglu_portable", .op = LK_OP_SWIGLU, .cost = cost_2},
    {.name = "swiglu_streaming", .op = LK_OP_SWIGLU, .cost = cost_by_bandwidth},
};
enum { NUM_ROWS = sizeof rows / sizeof rows[0], NUM_SWIGLU = NUM_ROWS - 1 };

typedef struct question {
    lk_tensor tensor;
    lk_tensor *inputs[2];
    lk_node node;
    lk_device_caps caps;
} question;

static void ask(question *self, int64_t columns, uint64_t features) {
    *self = (question){.tensor = {.dtype = LK_DTYPE_F32, .rank = 2, .shape = {4, columns, 1, 1}},
                       .caps = {.features = features, .flops_f32 = 1.0, .bandwidth = 1.0}};
    self->inputs[0] = self->inputs[1] = &self->tensor;
    self->node = (lk_node){.op = LK_OP_SWIGLU,
                           .num_inputs = 2,
                           .num_outputs = 1,
                           .inputs = self->inputs,
                           .outputs = {&self->tensor},
                           .scope = ""};
}

static lk_selection answer(const question *self, const lk_preferences *preferences) {
    return lk_select(rows, NUM_ROWS, &self->caps, &self->node, preferences, NULL, NULL);
}

#define ck_selected(selection, kernel_name, rule_name)           \
    do {                                                         \
        ck_assert_ptr_nonnull((selection).kernel);               \
        ck_assert_str_eq((selection).kernel->name, kernel_name); \
        ck_assert_str_eq((selection).rule, rule_name);           \
    } while (0)

START_TEST(test_lowest_cost_then_row_order) {
    question q;
    ask(&q, 64, FEATURE_A | FEATURE_B | FEATURE_C);
    lk_selection chosen = answer(&q, NULL);
    ck_selected(chosen, "swiglu_c", "cost"); /* as cheap as swiglu_wide, and before it */
    ck_assert_double_eq(chosen.seconds, 1.0);
    ask(&q, 64, FEATURE_B);
    ck_selected(answer(&q, NULL), "swiglu_wide", "cost");
    ask(&q, 8, FEATURE_B);
    ck_selected(answer(&q, NULL), "swiglu_slow", "cost"); /* two rows cost 2: the first */
    q.caps.bandwidth = 1e9;                               /* what the device is decides too */
    ck_selected(answer(&q, NULL), "swiglu_streaming", "cost");
}
END_TEST

START_TEST(test_required_features) {
    question q;
    ask(&q, 64, FEATURE_A); /* a part of what swiglu_c needs is not enough */
    ck_selected(answer(&q, NULL), "swiglu_slow", "cost");
    ask(&q, 64, FEATURE_C);
    ck_selected(answer(&q, NULL), "swiglu_slow", "cost");
    ask(&q, 64, FEATURE_A | FEATURE_C);
    ck_selected(answer(&q, NULL), "swiglu_c", "cost");
}
END_TEST

START_TEST(test_nothing_fits) {
    question q;
    ask(&q, 64, 0);
    q.node.op = LK_OP_MUL;
    ck_assert_ptr_null(answer(&q, NULL).kernel);
    q.node.op = LK_OP_SWIGLU;
    lk_candidate candidates[LK_MAX_CANDIDATES];
    int count;
    ck_assert_ptr_null(lk_select(rows, 4, &q.caps, &q.node, NULL, candidates, &count).kernel);
    ck_assert_int_eq(count, 3);
    for (int i = 0; i < count; i++) {
        ck_assert(candidates[i].refused);
        ck_assert(candidates[i].why.reason[0] != '\0');
    }
}
END_TEST

START_TEST(test_candidates_and_reasons) {
    question q;
    ask(&q, 8, FEATURE_B);
    lk_candidate candidates[LK_MAX_CANDIDATES];
    int count;
    lk_select(rows, NUM_ROWS, &q.caps, &q.node, NULL, candidates, &count);
    ck_assert_int_eq(count, NUM_SWIGLU); /* every row of the op, chosen or not, and none of another */
    static const char *const reasons[NUM_SWIGLU] = {
        "the device lacks a required feature", "fewer than 64 columns", "never", NULL, NULL, NULL};
    for (int i = 0; i < count; i++) {
        ck_assert_ptr_eq(candidates[i].kernel, &rows[i + 1]);
        ck_assert_int_eq(candidates[i].refused, reasons[i] != NULL);
        ck_assert_str_eq(candidates[i].why.reason, reasons[i] != NULL ? reasons[i] : "");
        ck_assert(candidates[i].refused == (candidates[i].seconds == 0.0));
        ck_assert(!candidates[i].tuned);
    }
    ck_assert(!lk_refuse(NULL, "no one asks why"));
}
END_TEST

START_TEST(test_override) {
    question q;
    ask(&q, 8, FEATURE_B);
    ck_selected(answer(&q, &(lk_preferences){.override = "swiglu_portable"}), "swiglu_portable", "override");
    /* the first of the list that supports the node, whatever it costs and wherever its row stands */
    ck_selected(answer(&q, &(lk_preferences){.override = "swiglu_c,swiglu_wide,swiglu_streaming,swiglu_slow"}),
                "swiglu_streaming", "override");
    ck_selected(answer(&q, &(lk_preferences){.override = "add_of_others,swiglu_portable,swiglu_slow"}),
                "swiglu_portable", "override");
    /* names that are not rows, parts of names, and the empty list change nothing */
    static const char *const nothing[] = {"", ",", "swiglu", "swiglu_portable2", "portable", "swiglu_c", ",,x,"};
    for (size_t i = 0; i < LK_COUNT(nothing); i++) {
        ck_selected(answer(&q, &(lk_preferences){.override = nothing[i]}), "swiglu_slow", "cost");
    }
}
END_TEST

/* As if swiglu_portable and swiglu_streaming had been measured. */
static double measured(void *user, const lk_device_caps *caps, const lk_kernel *kernel, const lk_node *node) {
    ck_assert_double_eq(caps->flops_f32, 1.0);
    ck_assert_int_eq(node->op, LK_OP_SWIGLU);
    const double *seconds = user;
    return strcmp(kernel->name, "swiglu_portable") == 0    ? seconds[0]
           : strcmp(kernel->name, "swiglu_streaming") == 0 ? seconds[1]
                                                           : -1.0;
}

START_TEST(test_tuned) {
    question q;
    ask(&q, 8, FEATURE_B);
    double slow[] = {500.0, 400.0};
    lk_preferences preferences = {.tuned = measured, .user = slow};
    lk_selection chosen = answer(&q, &preferences);
    ck_selected(chosen, "swiglu_streaming", "tuned"); /* the faster of the measured, before any estimate */
    ck_assert_double_eq(chosen.seconds, 400.0);
    double one[] = {-1.0, 0.0};
    preferences.user = one;
    ck_selected(answer(&q, &preferences), "swiglu_streaming", "tuned");
    double equal[] = {3.0, 3.0};
    preferences.user = equal;
    ck_selected(answer(&q, &preferences), "swiglu_portable", "tuned");
    double none[] = {-1.0, -1.0};
    preferences.user = none;
    ck_selected(answer(&q, &preferences), "swiglu_slow", "cost");
    preferences.user = slow;
    preferences.override = "swiglu_slow"; /* an override beats a record */
    ck_selected(answer(&q, &preferences), "swiglu_slow", "override");
}
END_TEST

static bool all_but_streaming(void *user, const lk_device_caps *caps, const lk_kernel *kernel, lk_refusal *why) {
    (void)user;
    (void)caps;
    return strcmp(kernel->name, "swiglu_streaming") != 0 || lk_refuse(why, "known to be wrong");
}

/* What is not allowed is out, however cheap, fast or wanted it is, and says why. */
START_TEST(test_not_allowed) {
    question q;
    ask(&q, 8, 0);
    q.caps.bandwidth = 1e9;
    double fast[] = {-1.0, 1e-9};
    lk_preferences preferences = {
        .override = "swiglu_streaming", .tuned = measured, .allows = all_but_streaming, .user = fast};
    lk_candidate candidates[LK_MAX_CANDIDATES];
    int count;
    lk_selection chosen = lk_select(rows, NUM_ROWS, &q.caps, &q.node, &preferences, candidates, &count);
    ck_selected(chosen, "swiglu_slow", "cost");
    ck_assert_int_eq(count, NUM_SWIGLU);
    ck_assert(candidates[count - 1].refused);
    ck_assert_str_eq(candidates[count - 1].why.reason, "known to be wrong");
}
END_TEST

/* The reference takes every op of every dtype it can hold, and says why not otherwise. */
START_TEST(test_reference_rows) {
    int num_rows;
    const lk_kernel *reference = lk_backend_reference.kernels(&num_rows);
    ck_assert_int_eq(num_rows, LK_OP_COUNT);
    question q;
    ask(&q, 8, 0);
    for (int op = 0; op < LK_OP_COUNT; op++) {
        int found = 0;
        for (int i = 0; i < num_rows; i++) {
            found += reference[i].op == (lk_op)op;
        }
        ck_assert_msg(found == 1, "%s", lk_op_name((lk_op)op));
    }
    ck_assert_ptr_nonnull(lk_select(reference, num_rows, &q.caps, &q.node, NULL, NULL, NULL).kernel);
    q.tensor.dtype = LK_DTYPE_Q8_0;
    lk_candidate candidates[LK_MAX_CANDIDATES];
    int count;
    ck_assert_ptr_null(lk_select(reference, num_rows, &q.caps, &q.node, NULL, candidates, &count).kernel);
    ck_assert_int_eq(count, 1);
    ck_assert_ptr_nonnull(strstr(candidates[0].why.reason, "quantised"));
}
END_TEST

/* Kernel names are what overrides, records and reports use: unique over all backends, and of a row that can be costed.
 */
START_TEST(test_rows_of_all_backends) {
    int num_backends;
    const lk_backend *const *backends = lk_backends(&num_backends);
    for (int a = 0; a < num_backends; a++) {
        int num_a;
        const lk_kernel *rows_a = backends[a]->kernels(&num_a);
        for (int i = 0; i < num_a; i++) {
            size_t prefix = strlen(backends[a]->name);
            ck_assert_msg(strncmp(rows_a[i].name, backends[a]->name, prefix) == 0 && rows_a[i].name[prefix] == '_',
                          "%s does not begin with %s_", rows_a[i].name, backends[a]->name);
            ck_assert_msg(rows_a[i].cost != NULL, "%s has no cost", rows_a[i].name);
            ck_assert_msg(rows_a[i].in_place >= -1, "%s", rows_a[i].name);
            for (int j = 0; j < i; j++) {
                ck_assert_msg(strcmp(rows_a[i].name, rows_a[j].name) != 0, "two rows are called %s", rows_a[i].name);
            }
        }
    }
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("select");
    tcase_add_test(tests, test_lowest_cost_then_row_order);
    tcase_add_test(tests, test_required_features);
    tcase_add_test(tests, test_nothing_fits);
    tcase_add_test(tests, test_candidates_and_reasons);
    tcase_add_test(tests, test_override);
    tcase_add_test(tests, test_tuned);
    tcase_add_test(tests, test_not_allowed);
    tcase_add_test(tests, test_reference_rows);
    tcase_add_test(tests, test_rows_of_all_backends);
    return run_case("select", tests);
}
