/* Attention by cuDNN's plugin. On its mock: that a program takes it, that what computes wrong results is dropped, that
 * each of its calls may fail; absence and refusals. The numbers are checked by cuda/cudnn_conformance. With the plugin
 * and cuDNN itself: that cuDNN supports the shapes on described cards, and that the workspace suffices. */
#include <check.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/cuda/cudnn.h"
#include "dispatch/node_case.h"
#include "dispatch/session.h"
#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/cuda/rows.h"

static char folder[] = "lk_cudnn_XXXXXX";
static char last_warning[1024];
static lk_context *context;
static const lk_backend *const cuda = &lk_backend_cuda;

#define SUCCEEDS(expression) ck_assert_msg((expression) == LK_OK, "%s", lk_error_message(context))

static void take_log(void *user, lk_log_level level, const char *message) {
    (void)user;
    if (level == LK_LOG_WARNING) {
        snprintf(last_warning, sizeof last_warning, "%s", message);
    }
}

static void setup(void) {
    lk_context_options options;
    lk_context_options_init(&options);
    options.log = take_log;
    last_warning[0] = '\0';
    setenv("LORIKEET_CACHE_DIR", folder, 1);
    setenv("LORIKEET_SELF_CHECK", "always", 1);
    setenv("LK_MOCK_CUDA_CARDS", "H100", 1);
    ck_assert_int_eq(lk_context_create(&options, &context), LK_OK);
}

static void teardown(void) {
    lk_context_destroy(context);
}

/* ---- a node ---- */

enum {
    TOKENS = 48,
    ENTRIES = 4,
    HEADS = 4,
    KV_HEADS = 2,
    SIZE = 32,
    Q_WIDTH = HEADS * SIZE,
    K_WIDTH = KV_HEADS * SIZE
};

typedef struct attention {
    lk_tensor q, k, borders, lse, o, dq, dk, dv;
    lk_tensor *inputs[7];
    lk_node node;
} attention;

static lk_tensor matrix(int64_t columns) {
    return (lk_tensor){.dtype = LK_DTYPE_F32, .rank = 2, .shape = {TOKENS, columns, 1, 1}};
}

static void make_attention(attention *self, bool backward) {
    *self = (attention){.q = matrix(Q_WIDTH),
                        .k = matrix(K_WIDTH),
                        .borders = {.dtype = LK_DTYPE_I32, .rank = 1, .shape = {ENTRIES, 1, 1, 1}},
                        .lse = matrix(HEADS),
                        .o = matrix(Q_WIDTH),
                        .dq = matrix(Q_WIDTH),
                        .dk = matrix(K_WIDTH),
                        .dv = matrix(K_WIDTH)};
    lk_tensor *const forward_inputs[7] = {&self->q, &self->k, &self->k, &self->borders};
    lk_tensor *const backward_inputs[7] = {&self->q, &self->q,   &self->k,      &self->k,
                                           &self->q, &self->lse, &self->borders};
    memcpy(self->inputs, backward ? backward_inputs : forward_inputs, sizeof self->inputs);
    self->node = (lk_node){.op = backward ? LK_OP_ATTENTION_BACKWARD : LK_OP_ATTENTION,
                           .num_inputs = backward ? 7 : 4,
                           .inputs = self->inputs,
                           .num_outputs = backward ? 3 : 2,
                           .scope = "here"};
    self->node.outputs[0] = backward ? &self->dq : &self->o;
    self->node.outputs[1] = backward ? &self->dk : &self->lse;
    self->node.outputs[2] = backward ? &self->dv : NULL;
    self->node.attributes.attention = (lk_attention_attributes){.num_attention_heads = HEADS,
                                                                .num_key_value_heads = KV_HEADS,
                                                                .head_dim = SIZE,
                                                                .scale = 0.2f,
                                                                .causal = true,
                                                                .allow_bf16 = true};
}

static const char *row_of(bool backward) {
    return backward ? "cuda_attention_backward_cudnn" : "cuda_attention_cudnn";
}

/* The first failure ends it; everything is given back. */
static lk_status use_row(bool backward, char problem[160]) {
    attention self;
    lk_device_caps caps;
    lk_device *device;
    lk_node_case work;
    lk_case_run runs[2];
    int count;
    make_attention(&self, backward);
    LK_TRY(cuda->probe(context, &caps, 1, &count));
    LK_TRY(lk_node_case_make(context, &self.node, LK_CASE_WHOLE, &work));
    lk_status status = cuda->open(context, &caps, NULL, &device);
    if (status == LK_OK) {
        int open = 0;
        for (; open < 2 && status == LK_OK; open += status == LK_OK) { /* two layers */
            status = lk_case_run_open(&work, device, cuda_row_called(row_of(backward)), &runs[open]);
        }
        for (int i = 0; i < open; i++) {
            status = status == LK_OK ? lk_case_run_once(&runs[i], NULL) : status;
            status = status == LK_OK ? lk_case_run_judge(&runs[i], problem, 160) : status;
        }
        for (int i = 0; i < open; i++) {
            lk_case_run_close(&runs[i]);
        }
        cuda->close(device);
    }
    lk_node_case_free(&work);
    return status;
}

START_TEST(test_planned_once_per_shape) {
    for (int backward = 0; backward < 2; backward++) {
        char problem[160] = "not judged";
        unsigned long before = cuda_mock_counted().heuristics;
        SUCCEEDS(use_row(backward != 0, problem));
        ck_assert_str_eq(problem, "");
        ck_assert_uint_eq(cuda_mock_counted().heuristics, before + 1);
        ck_assert_uint_eq(cuda_mock_counted().live, 0);
    }
}
END_TEST

START_TEST(test_every_call_fails_once) {
    static const char *const calls[] = {"lk_cudnn_open", "lk_cudnn_plan_create", "lk_cudnn_plan_run"};
    char problem[160];
    int failures = 0;
    SUCCEEDS(use_row(true, problem)); /* so that the plugin is there */
    for (size_t i = 0; i < LK_COUNT(calls); i++) {
        for (int nth = 1;; nth++) {
            char plan[64];
            snprintf(plan, sizeof plan, "%s:%d:1", calls[i], nth);
            unsigned long before = cuda_mock_counted().failures;
            setenv("LK_MOCK_CUDA_FAIL", plan, 1);
            lk_status status = use_row(true, problem);
            unsetenv("LK_MOCK_CUDA_FAIL");
            ck_assert_msg(cuda_mock_counted().live == 0, "%s leaves %lu objects", plan, cuda_mock_counted().live);
            if (cuda_mock_counted().failures == before) {
                SUCCEEDS(status);
                break;
            }
            failures++;
            ck_assert_msg(status == LK_STATUS_DEVICE, "%s", plan);
            ck_assert_msg(strstr(lk_error_message(context), "attention_backward at ") != NULL &&
                              strstr(lk_error_message(context), "cuDNN: ") != NULL &&
                              strstr(lk_error_message(context), "LORIKEET_CUDNN=none") != NULL,
                          "%s: %s", plan, lk_error_message(context));
        }
    }
    ck_assert_int_ge(failures, 4);
}
END_TEST

/* ---- a program ---- */

/* Attention in a session, by cuDNN if it is sound: the kernel that made it. The result is right in any case. */
static const char *made_by(void) {
    lk_session_options options;
    lk_session *session;
    lk_session_options_init(&options);
    options.device = "cuda";
    options.kernels = "cuda_attention_cudnn,cuda_flash_attention";
    SUCCEEDS(lk_session_create(context, &options, &session));
    fixture self = {.context = context, .num_devices = session->num_devices};
    memcpy(self.devices, session->devices, sizeof self.devices);
    SUCCEEDS(lk_variables_create(context, self.devices[0], &self.variables));
    static double values[TOKENS * Q_WIDTH];
    for (int i = 0; i < TOKENS * Q_WIDTH; i++) {
        values[i] = (double)(i * 37 % 64 - 32) / 64.0; /* exact in bf16 */
    }
    const double borders[ENTRIES] = {0.0, 20.0, 40.0, 40.0}; /* one is empty, and rows belong to none */
    lk_variable *q = fixture_variable(&self, LK_ROLE_INPUT, LK_DTYPE_F32, 2, TOKENS, Q_WIDTH, values);
    lk_variable *k = fixture_variable(&self, LK_ROLE_INPUT, LK_DTYPE_F32, 2, TOKENS, K_WIDTH, values + 11);
    lk_variable *cu_seqlens = fixture_variable(&self, LK_ROLE_INPUT, LK_DTYPE_I32, 1, ENTRIES, 0, borders);
    attention like;
    make_attention(&like, false);
    lk_graph *graph;
    SUCCEEDS(lk_graph_create(context, &graph));
    lk_tensor *keys = lk_graph_variable(graph, k);
    lk_tensor *o =
        lk_build_attention(graph, lk_graph_variable(graph, q), keys, keys, lk_graph_variable(graph, cu_seqlens), NULL,
                           NULL, &like.node.attributes.attention);
    lk_graph_mark_output(graph, o);
    lk_program *program;
    lk_program_options with = {&session->preferences, self.devices, self.num_devices, false};
    SUCCEEDS(lk_program_compile(context, graph, &with, &program));
    const char *name = lk_program_placement(program, 0).kernel->name;
    fixture_run(program);
    double *found = fixture_output(program, o);
    for (int row = 0; row < TOKENS; row++) { /* the first of a sequence is its value; those of none are zeros */
        bool is_first = row == 0 || row == 20;
        for (int d = 0; d < Q_WIDTH && (is_first || row >= 40); d++) {
            double expected = is_first ? values[11 + row * K_WIDTH + d / (2 * SIZE) * SIZE + d % SIZE] : 0.0;
            ck_assert_msg(fabs(found[row * Q_WIDTH + d] - expected) <= 1e-6, "row %d, %d: %g, expected %g", row, d,
                          found[row * Q_WIDTH + d], expected);
        }
    }
    free(found);
    lk_program_destroy(program);
    lk_variables_destroy(self.variables);
    lk_session_destroy(session);
    return name;
}

START_TEST(test_a_program_takes_it) {
    ck_assert_str_eq(made_by(), "cuda_attention_cudnn");
    ck_assert_str_eq(last_warning, "");
}
END_TEST

START_TEST(test_wrong_results_are_dropped) {
    setenv("LK_MOCK_CUDNN_WRONG", "1", 1);
    ck_assert_str_eq(made_by(), "cuda_flash_attention");
    unsetenv("LK_MOCK_CUDNN_WRONG");
    ck_assert_msg(strstr(last_warning, "cuda_attention_cudnn computes wrong results on cuda:0") != NULL, "%s",
                  last_warning);
}
END_TEST

START_TEST(test_what_does_not_start_is_dropped) {
    setenv("LK_MOCK_CUDA_FAIL", "lk_cudnn_plan_create:1:1", 1);
    ck_assert_str_eq(made_by(), "cuda_flash_attention");
    unsetenv("LK_MOCK_CUDA_FAIL");
    ck_assert_msg(strstr(last_warning, "cuda_attention_cudnn cannot be used on cuda:0") != NULL, "%s", last_warning);
}
END_TEST

/* The backward of an 8B model has a case that is small enough to be checked. */
START_TEST(test_large_shapes_are_checked) {
    lk_session_options options;
    lk_session *session;
    lk_session_options_init(&options);
    options.device = "cuda";
    SUCCEEDS(lk_session_create(context, &options, &session));
    attention self;
    make_attention(&self, true);
    self.q.shape[0] = self.k.shape[0] = self.lse.shape[0] = self.dq.shape[0] = self.dk.shape[0] = self.dv.shape[0] =
        4096;
    self.q.shape[1] = self.dq.shape[1] = 4096;
    self.k.shape[1] = self.dk.shape[1] = self.dv.shape[1] = 1024;
    self.lse.shape[1] = self.node.attributes.attention.num_attention_heads = 32;
    self.node.attributes.attention.num_key_value_heads = 8;
    self.node.attributes.attention.head_dim = 128;
    bool sound = false;
    setenv("LK_MOCK_CUDNN_WRONG", "1", 1);
    SUCCEEDS(
        session->preferences.check(session, session->devices[0], cuda_row_called(row_of(true)), &self.node, &sound));
    unsetenv("LK_MOCK_CUDNN_WRONG");
    ck_assert(!sound);
    lk_session_destroy(session);
}
END_TEST

/* ---- absence and refusals ---- */

/* In a process of its own: the plugin is looked for once. */
START_TEST(test_absent) {
    static const struct {
        const char *name, *value, *reason;
    } settings[] = {{"LORIKEET_CUDNN", "none", "LORIKEET_CUDNN is none"},
                    {"LORIKEET_CUDNN", "/nowhere/plugin.so", "the plugin /nowhere/plugin.so cannot be loaded"},
                    {"LORIKEET_CUDNN", "libm.so.6", "the plugin has no function lk_cudnn_abi_version"},
                    {"LK_MOCK_CUDNN_ABI", "7", "the plugin has interface version 7, expected 1"}};
    setenv(settings[_i].name, settings[_i].value, 1);
    lk_device_caps caps;
    int count;
    SUCCEEDS(cuda->probe(context, &caps, 1, &count));
    ck_assert_uint_eq(caps.features & LK_CUDA_FEATURE_CUDNN, 0);
    ck_assert_ptr_null(strstr(caps.driver, "cuDNN"));
    ck_assert_str_eq(cuda->absent(1), settings[_i].reason);
    char *text, line[128];
    SUCCEEDS(lk_probe(context, false, &text));
    snprintf(line, sizeof line, "without   cudnn: %s\n", settings[_i].reason);
    ck_assert_msg(strstr(text, line) != NULL, "%s", text);
    lk_release(context, text);
    attention self;
    lk_refusal why = {""};
    make_attention(&self, false);
    ck_assert(!cuda_row_called(row_of(false))->supports(&caps, &self.node, &why));
    ck_assert_str_eq(why.reason, "cuDNN is not there; `lorikeet probe` says why");
}
END_TEST

static void expect_refusal(const lk_device_caps *caps, const attention *self, const char *reason) {
    lk_refusal why = {""};
    const lk_kernel *row = cuda_row_called(row_of(self->node.op == LK_OP_ATTENTION_BACKWARD));
    ck_assert_int_eq(row->supports(caps, &self->node, &why), reason[0] == '\0');
    ck_assert_str_eq(why.reason, reason);
}

START_TEST(test_refusals) {
    lk_device_caps caps, other;
    int count;
    attention self;
    SUCCEEDS(cuda->probe(context, &caps, 1, &count));
    ck_assert_uint_ne(caps.features & LK_CUDA_FEATURE_CUDNN, 0);
    ck_assert_ptr_nonnull(strstr(caps.driver, "cuDNN 9.19.0"));
    ck_assert_ptr_null(cuda->absent(1));
    for (int backward = 0; backward < 2; backward++) {
        lk_attention_attributes *a = &self.node.attributes.attention;
        make_attention(&self, backward != 0);
        expect_refusal(&caps, &self, "");
        static const int old_or_small[] = {80, 86, 89, 120};
        for (size_t i = 0; i < LK_COUNT(old_or_small); i++) {
            other = caps;
            other.capability = old_or_small[i];
            expect_refusal(&other, &self, "cuDNN's attention of packed sequences needs compute capability 9.0 to 11");
        }
        a->window = 16;
        expect_refusal(&caps, &self, "a window");
        make_attention(&self, backward != 0);
        a->head_dim = 40;
        expect_refusal(&caps, &self, "head_dim is no multiple of 16 up to 128");
        make_attention(&self, backward != 0);
        a->head_dim = 256;
        expect_refusal(&caps, &self, "head_dim is no multiple of 16 up to 128");
        make_attention(&self, backward != 0);
        a->allow_bf16 = false;
        expect_refusal(&caps, &self, "the weights are not stored in bf16");
    }
    make_attention(&self, false);
    self.inputs[4] = &self.borders;
    self.node.num_inputs = 5;
    expect_refusal(&caps, &self, "keys come from a cache");
    make_attention(&self, false);
    self.node.outputs[0] = NULL;
    expect_refusal(&caps, &self, "only the log-sum-exps are asked for");
}
END_TEST

/* ---- cuDNN itself ---- */

/* As cudnn_frontend::DeviceProperties writes them, of an SXM card. */
static const char described[] =
    "{\"maxGridSize\": [2147483647, 65535, 65535], \"maxBlockSize\": [1024, 1024, 64], \"regsPerBlock\": 65536, "
    "\"multiProcessorCount\": %d, \"warpSize\": 32, \"maxSharedMemoryPerBlock\": 49152, "
    "\"maxSharedMemoryPerBlockOptin\": 232448, \"reservedSharedMemoryPerBlock\": 1024, \"maxRegistersPerSM\": 65536, "
    "\"maxCtasPerSM\": 32, \"maxThreadsPerBlock\": 1024, \"maxThreadsPerSM\": 2048, \"pciDeviceId\": 0, "
    "\"isTccDriver\": 0, \"supportCoopLaunch\": 1, \"smClockRateKHz\": 1980000, \"memClockRateKHz\": 2619000, "
    "\"l2CacheSize\": 52428800, \"deviceName\": \"%s\", \"deviceVer\": %d, \"cudaDeviceId\": 0, \"driverVer\": 13000, "
    "\"totalGlobalMem\": 85000000000}";

/* cuDNN compiles a plan of every shape, and asks for no more workspace than is planned. */
START_TEST(test_described_cards) {
    static const struct {
        const char *card;
        int capability, units;
        lk_cudnn_attention shape; /* forward, then backward */
    } cases[] = {{"H100", 900, 132, {4096, 2, 32, 8, 128, 0.088f, 1, 0, 1}},
                 {"H100", 900, 132, {8192, 64, 9, 3, 64, 0.125f, 1, 0, 1}},
                 {"H100", 900, 132, {301, 3, 8, 8, 80, 0.1f, 0, 0, 0}},
                 {"B200", 1000, 148, {4096, 2, 32, 8, 128, 0.088f, 1, 0, 1}}};
    const char *path = getenv("LK_CUDNN_PLUGIN"), *library = getenv("LK_CUDNN_LIBRARY");
    if (path == NULL || path[0] == '\0') {
        printf("SKIP: 1 check: cuDNN's plugin was not built\n");
        return;
    }
    if (library != NULL && library[0] != '\0') { /* where the loader does not look */
        ck_assert_msg(dlopen(library, RTLD_NOW | RTLD_LOCAL) != NULL, "%s", library);
    }
    ck_assert_ptr_nonnull(dlopen(getenv("LK_MOCK_CUDA_LOADS"), RTLD_NOW | RTLD_LOCAL));
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(plugin != NULL, "%s", path);
    struct {
#define LK_CUDNN(name, result, parameters) result(*name) parameters;
#include "backends/cuda/plugin/cudnn_plugin.def"
#undef LK_CUDNN
    } dnn;
#define LK_CUDNN(name, result, parameters)                         \
    do {                                                           \
        void *symbol = dlsym(plugin, #name);                       \
        ck_assert_msg(symbol != NULL, "the plugin has no " #name); \
        memcpy((void *)&dnn.name, &symbol, sizeof symbol);         \
    } while (0);
#include "backends/cuda/plugin/cudnn_plugin.def"
#undef LK_CUDNN
    char problem[LK_CUDNN_PROBLEM] = "", text[2048];
    int64_t version;
    ck_assert_uint_eq(dnn.lk_cudnn_abi_version(), LK_CUDNN_ABI_VERSION);
    if (dnn.lk_cudnn_load(&version, problem) != LK_CUDNN_SUCCESS) {
        printf("SKIP: 1 check: %s\n", problem);
        return;
    }
    lk_cudnn *handle;
    ck_assert_int_ne(dnn.lk_cudnn_open("{}", &handle, problem), LK_CUDNN_SUCCESS);
    ck_assert_ptr_null(handle);
    for (size_t i = 0; i < LK_COUNT(cases); i++) {
        snprintf(text, sizeof text, described, cases[i].units, cases[i].card, cases[i].capability);
        ck_assert_msg(dnn.lk_cudnn_open(text, &handle, problem) == LK_CUDNN_SUCCESS, "%s", problem);
        for (int backward = 0; backward < 2; backward++) {
            lk_cudnn_attention shape = cases[i].shape;
            lk_cudnn_plan *plan;
            size_t bytes = 0, planned;
            shape.backward = backward;
            shape.wants_lse = shape.wants_lse && !backward;
            planned = lk_cuda_dnn_workspace(&shape);
            int result = dnn.lk_cudnn_plan_create(handle, &shape, &plan, &bytes, problem);
            ck_assert_msg(result == LK_CUDNN_SUCCESS, "%s, case %zu, %d: %s", cases[i].card, i, backward, problem);
            printf("cuDNN %d on %s: %s T=%d heads=%d/%d D=%d: workspace %zu of %zu bytes\n", (int)version,
                   cases[i].card, backward ? "backward" : "forward", (int)shape.tokens, shape.num_attention_heads,
                   shape.num_key_value_heads, shape.head_dim, bytes, planned);
            ck_assert_uint_le(bytes, planned);
            dnn.lk_cudnn_plan_destroy(plan);
        }
        dnn.lk_cudnn_close(handle);
    }
}
END_TEST

int main(void) {
    if (getenv("LK_MOCK") == NULL) {
        printf("SKIP: no mock driver in this build\n");
        return 77;
    }
    if (mkdtemp(folder) == NULL) {
        return EXIT_FAILURE;
    }
    TCase *tests = tcase_create("cuda-cudnn");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_planned_once_per_shape);
    tcase_add_test(tests, test_every_call_fails_once);
    tcase_add_test(tests, test_a_program_takes_it);
    tcase_add_test(tests, test_wrong_results_are_dropped);
    tcase_add_test(tests, test_what_does_not_start_is_dropped);
    tcase_add_test(tests, test_large_shapes_are_checked);
    tcase_add_loop_test(tests, test_absent, 0, 4);
    tcase_add_test(tests, test_refusals);
    tcase_add_test(tests, test_described_cards);
    int failed = run_case("cuda-cudnn", tests);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return failed || system(command) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
