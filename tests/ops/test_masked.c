/* Devices that have less. What OpenCL's and Vulkan's rows refuse on made-up devices, with capabilities masked one by
 * one, is listed in refusals.txt, with reasons: a row that refuses more, less or for another reason makes the list
 * stale, and the test says how. And a Vulkan device that is here is opened with the same capabilities masked: the rows
 * that are left must be right. OpenCL's rows depend on the device's kind alone: those of processors run in
 * ops/conformance, those of GPUs in opencl/races under oclgrind (PoCL 3.1 crashes in groups of 256 with barriers). */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/runner.h"
#include "tests/ops/harness.h"
#ifdef LK_HAS_VULKAN
#include "backends/vulkan/vulkan.h"
#endif

/* ---- masks ---- */

static uint64_t feature_bit(const lk_device_caps *caps, const char *name) {
    const char *const *features = lk_backend_find(caps->backend)->features;
    for (int bit = 0; features != NULL && features[bit] != NULL; bit++) {
        if (strcmp(features[bit], name) == 0) {
            return UINT64_C(1) << bit;
        }
    }
    return 0;
}

static void no_short_storage(lk_device_caps *caps) {
    caps->features &= ~feature_bit(caps, "storage_16");
}

static void no_subgroups(lk_device_caps *caps) {
    caps->features &= ~feature_bit(caps, "subgroups");
    caps->subgroup_size = 1;
}

static void no_matrices(lk_device_caps *caps) {
    caps->features &= ~(feature_bit(caps, "cooperative_matrix") | feature_bit(caps, "cooperative_matrix_8"));
}

static void little_shared_memory(lk_device_caps *caps) {
    caps->shared_bytes = LK_MIN(caps->shared_bytes, (size_t)16384);
}

static void hardly_any_shared_memory(lk_device_caps *caps) {
    caps->shared_bytes = LK_MIN(caps->shared_bytes, (size_t)2048);
}

static void small_groups(lk_device_caps *caps) {
    caps->max_group_size = LK_MIN(caps->max_group_size, 128);
}

static void tiny_groups(lk_device_caps *caps) {
    caps->max_group_size = LK_MIN(caps->max_group_size, 32);
}

static void short_ranges(lk_device_caps *caps) {
    caps->max_buffer_bytes = LK_MIN(caps->max_buffer_bytes, (size_t)65536);
}

static void nothing_optional(lk_device_caps *caps) {
    caps->features = 0;
    caps->subgroup_size = 1;
    little_shared_memory(caps);
    small_groups(caps);
}

typedef struct mask {
    const char *name;
    void (*apply)(lk_device_caps *caps);
} mask;

/* Vulkan promises 16 KiB, 128 lanes, and 128 bytes of parameters, which lavapipe has not more of. */
static const mask masks[] = {
    {"no 16-bit storage", no_short_storage},
    {"no subgroups", no_subgroups},
    {"no cooperative matrices", no_matrices},
    {"16 KiB of shared memory", little_shared_memory},
    {"2 KiB of shared memory", hardly_any_shared_memory},
    {"groups of 128", small_groups},
    {"groups of 32", tiny_groups},
    {"64 KiB in a buffer", short_ranges},
    {"nothing optional", nothing_optional},
};
enum { NUM_MASKS = sizeof masks / sizeof masks[0], NUM_LISTED = NUM_MASKS - 1 }; /* the last is all of them together */

/* ---- the list ---- */

static const lk_device_caps fakes[] = {
    {.backend = "opencl",
     .name = "opencl GPU",
     .threads = 32,
     .shared_bytes = 49152,
     .subgroup_size = 32,
     .max_group_size = 1024,
     .max_buffer_bytes = SIZE_MAX,
     .flops_f32 = 1e12,
     .bandwidth = 1e11,
     .launch_seconds = 1e-5},
    {.backend = "opencl",
     .name = "opencl processor",
     .is_cpu = true,
     .threads = 8,
     .shared_bytes = 32768,
     .subgroup_size = 8,
     .max_group_size = 4096,
     .max_buffer_bytes = SIZE_MAX,
     .flops_f32 = 1e11,
     .bandwidth = 1e10,
     .launch_seconds = 1e-5},
    {.backend = "vulkan",
     .name = "vulkan GPU",
     .features = UINT64_MAX >> 1,
     .threads = 32,
     .shared_bytes = 49152,
     .subgroup_size = 32,
     .max_group_size = 1024,
     .max_buffer_bytes = UINT32_MAX,
     .flops_f32 = 8e12,
     .flops_16 = 3e13,
     .bandwidth = 3e11,
     .launch_seconds = 5e-6},
};

enum { MAX_ROWS = 256, RUNS_PER_ROW = 2 };

typedef struct list {
    char **lines;
    int count;
} list;

static int compare_lines(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_line(const list *self, const char *line) {
    for (int i = 0; i < self->count; i++) {
        if (strcmp(self->lines[i], line) == 0) {
            return true;
        }
    }
    return false;
}

static void add_line(list *self, const char *device, const char *what, const char *reason) {
    char line[320];
    snprintf(line, sizeof line, "%s: %s: %s", device, what, reason);
    if (!has_line(self, line)) {
        self->lines = realloc(self->lines, (size_t)(self->count + 1) * sizeof *self->lines);
        self->lines[self->count] = malloc(strlen(line) + 1);
        strcpy(self->lines[self->count++], line);
    }
}

static void free_list(list *self) {
    for (int i = 0; i < self->count; i++) {
        free(self->lines[i]);
    }
    free(self->lines);
}

/* What the rows say of one case. */
static void list_case(const lk_device_caps *caps, const char *device, const op_instance *instance, bool *used,
                      list *out) {
    int num_rows, usable = 0;
    const lk_kernel *rows = lk_backend_find(caps->backend)->kernels(&num_rows);
    for (int r = 0; r < num_rows; r++) {
        lk_refusal why = {""};
        if (rows[r].op != instance->self->op) {
            continue;
        }
        if (rows[r].supports(caps, &instance->node, &why)) {
            usable++;
            used[r] = true;
        } else {
            add_line(out, device, rows[r].name, why.reason);
        }
    }
    if (usable == 0) {
        add_line(out, device, lk_op_name(instance->self->op), "a case without a row");
    }
}

/* Rows that no case can use are not tested at all. */
static void list_unused(const lk_device_caps *caps, const bool *used, list *out) {
    int num_rows;
    const lk_kernel *rows = lk_backend_find(caps->backend)->kernels(&num_rows);
    for (int r = 0; r < num_rows; r++) {
        if (!used[r]) {
            add_line(out, caps->name, rows[r].name, "no case can use it");
        }
    }
}

/* Of the device as it is, and of each mask what is not refused without it. */
static void list_device(lk_context *context, const lk_device_caps *caps, list *out) {
    int count;
    bool used[MAX_ROWS] = {false}, ignored[MAX_ROWS];
    const op_case *cases = op_cases(&count);
    for (int c = 0; c < count; c++) {
        op_instance instance;
        ck_assert_int_eq(op_instance_make(context, &cases[c], 1, &instance), LK_OK);
        list whole = {0};
        list_case(caps, "", &instance, ignored, &whole);
        list_case(caps, caps->name, &instance, used, out);
        for (size_t m = 0; m < NUM_LISTED; m++) {
            char device[96];
            lk_device_caps less = *caps;
            list masked = {0};
            snprintf(device, sizeof device, "%s, %s", caps->name, masks[m].name);
            masks[m].apply(&less);
            list_case(&less, "", &instance, ignored, &masked);
            for (int i = 0; i < masked.count; i++) {
                if (!has_line(&whole, masked.lines[i])) {
                    char *what = masked.lines[i] + 2, *reason = strstr(what, ": ");
                    *reason = '\0';
                    add_line(out, device, what, reason + 2);
                }
            }
            free_list(&masked);
        }
        free_list(&whole);
        op_instance_free(&instance);
    }
    list_unused(caps, used, out);
}

/* A build without a backend, or without what compiles cooperative matrices, has nothing to say of it. */
static bool is_told_here(const char *line) {
    bool told = true;
#ifdef LK_HAS_VULKAN
    told = lk_vk_matrices_are_built() || strstr(line, "_matrix_f16") == NULL;
#endif
    int num_rows;
    for (size_t i = 0; i < LK_COUNT(fakes); i++) {
        if (strncmp(line, fakes[i].name, strlen(fakes[i].name)) == 0) {
            lk_backend_find(fakes[i].backend)->kernels(&num_rows);
            told = told && num_rows > 0;
        }
    }
    return told;
}

static list read_list(void) {
    list read = {0};
    char line[320];
    FILE *file = fopen(LK_TEST_DATA "/../ops/refusals.txt", "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *what = strstr(line, ": "), *reason = what != NULL ? strstr(what + 2, ": ") : NULL;
        if (line[0] != '#' && reason != NULL && is_told_here(line)) {
            *what = *reason = '\0';
            add_line(&read, line, what + 2, reason + 2);
        }
    }
    fclose(file);
    return read;
}

START_TEST(test_list_is_not_stale) {
    lk_context *context;
    list found = {0}, listed = read_list();
    int stale = 0;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    for (size_t i = 0; i < LK_COUNT(fakes); i++) {
        list_device(context, &fakes[i], &found);
    }
    qsort(found.lines, (size_t)found.count, sizeof *found.lines, compare_lines);
    FILE *file = fopen("refusals.txt", "w");
    ck_assert_ptr_nonnull(file);
    for (int i = 0; i < found.count; i++) {
        if (is_told_here(found.lines[i])) {
            fprintf(file, "%s\n", found.lines[i]);
            if (!has_line(&listed, found.lines[i])) {
                printf("not in the list: %s\n", found.lines[i]);
                stale++;
            }
        }
    }
    fclose(file);
    for (int i = 0; i < listed.count; i++) {
        if (!has_line(&found, listed.lines[i])) {
            printf("only in the list: %s\n", listed.lines[i]);
            stale++;
        }
    }
    fflush(stdout);
    ck_assert_msg(stale == 0,
                  "tests/ops/refusals.txt is stale in %d lines; what is true now is in refusals.txt of the "
                  "current folder",
                  stale);
    free_list(&found);
    free_list(&listed);
    lk_context_destroy(context);
}
END_TEST

/* ---- devices that are here ---- */

static bool is_small(const lk_node *node) {
    for (int i = 0; i < node->num_inputs; i++) {
        if (node->inputs[i] != NULL && lk_tensor_elements(node->inputs[i]) > 5000) {
            return false;
        }
    }
    return true;
}

static void run_masked(lk_context *context, lk_device *device, const mask *by) {
    int count, num_rows, run = 0, refused = 0, runs[MAX_ROWS] = {0};
    const op_case *cases = op_cases(&count);
    const lk_kernel *rows = device->backend->kernels(&num_rows);
    ck_assert_int_le(num_rows, MAX_ROWS);
    for (int c = count - 1; c >= 0; c--) { /* the last are the larger ones */
        op_instance instance;
        ck_assert_int_eq(op_instance_make(context, &cases[c], 20260101, &instance), LK_OK);
        for (int r = 0; r < num_rows && is_small(&instance.node); r++) {
            lk_refusal why;
            op_verdict verdict;
            if (rows[r].op != cases[c].op || runs[r] == RUNS_PER_ROW) {
                continue;
            }
            if (!rows[r].supports(&device->caps, &instance.node, &why)) {
                refused++;
                continue;
            }
            ck_assert_msg(op_instance_check(&instance, device, &rows[r], &verdict) == LK_OK, "%s, %s on %s: %s",
                          by->name, rows[r].name, cases[c].name, lk_error_message(context));
            ck_assert_msg(verdict.problem[0] == '\0', "%s, %s on %s: %s", by->name, rows[r].name, cases[c].name,
                          verdict.problem);
            runs[r]++;
            run++;
        }
        op_instance_free(&instance);
    }
    printf("%s, %s: %d kernel runs, %d refused\n", device->caps.name, by->name, run, refused);
    fflush(stdout);
    ck_assert_int_gt(run, 0);
}

/* Masks that change nothing of the device are passed over: the test of conformance has run that. */
START_TEST(test_masked_device) {
    lk_context *context;
    lk_device_caps caps[8];
    lk_device *device;
    int count = 0;
    const lk_backend *backend = lk_backend_find("vulkan");
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    if (backend->probe(context, caps, 8, &count) != LK_OK || count == 0) {
        printf("skipped: %s\n", lk_error_message(context));
    } else {
        lk_device_caps less = caps[0];
        masks[_i].apply(&less);
        if (memcmp(&less, &caps[0], sizeof less) != 0) {
            ck_assert_msg(backend->open(context, &less, NULL, &device) == LK_OK, "%s", lk_error_message(context));
            run_masked(context, device, &masks[_i]);
            backend->close(device);
        }
    }
    lk_context_destroy(context);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("masked");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_list_is_not_stale);
    tcase_add_loop_test(tests, test_masked_device, 0, NUM_MASKS);
    return run_case("masked", tests);
}
