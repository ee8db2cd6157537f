#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/base.h"
#include "core/base/json.h"
#include "tests/common/runner.h"

static lk_context *context;

static void setup(void) {
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void teardown(void) {
    lk_context_destroy(context);
}

START_TEST(test_error_messages_name_their_place) {
    ck_assert_int_eq(lk_fail(context, LK_STATUS_FORMAT, "value %d", 7), LK_STATUS_FORMAT);
    ck_assert_int_eq(lk_fail_within(context, LK_STATUS_FORMAT, "%s", "a.json"), LK_STATUS_FORMAT);
    ck_assert_str_eq(lk_error_message(context), "a.json: value 7");
}
END_TEST

/* Known answers from the Random123 distribution's kat_vectors (philox4x32, 10 rounds). */
START_TEST(test_philox_known_answers) {
    uint32_t out[4];
    lk_philox4x32(0, 0, 0, out);
    ck_assert_uint_eq(out[0], 0x6627e8d5);
    ck_assert_uint_eq(out[1], 0xe169c58d);
    ck_assert_uint_eq(out[2], 0xbc57ac4c);
    ck_assert_uint_eq(out[3], 0x9b00dbd8);
    lk_philox4x32(UINT64_MAX, UINT64_MAX, UINT64_MAX, out);
    ck_assert_uint_eq(out[0], 0x408f276d);
    ck_assert_uint_eq(out[1], 0x41c83b0e);
    ck_assert_uint_eq(out[2], 0xa20bc7c6);
    ck_assert_uint_eq(out[3], 0x6d5451fd);
}
END_TEST

/* Widening then narrowing is the identity for every 16-bit pattern that is not a NaN, and rounding is to even. */
START_TEST(test_float16_round_trips) {
    for (uint32_t bits = 0; bits <= 0xffff; bits++) {
        float half = lk_f16_to_f32((uint16_t)bits);
        float brain = lk_bf16_to_f32((uint16_t)bits);
        if (!isnan(half)) {
            ck_assert_uint_eq(lk_f32_to_f16(half), bits);
        }
        if (!isnan(brain)) {
            ck_assert_uint_eq(lk_f32_to_bf16(brain), bits);
        }
    }
    ck_assert_uint_eq(lk_f32_to_f16(1.0f + 1.0f / 2048), 0x3c00); /* a tie goes to even */
    ck_assert_uint_eq(lk_f32_to_f16(1.0f + 3.0f / 2048), 0x3c02);
    ck_assert_uint_eq(lk_f32_to_f16(65519.0f), 0x7bff);
    ck_assert_uint_eq(lk_f32_to_f16(65520.0f), 0x7c00);
    ck_assert_uint_eq(lk_f32_to_f16(2.98e-8f), 0x0000);
    ck_assert_uint_eq(lk_f32_to_f16(2.99e-8f), 0x0001);
}
END_TEST

START_TEST(test_json_messages_name_file_key_and_value) {
    json_t *root;
    const char *text = "{\"hidden_size\": -3, \"name\": 4}";
    ck_assert_int_eq(lk_json_parse(context, "config.json", text, strlen(text), &root), LK_OK);
    int64_t value = 11;
    ck_assert_int_eq(lk_json_get_int(context, "config.json", root, "hidden_size", true, 1, 100, &value),
                     LK_STATUS_FORMAT);
    ck_assert_str_eq(lk_error_message(context), "config.json: \"hidden_size\" is -3, expected 1 to 100");
    ck_assert_int_eq(lk_json_get_int(context, "config.json", root, "absent", false, 1, 100, &value), LK_OK);
    ck_assert_int_eq(value, 11);
    const char *name;
    ck_assert_int_eq(lk_json_get_string(context, "config.json", root, "name", true, &name), LK_STATUS_FORMAT);
    ck_assert_str_eq(lk_error_message(context), "config.json: \"name\" is an integer, expected a string");
    json_decref(root);
    ck_assert_int_eq(lk_json_parse(context, "x.json", "{\"a\":", 5, &root), LK_STATUS_FORMAT);
    ck_assert_ptr_null(root);
}
END_TEST

START_TEST(test_atomic_write_keeps_the_old_file_until_commit) {
    char directory[] = "lk_base_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(directory));
    char *path = lk_path_join(context, directory, "f.txt");
    ck_assert_int_eq(lk_write_file(context, path, "old", 3), LK_OK);
    lk_atomic_file *file;
    ck_assert_int_eq(lk_atomic_file_open(context, path, &file), LK_OK);
    ck_assert_int_eq(lk_atomic_file_write(file, "newer", 5), LK_OK);
    lk_mapping mapping;
    ck_assert_int_eq(lk_mapping_open(context, path, &mapping), LK_OK);
    ck_assert_uint_eq(mapping.size, 3);
    lk_mapping_close(&mapping);
    ck_assert_int_eq(lk_atomic_file_commit(file), LK_OK);
    ck_assert_int_eq(lk_mapping_open(context, path, &mapping), LK_OK);
    ck_assert_int_eq(memcmp(mapping.data, "newer", 5), 0);
    lk_mapping_close(&mapping);
    remove(path);
    remove(directory);
    lk_free(context, path);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("base");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_error_messages_name_their_place);
    tcase_add_test(tests, test_philox_known_answers);
    tcase_add_test(tests, test_float16_round_trips);
    tcase_add_test(tests, test_json_messages_name_file_key_and_value);
    tcase_add_test(tests, test_atomic_write_keeps_the_old_file_until_commit);
    return run_case("base", tests);
}
