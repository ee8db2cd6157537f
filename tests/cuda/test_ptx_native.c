/* Wrong inline assembly in the native kernels is found: nvcc's PTX of shaders/native/cuda with one thing changed
 * everywhere is executed by the interpreter (tests/cuda/ptx) on the mock driver, and some case of the op must fail. The
 * emulator cannot see such mistakes, it takes the place of the assembly. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/common/runner.h"
#include "tests/ops/harness.h"

typedef enum edit {
    NOTHING,
    REPLACE,     /* old by new */
    SWAP_IN_B,   /* the two registers of mma's second operand */
    SWAP_IN_A,   /* the middle two of its first */
    SWAP_SOURCES /* of an instruction that begins with old: the last two operands */
} edit;

static const struct {
    lk_op op;
    const char *row, *file;
    edit edit;
    const char *old, *new;
} changes[] = {
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "gemm", NOTHING, NULL, NULL},
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "gemm", REPLACE, ".x4.trans.shared", ".x4.shared"},
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "gemm", REPLACE, ".x4.shared", ".x4.trans.shared"},
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "gemm", SWAP_IN_A, NULL, NULL},
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "gemm", SWAP_IN_B, NULL, NULL},
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "gemm", REPLACE, "cp.async.wait_group 2", "cp.async.wait_group 3"},
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "gemm", REPLACE, "cp.async.commit_group;", ";"},
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "gemm", REPLACE, "bar.sync \t0;", ";"},
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "gemm", REPLACE, ".bf16.bf16.f32", ".f16.f16.f32"},
    {LK_OP_MATMUL, "cuda_matmul_mma_bf16", "round_rows", SWAP_SOURCES, "cvt.rn.bf16x2.f32", NULL},
    {LK_OP_ATTENTION, "cuda_flash_attention", "flash_attention", NOTHING, NULL, NULL},
    {LK_OP_ATTENTION, "cuda_flash_attention", "flash_attention", REPLACE, ".x4.trans.shared", ".x4.shared"},
    {LK_OP_ATTENTION, "cuda_flash_attention", "flash_attention", SWAP_IN_A, NULL, NULL},
    {LK_OP_ATTENTION, "cuda_flash_attention", "flash_attention", SWAP_SOURCES, "cvt.rn.bf16x2.f32", NULL},
    {LK_OP_ATTENTION, "cuda_flash_attention", "flash_attention", REPLACE, "ex2.approx.ftz.f32", "mov.f32"},
    {LK_OP_ATTENTION, "cuda_flash_attention", "flash_attention", REPLACE, "bar.sync \t0;", ";"},
    {LK_OP_ATTENTION_BACKWARD, "cuda_flash_attention_backward", "flash_attention_backward", NOTHING, NULL, NULL},
    {LK_OP_ATTENTION_BACKWARD, "cuda_flash_attention_backward", "flash_attention_backward", REPLACE, ".x4.trans.shared",
     ".x4.shared"},
    {LK_OP_ATTENTION_BACKWARD, "cuda_flash_attention_backward", "flash_attention_backward", SWAP_SOURCES,
     "cvt.rn.bf16x2.f32", NULL},
};

static lk_context *context;
static char folder[64];

static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(file);
    char *text = malloc(size + 1);
    rewind(file);
    ck_assert_uint_eq(fread(text, 1, size, file), size);
    text[size] = '\0';
    fclose(file);
    return text;
}

static void write_file(const char *name, const char *text, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s.ptx", folder, name);
    FILE *file = fopen(path, "wb");
    ck_assert(file != NULL && fwrite(text, 1, size, file) == size && fclose(file) == 0);
}

/* Swaps the words at two places, the first before the second; both end at one of ",;} ". */
static void swap_words(char *first, char *second) {
    size_t one = strcspn(first, ",;} "), two = strcspn(second, ",;} "), between = (size_t)(second - first) - one;
    char words[256];
    ck_assert_uint_lt(one + between + two, sizeof words);
    snprintf(words, sizeof words, "%.*s%.*s%.*s", (int)two, second, (int)between, first + one, (int)one, first);
    memcpy(first, words, one + between + two);
}

static char *word_after(char *at, int count) {
    for (int i = 0; i < count; i++) {
        at = strchr(at, ',') + 1;
        at += strspn(at, " \t{");
    }
    return at;
}

/* How often something was changed. */
static int change(char *text, int index, char **out) {
    const char *old = changes[index].old, *new = changes[index].new;
    int count = 0;
    if (changes[index].edit == REPLACE) { /* never longer by more than 1 in 10 */
        char *changed = malloc(strlen(text) * 2 + 1), *to = changed;
        for (const char *at = text; *at != '\0';) {
            if (strncmp(at, old, strlen(old)) == 0) {
                to = stpcpy(to, new);
                at += strlen(old);
                count++;
            } else {
                *to++ = *at++;
            }
        }
        *to = '\0';
        *out = changed;
        return count;
    }
    old = changes[index].edit == SWAP_SOURCES ? old : "mma.sync";
    for (char *at = text; (at = strstr(at, old)) != NULL; at++, count++) {
        /* mma: four results, then four of a, two of b */
        int first = changes[index].edit == SWAP_SOURCES ? 1 : changes[index].edit == SWAP_IN_A ? 5 : 8;
        char *word = word_after(at, first);
        swap_words(word, word_after(word, 1));
    }
    *out = text;
    return count;
}

static void setup(void) {
    snprintf(folder, sizeof folder, "lk_ptx_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void teardown(void) {
    lk_context_destroy(context);
}

/* How many of the op's cases fail on a row. */
static int failing_cases(lk_op op, const char *row, bool all, int *taken) {
    lk_device_caps caps;
    lk_device *device;
    int count, num_rows, failing = 0;
    const op_case *cases = op_cases(&count);
    ck_assert_int_eq(lk_backend_cuda.probe(context, &caps, 1, &num_rows), LK_OK);
    ck_assert_int_eq(lk_backend_cuda.open(context, &caps, NULL, &device), LK_OK);
    const lk_kernel *rows = lk_backend_cuda.kernels(&num_rows);
    for (int i = 0; i < count && (all || failing == 0); i++) {
        if (cases[i].op != op) {
            continue;
        }
        op_instance instance;
        lk_refusal why;
        ck_assert_msg(op_instance_make(context, &cases[i], 1, &instance) == LK_OK, "%s", lk_error_message(context));
        for (int k = 0; k < num_rows && (all || failing == 0); k++) {
            if (strcmp(rows[k].name, row) == 0 && rows[k].supports(&device->caps, &instance.node, &why)) {
                op_verdict verdict = {.problem = ""};
                lk_status status = op_instance_check(&instance, device, &rows[k], &verdict);
                failing += status != LK_OK || verdict.problem[0] != '\0';
                (*taken)++;
            }
        }
        op_instance_free(&instance);
    }
    lk_backend_cuda.close(device);
    return failing;
}

/* Each in a process of its own: the mock reads the folder once. */
START_TEST(test_change) {
    static const char *const needed[] = {
        "gemm", "round_rows", "matmul", "flash_attention", "flash_attention_backward", "attention_backward"};
    int changed = 0, taken = 0;
    for (size_t f = 0; f < LK_COUNT(needed); f++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s.ptx", getenv("LK_PTX_FOLDER"), needed[f]);
        char *text = read_file(path), *result = text;
        if (strcmp(needed[f], changes[_i].file) == 0 && changes[_i].edit != NOTHING) {
            changed = change(text, _i, &result);
        }
        write_file(needed[f], result, strlen(result));
        if (result != text) {
            free(result);
        }
        free(text);
    }
    setenv("LK_MOCK_CUDA_PTX", folder, 1);
    bool is_right = changes[_i].edit == NOTHING;
    int failing = failing_cases(changes[_i].op, changes[_i].row, is_right, &taken);
    for (size_t f = 0; f < LK_COUNT(needed); f++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s.ptx", folder, needed[f]);
        remove(path);
    }
    rmdir(folder);
    ck_assert_int_gt(taken, 0);
    ck_assert_msg(is_right || changed > 0, "there is nothing to change");
    ck_assert_msg(is_right == (failing == 0), "%s, change %d: %d of %d cases fail", changes[_i].file, _i, failing,
                  taken);
}
END_TEST

int main(void) {
    if (getenv("LK_MOCK") == NULL || getenv("LK_PTX_FOLDER") == NULL) {
        printf("SKIP: no mock driver in this build\n");
        return 77;
    }
    TCase *tests = tcase_create("cuda-ptx-native");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_change, 0, LK_COUNT(changes));
    return run_case("cuda-ptx-native", tests);
}
