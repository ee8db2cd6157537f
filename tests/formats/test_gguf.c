#include <math.h>

#include "files.h"
#include "tests/common/runner.h"

/* Every metadata type once, two tensors. */
static byte_list small_file(void) {
    gguf_builder builder = {0};
    gguf_add_string(&builder, "general.architecture", "llama");
    gguf_add_u32(&builder, "u32", 4000000000u);
    gguf_add_f32(&builder, "f32", 0.5f);
    gguf_add_bool(&builder, "bool", true);
    gguf_add_raw(&builder, "u8", LK_GGUF_U8, &(uint8_t){200}, 1);
    gguf_add_raw(&builder, "i8", LK_GGUF_I8, &(int8_t){-7}, 1);
    gguf_add_raw(&builder, "u16", LK_GGUF_U16, &(uint16_t){60000}, 2);
    gguf_add_raw(&builder, "i16", LK_GGUF_I16, &(int16_t){-30000}, 2);
    gguf_add_raw(&builder, "i32", LK_GGUF_I32, &(int32_t){-2000000000}, 4);
    gguf_add_raw(&builder, "u64", LK_GGUF_U64, &(uint64_t){5000000000u}, 8);
    gguf_add_raw(&builder, "i64", LK_GGUF_I64, &(int64_t){-5000000000}, 8);
    gguf_add_raw(&builder, "f64", LK_GGUF_F64, &(double){0.1}, 8);
    byte_list array = {0};
    add_u32(&array, LK_GGUF_STRING);
    add_u64(&array, 3);
    add_string(&array, "one");
    add_string(&array, "");
    add_string(&array, "three");
    gguf_add_raw(&builder, "strings", LK_GGUF_ARRAY, array.data, array.size);
    array.size = 0;
    add_u32(&array, LK_GGUF_I32);
    add_u64(&array, 2);
    add_u32(&array, (uint32_t)-3);
    add_u32(&array, 9);
    gguf_add_raw(&builder, "ints", LK_GGUF_ARRAY, array.data, array.size);
    array.size = 0;
    add_u32(&array, LK_GGUF_ARRAY);
    add_u64(&array, 1);
    add_u32(&array, LK_GGUF_F32);
    add_u64(&array, 1);
    add_u32(&array, 0x3f800000);
    gguf_add_raw(&builder, "nested", LK_GGUF_ARRAY, array.data, array.size);
    bytes_free(&array);
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    static const uint8_t blocks[2 * 18] = {0};
    gguf_add_tensor(&builder, "matrix", 0, 2, (uint64_t[]){3, 2}, values, sizeof values);
    gguf_add_tensor(&builder, "blocks", 2, 1, (uint64_t[]){64}, blocks, sizeof blocks);
    return gguf_finish(&builder);
}

START_TEST(test_reads_every_type) {
    byte_list file = small_file();
    lk_gguf *gguf;
    const char *path = put_file("a.gguf", file.data, file.size);
    bytes_free(&file);
    ck_assert_int_eq(lk_gguf_open(context, path, &gguf), LK_OK);
    static const struct {
        const char *key;
        int64_t value;
    } ints[] = {{"u8", 200},          {"i8", -7},           {"u16", 60000},      {"i16", -30000},
                {"u32", 4000000000u}, {"i32", -2000000000}, {"u64", 5000000000}, {"i64", -5000000000}};
    for (size_t i = 0; i < LK_COUNT(ints); i++) {
        int64_t value;
        double number;
        ck_assert_int_eq(lk_gguf_get_int(gguf, ints[i].key, true, INT64_MIN, INT64_MAX, &value), LK_OK);
        ck_assert_int_eq(value, ints[i].value);
        ck_assert_int_eq(lk_gguf_get_double(gguf, ints[i].key, true, &number), LK_OK);
        ck_assert_double_eq(number, (double)ints[i].value);
    }
    double number;
    bool flag = false;
    lk_gguf_string string;
    ck_assert_int_eq(lk_gguf_get_double(gguf, "f32", true, &number), LK_OK);
    ck_assert_double_eq(number, 0.5);
    ck_assert_int_eq(lk_gguf_get_double(gguf, "f64", true, &number), LK_OK);
    ck_assert_double_eq(number, 0.1);
    ck_assert_int_eq(lk_gguf_get_bool(gguf, "bool", true, &flag), LK_OK);
    ck_assert(flag);
    ck_assert_int_eq(lk_gguf_get_string(gguf, "general.architecture", true, &string), LK_OK);
    ck_assert(lk_gguf_string_equals(string, "llama"));
    ck_assert(!lk_gguf_string_equals(string, "llam"));

    lk_gguf_array array;
    ck_assert_int_eq(lk_gguf_get_strings(gguf, "strings", true, &array), LK_OK);
    ck_assert_uint_eq(array.count, 3);
    static const char *const texts[] = {"one", "", "three"};
    for (size_t i = 0; i < 3; i++) {
        ck_assert(lk_gguf_next_string(&array, &string));
        ck_assert(lk_gguf_string_equals(string, texts[i]));
    }
    ck_assert(!lk_gguf_next_string(&array, &string));
    int64_t value;
    ck_assert_int_eq(lk_gguf_get_ints(gguf, "ints", true, &array), LK_OK);
    ck_assert(lk_gguf_next_int(&array, &value) && value == -3);
    ck_assert(lk_gguf_next_int(&array, &value) && value == 9);
    ck_assert(!lk_gguf_next_int(&array, &value));
    ck_assert_int_eq(lk_gguf_get_doubles(gguf, "ints", true, &array), LK_OK);
    ck_assert(lk_gguf_next_double(&array, &number) && number == -3);

    lk_gguf_type type;
    ck_assert_uint_eq(lk_gguf_key_count(gguf), 15);
    string = lk_gguf_key_at(gguf, 1, &type);
    ck_assert(lk_gguf_string_equals(string, "u32") && type == LK_GGUF_U32);
    ck_assert(lk_gguf_has(gguf, "nested") && !lk_gguf_has(gguf, "nest"));

    ck_assert_uint_eq(lk_gguf_count(gguf), 2);
    const lk_stored_tensor *tensor;
    ck_assert_int_eq(lk_gguf_find(gguf, "matrix", &tensor), LK_OK);
    ck_assert_int_eq(lk_stored_tensor_expect_shape(context, tensor, 2, (int64_t[]){2, 3}), LK_OK);
    ck_assert_float_eq(((const float *)tensor->data)[5], 6);
    ck_assert_int_eq(lk_gguf_find(gguf, "blocks", &tensor), LK_OK);
    ck_assert_int_eq(tensor->dtype, LK_DTYPE_Q4_0);
    ck_assert_uint_eq(tensor->bytes, 36);
    ck_assert_int_eq(lk_gguf_find(gguf, "absent", &tensor), LK_STATUS_NOT_FOUND);
    assert_message("a.gguf", "absent", NULL, NULL);
    lk_gguf_destroy(gguf);
}
END_TEST

START_TEST(test_metadata_errors_name_file_and_key) {
    byte_list file = small_file();
    lk_gguf *gguf;
    const char *path = put_file("a.gguf", file.data, file.size);
    bytes_free(&file);
    ck_assert_int_eq(lk_gguf_open(context, path, &gguf), LK_OK);
    int64_t value = 11;
    lk_gguf_array array;
    bool flag;
    ck_assert_int_eq(lk_gguf_get_int(gguf, "absent", false, 0, 9, &value), LK_OK);
    ck_assert_int_eq(value, 11);
    ck_assert_int_eq(lk_gguf_get_int(gguf, "absent", true, 0, 9, &value), LK_STATUS_FORMAT);
    assert_message("a.gguf", "absent is missing", NULL, NULL);
    ck_assert_int_eq(lk_gguf_get_int(gguf, "u8", true, 0, 9, &value), LK_STATUS_FORMAT);
    assert_message("a.gguf", "u8 is 200, expected 0 to 9", NULL, NULL);
    ck_assert_int_eq(lk_gguf_get_int(gguf, "f32", true, 0, 9, &value), LK_STATUS_FORMAT);
    assert_message("f32 is of type f32, expected an integer", NULL, NULL, NULL);
    ck_assert_int_eq(lk_gguf_get_bool(gguf, "u8", true, &flag), LK_STATUS_FORMAT);
    ck_assert_int_eq(lk_gguf_get_ints(gguf, "strings", true, &array), LK_STATUS_FORMAT);
    assert_message("strings is an array of string, expected an array of integers", NULL, NULL, NULL);
    ck_assert_int_eq(lk_gguf_get_ints(gguf, "u8", true, &array), LK_STATUS_FORMAT);
    ck_assert_int_eq(lk_gguf_get_doubles(gguf, "nested", true, &array), LK_STATUS_FORMAT);
    lk_gguf_destroy(gguf);
}
END_TEST

START_TEST(test_every_truncation_is_refused) {
    byte_list file = small_file();
    lk_gguf *gguf;
    for (size_t size = 0; size < file.size; size++) {
        const char *path = put_file("cut.gguf", file.data, size);
        ck_assert_msg(lk_gguf_open(context, path, &gguf) == LK_STATUS_FORMAT, "%zu bytes were accepted", size);
        assert_message("cut.gguf", NULL, NULL, NULL);
    }
    bytes_free(&file);
}
END_TEST

START_TEST(test_versions_and_magic) {
    byte_list file = small_file();
    lk_gguf *gguf;
    file.data[4] = 2;
    ck_assert_int_eq(lk_gguf_open(context, put_file("v.gguf", file.data, file.size), &gguf), LK_OK);
    lk_gguf_destroy(gguf);
    file.data[4] = 1;
    ck_assert_int_eq(lk_gguf_open(context, put_file("v.gguf", file.data, file.size), &gguf), LK_STATUS_UNSUPPORTED);
    assert_message("v.gguf", "version 1", NULL, NULL);
    memcpy(file.data + 4, "\0\0\0\3", 4);
    ck_assert_int_eq(lk_gguf_open(context, put_file("v.gguf", file.data, file.size), &gguf), LK_STATUS_UNSUPPORTED);
    assert_message("big-endian", NULL, NULL, NULL);
    file.data[0] = 'X';
    ck_assert_int_eq(lk_gguf_open(context, put_file("v.gguf", file.data, file.size), &gguf), LK_STATUS_FORMAT);
    assert_message("v.gguf", "not a GGUF file", NULL, NULL);
    bytes_free(&file);
}
END_TEST

static void refuse(gguf_builder *builder, const char *first, const char *second) {
    lk_gguf *gguf = (lk_gguf *)&gguf;
    ck_assert_int_eq(lk_gguf_open(context, put_gguf("bad.gguf", builder), &gguf), LK_STATUS_FORMAT);
    ck_assert_ptr_null(gguf);
    assert_message("bad.gguf", first, second, NULL);
    *builder = (gguf_builder){0};
}

START_TEST(test_malformed_headers) {
    gguf_builder builder = {0};
    static const float data[64];
    gguf_add_u32(&builder, "key", 1);
    gguf_add_u32(&builder, "key", 2);
    refuse(&builder, "key is there twice", NULL);
    gguf_add_raw(&builder, "odd", 13, data, 4);
    refuse(&builder, "odd", "type 13");
    gguf_add_u32(&builder, "", 1);
    refuse(&builder, "metadata key 0", NULL);
    gguf_add_u32(&builder, "general.alignment", 24);
    refuse(&builder, "general.alignment is 24", "power of two");
    gguf_add_u32(&builder, "general.alignment", 0);
    refuse(&builder, "general.alignment is 0", NULL);
    gguf_add_string(&builder, "general.alignment", "32");
    refuse(&builder, "general.alignment is of type string", NULL);
    builder.metadata_count = UINT64_MAX;
    refuse(&builder, "metadata keys do not fit", NULL);
    builder.tensor_count = UINT64_MAX;
    refuse(&builder, "the name of tensor 0", NULL);
    gguf_add_tensor(&builder, "t", 0, 1, (uint64_t[]){4}, data, 16);
    gguf_add_tensor(&builder, "t", 0, 1, (uint64_t[]){4}, data, 16);
    refuse(&builder, "tensor t is there twice", NULL);
    gguf_add_tensor(&builder, "t", 2, 2, (uint64_t[]){33, 32}, data, 256);
    refuse(&builder, "tensor t", "q4_0");
    gguf_add_tensor(&builder, "t", 0, 5, (uint64_t[]){1, 1, 1, 1, 1}, data, 16);
    refuse(&builder, "tensor t has 5 dimensions", NULL);
    gguf_add_tensor(&builder, "t", 0, 2, (uint64_t[]){(uint64_t)1 << 62, 16}, data, 16);
    refuse(&builder, "tensor t has the impossible shape [16, 4611686018427387904]", NULL);
    gguf_add_tensor(&builder, "t", 0, 1, (uint64_t[]){UINT64_MAX}, data, 16);
    refuse(&builder, "tensor t has the extent", NULL);
    gguf_add_tensor(&builder, "t", 0, 1, (uint64_t[]){(uint64_t)1 << 62}, data, 16);
    refuse(&builder, "tensor t", NULL);
    gguf_add_tensor(&builder, "t", 0, 1, (uint64_t[]){65}, data, 256);
    refuse(&builder, "tensor t takes 260 bytes", "256");
    gguf_add_tensor(&builder, "", 0, 1, (uint64_t[]){4}, data, 16);
    refuse(&builder, "name of tensor 0", NULL);
    gguf_add_tensor(&builder, "a", 0, 1, (uint64_t[]){64}, data, 256);
    gguf_add_tensor(&builder, "b", 0, 1, (uint64_t[]){4}, data, 16);
    memset(builder.tensors.data + builder.tensors.size - 8, 0, 8);
    refuse(&builder, "tensors", "overlap");
    gguf_add_tensor(&builder, "a", 0, 1, (uint64_t[]){4}, data, 64);
    builder.tensors.data[builder.tensors.size - 8] = 4;
    refuse(&builder, "tensor a begins at byte 4", "multiple of 32");
}
END_TEST

START_TEST(test_false_counts_and_nesting) {
    gguf_builder builder = {0};
    byte_list array = {0};
    add_u32(&array, LK_GGUF_U64);
    add_u64(&array, (uint64_t)1 << 61);
    gguf_add_raw(&builder, "huge", LK_GGUF_ARRAY, array.data, array.size);
    refuse(&builder, "metadata huge", "cut short");
    array.size = 0;
    add_u32(&array, LK_GGUF_STRING);
    add_u64(&array, UINT64_MAX);
    gguf_add_raw(&builder, "many", LK_GGUF_ARRAY, array.data, array.size);
    refuse(&builder, "metadata many", "cut short");
    array.size = 0;
    for (int i = 0; i < 100; i++) {
        add_u32(&array, LK_GGUF_ARRAY);
        add_u64(&array, 1);
    }
    gguf_add_raw(&builder, "deep", LK_GGUF_ARRAY, array.data, array.size);
    refuse(&builder, "metadata deep", "nested");
    bytes_free(&array);
}
END_TEST

START_TEST(test_foreign_dtypes_matter_only_when_asked_for) {
    gguf_builder builder = {0};
    static const uint8_t data[64];
    gguf_add_tensor(&builder, "iq", 20, 1, (uint64_t[]){32}, data, 18);
    gguf_add_tensor(&builder, "new", 99, 1, (uint64_t[]){32}, data, 18);
    lk_gguf *gguf;
    const lk_stored_tensor *tensor;
    ck_assert_int_eq(lk_gguf_open(context, put_gguf("iq.gguf", &builder), &gguf), LK_OK);
    ck_assert_int_eq(lk_gguf_find(gguf, "iq", &tensor), LK_STATUS_UNSUPPORTED);
    assert_message("iq.gguf", "tensor iq", "IQ4_NL", NULL);
    ck_assert_int_eq(lk_gguf_find(gguf, "new", &tensor), LK_STATUS_UNSUPPORTED);
    assert_message("tensor new", "99", NULL, NULL);
    lk_gguf_destroy(gguf);
}
END_TEST

START_TEST(test_a_file_of_metadata_only) {
    gguf_builder builder = {0};
    gguf_add_string(&builder, "general.architecture", "llama");
    byte_list file = gguf_finish(&builder);
    lk_gguf *gguf;
    const char *path = put_file("vocab.gguf", file.data, 24 + 8 + 20 + 4 + 8 + 5); /* without the padding */
    ck_assert_int_eq(lk_gguf_open(context, path, &gguf), LK_OK);
    ck_assert_uint_eq(lk_gguf_count(gguf), 0);
    ck_assert_ptr_null(lk_gguf_lookup(gguf, "x"));
    lk_gguf_destroy(gguf);
    bytes_free(&file);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("gguf");
    tcase_add_checked_fixture(tests, files_setup, files_teardown);
    tcase_add_test(tests, test_reads_every_type);
    tcase_add_test(tests, test_metadata_errors_name_file_and_key);
    tcase_add_test(tests, test_every_truncation_is_refused);
    tcase_add_test(tests, test_versions_and_magic);
    tcase_add_test(tests, test_malformed_headers);
    tcase_add_test(tests, test_false_counts_and_nesting);
    tcase_add_test(tests, test_foreign_dtypes_matter_only_when_asked_for);
    tcase_add_test(tests, test_a_file_of_metadata_only);
    return run_case("gguf", tests);
}
