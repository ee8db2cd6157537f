#include <math.h>
#include <stdio.h>

#include "core/formats/dequantize.h"
#include "files.h"
#include "tests/common/runner.h"

/* Blocks small enough to follow by hand. */
START_TEST(test_blocks_by_hand) {
    float out[256];
    uint8_t q4_0[18] = {0x00, 0x38, 0x80, 0xf1}; /* d = 0.5; nibbles 0, 8 then 1, 15, then 0, 0 */
    lk_dequantize(LK_DTYPE_Q4_0, q4_0, 32, out);
    ck_assert_float_eq(out[0], -4);
    ck_assert_float_eq(out[16], 0);
    ck_assert_float_eq(out[1], -3.5f);
    ck_assert_float_eq(out[17], 3.5f);
    ck_assert_float_eq(out[31], -4);
    uint8_t q4_1[20] = {0x00, 0x38, 0x00, 0xbc, 0x52}; /* d = 0.5, m = -1; nibbles 2 and 5 */
    lk_dequantize(LK_DTYPE_Q4_1, q4_1, 32, out);
    ck_assert_float_eq(out[0], 0);
    ck_assert_float_eq(out[16], 1.5f);
    ck_assert_float_eq(out[1], -1);
    uint8_t q5_0[22] = {0x00, 0x3c, 0x01, 0x00, 0x02, 0x00, 0x03}; /* d = 1; fifth bits of elements 0 and 17 */
    lk_dequantize(LK_DTYPE_Q5_0, q5_0, 32, out);
    ck_assert_float_eq(out[0], 3);
    ck_assert_float_eq(out[16], -16);
    ck_assert_float_eq(out[17], 0);
    uint8_t q5_1[24] = {0x00, 0x3c, 0x00, 0x40, 0x01, 0x00, 0x02, 0x00, 0x03}; /* the same with m = 2 */
    lk_dequantize(LK_DTYPE_Q5_1, q5_1, 32, out);
    ck_assert_float_eq(out[0], 21);
    ck_assert_float_eq(out[16], 2);
    ck_assert_float_eq(out[17], 18);
    uint8_t q8_0[34] = {0x00, 0xb8, 0x7f, 0x80}; /* d = -0.5 */
    lk_dequantize(LK_DTYPE_Q8_0, q8_0, 32, out);
    ck_assert_float_eq(out[0], -63.5f);
    ck_assert_float_eq(out[1], 64);
    ck_assert_float_eq(out[31], 0);
    uint8_t q2_k[84] = {[0] = 0x21, [3] = 0x03, [16 + 1] = 0x31, [80] = 0x00, 0x3c, 0x00, 0x38};
    lk_dequantize(LK_DTYPE_Q2_K, q2_k, 256, out); /* d = 1, dmin = 0.5; scales 1 (min 2) and, for 48..63, 3 */
    ck_assert_float_eq(out[1], 1 * 1 - 0.5f * 2);
    ck_assert_float_eq(out[0], -1);
    ck_assert_float_eq(out[33], 0);                                                 /* its q is 0 */
    ck_assert_float_eq(out[65], 0);                                                 /* q is 3, but its scale is 0 */
    uint8_t q6_k[210] = {[3] = 0x25, [128 + 3] = 0x01, [192] = 0xff, [209] = 0x3c}; /* d = 1, first scale -1 */
    lk_dequantize(LK_DTYPE_Q6_K, q6_k, 256, out);
    ck_assert_float_eq(out[3], -1.0f * (5 + 16 - 32));
    ck_assert_float_eq(out[4], 32);
    ck_assert_float_eq(out[67], 0);
}
END_TEST

/* Two blocks of byte i = (37 i + 11) mod 256 with d = 0.1 and, where there is one, m = -0.25 as halves. Expected from
 * the Python package gguf 0.19 (gguf.quants.dequantize): elements 0, n/2 + 1 and n - 1 of the first block, n/4 of the
 * second, and the sum of (i + 1) * value over both. */
START_TEST(test_known_vectors) {
    static const struct {
        lk_dtype dtype;
        int halves[2];
        float at[4];
        double weighted_sum;
    } cases[] = {
        {LK_DTYPE_Q4_0, {0, -1}, {-0.299926758f, -0.0999755859f, 0.0f, -0.0999755859f}, -107.073853},
        {LK_DTYPE_Q4_1, {0, 2}, {1.24963379f, 0.949707031f, 0.949707031f, 0.849731445f}, 1097.60498},
        {LK_DTYPE_Q5_0, {0, -1}, {0.899780273f, 0.0f, 0.0999755859f, -0.0999755859f}, -10.8973389},
        {LK_DTYPE_Q5_1, {0, 2}, {1.64953613f, 0.24987793f, 0.24987793f, 0.0499267578f}, 2575.04419},
        {LK_DTYPE_Q8_0, {0, -1}, {8.4979248f, -5.39868164f, -4.79882812f, 10.2974854f}, -1369.26562},
        {LK_DTYPE_Q2_K, {80, 82}, {3.29919434f, 0.75f, 1.34985352f, 3.89978027f}, 365865.927},
        {LK_DTYPE_Q3_K, {108, -1}, {8.09802246f, -0.0f, 4.19897461f, -1.49963379f}, 11062.7985},
        {LK_DTYPE_Q4_K, {0, 2}, {46.8416748f, 3.0f, 15.3483887f, 65.9346924f}, 4415798.36},
        {LK_DTYPE_Q5_K, {0, 2}, {96.4295654f, 3.0f, 21.3469238f, 38.7432861f}, 6572341.33},
        {LK_DTYPE_Q6_K, {208, -1}, {-143.065063f, 41.5898438f, -5.99853516f, -42.5895996f}, 180838.639},

    };
    for (size_t c = 0; c < LK_COUNT(cases); c++) {
        uint8_t blocks[2 * 256];
        float out[2 * 256];
        int64_t n = lk_dtype_block_size(cases[c].dtype);
        size_t bytes = lk_dtype_block_bytes(cases[c].dtype);
        static const uint16_t halves[2] = {0x2e66, 0xb400};
        for (size_t i = 0; i < 2 * bytes; i++) {
            blocks[i] = (uint8_t)(37 * i + 11);
        }
        for (size_t b = 0; b < 2; b++) {
            for (int h = 0; h < 2 && cases[c].halves[h] >= 0; h++) {
                memcpy(blocks + b * bytes + cases[c].halves[h], &halves[h], 2);
            }
        }
        lk_dequantize(cases[c].dtype, blocks, 2 * n, out);
        const int64_t places[4] = {0, n / 2 + 1, n - 1, n + n / 4};
        for (int i = 0; i < 4; i++) {
            ck_assert_msg(fabsf(out[places[i]] - cases[c].at[i]) <= 2e-6f * fabsf(cases[c].at[i]), "%s[%d] is %.9g",
                          lk_dtype_name(cases[c].dtype), (int)places[i], (double)out[places[i]]);
        }
        double sum = 0, magnitude = 0;
        for (int64_t i = 0; i < 2 * n; i++) {
            sum += (double)(i + 1) * (double)out[i];
            magnitude += (double)(i + 1) * fabs((double)out[i]);
        }
        ck_assert_msg(fabs(sum - cases[c].weighted_sum) <= 1e-6 * magnitude, "%s: %.9g", lk_dtype_name(cases[c].dtype),
                      sum);
    }
}
END_TEST

/* Quantising loses at most half a step, keeps zeros and the largest magnitude, and never leaves -127..127. */
START_TEST(test_q8_0_round_trip) {
    uint64_t state = 7;
    float values[64], back[64];
    uint8_t blocks[68];
    for (int i = 0; i < 64; i++) {
        values[i] = i < 32 ? lk_uniform_from_bits((uint32_t)next_random(&state)) * 2 - 1 : 0;
    }
    lk_quantize(LK_DTYPE_Q8_0, values, 64, blocks);
    lk_dequantize(LK_DTYPE_Q8_0, blocks, 64, back);
    float largest = 0;
    for (int i = 0; i < 32; i++) {
        largest = fmaxf(largest, fabsf(values[i]));
    }
    for (int i = 0; i < 32; i++) {
        ck_assert_float_le(fabsf(back[i] - values[i]), largest / 127 * 0.51f + largest * 0.0005f);
        ck_assert_float_eq(back[32 + i], 0);
    }
    for (int i = 0; i < 32; i++) {
        values[i] = i % 2 ? NAN : 3e38f; /* beyond what a half scale can hold, and no number at all */
    }
    lk_quantize(LK_DTYPE_Q8_0, values, 32, blocks);
}
END_TEST

START_TEST(test_convert) {
    float values[1500], back[1500];
    uint16_t brain[1500];
    uint8_t unaligned[2 * 1500 + 1];
    for (int i = 0; i < 1500; i++) {
        values[i] = (float)(i - 700) * 0.25f; /* exact in bf16 up to 8 bits, in fp16 throughout */
    }
    ck_assert_int_eq(lk_convert(context, LK_DTYPE_F32, values, LK_DTYPE_F16, unaligned + 1, 1500), LK_OK);
    ck_assert_int_eq(lk_convert(context, LK_DTYPE_F16, unaligned + 1, LK_DTYPE_F32, back, 1500), LK_OK);
    ck_assert_mem_eq(values, back, sizeof values);
    ck_assert_int_eq(lk_convert(context, LK_DTYPE_F16, unaligned + 1, LK_DTYPE_BF16, brain, 1500), LK_OK);
    for (int i = 0; i < 1500; i++) {
        ck_assert_uint_eq(brain[i], lk_f32_to_bf16(values[i]));
    }
    double wide[2] = {0.1, -3};
    ck_assert_int_eq(lk_convert(context, LK_DTYPE_F64, wide, LK_DTYPE_F32, back, 2), LK_OK);
    ck_assert_float_eq(back[0], 0.1f);
    int32_t ids[2] = {1, -1}, copied[2];
    ck_assert_int_eq(lk_convert(context, LK_DTYPE_I32, ids, LK_DTYPE_I32, copied, 2), LK_OK);
    ck_assert_mem_eq(ids, copied, sizeof ids);
    ck_assert_int_eq(lk_convert(context, LK_DTYPE_I32, ids, LK_DTYPE_F32, back, 2), LK_STATUS_UNSUPPORTED);
    assert_message("i32", "f32", NULL, NULL);
    ck_assert_int_eq(lk_convert(context, LK_DTYPE_F32, values, LK_DTYPE_Q4_0, brain, 32), LK_STATUS_UNSUPPORTED);
    ck_assert_int_eq(lk_convert(context, LK_DTYPE_Q4_0, values, LK_DTYPE_F32, back, 33), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_int_eq(lk_convert(context, LK_DTYPE_F32, NULL, LK_DTYPE_F32, NULL, 0), LK_OK);
}
END_TEST

/* Every dtype but I32 can be read; a new one must not be forgotten in the table. */
START_TEST(test_every_dtype_has_its_row) {
    for (int dtype = 0; dtype < LK_DTYPE_COUNT; dtype++) {
        ck_assert_msg(lk_can_dequantize((lk_dtype)dtype) == (dtype != LK_DTYPE_I32), "%s",
                      lk_dtype_name((lk_dtype)dtype));
    }
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("dequantize");
    tcase_add_checked_fixture(tests, files_setup, files_teardown);
    tcase_add_test(tests, test_blocks_by_hand);
    tcase_add_test(tests, test_known_vectors);
    tcase_add_test(tests, test_q8_0_round_trip);
    tcase_add_test(tests, test_convert);
    tcase_add_test(tests, test_every_dtype_has_its_row);
    return run_case("dequantize", tests);
}
