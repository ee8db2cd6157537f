/* A Vulkan device from inside: without its optional features, its memory, lists in several parts, times, the cache on
 * disk, and failures of the driver, which are put into its table of functions. Without a device it is skipped.
 * With the argument --unsynchronised it runs dependent kernels without barriers, which test_validation.sh expects the
 * validation layers to notice. */
#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/ops/harness.h"

#ifdef LK_HAS_VULKAN
#include "backends/vulkan/vulkan.h"
#include "core/graph/build.h"

enum { WIDTH = 64, ROWS = 32, COUNT = WIDTH * ROWS };

static lk_context *context;
static lk_vk_device *device;
static char folder[] = "lk_vulkan_cache_XXXXXX";

static lk_device_caps probe(void) {
    lk_device_caps caps[LK_VK_MAX_DEVICES];
    int count;
    ck_assert_int_eq(lk_backend_vulkan.probe(context, caps, LK_VK_MAX_DEVICES, &count), LK_OK);
    return caps[0];
}

static void open_with(const lk_device_caps *caps) {
    lk_device *opened;
    ck_assert_msg(lk_backend_vulkan.open(context, caps, NULL, &opened) == LK_OK, "%s", lk_error_message(context));
    device = (lk_vk_device *)opened;
}

static void open_device(void) {
    lk_device_caps caps = probe();
    open_with(&caps);
}

static void close_device(void) {
    lk_backend_vulkan.close(&device->device);
}

/* ---- a chain of dependent kernels ---- */

typedef struct chain {
    fixture fixture;
    lk_program *program;
    lk_tensor *y;
    double *x;
} chain;

/* y = (2 x + x) x + 2 x; the fixture takes the device over */
static lk_status try_chain(chain *self) {
    fixture_open_on(&self->fixture, context, &device->device);
    uint64_t state = test_seed();
    self->x = random_values(&state, COUNT, 1.0);
    lk_graph *graph;
    ck_assert_int_eq(lk_graph_create(context, &graph), LK_OK);
    lk_tensor *x = lk_graph_variable(
        graph, fixture_variable(&self->fixture, LK_ROLE_WEIGHT, LK_DTYPE_F32, 2, ROWS, WIDTH, self->x));
    lk_tensor *twice = lk_build_scale(graph, x, 2.0f);
    self->y = lk_build_add(graph, lk_build_mul(graph, lk_build_add(graph, twice, x), x), twice);
    lk_graph_mark_output(graph, self->y);
    return fixture_try_compile(&self->fixture, graph, &self->program);
}

static void open_chain(chain *self) {
    ck_assert_msg(try_chain(self) == LK_OK, "%s", lk_error_message(context));
}

static void check_chain(chain *self) {
    double *found = fixture_output(self->program, self->y);
    for (int i = 0; i < COUNT; i++) {
        double x = (double)(float)self->x[i];
        require_msg(fabs(found[i] - (3.0 * x * x + 2.0 * x)) < 1e-5, "element %d of %g is %g", i, x, found[i]);
    }
    free(found);
}

/* Also closes the device and the context, which is made anew. */
static void close_chain(chain *self) {
    lk_program_destroy(self->program);
    free(self->x);
    fixture_close(&self->fixture);
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

/* ---- without optional features ---- */

static int run_cases(int64_t most) {
    int count, run = 0, num_rows;
    const op_case *cases = op_cases(&count);
    const lk_kernel *rows = lk_backend_vulkan.kernels(&num_rows);
    for (int c = 0; c < count; c++) {
        op_instance instance;
        ck_assert_int_eq(op_instance_make(context, &cases[c], test_seed(), &instance), LK_OK);
        bool is_small = true;
        for (int i = 0; i < instance.node.num_inputs; i++) {
            is_small =
                is_small && (instance.node.inputs[i] == NULL || lk_tensor_elements(instance.node.inputs[i]) <= most);
        }
        for (int r = 0; r < num_rows && is_small; r++) {
            if (rows[r].op != cases[c].op || !rows[r].supports(&device->device.caps, &instance.node, NULL)) {
                continue;
            }
            op_verdict verdict;
            ck_assert_msg(op_instance_check(&instance, &device->device, &rows[r], &verdict) == LK_OK, "%s: %s",
                          cases[c].name, lk_error_message(context));
            ck_assert_msg(verdict.problem[0] == '\0', "%s on %s: %s", rows[r].name, cases[c].name, verdict.problem);
            run++;
        }
        op_instance_free(&instance);
    }
    return run;
}

START_TEST(test_without_optional_features) {
    lk_device_caps caps = probe();
    caps.features = 0; /* a fence, transfers through staging memory, no 16-bit storage */
    open_with(&caps);
    ck_assert(device->timeline == VK_NULL_HANDLE);
    ck_assert(!device->is_mapped);
    ck_assert_int_gt(run_cases(2000), 50);
    close_device();
}
END_TEST

START_TEST(test_sixteen_bits_need_storage) {
    lk_tensor x = {.dtype = LK_DTYPE_BF16, .rank = 2, .shape = {4, 4, 1, 1}}, y = {.rank = 2, .shape = {4, 4, 1, 1}};
    lk_tensor *inputs[] = {&x};
    lk_node node = {.op = LK_OP_CAST, .num_inputs = 1, .inputs = inputs, .num_outputs = 1, .outputs = {&y}};
    lk_device_caps caps = probe();
    int count;
    const lk_kernel *rows = lk_backend_vulkan.kernels(&count);
    for (int r = 0; r < count; r++) {
        lk_refusal why = {""};
        if (rows[r].op == LK_OP_CAST) {
            caps.features = LK_VK_STORAGE_16;
            ck_assert(rows[r].supports(&caps, &node, NULL));
            caps.features = 0;
            ck_assert(!rows[r].supports(&caps, &node, &why));
            ck_assert_ptr_nonnull(strstr(why.reason, "16-bit"));
            caps.features = LK_VK_STORAGE_16;
            caps.max_buffer_bytes = 63;
            ck_assert(!rows[r].supports(&caps, &node, &why));
            ck_assert_ptr_nonnull(strstr(why.reason, "larger"));
        }
    }
}
END_TEST

/* Tensors that are larger than a kernel's range: the ops run elsewhere, and the copies are made. */
START_TEST(test_tensors_out_of_range_go_elsewhere) {
    lk_device_caps caps = probe();
    caps.max_buffer_bytes = COUNT * sizeof(float) - 1;
    chain self;
    open_with(&caps);
    open_chain(&self);
    for (int32_t i = 0; i < lk_program_num_commands(self.program); i++) {
        ck_assert_str_eq(lk_program_placement(self.program, i).device->caps.backend, "reference");
    }
    fixture_run(self.program);
    check_chain(&self);
    close_chain(&self);
}
END_TEST

START_TEST(test_limits_of_a_launch) {
    open_device();
    chain self;
    device->limits.maxPerStageDescriptorStorageBuffers = 2;
    ck_assert_int_eq(try_chain(&self), LK_STATUS_UNSUPPORTED);
    ck_assert_msg(strstr(lk_error_message(context), "needs 3 buffers") != NULL, "%s", lk_error_message(context));
    close_chain(&self);
    open_device();
    device->limits.maxPushConstantsSize = 0;
    ck_assert_int_eq(try_chain(&self), LK_STATUS_UNSUPPORTED);
    ck_assert_msg(strstr(lk_error_message(context), "bytes of parameters") != NULL, "%s", lk_error_message(context));
    close_chain(&self);
    open_device();
    device->limits.maxStorageBufferRange = 64;
    ck_assert_int_eq(try_chain(&self), LK_STATUS_UNSUPPORTED);
    ck_assert_msg(strstr(lk_error_message(context), "addresses 64") != NULL, "%s", lk_error_message(context));
    close_chain(&self);
}
END_TEST

/* ---- memory ---- */

static void check_memory(void) {
    enum { BUFFERS = 24, STEPS = 300 };
    lk_buffer *buffers[BUFFERS] = {NULL};
    uint64_t state = test_seed();
    uint32_t bytes[1500];
    for (int step = 0; step < STEPS; step++) {
        int64_t i = random_below(&state, BUFFERS);
        if (buffers[i] != NULL) { /* still what was written, so nothing else lay over it */
            ck_assert_int_eq(lk_vulkan_download(&device->device, buffers[i], 0, bytes, buffers[i]->bytes), LK_OK);
            for (size_t j = 0; j < buffers[i]->bytes / 4; j++) {
                require_msg(bytes[j] == (uint32_t)i, "buffer %d was overwritten", (int)i);
            }
            lk_vulkan_free(&device->device, buffers[i]);
            buffers[i] = NULL;
            continue;
        }
        size_t size = 4 * (size_t)(1 + random_below(&state, (int64_t)LK_COUNT(bytes)));
        ck_assert_int_eq(lk_vulkan_alloc(&device->device, size, &buffers[i]), LK_OK);
        ck_assert_int_eq(buffers[i]->offset % LK_BUFFER_ALIGNMENT, 0);
        ck_assert_int_eq(lk_vulkan_download(&device->device, buffers[i], 0, bytes, size), LK_OK);
        for (size_t j = 0; j < size / 4; j++) {
            require_msg(bytes[j] == 0, "new memory is not zeroed");
            bytes[j] = (uint32_t)i;
        }
        ck_assert_int_eq(lk_vulkan_upload(&device->device, buffers[i], 0, bytes, size), LK_OK);
    }
    ck_assert_ptr_nonnull(device->blocks);
    ck_assert_ptr_null(device->blocks->next); /* one block was enough */
    for (int i = 0; i < BUFFERS; i++) {
        lk_vulkan_free(&device->device, buffers[i]);
    }
    ck_assert_ptr_null(device->blocks);
}

START_TEST(test_memory) {
    lk_device_caps caps = probe();
    caps.features &= _i == 0 ? UINT64_MAX : ~(uint64_t)LK_VK_UNIFIED;
    open_with(&caps);
    check_memory();
    lk_buffer *buffer; /* larger than the staging block and than a block */
    size_t bytes = (size_t)20 << 20;
    char *host = malloc(bytes), *back = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) {
        host[i] = (char)(i * 7 + i / 1000);
    }
    ck_assert_int_eq(lk_vulkan_alloc(&device->device, bytes, &buffer), LK_OK);
    ck_assert(lk_vulkan_map(buffer) == NULL || device->is_mapped);
    ck_assert_int_eq(lk_vulkan_upload(&device->device, buffer, 0, host, bytes), LK_OK);
    ck_assert_int_eq(lk_vulkan_download(&device->device, buffer, 0, back, bytes), LK_OK);
    ck_assert_mem_eq(host, back, bytes);
    ck_assert_int_eq(lk_vulkan_upload(&device->device, buffer, bytes - 1, host, 2), LK_STATUS_INVALID_ARGUMENT);
    ck_assert_int_eq(lk_vulkan_download(&device->device, buffer, bytes + 1, host, 0), LK_STATUS_INVALID_ARGUMENT);
    lk_vulkan_free(&device->device, buffer);
    ck_assert_int_eq(lk_vulkan_alloc(&device->device, SIZE_MAX, &buffer), LK_STATUS_OUT_OF_MEMORY);
    ck_assert_int_eq(lk_vulkan_alloc(&device->device, (size_t)1 << 60, &buffer), LK_STATUS_OUT_OF_MEMORY);
    ck_assert_ptr_null(buffer);
    ck_assert_int_eq(lk_vulkan_wrap(&device->device, host, bytes, &buffer), LK_STATUS_UNSUPPORTED);
    free(host);
    free(back);
    close_device();
}
END_TEST

/* ---- lists ---- */

static PFN_vkQueueSubmit real_submit;
static int submissions, submissions_left;

static VKAPI_ATTR VkResult VKAPI_CALL counted_submit(VkQueue queue, uint32_t count, const VkSubmitInfo *infos,
                                                     VkFence fence) {
    submissions++;
    return submissions_left-- > 0 ? real_submit(queue, count, infos, fence) : VK_ERROR_DEVICE_LOST;
}

static void count_submissions(int succeed) {
    real_submit = device->api.vkQueueSubmit;
    device->api.vkQueueSubmit = counted_submit;
    submissions = 0;
    submissions_left = succeed;
}

START_TEST(test_long_lists_are_submitted_in_parts) {
    lk_device_caps caps = probe();
    caps.is_cpu = false;
    caps.flops_f32 = caps.bandwidth = _i == 0 ? 1e3 : 1e12; /* every command seems to take seconds; no time at all */
    caps.features &= _i == 0 ? ~(uint64_t)LK_VK_TIMELINE : UINT64_MAX;
    chain self;
    open_with(&caps);
    open_chain(&self);
    count_submissions(1000);
    for (int i = 0; i < 3; i++) {
        fixture_run(self.program);
    }
    /* more than one for each of the four commands, which are cut, and as many in every run */
    ck_assert(_i == 0 ? submissions > 3 * 4 && submissions % 3 == 0 : submissions == 3);
    check_chain(&self);
    close_chain(&self);
}
END_TEST

START_TEST(test_times) {
    chain self;
    open_device();
    bool has_times = device->tick > 0.0;
    open_chain(&self);
    double start = lk_seconds();
    ck_assert_int_eq(lk_program_profile(self.program), LK_OK);
    double wall = lk_seconds() - start, sum = 0.0;
    for (int32_t i = 0; i < lk_program_num_commands(self.program); i++) {
        double seconds = lk_program_placement(self.program, i).measured_seconds;
        ck_assert(has_times ? seconds > 0.0 : seconds == 0.0);
        sum += seconds;
    }
    ck_assert_msg(sum <= wall, "%g s on the device, %g s in all", sum, wall);
    check_chain(&self);
    fixture_run(self.program);
    check_chain(&self);
    close_chain(&self);
}
END_TEST

/* ---- failures of the driver ---- */

static VKAPI_ATTR VkResult VKAPI_CALL no_memory(VkDevice vk, const VkMemoryAllocateInfo *info,
                                                const VkAllocationCallbacks *callbacks, VkDeviceMemory *memory) {
    (void)vk;
    (void)info;
    (void)callbacks;
    *memory = VK_NULL_HANDLE;
    return VK_ERROR_OUT_OF_DEVICE_MEMORY;
}

static VKAPI_ATTR VkResult VKAPI_CALL no_pipeline(VkDevice vk, VkPipelineCache cache, uint32_t count,
                                                  const VkComputePipelineCreateInfo *infos,
                                                  const VkAllocationCallbacks *callbacks, VkPipeline *pipelines) {
    (void)vk;
    (void)cache;
    (void)infos;
    (void)callbacks;
    memset(pipelines, 0, count * sizeof *pipelines);
    return VK_ERROR_UNKNOWN;
}

static VKAPI_ATTR VkResult VKAPI_CALL no_end(VkDevice vk, const VkSemaphoreWaitInfo *info, uint64_t timeout) {
    (void)vk;
    (void)info;
    (void)timeout;
    return VK_ERROR_DEVICE_LOST;
}

static void expect_message(const char *part) {
    ck_assert_msg(strstr(lk_error_message(context), part) != NULL, "%s", lk_error_message(context));
}

START_TEST(test_no_memory) {
    open_device();
    PFN_vkAllocateMemory real = device->api.vkAllocateMemory;
    device->api.vkAllocateMemory = no_memory;
    lk_buffer *buffer;
    ck_assert_int_eq(lk_vulkan_alloc(&device->device, 1000, &buffer), LK_STATUS_OUT_OF_MEMORY);
    ck_assert_ptr_null(buffer);
    expect_message("1024 bytes");
    expect_message("VK_ERROR_OUT_OF_DEVICE_MEMORY");
    device->api.vkAllocateMemory = real;
    ck_assert_int_eq(lk_vulkan_alloc(&device->device, 1000, &buffer), LK_OK);
    lk_vulkan_free(&device->device, buffer);
    close_device();
}
END_TEST

START_TEST(test_no_pipeline) {
    chain self;
    open_device();
    device->api.vkCreateComputePipelines = no_pipeline;
    ck_assert_int_eq(try_chain(&self), LK_STATUS_DEVICE);
    ck_assert_ptr_null(self.program);
    expect_message("scale at");
    expect_message("VK_ERROR_UNKNOWN");
    close_chain(&self);
}
END_TEST

START_TEST(test_lost_device) {
    chain self;
    open_device();
    open_chain(&self);
    count_submissions(1);
    fixture_run(self.program);
    ck_assert_int_eq(lk_program_run(self.program), LK_STATUS_DEVICE);
    expect_message("between scale at");
    expect_message("and add at");
    expect_message("VK_ERROR_DEVICE_LOST");
    submissions_left = 1;
    if (device->timeline != VK_NULL_HANDLE) {
        PFN_vkWaitSemaphoresKHR real = device->api.vkWaitSemaphoresKHR;
        device->api.vkWaitSemaphoresKHR = no_end;
        ck_assert_int_eq(lk_program_run(self.program), LK_STATUS_DEVICE);
        expect_message("between scale at");
        device->api.vkWaitSemaphoresKHR = real;
    }
    close_chain(&self);
}
END_TEST

/* ---- the cache ---- */

static char path[512];

static long find_file(void) {
    path[0] = '\0';
    DIR *listing = opendir(folder);
    ck_assert_ptr_nonnull(listing);
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        if (strncmp(entry->d_name, "vulkan-", 7) == 0) {
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        }
    }
    closedir(listing);
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    fclose(file);
    return size;
}

static void alter(long at) {
    FILE *file = fopen(path, "r+b");
    fseek(file, at, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, at, SEEK_SET);
    fputc(byte ^ 0x5a, file);
    fclose(file);
}

/* A run in a device opened anew. */
static void expect_cache(bool was_read) {
    chain self;
    open_device();
    ck_assert_int_eq(device->cache_was_read, was_read);
    open_chain(&self);
    fixture_run(self.program);
    check_chain(&self);
    close_chain(&self);
}

START_TEST(test_cache) {
    expect_cache(false);
    expect_cache(true);
    long size = find_file();
    const long places[] = {0, 9, 17, 25, size - 1}; /* magic, key, check, size, the driver's data */
    for (size_t i = 0; i < LK_COUNT(places); i++) {
        find_file();
        alter(places[i]);
        expect_cache(false);
        expect_cache(true);
    }
    ck_assert_int_eq(truncate(path, size - 1), 0);
    expect_cache(false);
    ck_assert_int_eq(truncate(path, 0), 0);
    expect_cache(false);
    expect_cache(true);
}
END_TEST

START_TEST(test_cache_folder_that_cannot_be_made) {
    char file[300];
    snprintf(file, sizeof file, "%s/file", folder);
    fclose(fopen(file, "w"));
    snprintf(file, sizeof file, "%s/file/below", folder);
    setenv("LORIKEET_CACHE_DIR", file, 1);
    expect_cache(false);
    expect_cache(false);
}
END_TEST

static void setup(void) {
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    setenv("LORIKEET_CACHE_DIR", folder, 1);
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void teardown(void) {
    lk_context_destroy(context);
    DIR *listing = opendir(folder);
    for (struct dirent *entry = listing ? readdir(listing) : NULL; entry != NULL; entry = readdir(listing)) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (listing != NULL) {
        closedir(listing);
    }
    rmdir(folder);
}

static VKAPI_ATTR void VKAPI_CALL no_barrier(VkCommandBuffer buffer, VkPipelineStageFlags from, VkPipelineStageFlags to,
                                             VkDependencyFlags flags, uint32_t num_memory,
                                             const VkMemoryBarrier *memory, uint32_t num_buffers,
                                             const VkBufferMemoryBarrier *buffers, uint32_t num_images,
                                             const VkImageMemoryBarrier *images) {
    (void)buffer, (void)from, (void)to, (void)flags, (void)num_memory, (void)memory;
    (void)num_buffers, (void)buffers, (void)num_images, (void)images;
}

START_TEST(test_unsynchronised) {
    chain self;
    open_device();
    device->api.vkCmdPipelineBarrier = no_barrier;
    open_chain(&self);
    fixture_run(self.program);
    close_chain(&self);
}
END_TEST

static void add_tests(TCase *tests) {
    tcase_add_test(tests, test_without_optional_features);
    tcase_add_test(tests, test_sixteen_bits_need_storage);
    tcase_add_test(tests, test_tensors_out_of_range_go_elsewhere);
    tcase_add_test(tests, test_limits_of_a_launch);
    tcase_add_loop_test(tests, test_memory, 0, 2);
    tcase_add_loop_test(tests, test_long_lists_are_submitted_in_parts, 0, 2);
    tcase_add_test(tests, test_times);
    tcase_add_test(tests, test_no_memory);
    tcase_add_test(tests, test_no_pipeline);
    tcase_add_test(tests, test_lost_device);
    tcase_add_test(tests, test_cache);
    tcase_add_test(tests, test_cache_folder_that_cannot_be_made);
}

int main(int argc, char **argv) {
    lk_device_caps caps[1];
    int count;
    if (lk_context_create(NULL, &context) != LK_OK) {
        return EXIT_FAILURE;
    }
    if (lk_backend_vulkan.probe(context, caps, 1, &count) != LK_OK) {
        printf("SKIP: %s\n", lk_error_message(context));
        lk_context_destroy(context);
        return 77;
    }
    lk_context_destroy(context);
    TCase *tests = tcase_create("device");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    if (argc > 1 && strcmp(argv[1], "--unsynchronised") == 0) {
        tcase_add_test(tests, test_unsynchronised);
    } else {
        add_tests(tests);
    }
    return run_case("vulkan device", tests);
}
#else
int main(void) {
    lk_context *context;
    lk_device_caps caps[1];
    int count;
    if (lk_context_create(NULL, &context) == LK_OK && lk_backend_vulkan.probe(context, caps, 1, &count) != LK_OK) {
        printf("SKIP: %s\n", lk_error_message(context));
        lk_context_destroy(context);
        return 77;
    }
    return EXIT_FAILURE;
}
#endif
