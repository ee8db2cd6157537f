/* The interpreter of PTX finds what it is there for: a kernel with the instructions of the native kernels (asynchronous
 * copies, ldmatrix, mma) is right, and each of a list of mistakes in its text is noticed. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/base.h"
#include "tests/common/runner.h"
#include "tests/cuda/ptx/ptx.h"

/* D = A B, A[16][16] and B[16][8] bf16. Warp 0 copies A, warp 1 copies B; then warp 0 writes D as floats and warp 1 as
 * pairs of bf16. Rows of A lie 48 bytes apart in shared memory. */
static const char kernel_text[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".extern .shared .align 16 .b8 memory[];\n"
    ".visible .entry product(\n"
    "    .param .u64 product_a,\n    .param .u64 product_b,\n    .param .u64 product_d,\n    .param .u64 product_e\n"
    ")\n.maxntid 64, 1, 1\n{\n"
    "    .reg .pred %p<4>;\n    .reg .f32 %f<5>;\n    .reg .b32 %r<40>;\n    .reg .b64 %rd<16>;\n"
    "    ld.param.u64 %rd1, [product_a];\n    ld.param.u64 %rd2, [product_b];\n"
    "    ld.param.u64 %rd3, [product_d];\n    ld.param.u64 %rd4, [product_e];\n"
    "    cvta.to.global.u64 %rd1, %rd1;\n    cvta.to.global.u64 %rd2, %rd2;\n"
    "    mov.u32 %r1, %tid.x;\n    and.b32 %r2, %r1, 31;\n    mov.u32 %r3, memory;\n    add.s32 %r4, %r3, 768;\n"
    "    setp.gt.u32 %p1, %r1, 31;\n    @%p1 bra $copy_b;\n"
    "    shr.u32 %r5, %r2, 1;\n    and.b32 %r6, %r2, 1;\n    shl.b32 %r6, %r6, 4;\n" /* row, half */
    "    mad.lo.s32 %r7, %r5, 48, %r6;\n    add.s32 %r7, %r7, %r3;\n"
    "    mul.wide.u32 %rd5, %r2, 16;\n    add.s64 %rd5, %rd1, %rd5;\n"
    "    // begin inline asm\n    cp.async.cg.shared.global [%r7], [%rd5], 16, 16;\n    // end inline asm\n"
    "    bra.uni $copied;\n"
    "$copy_b:\n"
    "    setp.gt.u32 %p2, %r2, 15;\n    @%p2 bra $copied;\n"
    "    shl.b32 %r8, %r2, 4;\n    add.s32 %r9, %r8, %r4;\n    cvt.u64.u32 %rd6, %r8;\n    add.s64 %rd6, %rd2, %rd6;\n"
    "    cp.async.cg.shared.global [%r9], [%rd6], 16, 16;\n"
    "$copied:\n"
    "    cp.async.commit_group;\n"
    "    cp.async.wait_group 0;\n"
    "    bar.sync 0;\n"
    "    and.b32 %r10, %r2, 15;\n    shr.u32 %r11, %r2, 4;\n    shl.b32 %r11, %r11, 4;\n"
    "    mad.lo.s32 %r12, %r10, 48, %r11;\n    add.s32 %r12, %r12, %r3;\n"
    "    shl.b32 %r13, %r10, 4;\n    add.s32 %r13, %r13, %r4;\n"
    "    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r20, %r21, %r22, %r23}, [%r12];\n"
    "    ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r24, %r25}, [%r13];\n"
    "    mov.f32 %f1, 0f00000000;\n    mov.f32 %f2, %f1;\n    mov.f32 %f3, %f1;\n    mov.f32 %f4, %f1;\n"
    "    {\n"
    "    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r20, %r21, %r22, %r23}, {%r24, "
    "%r25}, {%f1, %f2, %f3, %f4};\n"
    "    }\n"
    "    shr.u32 %r14, %r2, 2;\n    and.b32 %r15, %r2, 3;\n    shl.b32 %r15, %r15, 1;\n"
    "    mad.lo.s32 %r16, %r14, 8, %r15;\n" /* element of D */
    "    @%p1 bra $as_bf16;\n"
    "    mul.wide.u32 %rd7, %r16, 4;\n    add.s64 %rd8, %rd3, %rd7;\n"
    "    st.global.v2.f32 [%rd8], {%f1, %f2};\n    st.global.v2.f32 [%rd8+256], {%f3, %f4};\n"
    "    bra.uni $end;\n"
    "$as_bf16:\n"
    "    cvt.rn.bf16x2.f32 %r17, %f2, %f1;\n    cvt.rn.bf16x2.f32 %r18, %f4, %f3;\n"
    "    mul.wide.u32 %rd7, %r16, 2;\n    add.s64 %rd9, %rd4, %rd7;\n"
    "    st.global.u32 [%rd9], %r17;\n    st.global.u32 [%rd9+128], %r18;\n"
    "$end:\n"
    "    ret;\n}\n";

enum { SHARED_BYTES = 768 + 256 };

typedef struct operands {
    uint16_t a[16][16], b[16][8];
    float d[16][8];
    uint16_t e[16][8];
} operands;

static bool is_operand(void *user, uint64_t address, size_t bytes) {
    const operands *all = user;
    const struct {
        const void *start;
        size_t bytes;
    } parts[] = {{all->a, sizeof all->a}, {all->b, sizeof all->b}, {all->d, sizeof all->d}, {all->e, sizeof all->e}};
    for (size_t k = 0; k < LK_COUNT(parts); k++) {
        uint64_t start = (uint64_t)(uintptr_t)parts[k].start;
        if (address >= start && address + bytes <= start + parts[k].bytes) {
            return true;
        }
    }
    return false;
}

/* Whole numbers of at most 3 bits: all is exact, also in bf16. */
static int a_at(int row, int k) {
    return (row * 5 + k * 3) % 7 - 3;
}
static int b_at(int k, int column) {
    return (k * 2 + column * 3) % 5 - 2;
}

static uint16_t bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Runs a text; how many elements are wrong, or -1 with the message of the fault. */
static int wrong_elements(const char *text, ptx_counts *counts, char message[PTX_MESSAGE]) {
    static operands all;
    ptx_module *module = ptx_module_parse(text, message);
    if (module == NULL) {
        return -1;
    }
    memset(&all, 0xff, sizeof all);
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 16; j++) {
            all.a[i][j] = bf16((float)a_at(i, j));
            all.b[i][j % 8] = bf16((float)b_at(i, j % 8));
        }
    }
    uint64_t addresses[4] = {(uintptr_t)all.a, (uintptr_t)all.b, (uintptr_t)all.d, (uintptr_t)all.e};
    void *arguments[4] = {&addresses[0], &addresses[1], &addresses[2], &addresses[3]};
    ptx_launch launch = {.grid = {1, 1, 1},
                         .lanes = 64,
                         .shared_bytes = SHARED_BYTES,
                         .arguments = arguments,
                         .is_memory = is_operand,
                         .user = &all,
                         .counts = counts};
    bool done = ptx_run(ptx_module_find(module, "product"), &launch, message);
    int wrong = 0;
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 8; j++) {
            float expected = 0.0f;
            for (int k = 0; k < 16; k++) {
                expected += (float)(a_at(i, k) * b_at(k, j));
            }
            wrong += !(all.d[i][j] == expected && all.e[i][j] == bf16(expected));
        }
    }
    ptx_module_free(module);
    return done ? wrong : -1;
}

START_TEST(test_right) {
    char message[PTX_MESSAGE];
    ptx_counts counts = {0};
    int wrong = wrong_elements(kernel_text, &counts, message);
    ck_assert_msg(wrong == 0, "%d wrong elements, %s", wrong, message);
    ck_assert_uint_eq(counts.mma, 2);
    ck_assert_uint_eq(counts.ldmatrix, 4);
    ck_assert_uint_eq(counts.async_copies, 48);
    ck_assert_uint_eq(counts.ldmatrix_rows, 12);
    ck_assert_uint_eq(counts.ldmatrix_ways, 12); /* rows 48 bytes apart, and 16: no bank twice */
}
END_TEST

/* message NULL: the result must be wrong. */
static const struct {
    const char *old, *new, *message;
} mistakes[] = {
    {"{%r20, %r21, %r22, %r23}, {%r24", "{%r20, %r22, %r21, %r23}, {%r24", NULL},
    {"{%r24, %r25}, {%f1", "{%r25, %r24}, {%f1", NULL},
    {"x2.trans.shared", "x2.shared", NULL},
    {"%r17, %f2, %f1", "%r17, %f1, %f2", NULL},
    {"cvt.rn.bf16x2.f32 %r18", "cvt.rn.f16x2.f32 %r18", NULL},
    {"{%f1, %f2, %f3, %f4}, {%r20", "{%f1, %f3, %f2, %f4}, {%r20", NULL},
    {"[%rd5], 16, 16", "[%rd5], 16, 8", NULL},
    {"[%rd8+256]", "[%rd8+248]", NULL},
    {"    cp.async.wait_group 0;\n", "", "nobody has waited for the asynchronous copy"},
    {"wait_group 0", "wait_group 1", "nobody has waited for the asynchronous copy"},
    {"    cp.async.commit_group;\n", "", "nobody has waited for the asynchronous copy"},
    {"    bar.sync 0;\n", "", "another lane was there since the last barrier"},
    {"    bar.sync 0;\n", "    @%p1 bar.sync 0;\n", "lanes part at an instruction for all of them"},
    {"    bar.sync 0;\n", "    @%p1 bra $skip;\n    bar.sync 0;\n$skip:\n", "another lane was there"},
    {"    bar.sync 0;\n", "    @%p1 bra $end;\n    bar.sync 0;\n", "has ended, while others wait"},
    {"add.s32 %r4, %r3, 768", "add.s32 %r4, %r3, 784", "shared byte"},
    {"add.s32 %r4, %r3, 768", "add.s32 %r4, %r3, 704", "another lane was there"},
    {"mad.lo.s32 %r12, %r10, 48", "mad.lo.s32 %r12, %r10, 40", "is not aligned to 16 bytes"},
    {"[%rd9+128]", "[%rd9+1128]", "is outside of all buffers"},
    {"mul.wide.u32 %rd7, %r16, 4;", "mul.wide.u32 %rd7, %r16, 2;", "is not aligned to 8 bytes"},
    {"    ldmatrix.sync.aligned.m8n8.x4", "    @%p1 bra $copied;\n    ldmatrix.sync.aligned.m8n8.x4", "barrier"},
    {"    mma.sync", "    setp.gt.u32 %p3, %r2, 15;\n    @%p3 bra $end;\n    mma.sync",
     "do not come to this instruction"},
    {"cp.async.cg.shared.global [%r7], [%rd5], 16, 16", "cp.async.cg.shared.global [%r7], [%rd5], 8", "a copy of 8"},
    {"bf16.bf16.f32 {%f1", "bf16.f16.f32 {%f1", "unknown instruction"},
    {"shl.b32 %r6, %r6, 4", "shl.b32 %r6, %r6, 5", NULL},
    {"add.s64 %rd5, %rd1, %rd5", "add.s64 %rd5, %rd77, %rd5", "unknown register"},
    {"bra.uni $end", "bra.uni $ende", "unknown label"},
};

START_TEST(test_mistake) {
    char text[sizeof kernel_text + 128], message[PTX_MESSAGE];
    const char *at = strstr(kernel_text, mistakes[_i].old);
    ck_assert_msg(at != NULL, "%s", mistakes[_i].old);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - kernel_text), kernel_text, mistakes[_i].new,
             at + strlen(mistakes[_i].old));
    int wrong = wrong_elements(text, NULL, message);
    if (mistakes[_i].message == NULL) {
        ck_assert_msg(wrong > 0, "%s: not noticed (%s)", mistakes[_i].new, message);
    } else {
        ck_assert_msg(wrong == -1 && strstr(message, mistakes[_i].message) != NULL, "%s: %s", mistakes[_i].new,
                      message);
    }
}
END_TEST

/* Lanes that part meet again: each counts down from its number. */
START_TEST(test_divergence) {
    static const char text[] = ".visible .entry count(\n    .param .u64 count_y\n)\n{\n"
                               "    .reg .pred %p<3>;\n    .reg .b32 %r<6>;\n    .reg .b64 %rd<4>;\n"
                               "    ld.param.u64 %rd1, [count_y];\n    mov.u32 %r1, %tid.x;\n    mov.u32 %r2, 0;\n"
                               "    mov.u32 %r3, %r1;\n"
                               "$loop:\n    setp.eq.s32 %p1, %r3, 0;\n    @%p1 bra $done;\n"
                               "    add.s32 %r2, %r2, %r3;\n    add.s32 %r3, %r3, -1;\n    bra.uni $loop;\n"
                               "$done:\n    shfl.sync.bfly.b32 %r4|%p2, %r2, 1, 31, -1;\n"
                               "    mul.wide.u32 %rd2, %r1, 4;\n    add.s64 %rd3, %rd1, %rd2;\n"
                               "    st.global.u32 [%rd3], %r4;\n    ret;\n}\n";
    static operands all;
    char message[PTX_MESSAGE];
    ptx_module *module = ptx_module_parse(text, message);
    ck_assert_msg(module != NULL, "%s", message);
    uint64_t address = (uintptr_t)all.d;
    void *arguments[1] = {&address};
    ptx_launch launch = {.grid = {1, 1, 1}, .lanes = 64, .arguments = arguments, .is_memory = is_operand, .user = &all};
    ck_assert_msg(ptx_run(ptx_module_find(module, "count"), &launch, message), "%s", message);
    uint32_t values[64];
    memcpy(values, all.d, sizeof values);
    for (uint32_t lane = 0; lane < 64; lane++) {
        uint32_t other = lane ^ 1u;
        ck_assert_uint_eq(values[lane], other * (other + 1) / 2);
    }
    ptx_module_free(module);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("cuda-ptx");
    tcase_add_test(tests, test_right);
    tcase_add_loop_test(tests, test_mistake, 0, LK_COUNT(mistakes));
    tcase_add_test(tests, test_divergence);
    return run_case("cuda-ptx", tests);
}
