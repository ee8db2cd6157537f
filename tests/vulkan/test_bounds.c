/* The Khronos layers' GPU-assisted validation, which puts a check before each access to a buffer, over every kernel row
 * of Vulkan: no access is outside what the kernel was given. First a planted fault, which must be noticed.
 *
 * The layers of Debian 12 compare with the size of the whole VkBuffer (Vulkan-ValidationLayers pull request 8366), and
 * the backend's buffers are parts of one. So here each binding gets a VkBuffer of its own, as large as the binding,
 * over the same memory. The program runs itself with the layers switched on, and reads what it says. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/ops/harness.h"

#ifdef LK_HAS_VULKAN
#include "backends/vulkan/vulkan.h"

/* ---- with the layers: `--run`, `--planted` ---- */

static lk_context *context;
static lk_vk_device *device;
static PFN_vkUpdateDescriptorSets update_sets;
static VkBuffer *exact; /* destroyed at the end */
static size_t num_exact;
static bool planted;

static const lk_vk_block *block_of(VkBuffer buffer) {
    for (const lk_vk_block *block = device->blocks; block != NULL; block = block->next) {
        if (block->buffer == buffer) {
            return block;
        }
    }
    ck_abort_msg("a descriptor's buffer is no block's");
    return NULL;
}

static VkBuffer exact_buffer(const VkDescriptorBufferInfo *part) {
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = planted ? (part->range + 1) / 2 : part->range,
                               .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                        VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VkMemoryRequirements needs;
    exact = realloc(exact, (num_exact + 1) * sizeof *exact);
    ck_assert_ptr_nonnull(exact);
    VkBuffer *made = &exact[num_exact++];
    ck_assert_int_eq(device->api.vkCreateBuffer(device->vk, &info, NULL, made), VK_SUCCESS);
    device->api.vkGetBufferMemoryRequirements(device->vk, *made, &needs); /* asked for, because the layers insist */
    ck_assert_int_eq(device->api.vkBindBufferMemory(device->vk, *made, block_of(part->buffer)->memory, part->offset),
                     VK_SUCCESS);
    return *made;
}

static VKAPI_ATTR void VKAPI_CALL update_exactly(VkDevice vk, uint32_t count, const VkWriteDescriptorSet *writes,
                                                 uint32_t num_copies, const VkCopyDescriptorSet *copies) {
    VkDescriptorBufferInfo buffers[LK_LAUNCH_BUFFERS];
    VkWriteDescriptorSet write = writes[0];
    ck_assert_uint_eq(count, 1);
    for (uint32_t i = 0; i < write.descriptorCount; i++) {
        buffers[i] = (VkDescriptorBufferInfo){exact_buffer(&write.pBufferInfo[i]), 0, VK_WHOLE_SIZE};
    }
    write.pBufferInfo = buffers;
    update_sets(vk, 1, &write, num_copies, copies);
}

static bool is_small(const lk_node *node) {
    for (int i = 0; i < node->num_inputs; i++) {
        if (node->inputs[i] != NULL && lk_tensor_elements(node->inputs[i]) > 2000) {
            return false;
        }
    }
    return true;
}

static void open_device(void) {
    lk_device_caps caps[LK_VK_MAX_DEVICES];
    lk_device *opened;
    int count;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    ck_assert_int_eq(lk_backend_vulkan.probe(context, caps, LK_VK_MAX_DEVICES, &count), LK_OK);
    caps[0].features |= LK_VK_MATRIX_EMULATED;
    ck_assert_int_eq(lk_backend_vulkan.open(context, &caps[0], NULL, &opened), LK_OK);
    device = (lk_vk_device *)opened;
    update_sets = device->api.vkUpdateDescriptorSets;
    device->api.vkUpdateDescriptorSets = update_exactly;
}

static void close_device(void) {
    for (size_t i = 0; i < num_exact; i++) {
        device->api.vkDestroyBuffer(device->vk, exact[i], NULL);
    }
    free(exact);
    lk_backend_vulkan.close(&device->device);
    lk_context_destroy(context);
}

enum { MAX_ROWS = 256, RUNS_PER_ROW = 1 };

START_TEST(test_rows) {
    int count, num_rows, runs = 0, of_row[MAX_ROWS] = {0};
    const op_case *cases = op_cases(&count);
    const lk_kernel *rows = lk_backend_vulkan.kernels(&num_rows);
    ck_assert_int_le(num_rows, MAX_ROWS);
    open_device();
    for (int c = count - 1; c >= 0 && !(planted && runs > 0); c--) { /* the last are the larger ones */
        op_instance instance;
        ck_assert_int_eq(op_instance_make(context, &cases[c], 20260101, &instance), LK_OK);
        for (int r = 0; r < num_rows && is_small(&instance.node); r++) {
            lk_refusal why;
            op_verdict verdict;
            if (rows[r].op == cases[c].op && of_row[r] < RUNS_PER_ROW &&
                rows[r].supports(&device->device.caps, &instance.node, &why)) {
                ck_assert_int_eq(op_instance_check(&instance, &device->device, &rows[r], &verdict), LK_OK);
                of_row[r]++;
                runs++;
            }
        }
        op_instance_free(&instance);
    }
    printf("%d kernel runs\n", runs);
    close_device();
}
END_TEST

static int run(void) {
    TCase *tests = tcase_create("bounds");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_rows);
    Suite *suite = suite_create("bounds");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- without: the test ---- */

static const char *reason_to_skip(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return "the validation layers are not run in a program built with sanitizers";
#endif
    static const char *const folders[] = {"/usr/share", "/usr/local/share", "/etc"};
    for (size_t i = 0; i < LK_COUNT(folders); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/vulkan/explicit_layer.d/VkLayer_khronos_validation.json", folders[i]);
        if (access(path, R_OK) == 0) {
            return NULL;
        }
    }
    return "the validation layers are not installed (Debian: vulkan-validationlayers)";
}

/* Runs this program with the layers; whether it succeeds and, in *noticed, whether they complain of an access. */
static bool succeeds(const char *program, const char *argument, bool *noticed) {
    char command[1024], line[2048];
    int told = 0;
    snprintf(command, sizeof command,
             "LORIKEET_CACHE_DIR=\"$PWD/bounds-cache\" VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation "
             "VK_LAYER_ENABLES=VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT exec '%s' %s 2>&1",
             program, argument);
    FILE *output = popen(command, "r");
    if (output == NULL) {
        return false;
    }
    *noticed = false;
    while (fgets(line, sizeof line, output) != NULL) {
        bool complains = strstr(line, "Validation ") != NULL || strstr(line, "VUID") != NULL;
        *noticed = *noticed || complains;
        if (!complains || told++ < 3) {
            printf("%s: %.400s%s", argument, line, strlen(line) > 400 ? "\n" : "");
        }
    }
    int status = pclose(output);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv) {
    if (argc > 1) {
        planted = strcmp(argv[1], "--planted") == 0;
        return run();
    }
    const char *reason = reason_to_skip();
    lk_device_caps caps[1];
    int count = 0;
    if (lk_context_create(NULL, &context) != LK_OK) {
        return EXIT_FAILURE;
    }
    if (reason == NULL && lk_backend_vulkan.probe(context, caps, 1, &count) != LK_OK) {
        reason = lk_error_message(context);
    }
    if (reason != NULL) {
        printf("SKIP: %s\n", reason);
        lk_context_destroy(context);
        return 77;
    }
    lk_context_destroy(context);
    bool noticed;
    if (!succeeds(argv[0], "--planted", &noticed) || !noticed) {
        printf("the layers do not notice the planted fault: they are not at work\n");
        return EXIT_FAILURE;
    }
    return succeeds(argv[0], "--run", &noticed) && !noticed ? EXIT_SUCCESS : EXIT_FAILURE;
}
#else
int main(void) {
    printf("SKIP: built without Vulkan\n");
    return 77;
}
#endif
