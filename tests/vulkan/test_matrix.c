/* Products by cooperative matrices: where they are taken, that drivers which crash are not asked, and their arithmetic,
 * by the same kernels with the matrices emulated, because no device here has them. And where subgroups are used. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/runner.h"
#include "tests/ops/harness.h"

#ifdef LK_HAS_VULKAN
#include "backends/vulkan/vulkan.h"

static lk_context *context;

static void setup(void) {
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    unsetenv("LORIKEET_DENY_LIST");
}

static void teardown(void) {
    lk_context_destroy(context);
}

/* ---- what drivers say ---- */

static VkCooperativeMatrixPropertiesKHR size_of(uint32_t m, uint32_t n, uint32_t k, VkComponentTypeKHR sums) {
    return (VkCooperativeMatrixPropertiesKHR){.MSize = m,
                                              .NSize = n,
                                              .KSize = k,
                                              .AType = VK_COMPONENT_TYPE_FLOAT16_KHR,
                                              .BType = VK_COMPONENT_TYPE_FLOAT16_KHR,
                                              .CType = sums,
                                              .ResultType = sums,
                                              .scope = VK_SCOPE_SUBGROUP_KHR};
}

START_TEST(test_sizes) {
    VkCooperativeMatrixPropertiesKHR sizes[] = {
        size_of(16, 16, 16, VK_COMPONENT_TYPE_FLOAT16_KHR), size_of(16, 8, 8, VK_COMPONENT_TYPE_FLOAT32_KHR),
        size_of(8, 16, 16, VK_COMPONENT_TYPE_FLOAT32_KHR), size_of(16, 16, 16, VK_COMPONENT_TYPE_FLOAT32_KHR)};
    ck_assert_uint_eq(lk_vk_matrix_bits(sizes, 2), 0);
    ck_assert_uint_eq(lk_vk_matrix_bits(sizes, 3), LK_VK_MATRIX_8);
    ck_assert_uint_eq(lk_vk_matrix_bits(sizes, 4), LK_VK_MATRIX_8 | LK_VK_MATRIX_16);
    sizes[3].scope = (VkScopeKHR)2; /* a work-group's */
    ck_assert_uint_eq(lk_vk_matrix_bits(sizes + 3, 1), 0);
}
END_TEST

static int times_asked;

static VKAPI_ATTR VkResult VKAPI_CALL list_extensions(VkPhysicalDevice device, const char *layer, uint32_t *count,
                                                      VkExtensionProperties *out) {
    static const char *const names[] = {VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME,
                                        VK_KHR_VULKAN_MEMORY_MODEL_EXTENSION_NAME,
                                        VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME};
    (void)device;
    (void)layer;
    *count = LK_COUNT(names);
    for (size_t i = 0; out != NULL && i < LK_COUNT(names); i++) {
        strcpy(out[i].extensionName, names[i]);
    }
    return VK_SUCCESS;
}

static VKAPI_ATTR void VKAPI_CALL say_yes(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 *features) {
    (void)device;
    for (VkBaseOutStructure *next = features->pNext; next != NULL; next = next->pNext) {
        if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES) {
            ((VkPhysicalDevice16BitStorageFeatures *)(void *)next)->storageBuffer16BitAccess = VK_TRUE;
        } else if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES) {
            ((VkPhysicalDeviceShaderFloat16Int8Features *)(void *)next)->shaderFloat16 = VK_TRUE;
        } else if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES) {
            ((VkPhysicalDeviceVulkanMemoryModelFeatures *)(void *)next)->vulkanMemoryModel = VK_TRUE;
        } else if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR) {
            ((VkPhysicalDeviceCooperativeMatrixFeaturesKHR *)(void *)next)->cooperativeMatrix = VK_TRUE;
        }
    }
}

static VKAPI_ATTR VkResult VKAPI_CALL list_sizes(VkPhysicalDevice device, uint32_t *count,
                                                 VkCooperativeMatrixPropertiesKHR *out) {
    (void)device;
    times_asked++;
    ck_assert_uint_ge(*count, 1);
    *count = 1;
    void *next = out->pNext;
    *out = size_of(16, 16, 16, VK_COMPONENT_TYPE_FLOAT32_KHR);
    out->sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    out->pNext = next;
    return VK_SUCCESS;
}

/* Drivers in the deny list are not asked for the sizes: that is where they crash. */
START_TEST(test_deny_list_comes_first) {
    const lk_vk_instance driver = {.vkEnumerateDeviceExtensionProperties = list_extensions,
                                   .vkGetPhysicalDeviceFeatures2 = say_yes,
                                   .vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR = list_sizes};
    lk_device_caps caps = {.backend = "vulkan", .name = "NVIDIA H100", .driver = "discrete GPU, NVIDIA 580"};
    ck_assert_uint_eq(lk_vk_features_of(context, &driver, VK_NULL_HANDLE, &caps), LK_VK_STORAGE_16 | LK_VK_MATRIX_16);
    ck_assert_int_eq(times_asked, 1);
    strcpy(caps.name, "AMD Radeon(TM) 860M Graphics");
    strcpy(caps.driver, "integrated GPU, AMD proprietary driver 26.3.1 (LLPC)");
    ck_assert_uint_eq(lk_vk_features_of(context, &driver, VK_NULL_HANDLE, &caps), LK_VK_STORAGE_16);
    ck_assert_int_eq(times_asked, 1);
    setenv("LORIKEET_DENY_LIST", "0", 1);
    ck_assert_uint_eq(lk_vk_features_of(context, &driver, VK_NULL_HANDLE, &caps), LK_VK_STORAGE_16 | LK_VK_MATRIX_16);
    ck_assert_int_eq(times_asked, 2);
}
END_TEST

/* ---- selection ---- */

static lk_device_caps fake_gpu(void) {
    return (lk_device_caps){.backend = "vulkan",
                            .name = "fake",
                            .features = LK_VK_STORAGE_16 | LK_VK_MATRIX_16,
                            .threads = 32,
                            .shared_bytes = 49152,
                            .subgroup_size = 32,
                            .max_group_size = 1024,
                            .max_buffer_bytes = UINT32_MAX,
                            .flops_f32 = 8e12,
                            .flops_16 = 3.2e13,
                            .bandwidth = 3e11,
                            .launch_seconds = 5e-6};
}

/* LORA_LINEAR as models have it: 1024 tokens, 2048 to 2048, rank 16. */
typedef struct layer {
    lk_tensor tensors[7];
    lk_tensor *inputs[6];
    lk_node node;
} layer;

static void make_layer(layer *self, lk_dtype weight) {
    static const int64_t shapes[7][2] = {{1024, 2048}, {2048, 2048}, {0, 0},      {16, 2048},
                                         {2048, 16},   {0, 0},       {1024, 2048}};
    *self = (layer){.node = {.op = LK_OP_LORA_LINEAR, .num_inputs = 5, .num_outputs = 1, .scope = ""}};
    self->node.inputs = self->inputs;
    self->node.attributes.lora.scale = 1.0f;
    for (int i = 0; i < 7; i++) {
        self->tensors[i] = (lk_tensor){.dtype = i == 1 ? weight : LK_DTYPE_F32, .rank = 2, .name = ""};
        for (int d = 0; d < LK_MAX_RANK; d++) {
            self->tensors[i].shape[d] = d < 2 ? shapes[i][d] : 1;
        }
        if (i < 6 && shapes[i][0] > 0) {
            self->inputs[i] = &self->tensors[i];
        }
    }
    self->node.outputs[0] = &self->tensors[6];
}

static const char *chosen(const lk_device_caps *caps, const layer *of, const char **refusal) {
    static lk_candidate candidates[LK_MAX_CANDIDATES];
    int num_rows, count;
    const lk_kernel *rows = lk_backend_vulkan.kernels(&num_rows);
    lk_selection selection = lk_select(rows, num_rows, caps, &of->node, NULL, candidates, &count);
    *refusal = "";
    for (int i = 0; i < count; i++) {
        if (strstr(candidates[i].kernel->name, "_matrix_") != NULL && candidates[i].refused) {
            *refusal = candidates[i].why.reason;
        }
    }
    return selection.kernel != NULL ? selection.kernel->name : "none";
}

START_TEST(test_selection) {
    layer bf16, f32;
    make_layer(&bf16, LK_DTYPE_BF16);
    make_layer(&f32, LK_DTYPE_F32);
    const char *why;
    lk_device_caps caps = fake_gpu();
    if (lk_vk_matrices_are_built()) {
        ck_assert_str_eq(chosen(&caps, &bf16, &why), "vulkan_lora_linear_matrix_f16");
    } else {
        ck_assert_str_eq(chosen(&caps, &bf16, &why), "vulkan_lora_linear");
        ck_assert_ptr_nonnull(strstr(why, "GL_KHR_cooperative_matrix"));
        caps.features |= LK_VK_MATRIX_EMULATED; /* for what follows */
    }
    ck_assert_str_eq(chosen(&caps, &f32, &why), "vulkan_lora_linear");
    ck_assert_ptr_nonnull(strstr(why, "not stored in 16 bits"));
    caps.max_group_size = 64;
    ck_assert_str_eq(chosen(&caps, &bf16, &why), "vulkan_lora_linear");
    ck_assert_ptr_nonnull(strstr(why, "four subgroups"));
    caps = fake_gpu();
    caps.features = LK_VK_STORAGE_16;
    ck_assert_str_eq(chosen(&caps, &bf16, &why), "vulkan_lora_linear");
    ck_assert_ptr_nonnull(strstr(why, "no cooperative matrices"));
    bf16.node.attributes.lora.order = LK_LORA_MERGED;
    caps.features |= LK_VK_MATRIX_EMULATED;
    ck_assert_str_eq(chosen(&caps, &bf16, &why), "vulkan_lora_linear");
    ck_assert_ptr_nonnull(strstr(why, "rounded to fp16"));
}
END_TEST

/* Rows of numbers are reduced by exchange within subgroups where the device says that it can, and their size fits. */
START_TEST(test_subgroups) {
    lk_tensor x = {.dtype = LK_DTYPE_F32, .rank = 2, .shape = {64, 512, 1, 1}, .name = ""}, weight = x, y = x;
    weight.rank = 1;
    weight.shape[0] = 512;
    weight.shape[1] = 1;
    lk_tensor *inputs[] = {&x, &weight};
    lk_node node = {
        .op = LK_OP_RMS_NORM, .num_inputs = 2, .num_outputs = 1, .inputs = inputs, .outputs = {&y}, .scope = ""};
    int num_rows;
    const lk_kernel *rows = lk_backend_vulkan.kernels(&num_rows);
    lk_device_caps caps = fake_gpu();
    ck_assert_str_eq(lk_select(rows, num_rows, &caps, &node, NULL, NULL, NULL).kernel->name, "vulkan_rms_norm");
    caps.features |= LK_VK_SUBGROUPS;
    ck_assert_str_eq(lk_select(rows, num_rows, &caps, &node, NULL, NULL, NULL).kernel->name,
                     "vulkan_rms_norm_subgroup");
    caps.subgroup_size = 128; /* more than the groups that reduce a row */
    ck_assert_str_eq(lk_select(rows, num_rows, &caps, &node, NULL, NULL, NULL).kernel->name, "vulkan_rms_norm");
}
END_TEST

/* ---- arithmetic, emulated ---- */

static lk_device *open_emulated(void) {
    lk_device_caps caps[LK_VK_MAX_DEVICES];
    int count;
    lk_device *device;
    ck_assert_int_eq(lk_backend_vulkan.probe(context, caps, LK_VK_MAX_DEVICES, &count), LK_OK);
    caps[0].features |= LK_VK_MATRIX_EMULATED;
    ck_assert_msg(lk_backend_vulkan.open(context, &caps[0], NULL, &device) == LK_OK, "%s", lk_error_message(context));
    return device;
}

/* Tells the open device's rows of another shape. */
static void pretend(lk_device *device, int32_t subgroup_size, int32_t units, uint64_t features) {
    lk_vk_device *self = (lk_vk_device *)device;
    device->caps.subgroup_size = subgroup_size;
    device->caps.threads = units;
    device->caps.features |= features;
    self->shape = lk_vk_shape_of(&device->caps);
}

static int check_rows(lk_device *device, const op_case *one) {
    int num_rows, run = 0;
    const lk_kernel *rows = lk_backend_vulkan.kernels(&num_rows);
    op_instance instance;
    ck_assert_int_eq(op_instance_make(context, one, 20260101, &instance), LK_OK);
    for (int r = 0; r < num_rows; r++) {
        lk_refusal why;
        op_verdict verdict;
        if (rows[r].op != one->op || strstr(rows[r].name, "_matrix_") == NULL ||
            !rows[r].supports(&device->caps, &instance.node, &why)) {
            continue;
        }
        ck_assert_msg(op_instance_check(&instance, device, &rows[r], &verdict) == LK_OK, "%s",
                      lk_error_message(context));
        ck_assert_msg(verdict.problem[0] == '\0', "%s on %s: %s", rows[r].name, one->name, verdict.problem);
        run++;
    }
    op_instance_free(&instance);
    return run;
}

/* Subgroups of two sizes, both sizes of matrices (8 x 16 x 16 in the third) and of tiles (large ones where there is
 * one unit only); the first with all ops. Lanes of smaller subgroups would have more to do than the 65535 iterations
 * after which lavapipe ends a kernel's loops. */
START_TEST(test_emulated) {
    static const struct {
        int32_t subgroup_size, units;
        uint64_t features;
    } shapes[] = {{32, 2, 0}, {32, 1, 0}, {32, 2, LK_VK_MATRIX_8}, {64, 32, 0}};
    int count, run = 0;
    const op_case *cases = op_cases(&count);
    lk_device *device = open_emulated();
    pretend(device, shapes[_i].subgroup_size, shapes[_i].units, shapes[_i].features);
    for (int c = 0; c < count; c++) {
        if (_i == 0 || cases[c].op == LK_OP_LINEAR || cases[c].op == LK_OP_MATMUL) {
            run += check_rows(device, &cases[c]);
        }
    }
    ck_assert_int_ge(run, 10);
    lk_backend_vulkan.close(device);
}
END_TEST

static int32_t exponent;

static void scale_factor(const op_case *self, double **values) {
    for (int64_t i = 0; i < case_input_elements(&self->inputs[0]); i++) {
        values[0][i] = ldexp(values[0][i], exponent);
    }
}

/* Gradients are often below what fp16 can hold (2^-24), and may be above (2^16). */
START_TEST(test_range) {
    static const int32_t exponents[] = {-60, -20, 40};
    int count, run = 0;
    const op_case *cases = op_cases(&count);
    lk_device *device = open_emulated();
    exponent = exponents[_i];
    for (int c = 0; c < count; c++) {
        if (cases[c].op == LK_OP_LINEAR && !cases[c].inputs[2].present) {
            op_case scaled = cases[c];
            scaled.prepare = scale_factor;
            run += check_rows(device, &scaled);
        }
    }
    ck_assert_int_ge(run, 2);
    lk_backend_vulkan.close(device);
}
END_TEST

static bool has_device(void) {
    lk_device_caps caps[1];
    int count = 0;
    lk_status status = lk_context_create(NULL, &context);
    status = status == LK_OK ? lk_backend_vulkan.probe(context, caps, 1, &count) : status;
    if (status != LK_OK) {
        printf("SKIP: %s\n", lk_error_message(context));
    }
    lk_context_destroy(context);
    return status == LK_OK && count > 0;
}

int main(void) {
    TCase *tests = tcase_create("matrix");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_sizes);
    tcase_add_test(tests, test_deny_list_comes_first);
    tcase_add_test(tests, test_selection);
    tcase_add_test(tests, test_subgroups);
    bool runs = has_device();
    if (runs) {
        tcase_add_loop_test(tests, test_emulated, 0, 4);
        tcase_add_loop_test(tests, test_range, 0, 3);
    }
    int failed = run_case("matrix", tests);
    return failed > 0 ? EXIT_FAILURE : runs ? EXIT_SUCCESS : 77;
}
#else
int main(void) {
    printf("SKIP: built without Vulkan\n");
    return 77;
}
#endif
