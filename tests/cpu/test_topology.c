#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cpu/isa.h"
#include "dispatch/dispatch.h"
#include "tests/common/runner.h"

static lk_context *context;

static void setup(void) {
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void teardown(void) {
    unsetenv("LORIKEET_CPU_DISABLE");
    lk_context_destroy(context);
}

START_TEST(test_topology_is_plausible) {
    lk_topology *topology;
    ck_assert_int_eq(lk_topology_create(context, &topology), LK_OK);
    const lk_topology_info *info = lk_topology_get(topology);
    ck_assert_int_ge(info->cores, 1);
    ck_assert_int_ge(info->packages, 1);
    ck_assert_int_ge(info->numa_nodes, 1);
    ck_assert_uint_ge(info->page_bytes, 4096);
    ck_assert_uint_gt(info->memory_bytes, info->page_bytes);
    ck_assert_uint_gt(strlen(info->name), 0);
    lk_topology_destroy(topology);
    lk_topology_destroy(NULL);
}
END_TEST

START_TEST(test_feature_lists) {
    uint64_t bits;
    ck_assert_int_eq(lk_cpu_features_parse(context, "fma, avx2,,f16c", &bits), LK_OK);
    ck_assert_uint_eq(bits, LK_CPU_AVX2_FEATURES);
    ck_assert_int_eq(lk_cpu_features_parse(context, "", &bits), LK_OK);
    ck_assert_uint_eq(bits, 0);
    ck_assert_int_eq(lk_cpu_features_parse(context, "avx2,avx3", &bits), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_str_eq(lk_error_message(context), "\"avx3\" is not the name of a CPU feature");
    ck_assert_str_eq(lk_cpu_feature_name(0), "avx2");
    ck_assert_ptr_null(lk_cpu_feature_name(LK_CPU_FEATURE_COUNT));
}
END_TEST

START_TEST(test_features_can_be_taken_away) {
    uint64_t all, fewer;
    ck_assert_int_eq(lk_cpu_features_probe(context, &all), LK_OK);
    setenv("LORIKEET_CPU_DISABLE", "avx512f,fma,neon", 1);
    ck_assert_int_eq(lk_cpu_features_probe(context, &fewer), LK_OK);
    ck_assert_uint_eq(fewer, all & ~(LK_CPU_BIT(AVX512F) | LK_CPU_BIT(FMA) | LK_CPU_BIT(NEON)));
    setenv("LORIKEET_CPU_DISABLE", "mmx", 1);
    ck_assert_int_eq(lk_cpu_features_probe(context, &fewer), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_uint_eq(fewer, 0);
}
END_TEST

static int asked;
static bool permitted(void) {
    asked++;
    return true;
}

static bool forbidden(void) {
    asked++;
    return false;
}

/* A Sapphire Rapids, then with less of it. */
START_TEST(test_x86_processors) {
    const lk_x86_identity whole = {1u << 12 | 1u << 29,
                                   1u << 5 | 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31,
                                   1u << 11,
                                   1u << 22 | 1u << 24,
                                   1u << 5,
                                   0x602e7,
                                   permitted};
    const uint64_t vectors = LK_CPU_AVX512BF16_FEATURES | LK_CPU_BIT(AVX512_VNNI);
    ck_assert_uint_eq(lk_x86_features(&whole), vectors | LK_CPU_AMXBF16_FEATURES);
    ck_assert_int_eq(asked, 1);
    lk_x86_identity less = whole;
    less.permits_tiles = forbidden; /* an old kernel, or a filter of system calls */
    ck_assert_uint_eq(lk_x86_features(&less), vectors);
    ck_assert_int_eq(asked, 2);
    less.saved = 0x202e7; /* one of the tiles' two parts is not saved: not even asked for */
    ck_assert_uint_eq(lk_x86_features(&less), vectors);
    less.saved = 0x602e7;
    less.leaf7_d = 1u << 22; /* bf16 without tiles */
    ck_assert_uint_eq(lk_x86_features(&less), vectors);
    ck_assert_int_eq(asked, 2);
    less = whole;
    less.leaf7_d = 1u << 24; /* tiles for integers alone */
    ck_assert_uint_eq(lk_x86_features(&less), vectors | LK_CPU_BIT(AMX_TILE));
    less.leaf7_1_a = 0;
    less.saved = 0x7; /* a system that saves AVX and no more */
    ck_assert_uint_eq(lk_x86_features(&less), LK_CPU_AVX2_FEATURES);
    less.saved = 0x3;
    ck_assert_uint_eq(lk_x86_features(&less), 0);
}
END_TEST

/* The kernel chosen for one node, as a function of the features alone. */
static const char *chosen_with(uint64_t features) {
    int count;
    const lk_kernel *rows = lk_backend_cpu.kernels(&count);
    lk_device_caps caps = {.features = features, .threads = 1, .flops_f32 = 1e9, .bandwidth = 1e9};
    lk_tensor a = {.dtype = LK_DTYPE_F32, .rank = 2, .shape = {8, 8, 1, 1}}, y = a;
    lk_tensor *inputs[] = {&a, &a};
    lk_node node = {.op = LK_OP_ADD, .num_inputs = 2, .num_outputs = 1, .inputs = inputs, .outputs = {&y}, .scope = ""};
    return lk_select(rows, count, &caps, &node, NULL, NULL, NULL).kernel->name;
}

START_TEST(test_selection_follows_the_features) {
    ck_assert_str_eq(chosen_with(0), "cpu_add_generic");
#if defined(__x86_64__)
    ck_assert_str_eq(chosen_with(LK_CPU_BIT(AVX2)), "cpu_add_generic");
    ck_assert_str_eq(chosen_with(LK_CPU_AVX2_FEATURES), "cpu_add_avx2");
    ck_assert_str_eq(chosen_with(LK_CPU_AVX512_FEATURES), "cpu_add_avx512");
    ck_assert_str_eq(chosen_with(LK_CPU_AVX512_FEATURES & ~LK_CPU_BIT(AVX512VL)), "cpu_add_avx2");
#elif defined(__aarch64__)
    ck_assert_str_eq(chosen_with(LK_CPU_BIT(NEON)), "cpu_add_neon");
#endif
}
END_TEST

START_TEST(test_open_checks_its_options) {
    lk_device_caps caps;
    int count;
    ck_assert_int_eq(lk_backend_cpu.probe(context, &caps, 1, &count), LK_OK);
    ck_assert_int_eq(count, 1);
    lk_device_options options = {sizeof options, -1};
    lk_device *device;
    ck_assert_int_eq(lk_backend_cpu.open(context, &caps, &options, &device), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_null(device);
    options.threads = 3;
    caps.features = UINT64_MAX; /* a description cannot give features that the processor lacks */
    ck_assert_int_eq(lk_backend_cpu.open(context, &caps, &options, &device), LK_OK);
    uint64_t all;
    ck_assert_int_eq(lk_cpu_features_probe(context, &all), LK_OK);
    ck_assert_uint_eq(device->caps.features, all);
    ck_assert_int_eq(device->caps.threads, 3);

    lk_buffer *buffer, *borrowed;
    char bytes[16] = {0};
    ck_assert_int_eq(lk_backend_cpu.alloc(device, 16, &buffer), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.upload(device, buffer, 8, bytes, 9), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_int_eq(lk_backend_cpu.download(device, buffer, 17, bytes, 0), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_int_eq(lk_backend_cpu.wrap(device, bytes, 16, &borrowed), LK_OK);
    ck_assert_ptr_eq(lk_backend_cpu.map(borrowed), bytes);
    ck_assert_int_eq(lk_backend_cpu.upload(device, borrowed, 0, bytes, 1), LK_STATUS_INVALID_ARGUMENT);
    lk_backend_cpu.free(device, borrowed);
    lk_backend_cpu.free(device, buffer);
    lk_backend_cpu.free(device, NULL);
    lk_backend_cpu.close(device);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("topology");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_topology_is_plausible);
    tcase_add_test(tests, test_feature_lists);
    tcase_add_test(tests, test_features_can_be_taken_away);
    tcase_add_test(tests, test_x86_processors);
    tcase_add_test(tests, test_selection_follows_the_features);
    tcase_add_test(tests, test_open_checks_its_options);
    return run_case("topology", tests);
}
