/* Launches that are cut so that no submission takes longer than a watchdog allows: the parts are the whole, and give
 * the same bits on every device that is here. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/shaders/rows.h"
#include "dispatch/node_case.h"
#include "tests/common/runner.h"
#include "tests/ops/harness.h"

static const lk_kernel rows[] = {
#define LK_SHADER_KERNEL(row, OP, supports_function, cost_function, scratch_function, in_place_input, record) \
    {.name = #row,                                                                                            \
     .op = LK_OP_##OP,                                                                                        \
     .supports = supports_function,                                                                           \
     .cost = cost_function,                                                                                   \
     .scratch = scratch_function,                                                                             \
     .in_place = in_place_input,                                                                              \
     .run = (void (*)(void))record},
#include "backends/shaders/kernels.def"
#undef LK_SHADER_KERNEL
};

/* A GPU that is so slow that everything is too long for it. */
static lk_device_caps slow_gpu(void) {
    return (lk_device_caps){.backend = "fake",
                            .threads = 8,
                            .shared_bytes = 32768,
                            .subgroup_size = 32,
                            .max_group_size = 256,
                            .max_buffer_bytes = SIZE_MAX,
                            .flops_f32 = 1e6,
                            .bandwidth = 1e6,
                            .launch_seconds = 1e-5};
}

/* Records one row for a node, with made-up buffers. */
static void record(lk_context *context, const lk_device_caps *caps, const lk_kernel *row, const lk_node *node,
                   lk_recorder *out) {
    lk_binding bindings[MAX_CASE_INPUTS + LK_MAX_OUTPUTS] = {{0}};
    for (int i = 0; i < node->num_inputs + node->num_outputs; i++) {
        const lk_tensor *tensor = i < node->num_inputs ? node->inputs[i] : node->outputs[i - node->num_inputs];
        if (tensor != NULL) {
            bindings[i] = (lk_binding){(lk_buffer *)bindings, (size_t)i << 20, lk_tensor_bytes(tensor)};
        }
    }
    lk_command command = {node, row, bindings, bindings + node->num_inputs, {(lk_buffer *)bindings, 0, 1 << 20}};
    lk_recorder_init(out, context, caps);
    ck_assert_msg(lk_record_commands(out, &command, 1) == LK_OK, "%s: %s", row->name, lk_error_message(context));
}

/* The parts of a launch follow each other without gap, and are otherwise the launch itself. */
static int32_t match(const lk_recorder *parts, int32_t next, const lk_launch *whole, double most) {
    int axis = whole->groups[1] > 1 ? 1 : 0;
    int32_t done = 0;
    while (done < whole->groups[axis]) {
        ck_assert_int_lt(next, parts->count);
        const lk_launch *part = &parts->launches[next++];
        ck_assert_str_eq(part->entry, whole->entry);
        ck_assert_int_eq(part->first, axis == 1 ? done : -done);
        ck_assert_int_gt(part->groups[axis], 0);
        ck_assert_int_eq(part->groups[1 - axis], whole->groups[1 - axis]);
        ck_assert_mem_eq(part->parameters, whole->parameters, sizeof part->parameters);
        ck_assert_mem_eq(part->buffers, whole->buffers, sizeof part->buffers);
        ck_assert(part->seconds <= most * 1.000001 || part->groups[axis] == 1);
        done += part->groups[axis];
    }
    ck_assert_int_eq(done, whole->groups[axis]);
    return next;
}

START_TEST(test_parts_are_the_whole) {
    lk_context *context;
    int count, divided = 0;
    const op_case *cases = op_cases(&count);
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    lk_device_caps slow = slow_gpu(), patient = slow_gpu();
    unsetenv("LORIKEET_SUBMIT_MS");
    ck_assert_double_eq(lk_submit_seconds(&slow), 0.1);
    patient.is_cpu = true; /* nobody watches a processor */
    ck_assert_double_eq(lk_submit_seconds(&patient), 0.0);
    setenv("LORIKEET_SUBMIT_MS", "2.5", 1);
    ck_assert_double_eq(lk_submit_seconds(&patient), 0.0025);
    unsetenv("LORIKEET_SUBMIT_MS");
    for (int c = 0; c < count; c++) {
        op_instance instance;
        ck_assert_int_eq(op_instance_make(context, &cases[c], 1, &instance), LK_OK);
        for (size_t r = 0; r < LK_COUNT(rows); r++) {
            if (rows[r].op != cases[c].op || !rows[r].supports(&slow, &instance.node, NULL)) {
                continue;
            }
            lk_recorder whole, parts;
            setenv("LORIKEET_SUBMIT_MS", "1e9", 1);
            record(context, &slow, &rows[r], &instance.node, &whole);
            setenv("LORIKEET_SUBMIT_MS", "0.02", 1);
            record(context, &slow, &rows[r], &instance.node, &parts);
            int32_t next = 0;
            for (int32_t i = 0; i < whole.count; i++) {
                ck_assert_int_eq(whole.launches[i].first, 0);
                next = match(&parts, next, &whole.launches[i], 2e-5);
            }
            ck_assert_int_eq(next, parts.count);
            divided += parts.count > whole.count;
            lk_recorder_free(&whole);
            lk_recorder_free(&parts);
        }
        op_instance_free(&instance);
    }
    unsetenv("LORIKEET_SUBMIT_MS");
    printf("%d commands came in parts\n", divided);
    ck_assert_int_gt(divided, 50);
    lk_context_destroy(context);
}
END_TEST

/* The bits of all that a kernel writes. */
static uint64_t bits_of(const lk_node_case *work, lk_device *device, const lk_kernel *row) {
    lk_case_run run;
    uint64_t hash = 0;
    ck_assert_msg(lk_case_run_open(work, device, row, &run) == LK_OK, "%s: %s", row->name,
                  lk_error_message(device->context));
    ck_assert_msg(lk_case_run_once(&run, NULL) == LK_OK, "%s: %s", row->name, lk_error_message(device->context));
    for (int i = 0; i < work->node.num_inputs + work->node.num_outputs; i++) {
        const lk_binding *binding = &run.inputs[i];
        if (binding->buffer != NULL) {
            char *bytes = malloc(binding->bytes);
            ck_assert_int_eq(device->backend->download(device, binding->buffer, 0, bytes, binding->bytes), LK_OK);
            hash = lk_hash64(bytes, binding->bytes, hash);
            free(bytes);
        }
    }
    lk_case_run_close(&run);
    return hash;
}

START_TEST(test_same_bits) {
    int num_backends, num_cases;
    const lk_backend *backend = lk_backends(&num_backends)[_i];
    const op_case *cases = op_cases(&num_cases);
    lk_context *context;
    lk_device_caps caps;
    int count, num_rows, compared = 0;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    lk_status status = backend->by_drivers ? backend->probe(context, &caps, 1, &count) : LK_STATUS_UNSUPPORTED;
    if (status != LK_OK) {
        if (backend->by_drivers) {
            printf("skipped: %s: %s\n", backend->name, lk_error_message(context));
        }
        lk_context_destroy(context);
        return;
    }
    lk_device *device;
    lk_device_options options = {sizeof options, 2};
    ck_assert_int_eq(backend->open(context, &caps, &options, &device), LK_OK);
    const lk_kernel *all = backend->kernels(&num_rows);
    for (int c = 0; c < num_cases; c++) {
        op_instance instance;
        lk_node_case work;
        ck_assert_int_eq(op_instance_make(context, &cases[c], 1, &instance), LK_OK);
        ck_assert_int_eq(lk_node_case_make(context, &instance.node, LK_CASE_WHOLE, &work), LK_OK);
        for (int r = 0; r < num_rows; r++) {
            if (all[r].op != cases[c].op || (all[r].required_features & ~caps.features) != 0 ||
                (all[r].supports != NULL && !all[r].supports(&caps, &work.node, NULL))) {
                continue;
            }
            unsetenv("LORIKEET_SUBMIT_MS");
            uint64_t whole = bits_of(&work, device, &all[r]);
            char seventh[32];
            snprintf(seventh, sizeof seventh, "%.9g", 1e3 / 7.0 * all[r].cost(&caps, &work.node));
            setenv("LORIKEET_SUBMIT_MS", seventh, 1);
            ck_assert_msg(bits_of(&work, device, &all[r]) == whole, "%s: %s in parts gives other bits", cases[c].name,
                          all[r].name);
            compared++;
        }
        lk_node_case_free(&work);
        op_instance_free(&instance);
    }
    unsetenv("LORIKEET_SUBMIT_MS");
    printf("%s: %d kernels compared\n", backend->name, compared);
    ck_assert_int_gt(compared, 0);
    backend->close(device);
    lk_context_destroy(context);
}
END_TEST

int main(void) {
    int num_backends;
    lk_backends(&num_backends);
    TCase *tests = tcase_create("parts");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_parts_are_the_whole);
    tcase_add_loop_test(tests, test_same_bits, 0, num_backends);
    return run_case("parts", tests);
}
