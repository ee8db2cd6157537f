/* Weighted sums of adapters against sums of their updates in double precision. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/formats/lora_combine.h"
#include "tests/common/fixture.h"
#include "tests/common/runner.h"

enum { IN = 7, OUT = 5, FILES = 3 };

static lk_context *context;
static lk_lora_file files[FILES], sum;
static double updates[2][OUT * IN]; /* the expected sums of the layers x and y */
static const char *const paths[] = {"model.x", "model.y"};

static void setup(void) {
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    for (int i = 0; i < FILES; i++) {
        lk_lora_file_init(&files[i], context);
    }
    lk_lora_file_init(&sum, context);
    memset(updates, 0, sizeof updates);
}

static void teardown(void) {
    for (int i = 0; i < FILES; i++) {
        lk_lora_file_free(&files[i]);
    }
    lk_lora_file_free(&sum);
    lk_context_destroy(context);
}

static lk_lora_module *add(lk_lora_file *file, int layer, int64_t rank, double scale) {
    lk_lora_module *module;
    ck_assert_int_eq(lk_lora_file_module(file, paths[layer], &module), LK_OK);
    module->in = IN;
    module->out = OUT;
    module->rank = rank;
    module->scale = scale;
    ck_assert_int_eq(lk_lora_file_alloc(file, rank, IN, &module->a), LK_OK);
    ck_assert_int_eq(lk_lora_file_alloc(file, OUT, rank, &module->b), LK_OK);
    return module;
}

static void fill(lk_lora_module *module, uint64_t seed) {
    for (int64_t i = 0; i < module->rank * IN; i++) {
        module->a[i] = (float)random_normal(&seed);
    }
    for (int64_t i = 0; i < OUT * module->rank; i++) {
        module->b[i] = (float)random_normal(&seed);
    }
}

static void update_of(const lk_lora_module *module, double weight, double *to) {
    for (int64_t n = 0; n < OUT; n++) {
        for (int64_t k = 0; k < IN; k++) {
            for (int64_t r = 0; r < module->rank; r++) {
                to[n * IN + k] +=
                    weight * module->scale * (double)module->b[n * module->rank + r] * (double)module->a[r * IN + k];
            }
        }
    }
}

/* Layer x in all three files, with ranks and scales of their own; layer y in the second alone. */
static void make_files(const double *weights, const int64_t *ranks) {
    static const double scales[FILES] = {2.0, 0.5, 3.0};
    for (int i = 0; i < FILES; i++) {
        lk_lora_module *module = add(&files[i], 0, ranks[i], scales[i]);
        fill(module, (uint64_t)i + 1);
        update_of(module, weights[i], updates[0]);
    }
    lk_lora_module *alone = add(&files[1], 1, ranks[1], 4.0);
    fill(alone, 9);
    update_of(alone, weights[1], updates[1]);
    for (int i = 0; i < FILES; i++) {
        ck_assert_int_eq(lk_lora_file_finish(&files[i], "a test"), LK_OK);
    }
}

static double distance(int layer, const double *expected) {
    double found[OUT * IN] = {0.0};
    update_of(&sum.modules[layer], 1.0, found);
    return relative_difference(found, expected, OUT * IN);
}

static void combine(const double *weights, size_t count, lk_combine how, int64_t rank) {
    lk_status status = lk_lora_combine(files, weights, count, how, rank, &sum);
    ck_assert_msg(status == LK_OK, "%s", lk_error_message(context));
}

/* fp32 holds what comes out: one rounding of each factor. */
static const double TOLERANCE = 4e-7;

START_TEST(test_cat_is_the_sum) {
    static const double weights[] = {0.7, -1.5, 0.25};
    static const int64_t ranks[] = {2, 3, 1};
    make_files(weights, ranks);
    combine(weights, FILES, LK_COMBINE_CAT, 0);
    ck_assert_int_eq((int)sum.count, 2);
    ck_assert_int_eq(sum.modules[0].rank, 6);
    ck_assert_int_eq(sum.modules[1].rank, 3);
    ck_assert_double_lt(distance(0, updates[0]), TOLERANCE);
    ck_assert_double_lt(distance(1, updates[1]), TOLERANCE);
}
END_TEST

/* As no rank of a layer is above 5, svd of rank 5 is the sum as well. */
START_TEST(test_svd_of_full_rank_is_the_sum) {
    static const double weights[] = {0.7, -1.5, 0.25};
    static const int64_t ranks[] = {2, 3, 1};
    make_files(weights, ranks);
    combine(weights, FILES, LK_COMBINE_SVD, 5);
    ck_assert_int_eq(sum.modules[0].rank, 5);
    ck_assert_int_eq(sum.modules[1].rank, 3); /* there are no more */
    ck_assert_double_lt(distance(0, updates[0]), 2 * TOLERANCE);
    ck_assert_double_lt(distance(1, updates[1]), 2 * TOLERANCE);
}
END_TEST

/* Updates along axes, whose singular values are the weights times the scales: what is kept are the largest (Eckart and
 * Young), and without a rank as many as the largest adapter has. */
START_TEST(test_svd_keeps_the_largest) {
    static const double weights[] = {3.0, -0.5, 1.0};
    static const struct {
        int file;
        int64_t out, in;
        float value;
    } entries[] = {{0, 0, 6, 1.0f}, {0, 1, 5, 0.1f}, {1, 2, 4, 8.0f}, {1, 3, 3, 0.2f}, {2, 4, 2, 2.0f}};
    double expected[OUT * IN] = {0.0};
    for (int i = 0; i < FILES; i++) {
        lk_lora_module *module = add(&files[i], 0, 2, i == 2 ? 0.5 : 2.0);
        int64_t r = 0;
        for (size_t e = 0; e < LK_COUNT(entries); e++) {
            if (entries[e].file == i) { /* singular values 6, 0.6; 8, 0.2; 1 */
                module->b[entries[e].out * 2 + r] = entries[e].value;
                module->a[r++ * IN + entries[e].in] = 1.0f;
            }
        }
        ck_assert_int_eq(lk_lora_file_finish(&files[i], "a test"), LK_OK);
    }
    combine(weights, FILES, LK_COMBINE_SVD, 3);
    expected[0 * IN + 6] = 6.0;
    expected[2 * IN + 4] = -8.0;
    expected[4 * IN + 2] = 1.0;
    ck_assert_int_eq(sum.modules[0].rank, 3);
    ck_assert_double_lt(distance(0, expected), TOLERANCE);
    lk_lora_file_free(&sum);
    lk_lora_file_init(&sum, context);
    combine(weights, FILES, LK_COMBINE_SVD, 0);
    expected[4 * IN + 2] = 0.0;
    ck_assert_int_eq(sum.modules[0].rank, 2);
    ck_assert_double_lt(distance(0, expected), TOLERANCE);
}
END_TEST

/* A = sum of +-sqrt(|w s|) A_i and B = sum of sqrt(|w s|) B_i, as PEFT's "linear". */
START_TEST(test_linear_sums_the_factors) {
    static const double weights[] = {0.7, -1.5, 0.25}, scales[] = {2.0, 0.5, 3.0};
    static const int64_t ranks[] = {2, 2, 2};
    make_files(weights, ranks);
    combine(weights, FILES, LK_COMBINE_LINEAR, 0);
    ck_assert_int_eq(sum.modules[0].rank, 2);
    double a[2 * IN] = {0.0}, b[OUT * 2] = {0.0}, expected[OUT * IN] = {0.0};
    for (int i = 0; i < FILES; i++) {
        double root = sqrt(fabs(weights[i] * scales[i]));
        for (int k = 0; k < 2 * IN; k++) {
            a[k] += (weights[i] < 0.0 ? -root : root) * (double)files[i].modules[0].a[k];
        }
        for (int n = 0; n < 2 * OUT; n++) {
            b[n] += root * (double)files[i].modules[0].b[n];
        }
    }
    for (int n = 0; n < OUT; n++) {
        for (int k = 0; k < IN; k++) {
            expected[n * IN + k] = b[2 * n] * a[k] + b[2 * n + 1] * a[IN + k];
        }
    }
    ck_assert_double_lt(distance(0, expected), TOLERANCE);
    ck_assert_double_lt(distance(1, updates[1]), TOLERANCE); /* of one adapter it is the product */
}
END_TEST

START_TEST(test_what_does_not_fit_is_refused) {
    static const double weights[] = {1.0, 1.0, 1.0};
    static const int64_t ranks[] = {2, 3, 1};
    make_files(weights, ranks);
    ck_assert_int_eq(lk_lora_combine(files, weights, FILES, LK_COMBINE_LINEAR, 0, &sum), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(lk_error_message(context), "model.x has the ranks 2 and 3"));
    files[2].modules[0].in = IN - 1;
    lk_lora_file_free(&sum);
    lk_lora_file_init(&sum, context);
    ck_assert_int_eq(lk_lora_combine(files, weights, FILES, LK_COMBINE_CAT, 0, &sum), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(lk_error_message(context), "[5, 6]"));
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("combine");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_cat_is_the_sum);
    tcase_add_test(tests, test_svd_of_full_rank_is_the_sum);
    tcase_add_test(tests, test_svd_keeps_the_largest);
    tcase_add_test(tests, test_linear_sums_the_factors);
    tcase_add_test(tests, test_what_does_not_fit_is_refused);
    return run_case("combine", tests);
}
