/* Where barriers stand, and launches that are given more than they can hold. Needs no device. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "backends/shaders/launch.h"
#include "backends/vulkan/hazards.h"
#include "tests/common/runner.h"

static lk_context *context;
static lk_vk_hazards hazards;
static int memory[2];

static bool add(int which, size_t begin, size_t end, bool writes) {
    lk_vk_access access = {&memory[which], begin, end, writes};
    bool needs_barrier;
    ck_assert_int_eq(lk_vk_hazards_add(&hazards, &access, 1, &needs_barrier), LK_OK);
    return needs_barrier;
}

START_TEST(test_hazards) {
    lk_vk_hazards_init(&hazards, context);
    ck_assert(!add(0, 0, 100, true));
    ck_assert(!add(0, 100, 200, true)); /* beside it */
    ck_assert(!add(1, 0, 100, true));   /* other memory */
    ck_assert(add(0, 99, 101, false));  /* reads what both wrote */
    ck_assert(!add(0, 0, 200, false));  /* two readers */
    ck_assert(!add(0, 0, 200, false));
    ck_assert(add(0, 150, 151, true)); /* writes what was read */
    ck_assert(add(0, 150, 151, true)); /* and again */
    ck_assert(!add(1, 0, 100, false)); /* its writer is before the barriers */
    ck_assert(!add(0, 0, 150, false));
    lk_vk_hazards_clear(&hazards);
    ck_assert(!add(0, 0, 200, true));
    lk_vk_hazards_free(&hazards);
}
END_TEST

START_TEST(test_one_launch_has_no_hazard_with_itself) {
    lk_vk_hazards_init(&hazards, context);
    lk_vk_access in_place[] = {{memory, 0, 64, false}, {memory, 0, 64, true}, {memory, 64, 128, false}};
    bool needs_barrier;
    ck_assert_int_eq(lk_vk_hazards_add(&hazards, in_place, 3, &needs_barrier), LK_OK);
    ck_assert(!needs_barrier);
    ck_assert_int_eq(lk_vk_hazards_add(&hazards, in_place, 3, &needs_barrier), LK_OK);
    ck_assert(needs_barrier);
    lk_vk_hazards_free(&hazards);
}
END_TEST

typedef void (*overflow)(lk_launch *launch);
static void add_constant(lk_launch *launch) {
    lk_launch_constant(launch, "BK", 1);
}
static void add_buffer(lk_launch *launch) {
    lk_binding binding = {NULL, 0, 0};
    lk_launch_buffer(launch, &binding);
}
static void add_parameter(lk_launch *launch) {
    lk_launch_int(launch, 1);
}
static void add_type(lk_launch *launch) {
    lk_launch_type(launch, "W_TYPE", LK_DTYPE_F32);
}

START_TEST(test_too_much_is_an_error) {
    static const struct {
        overflow add;
        int first_that_fails;
        const char *what;
    } cases[] = {{add_constant, LK_LAUNCH_CONSTANTS - 1, "8 constants"}, /* GROUP is one */
                 {add_buffer, LK_LAUNCH_BUFFERS, "10 buffers"},
                 {add_parameter, LK_LAUNCH_PARAMETERS, "32 parameters"},
                 {add_type, LK_LAUNCH_WORDS, "3 words"}};
    for (size_t c = 0; c < LK_COUNT(cases); c++) {
        lk_device_caps caps = {0};
        lk_recorder recorder;
        lk_recorder_init(&recorder, context, &caps);
        lk_launch *launch = lk_launch_begin(&recorder, "file", "entry", 64);
        for (int i = 0; i < cases[c].first_that_fails; i++) {
            cases[c].add(launch);
            ck_assert_int_eq(recorder.status, LK_OK);
        }
        cases[c].add(launch);
        ck_assert_int_eq(recorder.status, LK_STATUS_INTERNAL);
        ck_assert_ptr_nonnull(strstr(lk_error_message(context), cases[c].what));
        ck_assert_ptr_nonnull(strstr(lk_error_message(context), "entry"));
        ck_assert_ptr_null(lk_launch_begin(&recorder, "file", "entry", 64));
        lk_recorder_free(&recorder);
    }
}
END_TEST

static void setup(void) {
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void teardown(void) {
    lk_context_destroy(context);
}

int main(void) {
    TCase *tests = tcase_create("hazards");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_hazards);
    tcase_add_test(tests, test_one_launch_has_no_hazard_with_itself);
    tcase_add_test(tests, test_too_much_is_an_error);
    return run_case("vulkan hazards", tests);
}
