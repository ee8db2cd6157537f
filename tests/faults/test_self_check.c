/* Checks of kernels at their first use, and measured times: with a device that computes wrong results on demand and has
 * a clock of its own; and that no sound kernel of a real device is taken for a wrong one. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/json.h"
#include "dispatch/node_case.h"
#include "dispatch/self_check.h"
#include "dispatch/tuned.h"
#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/faults/fake_device.h"
#include "tests/ops/harness.h"

static char folder[] = "lk_self_check_XXXXXX";
static char last_warning[1024];
static int warnings;

static void take_log(void *user, lk_log_level level, const char *message) {
    (void)user;
    if (level == LK_LOG_WARNING) {
        snprintf(last_warning, sizeof last_warning, "%s", message);
        warnings++;
    }
}

/* A device with a second kernel of MUL, what is known of its kernels, and a graph of one product. */
typedef struct machine {
    fixture fixture;
    lk_device *fake;
    lk_self_check *checks;
    lk_tuned *tuned;
    lk_variable *x;
    lk_preferences preferences;
} machine;

static bool allows(void *user, const lk_device_caps *caps, const lk_kernel *kernel, lk_refusal *why) {
    machine *self = user;
    return strcmp(caps->backend, "fake") != 0 || lk_self_check_allows(self->checks, kernel, why);
}

static lk_status check(void *user, lk_device *device, const lk_kernel *kernel, const lk_node *node, bool *sound) {
    machine *self = user;
    *sound = true;
    return device == self->fake ? lk_self_check_kernel(self->checks, device, kernel, node, sound) : LK_OK;
}

static double tuned(void *user, const lk_device_caps *caps, const lk_kernel *kernel, const lk_node *node) {
    machine *self = user;
    return strcmp(caps->backend, "fake") == 0 ? lk_tuned_find(self->tuned, kernel, node) : -1.0;
}

static void open_machine(machine *self) {
    lk_context_options options;
    lk_context *context;
    lk_context_options_init(&options);
    options.log = take_log;
    warnings = 0;
    last_warning[0] = '\0';
    ck_assert_int_eq(lk_context_create(&options, &context), LK_OK);
    ck_assert_int_eq(fake_device_open(context, fake_all_ops() | FAKE_FAST_MUL, &self->fake), LK_OK);
    fixture_open_on(&self->fixture, context, self->fake);
    ck_assert_int_eq(lk_self_check_create(context, &self->fake->caps, &self->checks), LK_OK);
    ck_assert_int_eq(lk_tuned_load(context, &self->fake->caps, &self->tuned), LK_OK);
    double values[1200];
    for (int i = 0; i < 1200; i++) {
        values[i] = i + 1;
    }
    self->x = fixture_variable(&self->fixture, LK_ROLE_INPUT, LK_DTYPE_F64, 2, 300, 4, values);
    self->preferences = (lk_preferences){.tuned = tuned, .allows = allows, .check = check, .user = self};
}

static void close_machine(machine *self) {
    lk_self_check_destroy(self->checks);
    lk_tuned_destroy(self->tuned);
    lk_variables_destroy(self->fixture.variables);
    self->fixture.variables = NULL;
    ck_assert_int_eq(fake_device_counters(self->fake)->live_buffers, 0);
    ck_assert_int_eq(fake_device_counters(self->fake)->live_lists, 0);
    fixture_close(&self->fixture);
}

static lk_status compile(machine *self, lk_program **out, lk_tensor **product) {
    lk_graph *graph;
    lk_program_options options = {&self->preferences, self->fixture.devices, self->fixture.num_devices, false};
    ck_assert_int_eq(lk_graph_create(self->fixture.context, &graph), LK_OK);
    lk_tensor *x = lk_graph_variable(graph, self->x);
    *product = lk_build_mul(graph, x, x);
    lk_graph_mark_output(graph, *product);
    return lk_program_compile(self->fixture.context, graph, &options, out);
}

/* Compiles and runs; the product must be right whatever was chosen, and this kernel makes it, by this rule. */
static void expect(machine *self, const char *kernel, const char *rule, bool right) {
    lk_program *program;
    lk_tensor *product;
    ck_assert_msg(compile(self, &program, &product) == LK_OK, "%s", lk_error_message(self->fixture.context));
    lk_placement placement = lk_program_placement(program, 0);
    ck_assert_str_eq(placement.kernel->name, kernel);
    ck_assert_str_eq(placement.rule, rule);
    fixture_run(program);
    double *found = fixture_output(program, product);
    ck_assert_double_eq(found[7], right ? 64.0 : 0.0);
    free(found);
    lk_program_destroy(program);
}

/* ---- checks ---- */

START_TEST(test_a_wrong_kernel_is_dropped) {
    machine self;
    open_machine(&self);
    fake_device_be_wrong(self.fake, "fake_mul_fast");
    expect(&self, "fake_mul", "cost", true);
    ck_assert_int_eq(warnings, 1);
    ck_assert_msg(strstr(last_warning, "fake_mul_fast computes wrong results on fake:0") != NULL, "%s", last_warning);
    ck_assert_int_eq(lk_self_check_made(self.checks), 2); /* the wrong one and the one that took its place */
    expect(&self, "fake_mul", "cost", true);
    ck_assert_int_eq(lk_self_check_made(self.checks), 2); /* once per kernel */
    ck_assert_int_eq(warnings, 1);
    lk_refusal why = {""};
    int count;
    ck_assert(!lk_self_check_allows(self.checks, &self.fake->backend->kernels(&count)[0], &why));
    ck_assert_ptr_nonnull(strstr(why.reason, "wrong results"));
    close_machine(&self);

    open_machine(&self); /* the next start knows, although the kernel would now be right */
    expect(&self, "fake_mul", "cost", true);
    ck_assert_int_eq(lk_self_check_made(self.checks), 0);
    close_machine(&self);

    open_machine(&self); /* another driver is another device */
    strcpy(self.fake->caps.driver, "a newer driver");
    lk_self_check_destroy(self.checks);
    ck_assert_int_eq(lk_self_check_create(self.fixture.context, &self.fake->caps, &self.checks), LK_OK);
    expect(&self, "fake_mul_fast", "cost", true);
    ck_assert_int_eq(lk_self_check_made(self.checks), 1);
    close_machine(&self);

    setenv("LORIKEET_SELF_CHECK", "always", 1);
    open_machine(&self);
    expect(&self, "fake_mul_fast", "cost", true);
    ck_assert_int_eq(lk_self_check_made(self.checks), 1);
    close_machine(&self);

    setenv("LORIKEET_SELF_CHECK", "0", 1);
    open_machine(&self);
    fake_device_be_wrong(self.fake, "fake_mul_fast");
    expect(&self, "fake_mul_fast", "cost", false);
    ck_assert_int_eq(lk_self_check_made(self.checks), 0);
    close_machine(&self);
    unsetenv("LORIKEET_SELF_CHECK");
}
END_TEST

/* What cannot be compiled is dropped for this run only; a device that fails while it runs ends it. */
START_TEST(test_failures_in_a_check) {
    machine self;
    lk_program *program;
    lk_tensor *product;
    char empty[64];
    snprintf(empty, sizeof empty, "%s/empty", folder);
    setenv("LORIKEET_CACHE_DIR", empty, 1);
    open_machine(&self);
    fake_device_fail(self.fake, FAKE_COMPILE, 1, LK_STATUS_DEVICE);
    expect(&self, "fake_mul", "cost", true);
    ck_assert_msg(strstr(last_warning, "fake_mul_fast cannot be used on fake:0: injected failure") != NULL, "%s",
                  last_warning);
    close_machine(&self);
    static const fake_call calls[] = {FAKE_RUN, FAKE_WAIT, FAKE_DOWNLOAD};
    for (size_t i = 0; i < LK_COUNT(calls); i++) {
        setenv("LORIKEET_SELF_CHECK", "always", 1);
        open_machine(&self);
        fake_device_fail(self.fake, calls[i], 1, LK_STATUS_DEVICE);
        ck_assert_int_eq(compile(&self, &program, &product), LK_STATUS_DEVICE);
        ck_assert_str_eq(lk_error_message(self.fixture.context), "checking fake_mul_fast: injected failure");
        expect(&self, "fake_mul_fast", "cost", true);
        close_machine(&self);
    }
    open_machine(&self);
    fake_device_fail(self.fake, FAKE_ALLOC, 1, LK_STATUS_OUT_OF_MEMORY);
    ck_assert_int_eq(compile(&self, &program, &product), LK_STATUS_OUT_OF_MEMORY);
    close_machine(&self);
    unsetenv("LORIKEET_SELF_CHECK");
    setenv("LORIKEET_CACHE_DIR", folder, 1);
}
END_TEST

/* ---- made-up cases ---- */

/* Of every op's case a legal one is made at every size, with shapes that fit: the reference agrees with itself. */
START_TEST(test_cases_are_legal) {
    lk_context *context;
    lk_device *device;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    device = fixture_open_reference(context);
    int count, num_rows, small[LK_OP_COUNT] = {0};
    const op_case *cases = op_cases(&count);
    const lk_kernel *rows = device->backend->kernels(&num_rows);
    for (int c = 0; c < count; c++) {
        op_instance instance;
        ck_assert_int_eq(op_instance_make(context, &cases[c], 7, &instance), LK_OK);
        for (int size = LK_CASE_SMALL; size <= LK_CASE_WHOLE; size++) {
            lk_node_case work;
            lk_case_run run;
            char problem[160];
            lk_status status = lk_node_case_make(context, &instance.node, (lk_case_size)size, &work);
            ck_assert_msg(status == LK_OK || (size != LK_CASE_WHOLE && status == LK_STATUS_UNSUPPORTED), "%s: %s",
                          cases[c].name, lk_error_message(context));
            if (status != LK_OK) {
                continue;
            }
            small[cases[c].op]++;
            for (int r = 0; r < num_rows; r++) {
                if (rows[r].op == cases[c].op) {
                    ck_assert_int_eq(lk_case_run_open(&work, device, &rows[r], &run), LK_OK);
                    ck_assert_msg(lk_case_run_once(&run, NULL) == LK_OK, "%s: %s", cases[c].name,
                                  lk_error_message(context));
                    ck_assert_int_eq(lk_case_run_judge(&run, problem, sizeof problem), LK_OK);
                    ck_assert_msg(problem[0] == '\0', "%s: %s", cases[c].name, problem);
                    lk_case_run_close(&run);
                }
            }
            lk_node_case_free(&work);
        }
        op_instance_free(&instance);
    }
    for (int op = 0; op < LK_OP_COUNT; op++) {
        ck_assert_msg(small[op] > 0, "%s", lk_op_name((lk_op)op));
    }
    device->backend->close(device);
    lk_context_destroy(context);
}
END_TEST

/* No kernel that is right is taken for a wrong one: every row of every device that is here, on the cases of its op. */
START_TEST(test_sound_kernels_pass) {
    int num_backends;
    const lk_backend *const *backends = lk_backends(&num_backends);
    setenv("LORIKEET_SELF_CHECK", "always", 1);
    for (int b = 0; b < num_backends; b++) {
        lk_context *context;
        lk_context_options options;
        lk_context_options_init(&options);
        options.log = take_log;
        ck_assert_int_eq(lk_context_create(&options, &context), LK_OK);
        lk_device_caps caps;
        int count, num_rows, num_cases;
        if (!backends[b]->by_drivers || backends[b]->probe(context, &caps, 1, &count) != LK_OK) {
            lk_context_destroy(context);
            continue;
        }
        lk_device *device;
        lk_device_options device_options = {sizeof device_options, 2};
        lk_self_check *checks;
        ck_assert_int_eq(backends[b]->open(context, &caps, &device_options, &device), LK_OK);
        ck_assert_int_eq(lk_self_check_create(context, &caps, &checks), LK_OK);
        const lk_kernel *rows = backends[b]->kernels(&num_rows);
        const op_case *cases = op_cases(&num_cases);
        for (int c = 0; c < num_cases; c++) {
            op_instance instance;
            ck_assert_int_eq(op_instance_make(context, &cases[c], 7, &instance), LK_OK);
            for (int r = 0; r < num_rows; r++) {
                bool sound = true;
                if (rows[r].op != cases[c].op || (rows[r].required_features & ~caps.features) != 0 ||
                    (rows[r].supports != NULL && !rows[r].supports(&caps, &instance.node, NULL))) {
                    continue;
                }
                ck_assert_msg(lk_self_check_kernel(checks, device, &rows[r], &instance.node, &sound) == LK_OK, "%s",
                              lk_error_message(context));
                ck_assert_msg(sound, "%s", last_warning);
            }
            op_instance_free(&instance);
        }
        printf("%s: %d checks\n", caps.backend, lk_self_check_made(checks));
        lk_self_check_destroy(checks);
        backends[b]->close(device);
        lk_context_destroy(context);
    }
    unsetenv("LORIKEET_SELF_CHECK");
}
END_TEST

/* ---- measured times ---- */

static const char *const clocked[] = {"fake_mul_fast", "fake_mul"};

static void tune(machine *self, const double seconds[2]) {
    lk_program *program;
    lk_tensor *product;
    fake_device_set_clock(self->fake, clocked, seconds, 2);
    ck_assert_int_eq(compile(self, &program, &product), LK_OK);
    lk_candidate candidates[LK_MAX_CANDIDATES];
    int count = lk_program_candidates(program, 0, candidates);
    ck_assert_int_eq(count, 2);
    const lk_node *node = lk_program_placement(program, 0).node;
    ck_assert_int_eq(lk_tune_node(self->fake, node, candidates, count), LK_OK);
    for (int i = 0; i < count; i++) {
        ck_assert(candidates[i].tuned);
        ck_assert_double_eq(candidates[i].seconds, seconds[i]);
        ck_assert_int_eq(lk_tuned_set(self->tuned, candidates[i].kernel, node, candidates[i].seconds), LK_OK);
    }
    lk_program_destroy(program);
    ck_assert_msg(lk_tuned_save(self->tuned) == LK_OK, "%s", lk_error_message(self->fixture.context));
}

static void overwrite(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

START_TEST(test_tuned_records) {
    char path[512];
    machine self;
    setenv("LORIKEET_SELF_CHECK", "0", 1);
    open_machine(&self);
    ck_assert_int_eq(lk_tuned_count(self.tuned), 0);
    expect(&self, "fake_mul_fast", "cost", true);
    tune(&self, (const double[]){0.5, 0.25}); /* against the estimate */
    expect(&self, "fake_mul", "tuned", true);
    close_machine(&self);

    open_machine(&self); /* from the file */
    ck_assert_int_eq(lk_tuned_count(self.tuned), 2);
    expect(&self, "fake_mul", "tuned", true);
    tune(&self, (const double[]){0.125, 0.25}); /* later times replace earlier ones */
    ck_assert_int_eq(lk_tuned_count(self.tuned), 2);
    expect(&self, "fake_mul_fast", "tuned", true);
    snprintf(path, sizeof path, "%s", lk_tuned_path(self.tuned));
    close_machine(&self);

    open_machine(&self); /* other shapes were not measured */
    self.x =
        fixture_variable(&self.fixture, LK_ROLE_INPUT, LK_DTYPE_F64, 2, 2, 4, (const double[]){1, 2, 3, 4, 5, 6, 7, 8});
    expect(&self, "fake_mul_fast", "cost", true);
    /* and another driver's are not ours */
    strcpy(self.fake->caps.driver, "a newer driver");
    lk_tuned_destroy(self.tuned);
    ck_assert_int_eq(lk_tuned_load(self.fixture.context, &self.fake->caps, &self.tuned), LK_OK);
    ck_assert_int_eq(lk_tuned_count(self.tuned), 0);
    ck_assert_str_ne(lk_tuned_path(self.tuned), path);
    ck_assert_int_eq(warnings, 0);
    close_machine(&self);

    static const char *const damaged[] = {
        "", "{", "[]", "{\"format_version\": 2}",
        "{\"format_version\": 1, \"device\": \"another\", \"driver\": \"1\", \"identity\": \"0000000000000000\", "
        "\"records\": []}"};
    for (size_t i = 0; i < LK_COUNT(damaged); i++) {
        overwrite(path, damaged[i]);
        open_machine(&self);
        ck_assert_int_eq(lk_tuned_count(self.tuned), 0);
        ck_assert_msg(warnings == 1 && strstr(last_warning, path) != NULL, "%zu: %s", i, last_warning);
        expect(&self, "fake_mul_fast", "cost", true);
        close_machine(&self);
    }
    open_machine(&self); /* a record that is not one spoils all of the file; a new one heals it */
    tune(&self, (const double[]){0.5, 0.25});
    close_machine(&self);
    json_t *root;
    lk_context *context;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    ck_assert_int_eq(lk_json_load(context, path, &root), LK_OK);
    json_object_set_new(json_array_get(json_object_get(root, "records"), 1), "seconds", json_real(-1.0));
    ck_assert_int_eq(lk_json_save(context, path, root), LK_OK);
    json_decref(root);
    lk_context_destroy(context);
    open_machine(&self);
    ck_assert_int_eq(lk_tuned_count(self.tuned), 0);
    ck_assert_int_eq(warnings, 1);
    close_machine(&self);
    unsetenv("LORIKEET_SELF_CHECK");
}
END_TEST

int main(void) {
    if (mkdtemp(folder) == NULL) {
        return EXIT_FAILURE;
    }
    setenv("LORIKEET_CACHE_DIR", folder, 1);
    TCase *tests = tcase_create("self_check");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_a_wrong_kernel_is_dropped);
    tcase_add_test(tests, test_failures_in_a_check);
    tcase_add_test(tests, test_cases_are_legal);
    tcase_add_test(tests, test_sound_kernels_pass);
    tcase_add_test(tests, test_tuned_records);
    int failed = run_case("self_check", tests);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return failed || system(command) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
