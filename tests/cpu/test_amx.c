/* The AMX kernels (simd/amx.h) on a processor without AMX: compiled over intrinsics in C (tests/cpu/amx.h), which also
 * find what the processor would refuse. Their objects take the place of the library's in this program. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/common/runner.h"
#include "tests/ops/harness.h"

#if defined(LK_USE_AMX)
#include "backends/cpu/gemm.h"
#include "tests/cpu/amx.h"

static const uint64_t seed = 20261125;

static void no_faults(const char *where) {
    const char *last;
    int count = amx_faults(&last);
    ck_assert_msg(count == 0, "%s: %d faults, the last: %s", where, count, last);
}

/* ---- the emulation itself ---- */

static void configure(int rows, int bytes) {
    unsigned char configuration[64] = {1};
    for (int i = 0; i < 8; i++) {
        configuration[16 + 2 * i] = (unsigned char)bytes;
        configuration[48 + i] = (unsigned char)rows;
    }
    amx_configure(configuration);
}

static void one_fault(const char *what) {
    const char *last = "none";
    ck_assert_int_eq(amx_faults(&last), 1);
    ck_assert_msg(strstr(last, what) != NULL, "%s instead of %s", last, what);
}

START_TEST(test_misuse_is_found) {
    float memory[16 * 16];
    amx_zero(0);
    one_fault("not configured");
    configure(17, 64);
    amx_release();
    ck_assert_int_eq(amx_faults(NULL), 8);
    configure(16, 80);
    amx_release();
    ck_assert_int_eq(amx_faults(NULL), 8);
    configure(16, 64);
    amx_load(8, memory, 64);
    amx_release();
    one_fault("not configured");
    configure(16, 64);
    one_fault("not released");
}
END_TEST

START_TEST(test_misuse_of_registers_is_found) {
    static float memory[16 * 16];
    configure(16, 64);
    amx_multiply(0, 1, 1);
    amx_release();
    one_fault("used twice");
    configure(8, 64); /* 16 pairs of A, 8 of B */
    amx_multiply(0, 1, 2);
    amx_release();
    one_fault("do not fit");
    configure(16, 64);
    amx_store(0, memory, 60);
    amx_release();
    one_fault("over one another");
    configure(16, 64);
    configure(16, 64);
    amx_release();
    one_fault("twice");
    amx_release();
    one_fault("without");
}
END_TEST

/* ---- products of every raggedness ---- */

static uint32_t state = 1;
static float next(void) { /* a number that bf16 holds exactly */
    state = state * 1664525u + 1013904223u;
    return lk_bf16_to_f32(lk_f32_to_bf16((float)(int32_t)state / 2147483648.0f));
}

static uint16_t *narrow_copy(const float *values, int64_t rows, int64_t k, bool along_rows) {
    uint16_t *out = malloc(along_rows ? (size_t)((k + 1) / 2 * rows) * 4 : lk_cpu_narrow_bytes(rows, k));
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t p = 0; p < (k + 1) / 2 * 2; p++) {
            int64_t at = along_rows ? p / 2 * 2 * rows + 2 * i + p % 2 : i * lk_cpu_narrow_row(k) + p;
            out[at] = p < k ? lk_f32_to_bf16(values[i * k + p]) : 0;
        }
    }
    return out;
}

typedef struct product {
    int64_t m, n, k, rank; /* rank: of a second term; 0: none */
    bool along_rows, transposed, bias, add;
    lk_dtype c_dtype;
} product;

typedef struct operands {
    float *a, *b;
    uint16_t *a_narrow, *b_narrow;
} operands;

/* Buffers of exactly the size, so that a sanitizer sees what lies outside. */
static operands make(const product *self, int64_t k, double *expected) {
    operands out = {malloc((size_t)(self->m * k) * 4), malloc((size_t)(self->n * k) * 4), NULL, NULL};
    out.b_narrow = malloc((size_t)(self->n * k) * 2);
    for (int64_t i = 0; i < self->m * k; i++) {
        out.a[i] = next();
    }
    for (int64_t i = 0; i < self->n * k; i++) {
        out.b[i] = next();
        out.b_narrow[i] = lk_f32_to_bf16(out.b[i]);
    }
    out.a_narrow = narrow_copy(out.a, self->m, k, self->along_rows);
    for (int64_t i = 0; i < self->m; i++) {
        for (int64_t j = 0; j < self->n; j++) {
            for (int64_t p = 0; p < k; p++) {
                double b = (double)out.b[self->transposed ? j * k + p : p * self->n + j];
                expected[i * self->n + j] += (double)out.a[i * k + p] * b;
            }
        }
    }
    return out;
}

static lk_cpu_term term_of(const product *self, const operands *from, int64_t k) {
    lk_cpu_term term = lk_cpu_term_of(from->a, false, k, from->b_narrow, LK_DTYPE_BF16, self->transposed,
                                      self->transposed ? k : self->n, 1.0f, k);
    term.narrow = from->a_narrow;
    term.narrow_row = self->along_rows ? 2 : lk_cpu_narrow_row(k);
    term.narrow_pair = self->along_rows ? 2 * self->m : 2;
    return term;
}

static void release(operands *from) {
    free(from->a);
    free(from->b);
    free(from->a_narrow);
    free(from->b_narrow);
}

static double value_of(const void *c, lk_dtype dtype, int64_t i) {
    return dtype == LK_DTYPE_F32 ? (double)((const float *)c)[i] : (double)lk_bf16_to_f32(((const uint16_t *)c)[i]);
}

static void check_product(const product *self, void *memory) {
    int64_t count = self->m * self->n;
    double *expected = calloc((size_t)count, sizeof *expected);
    operands first = make(self, self->k, expected), second = {0};
    lk_cpu_gemm gemm = {.m = self->m, .n = self->n, .num_terms = 1, .c_dtype = self->c_dtype, .c_row = self->n};
    gemm.terms[0] = term_of(self, &first, self->k);
    if (self->rank > 0) {
        second = make(self, self->rank, expected);
        gemm.terms[gemm.num_terms++] = term_of(self, &second, self->rank);
    }
    float *bias = malloc((size_t)self->n * sizeof *bias), *addend = malloc((size_t)count * sizeof *addend);
    for (int64_t j = 0; j < self->n; j++) {
        bias[j] = next();
    }
    for (int64_t i = 0; i < count; i++) {
        addend[i] = next();
        expected[i] += self->bias ? (double)bias[i % self->n] : 0.0;
        expected[i] += self->add ? (double)addend[i] : 0.0;
    }
    gemm.bias = self->bias ? bias : NULL;
    gemm.addend = self->add ? addend : NULL;
    size_t bytes = (size_t)count * (self->c_dtype == LK_DTYPE_F32 ? 4 : 2);
    gemm.c = malloc(bytes);
    memset(gemm.c, 0xff, bytes);
    lk_cpu_gemm_part_amxbf16(&gemm, (lk_range){0, self->m}, (lk_range){0, self->n}, memory);
    /* rounding errors of sums of numbers below one */
    double allowed = 6e-8 * (double)(self->k + self->rank + 4) + (self->c_dtype == LK_DTYPE_F32 ? 0.0 : 1.0 / 256.0);
    for (int64_t i = 0; i < count; i++) {
        double found = value_of(gemm.c, self->c_dtype, i);
        ck_assert_msg(fabs(found - expected[i]) <= allowed * fmax(1.0, fabs(expected[i])),
                      "%lld x %lld x %lld + %lld, [%lld, %lld]: found %.9g, expected %.9g", (long long)self->m,
                      (long long)self->n, (long long)self->k, (long long)self->rank, (long long)(i / self->n),
                      (long long)(i % self->n), found, expected[i]);
    }
    free(gemm.c);
    free(bias);
    free(addend);
    free(expected);
    release(&first);
    release(&second);
}

START_TEST(test_ragged_products) {
    static const int64_t rows[] = {1, 15, 16, 17, 32, 33, 50}, ranks[] = {0, 1, 8, 16, 33};
    static const int64_t columns[] = {1, 16, 17, 32, 47, 48, 49, 100};
    static const int64_t depths[] = {1, 2, 31, 32, 33, 64, 130};
    void *memory = malloc(LK_CPU_GEMM_BYTES);
    int count = 0;
    for (size_t m = 0; m < LK_COUNT(rows); m++) {
        for (size_t n = 0; n < LK_COUNT(columns); n++) {
            for (size_t k = 0; k < LK_COUNT(depths); k++, count++) {
                product self = {rows[m], columns[n], depths[k], ranks[count % 5], .c_dtype = LK_DTYPE_F32};
                self.along_rows = count % 2 != 0;
                self.transposed = count / 2 % 2 != 0;
                self.bias = count % 3 == 0;
                self.add = count % 4 == 0;
                self.c_dtype = count % 7 == 0 ? LK_DTYPE_BF16 : LK_DTYPE_F32;
                check_product(&self, memory);
            }
        }
    }
    product deep = {300, 50, 4200, 16, .bias = true, .c_dtype = LK_DTYPE_BF16}; /* more than one panel holds */
    check_product(&deep, memory);
    deep.c_dtype = LK_DTYPE_F32;
    deep.add = true;
    check_product(&deep, memory);
    free(memory);
    printf("%d products, %lld multiplications\n", count + 2, (long long)amx_multiplications());
    no_faults("products");
}
END_TEST

/* ---- ops ---- */

static bool has_bf16(const op_case *self) {
    for (int i = 0; i < self->num_inputs; i++) {
        if (self->inputs[i].present && self->inputs[i].dtype == LK_DTYPE_BF16) {
            return true;
        }
    }
    return false;
}

/* Every case of every op that has such a kernel, with its own types and with everything in bf16. */
START_TEST(test_ops) {
    lk_context *context;
    lk_device_caps caps;
    lk_device *device;
    lk_device_options options = {sizeof options, 2};
    int found, num_cases, num_rows, run = 0, failed = 0;
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.probe(context, &caps, 1, &found), LK_OK);
    ck_assert_int_eq(lk_backend_cpu.open(context, &caps, &options, &device), LK_OK);
    device->caps.features |= LK_CPU_AMXBF16_FEATURES;
    const op_case *cases = op_cases(&num_cases);
    const lk_kernel *rows = lk_backend_cpu.kernels(&num_rows);
    for (int r = 0; r < num_rows; r++) {
        bool used = false;
        for (int c = 0; c < num_cases && (rows[r].required_features & LK_CPU_BIT(AMX_BF16)) != 0; c++) {
            op_case self = cases[c];
            for (int i = 0; i < self.num_inputs && _i == 1; i++) {
                bool is_float = self.inputs[i].present && self.inputs[i].dtype == LK_DTYPE_F32;
                self.inputs[i].dtype = is_float ? LK_DTYPE_BF16 : self.inputs[i].dtype;
            }
            if (self.op != rows[r].op || !has_bf16(&self)) {
                continue;
            }
            op_instance instance;
            op_verdict verdict;
            ck_assert_int_eq(op_instance_make(context, &self, seed, &instance), LK_OK);
            lk_status status = op_instance_check(&instance, device, &rows[r], &verdict);
            if (status != LK_OK || verdict.problem[0] != '\0') {
                printf("FAILED %s on %s: %s\n", rows[r].name, self.name,
                       status != LK_OK ? lk_error_message(context) : verdict.problem);
                failed++;
            }
            run++;
            used = amx_multiplications() > 0 || used;
            op_instance_free(&instance);
            no_faults(self.name);
        }
        ck_assert_msg(used || _i == 0 || (rows[r].required_features & LK_CPU_BIT(AMX_BF16)) == 0,
                      "%s never multiplied with AMX", rows[r].name);
    }
    printf("%d kernel runs, %d failed (seed %llu)\n", run, failed, (unsigned long long)seed);
    ck_assert_int_gt(run, 0);
    ck_assert_int_eq(failed, 0);
    lk_backend_cpu.close(device);
    lk_context_destroy(context);
}
END_TEST

/* The kernels around the products are AVX-512's, so this much of the processor is needed. */
static bool can_run(void) {
    lk_context *context;
    uint64_t features = 0;
    if (lk_context_create(NULL, &context) == LK_OK) {
        (void)lk_cpu_features_probe(context, &features);
        lk_context_destroy(context);
    }
    return (features & LK_CPU_AVX512BF16_FEATURES) == LK_CPU_AVX512BF16_FEATURES;
}

static void add_tests(TCase *tests) {
    tcase_add_test(tests, test_misuse_is_found);
    tcase_add_test(tests, test_misuse_of_registers_is_found);
    tcase_add_test(tests, test_ragged_products);
    tcase_add_loop_test(tests, test_ops, 0, 2);
}
#else
static bool can_run(void) {
    return false;
}

static void add_tests(TCase *tests) {
    (void)tests;
}
#endif

int main(void) {
    if (!can_run()) {
        printf("SKIP: this processor has no AVX-512 with bf16\n");
        return 77;
    }
    TCase *tests = tcase_create("amx");
    tcase_set_timeout(tests, 120);
    add_tests(tests);
    return run_case("amx", tests);
}
