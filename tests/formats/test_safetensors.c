#include <stdio.h>

#include "core/base/json.h"
#include "files.h"
#include "tests/common/runner.h"

static const float values[6] = {1, -2, 3.5f, 0, 1e-20f, 7};

START_TEST(test_writes_and_reads_back) {
    const uint16_t halves[3] = {0x3c00, 0xc000, 0x0001};
    const int32_t ids[2] = {-5, 7};
    const lk_stored_tensor tensors[] = {
        {.name = "b.half", .dtype = LK_DTYPE_F16, .rank = 1, .shape = {3}, .data = halves},
        {.name = "z.float", .dtype = LK_DTYPE_F32, .rank = 2, .shape = {2, 3}, .data = values},
        {.name = "a.brain", .dtype = LK_DTYPE_BF16, .rank = 3, .shape = {3, 1, 1}, .data = halves},
        {.name = "ids", .dtype = LK_DTYPE_I32, .rank = 1, .shape = {2}, .data = ids},
        {.name = "empty", .dtype = LK_DTYPE_F32, .rank = 2, .shape = {0, 4}},
        {.name = "scalar", .dtype = LK_DTYPE_F32, .rank = 0, .data = values + 2},
    };
    const char *path = in_folder("a.safetensors");
    ck_assert_int_eq(lk_safetensors_write(context, path, tensors, LK_COUNT(tensors), NULL, NULL, NULL), LK_OK);
    lk_safetensors *file;
    ck_assert_int_eq(lk_safetensors_open(context, path, &file), LK_OK);
    ck_assert_uint_eq(lk_safetensors_count(file), LK_COUNT(tensors));
    ck_assert_str_eq(lk_safetensors_metadata(file, "format"), "pt");
    ck_assert_ptr_null(lk_safetensors_metadata(file, "other"));
    for (size_t i = 0; i < LK_COUNT(tensors); i++) {
        const lk_stored_tensor *read;
        ck_assert_int_eq(lk_safetensors_find(file, tensors[i].name, &read), LK_OK);
        ck_assert_int_eq(read->dtype, tensors[i].dtype);
        ck_assert_int_eq(lk_stored_tensor_expect_shape(context, read, tensors[i].rank, tensors[i].shape), LK_OK);
        ck_assert_uint_eq((uintptr_t)read->data % lk_dtype_block_bytes(read->dtype), 0); /* the writer aligns */
        ck_assert_ptr_eq(lk_safetensors_lookup(file, tensors[i].name), read);
        if (read->bytes > 0) {
            ck_assert_mem_eq(read->data, tensors[i].data, read->bytes);
        }
    }
    const lk_stored_tensor *missing;
    ck_assert_int_eq(lk_safetensors_find(file, "nope", &missing), LK_STATUS_NOT_FOUND);
    assert_message("a.safetensors", "nope", NULL, NULL);
    const lk_stored_tensor *wide = lk_safetensors_lookup(file, "z.float");
    ck_assert_int_eq(lk_stored_tensor_expect_shape(context, wide, 2, (int64_t[]){3, 2}), LK_STATUS_FORMAT);
    assert_message("a.safetensors", "z.float", "[2, 3]", "[3, 2]");
    lk_safetensors_destroy(file);
}
END_TEST

static lk_status give(void *user, size_t index, const void **data) {
    static float scratch[2];
    int *calls = user;
    ++*calls;
    scratch[0] = (float)index;
    scratch[1] = 10 + (float)index;
    *data = scratch;
    return index == 9 ? lk_fail(context, LK_STATUS_NUMERIC, "given up") : LK_OK;
}

/* The order of the list does not change the file; a source is asked once per tensor, by the list's index. */
START_TEST(test_streams_in_a_deterministic_order) {
    const lk_stored_tensor list[] = {{.name = "b", .dtype = LK_DTYPE_F32, .rank = 1, .shape = {2}},
                                     {.name = "a", .dtype = LK_DTYPE_F32, .rank = 1, .shape = {2}}};
    int calls = 0;
    json_t *metadata = json_pack("{s:s}", "step", "12");
    ck_assert_int_eq(lk_safetensors_write(context, in_folder("s"), list, 2, metadata, give, &calls), LK_OK);
    json_decref(metadata);
    ck_assert_int_eq(calls, 2);
    lk_safetensors *file;
    ck_assert_int_eq(lk_safetensors_open(context, in_folder("s"), &file), LK_OK);
    ck_assert_str_eq(lk_safetensors_at(file, 0)->name, "a");
    ck_assert_float_eq(((const float *)lk_safetensors_at(file, 0)->data)[1], 11);
    ck_assert_float_eq(((const float *)lk_safetensors_at(file, 1)->data)[0], 0);
    ck_assert_str_eq(lk_safetensors_metadata(file, "step"), "12");
    lk_safetensors_destroy(file);
}
END_TEST

START_TEST(test_a_failed_write_leaves_the_earlier_file) {
    lk_stored_tensor list[10];
    char names[10][2];
    for (int i = 0; i < 10; i++) {
        snprintf(names[i], 2, "%d", i);
        list[i] = (lk_stored_tensor){.name = names[i], .dtype = LK_DTYPE_F32, .rank = 1, .shape = {2}};
    }
    const char *path = put_text("kept", "earlier");
    int calls = 0;
    ck_assert_int_eq(lk_safetensors_write(context, path, list, 10, NULL, give, &calls), LK_STATUS_NUMERIC);
    ck_assert_int_eq(lk_safetensors_write(context, path, list, 2, NULL, NULL, NULL), LK_STATUS_INVALID_ARGUMENT);
    assert_message("kept", "tensor 0 has no data", NULL, NULL);
    list[1].name = "0";
    ck_assert_int_eq(lk_safetensors_write(context, path, list, 2, NULL, give, &calls), LK_STATUS_INVALID_ARGUMENT);
    list[1].dtype = LK_DTYPE_Q4_0;
    ck_assert_int_eq(lk_safetensors_write(context, path, list, 2, NULL, give, &calls), LK_STATUS_UNSUPPORTED);
    assert_message("q4_0", NULL, NULL, NULL);
    list[1].dtype = LK_DTYPE_F32;
    list[1].name = "\xff";
    ck_assert_int_eq(lk_safetensors_write(context, path, list, 2, NULL, give, &calls), LK_STATUS_INVALID_ARGUMENT);
    lk_mapping mapping;
    ck_assert_int_eq(lk_mapping_open(context, path, &mapping), LK_OK);
    ck_assert_uint_eq(mapping.size, 7);
    ck_assert_mem_eq(mapping.data, "earlier", 7);
    lk_mapping_close(&mapping);
}
END_TEST

/* Every malformed header is refused with a message that names the file and what is wrong. */
START_TEST(test_malformed_headers) {
    static const struct {
        const char *header;
        size_t data;
        const char *part;
    } cases[] = {
        {"[]", 0, "not a JSON object"},
        {"{\"a\":", 0, "not valid JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
         6, "tensor b begins at data byte 2"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "overlaps"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "gap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "4 bytes after the last tensor"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "tensor a: data_offsets [0, 4]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "[-4, 0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "[4, 0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "shape [2] of f32"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,16],\"data_offsets\":[0,0]}}", 0, "tensor a: shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "list of sizes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "list of sizes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":3,\"data_offsets\":[0,4]}}", 4, "not an array"},
        {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\" is not a string"},
        {"{\"a\":7}", 0, "tensor a is not an object"},
        {"{\"__metadata__\":{\"x\":1}}", 0, "\"x\" is not a string"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
    };
    static const uint8_t zeros[8];
    for (size_t i = 0; i < LK_COUNT(cases); i++) {
        lk_safetensors *file = (lk_safetensors *)&file;
        const char *path = put_safetensors("bad.safetensors", cases[i].header, zeros, cases[i].data);
        ck_assert_int_eq(lk_safetensors_open(context, path, &file), LK_STATUS_FORMAT);
        ck_assert_ptr_null(file);
        assert_message("bad.safetensors", cases[i].part, NULL, NULL);
    }
}
END_TEST

START_TEST(test_header_length_is_checked) {
    uint8_t bytes[16] = {0};
    lk_safetensors *file;
    static const uint64_t lengths[] = {9, 100, 100000001, UINT64_MAX, (uint64_t)1 << 63};
    for (size_t i = 0; i < LK_COUNT(lengths); i++) {
        memcpy(bytes, &lengths[i], 8);
        const char *path = put_file("bad", bytes, sizeof bytes);
        ck_assert_int_eq(lk_safetensors_open(context, path, &file), LK_STATUS_FORMAT);
        assert_message("bad", "cut short", NULL, NULL);
    }
    ck_assert_int_eq(lk_safetensors_open(context, in_folder("absent"), &file), LK_STATUS_NOT_FOUND);
    ck_assert_int_eq(lk_safetensors_open(context, folder_path(), &file), LK_STATUS_IO);
}
END_TEST

START_TEST(test_every_truncation_is_refused) {
    const lk_stored_tensor list[] = {{.name = "a", .dtype = LK_DTYPE_F32, .rank = 1, .shape = {2}, .data = values},
                                     {.name = "b", .dtype = LK_DTYPE_F16, .rank = 1, .shape = {1}, .data = values}};
    ck_assert_int_eq(lk_safetensors_write(context, in_folder("whole"), list, 2, NULL, NULL, NULL), LK_OK);
    lk_mapping whole;
    ck_assert_int_eq(lk_mapping_open(context, in_folder("whole"), &whole), LK_OK);
    lk_safetensors *file;
    for (size_t size = 0; size < whole.size; size++) {
        const char *path = put_file("cut", whole.data, size);
        ck_assert_msg(lk_safetensors_open(context, path, &file) == LK_STATUS_FORMAT, "%zu bytes were accepted", size);
    }
    lk_mapping_close(&whole);
}
END_TEST

START_TEST(test_foreign_dtypes_matter_only_when_asked_for) {
    static const uint8_t data[6];
    const char *path = put_safetensors("f8.safetensors",
                                       "{\"odd\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]},"
                                       "\"deep\":{\"dtype\":\"BOOL\",\"shape\":[1,1,1,1,1],\"data_offsets\":[2,3]},"
                                       "\"five\":{\"dtype\":\"BF16\",\"shape\":[1,1,1,1,1],\"data_offsets\":[3,5]}}",
                                       data, 5);
    lk_safetensors *file;
    const lk_stored_tensor *tensor;
    ck_assert_int_eq(lk_safetensors_open(context, path, &file), LK_OK);
    ck_assert_uint_eq(lk_safetensors_count(file), 3);
    ck_assert_int_eq(lk_safetensors_find(file, "odd", &tensor), LK_STATUS_UNSUPPORTED);
    assert_message("f8.safetensors", "odd", "F8_E4M3", NULL);
    ck_assert_int_eq(lk_safetensors_find(file, "five", &tensor), LK_STATUS_UNSUPPORTED);
    assert_message("five", "5 dimensions", NULL, NULL);
    lk_safetensors_destroy(file);
}
END_TEST

static void put_shard(const char *name, const char *tensor, const float *data) {
    const lk_stored_tensor one = {.name = tensor, .dtype = LK_DTYPE_F32, .rank = 1, .shape = {1}, .data = data};
    ck_assert_int_eq(lk_safetensors_write(context, in_folder(name), &one, 1, NULL, NULL, NULL), LK_OK);
}

START_TEST(test_shards) {
    put_shard("model-00001-of-00002.safetensors", "a", values);
    put_shard("model-00002-of-00002.safetensors", "b", values + 1);
    const char *index = "model.safetensors.index.json";
    put_text(index, "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"b\":\"model-00002-of-00002.safetensors\","
                    "\"a\":\"model-00001-of-00002.safetensors\"}}");
    lk_safetensors *file;
    const lk_stored_tensor *tensor;
    ck_assert_int_eq(lk_safetensors_open_folder(context, folder_path(), &file), LK_OK);
    ck_assert_uint_eq(lk_safetensors_count(file), 2);
    ck_assert_int_eq(lk_safetensors_find(file, "b", &tensor), LK_OK);
    ck_assert_float_eq(*(const float *)tensor->data, -2);
    ck_assert_ptr_nonnull(strstr(tensor->file, "model-00002-of-00002.safetensors"));
    lk_safetensors_destroy(file);

    put_text(index, "{\"weight_map\":{\"b\":\"model-00001-of-00002.safetensors\"}}");
    ck_assert_int_eq(lk_safetensors_open_folder(context, folder_path(), &file), LK_STATUS_FORMAT);
    assert_message("index.json", "tensor b is not in model-00001", NULL, NULL);
    put_text(index, "{\"weight_map\":{\"a\":\"../a.safetensors\"}}");
    ck_assert_int_eq(lk_safetensors_open_folder(context, folder_path(), &file), LK_STATUS_FORMAT);
    assert_message("index.json", "../a.safetensors", NULL, NULL);
    put_text(index, "{\"weight_map\":{\"a\":\"absent.safetensors\"}}");
    ck_assert_int_eq(lk_safetensors_open_folder(context, folder_path(), &file), LK_STATUS_NOT_FOUND);
    put_text(index, "{\"weight_map\":{\"a\":3}}");
    ck_assert_int_eq(lk_safetensors_open_folder(context, folder_path(), &file), LK_STATUS_FORMAT);
    put_text(index, "{}");
    ck_assert_int_eq(lk_safetensors_open_folder(context, folder_path(), &file), LK_STATUS_FORMAT);
    put_shard("model-00002-of-00002.safetensors", "a", values);
    put_text(index, "{\"weight_map\":{\"a\":\"model-00002-of-00002.safetensors\","
                    "\"b\":\"model-00001-of-00002.safetensors\"}}");
    ck_assert_int_eq(lk_safetensors_open_folder(context, folder_path(), &file), LK_STATUS_FORMAT);
    assert_message("tensor a is there twice", NULL, NULL, NULL);
}
END_TEST

START_TEST(test_a_folder_without_weights) {
    lk_safetensors *file;
    ck_assert_int_eq(lk_safetensors_open_folder(context, folder_path(), &file), LK_STATUS_NOT_FOUND);
    assert_message(folder_path(), "model.safetensors", NULL, NULL);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("safetensors");
    tcase_add_checked_fixture(tests, files_setup, files_teardown);
    tcase_add_test(tests, test_writes_and_reads_back);
    tcase_add_test(tests, test_streams_in_a_deterministic_order);
    tcase_add_test(tests, test_a_failed_write_leaves_the_earlier_file);
    tcase_add_test(tests, test_malformed_headers);
    tcase_add_test(tests, test_header_length_is_checked);
    tcase_add_test(tests, test_every_truncation_is_refused);
    tcase_add_test(tests, test_foreign_dtypes_matter_only_when_asked_for);
    tcase_add_test(tests, test_shards);
    tcase_add_test(tests, test_a_folder_without_weights);
    return run_case("safetensors", tests);
}
