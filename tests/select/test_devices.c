/* The deny list, what `auto` may take, and its choice by the estimated time of a step. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/session.h"
#include "tests/common/runner.h"

static lk_context *new_context(void) {
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    return context;
}

START_TEST(test_patterns) {
    static const lk_denial rows[] = {
        {"vulkan", "*Fast*GPU 9?*", "vulkan_matmul_*", "one"},
        {"vulkan", "*old driver*", "device", "two"},
        {"opencl", "*", "*", "three"},
    };
    const int count = (int)LK_COUNT(rows);
    lk_device_caps caps = {.backend = "vulkan", .name = "Very FAST Gpu 9?", .driver = "discrete GPU, new driver"};
    ck_assert_str_eq(lk_denied_by(rows, count, &caps, "vulkan_matmul_split"), "one");
    ck_assert_ptr_null(lk_denied_by(rows, count, &caps, "vulkan_matmul"));
    ck_assert_ptr_null(lk_denied_by(rows, count, &caps, "device"));
    strcpy(caps.driver, "discrete GPU, Old Driver 1.2");
    ck_assert_str_eq(lk_denied_by(rows, count, &caps, "device"), "two");
    ck_assert_str_eq(lk_denied_by(rows, count, &caps, "vulkan_matmul_"), "one"); /* `*` may stand for nothing */
    strcpy(caps.name, "Fast GPU 8");
    ck_assert_ptr_null(lk_denied_by(rows, count, &caps, "vulkan_matmul_split"));
    strcpy(caps.backend, "opencl"); /* other backends of the same device have drivers of their own */
    ck_assert_str_eq(lk_denied_by(rows, count, &caps, "anything"), "three");
}
END_TEST

/* What the devices look like in the reports that the rows stem from. */
START_TEST(test_the_list) {
    static const struct {
        const char *name, *driver, *what;
        bool denied;
    } cases[] = {
        {"AMD Radeon(TM) 860M Graphics",
         "integrated GPU, Vulkan 1.4.344, AMD proprietary driver 26.3.1 (LLPC) (800184)", "cooperative_matrix", true},
        {"AMD Radeon RX 7900 XTX", "discrete GPU, Vulkan 1.4.344, AMD proprietary driver 26.3.1 (LLPC) (800184)",
         "cooperative_matrix", false},
        {"Intel(R) Arc(TM) A770 Graphics", "discrete GPU, Vulkan 1.4.340, Intel driver 101.8826", "cooperative_matrix",
         true},
        {"Intel(R) Arc(TM) A770 Graphics", "discrete GPU, Vulkan 1.4.340, Intel driver 101.8826", "vulkan_matmul",
         false},
        {"Adreno (TM) 732", "integrated GPU, Vulkan 1.3.128, Qualcomm Adreno driver", "device", true},
        {"NVIDIA H100", "discrete GPU, Vulkan 1.4.300, NVIDIA 580", "device", false},
    };
    unsetenv("LORIKEET_DENY_LIST");
    for (size_t i = 0; i < LK_COUNT(cases); i++) {
        lk_device_caps caps = {.backend = "vulkan"};
        strcpy(caps.name, cases[i].name);
        strcpy(caps.driver, cases[i].driver);
        ck_assert_msg((lk_denied(&caps, cases[i].what) != NULL) == cases[i].denied, "%s", cases[i].name);
        setenv("LORIKEET_DENY_LIST", "0", 1);
        ck_assert_ptr_null(lk_denied(&caps, cases[i].what));
        unsetenv("LORIKEET_DENY_LIST");
    }
    int count;
    const lk_denial *rows = lk_denials(&count);
    for (int i = 0; i < count; i++) { /* a row for a backend that does not exist, or without a source, is a mistake */
        ck_assert_msg(lk_backend_find(rows[i].backend) != NULL, "%s", rows[i].backend);
        ck_assert_ptr_nonnull(strstr(rows[i].reason, " ("));
    }
}
END_TEST

START_TEST(test_lists) {
    ck_assert(lk_list_has("vulkan:0,opencl:1", "vulkan:0") && lk_list_has("vulkan:0,opencl:1", "opencl:1"));
    ck_assert(!lk_list_has("vulkan:0,opencl:11", "opencl:1") && !lk_list_has("", "cpu:0") &&
              !lk_list_has(NULL, "cpu:0"));
}
END_TEST

/* Neither the reference nor the null device is taken unasked, and what is excluded is not either. */
START_TEST(test_what_auto_may_take) {
    lk_context *context = new_context();
    lk_device_caps caps[LK_MAX_LISTED];
    int all, count;
    ck_assert_int_eq(lk_devices_for_auto(context, NULL, NULL, caps, &all), LK_OK);
    ck_assert_int_ge(all, 1);
    ck_assert_str_eq(caps[0].backend, "cpu");
    for (int i = 0; i < all; i++) {
        ck_assert(strcmp(caps[i].backend, "reference") != 0 && strcmp(caps[i].backend, "null") != 0);
    }
    lk_text passed_over;
    lk_text_init(&passed_over, context);
    ck_assert_int_eq(lk_devices_for_auto(context, "cpu:0,cpu:7", &passed_over, caps, &count), LK_OK);
    ck_assert_int_eq(count, all - 1);
    ck_assert_str_eq(passed_over.data, "; not cpu:0: it was excluded");
    lk_text_free(&passed_over);
    lk_context_destroy(context);
}
END_TEST

/* The list of a reason: "what: cpu:0 0.1 s, opencl:0 0.2 s" is in order of time, and the first is taken. */
static int devices_in_order(const char *reason, const char *first) {
    const char *cursor = strchr(reason, ':') + 2;
    double last = 0.0;
    int count = 0;
    ck_assert_msg(strncmp(cursor, first, strlen(first)) == 0, "%s: %s is not first", reason, first);
    while (cursor != NULL) {
        double seconds = strtod(strchr(cursor, ' '), NULL);
        ck_assert_msg(seconds > 0.0 && seconds >= last, "%s", reason);
        last = seconds;
        count++;
        cursor = strchr(cursor, ',');
        cursor = cursor != NULL ? cursor + 2 : NULL;
    }
    return count;
}

START_TEST(test_auto_by_the_graph) {
    lk_context *context = new_context();
    lk_device_caps caps[LK_MAX_LISTED];
    int count;
    ck_assert_int_eq(lk_devices_for_auto(context, NULL, NULL, caps, &count), LK_OK);
    lk_session_options options;
    lk_session_options_init(&options);
    options.device = "auto";
    options.threads = 1;
    lk_workload work;
    lk_workload_init(&work);
    work.model_path = LK_TEST_DATA "/models/stories260k";
    lk_session *session;
    ck_assert_msg(lk_session_create_for(context, &options, &work, &session) == LK_OK, "%s", lk_error_message(context));
    if (count > 1) {
        char name[LK_DEVICE_LABEL];
        lk_device_label(&lk_session_main_device(session)->caps, name);
        ck_assert_int_eq(devices_in_order(lk_session_reason(session), name), count);
    } else {
        printf("skipped: there is one device only, nothing to rank\n");
    }
    lk_session_destroy(session);
    /* what cannot be planned is left to the loading of the model to report */
    work.model_path = "/nonexistent";
    ck_assert_int_eq(lk_session_create_for(context, &options, &work, &session), LK_OK);
    ck_assert_ptr_nonnull(strstr(lk_session_reason(session), "GFLOP/s"));
    lk_session_destroy(session);
    options.device = "reference";
    ck_assert_int_eq(lk_session_create_for(context, &options, &work, &session), LK_OK);
    ck_assert_str_eq(lk_session_reason(session), "asked for by name");
    lk_session_destroy(session);
    /* with all excluded the specification is left */
    char exclude[512] = "";
    for (int i = 0; i < count; i++) {
        char label[LK_DEVICE_LABEL];
        lk_device_label(&caps[i], label);
        strcat(strcat(exclude, label), ",");
    }
    options.device = NULL;
    unsetenv("LORIKEET_DEVICE");
    options.exclude = exclude;
    ck_assert_int_eq(lk_session_create_for(context, &options, &work, &session), LK_OK);
    ck_assert_str_eq(lk_session_main_device(session)->caps.backend, "reference");
    ck_assert_ptr_nonnull(strstr(lk_session_reason(session), "not cpu:0: it was excluded"));
    lk_session_destroy(session);
    lk_context_destroy(context);
}
END_TEST

/* A device that cannot be opened costs a warning, and the next is taken. */
START_TEST(test_open_fails) {
    lk_context *context = new_context();
    int count;
    lk_device_caps caps[2];
    ck_assert_int_eq(lk_devices_of(context, lk_backend_find("cpu"), &caps[0], 1, &count), LK_OK);
    caps[0].threads = 100000;
    ck_assert_int_eq(lk_devices_of(context, lk_backend_find("reference"), &caps[1], 1, &count), LK_OK);
    lk_session_options options;
    lk_session_options_init(&options);
    lk_session *session;
    ck_assert_int_eq(lk_session_create_on(context, &options, caps, 1, "", &session), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_null(session);
    ck_assert_int_eq(lk_session_create_on(context, &options, caps, 2, "", &session), LK_OK);
    ck_assert_str_eq(lk_session_main_device(session)->caps.backend, "reference");
    lk_session_destroy(session);
    lk_context_destroy(context);
}
END_TEST

START_TEST(test_probe) {
    lk_context *context = new_context();
    char *text;
    ck_assert_int_eq(lk_probe(context, false, &text), LK_OK);
    ck_assert_ptr_nonnull(strstr(text, "cpu:0"));
    lk_release(context, text);
    ck_assert_int_eq(lk_probe(context, true, &text), LK_OK);
    json_t *root;
    ck_assert_int_eq(lk_json_parse(context, "probe", text, strlen(text), &root), LK_OK);
    size_t i;
    json_t *backend;
    json_array_foreach(json_object_get(root, "backends"), i, backend) { /* a device, or what to do to get one */
        ck_assert(json_array_size(json_object_get(backend, "devices")) > 0 ||
                  strlen(json_string_value(json_object_get(backend, "reason"))) > 0);
    }
    ck_assert_uint_gt(i, 3);
    json_decref(root);
    lk_release(context, text);
    lk_context_destroy(context);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("devices");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_patterns);
    tcase_add_test(tests, test_the_list);
    tcase_add_test(tests, test_lists);
    tcase_add_test(tests, test_what_auto_may_take);
    tcase_add_test(tests, test_auto_by_the_graph);
    tcase_add_test(tests, test_open_fails);
    tcase_add_test(tests, test_probe);
    return run_case("devices", tests);
}
