#define _POSIX_C_SOURCE 200809L
#include "bench/registers.h"

#include <pthread.h>

#include "core/base/base.h"
#include "dispatch/topology.h"

enum { MAX_THREADS = 256, SUMS = 12, ROUNDS = 20000 };

/* Does ROUNDS rounds of independent multiply-adds and returns how many operations they were. */
typedef double (*register_loop)(volatile float *sink);

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* One statement for each sum, so that the compiler keeps all of them in registers. */
#define EACH_SUM(X) X(s0) X(s1) X(s2) X(s3) X(s4) X(s5) X(s6) X(s7) X(s8) X(s9) X(s10) X(s11)
#define DECLARE_SUM(s) s = x,
#define STEP_SUM(s) \
    s = STEP(s);    \
    __asm__ volatile("" : "+v"(s));
#define STORE_SUM(s) *sink += LOW(s);
#define LOOP(name, features, vector, one, operations)                            \
    __attribute__((target(features))) static double name(volatile float *sink) { \
        vector x = one, EACH_SUM(DECLARE_SUM) last = x;                          \
        for (int round = 0; round < ROUNDS; round++) {                           \
            EACH_SUM(STEP_SUM)                                                   \
        }                                                                        \
        EACH_SUM(STORE_SUM)                                                      \
        *sink += LOW(last);                                                      \
        return (double)(operations)*SUMS * ROUNDS;                               \
    }

#define LOW(s) _mm512_cvtss_f32(s)
#define STEP(s) _mm512_dpbf16_ps(s, (__m512bh)x, (__m512bh)x)
LOOP(loop_avx512bf16, "avx512f,avx512bf16", __m512, _mm512_set1_ps(0.001f), 64)
#undef STEP
#define STEP(s) _mm512_fmadd_ps(x, x, s)
LOOP(loop_avx512, "avx512f", __m512, _mm512_set1_ps(0.001f), 32)
#undef STEP
#undef LOW
#define LOW(s) _mm256_cvtss_f32(s)
#define STEP(s) _mm256_fmadd_ps(x, x, s)
LOOP(loop_avx2, "avx2,fma", __m256, _mm256_set1_ps(0.001f), 16)

static register_loop find_loop(uint64_t features, bool bf16) {
    if (bf16) {
        return (features & LK_CPU_BIT(AVX512_BF16)) != 0 ? loop_avx512bf16 : NULL;
    }
    if ((features & LK_CPU_BIT(AVX512F)) != 0) {
        return loop_avx512;
    }
    return (features & LK_CPU_BIT(AVX2)) != 0 && (features & LK_CPU_BIT(FMA)) != 0 ? loop_avx2 : NULL;
}
#else
static register_loop find_loop(uint64_t features, bool bf16) {
    (void)features;
    (void)bf16;
    return NULL;
}
#endif

typedef struct register_thread {
    pthread_t thread;
    register_loop loop;
    double seconds, rate;
} register_thread;

static void *run_thread(void *argument) {
    register_thread *self = argument;
    volatile float sink = 0.0f;
    double begin = lk_seconds(), now = begin, done = 0.0;
    do {
        done += self->loop(&sink);
        now = lk_seconds();
    } while (now - begin < self->seconds);
    self->rate = done / (now - begin);
    return NULL;
}

double lk_bench_register_rate(uint64_t features, int threads, bool bf16, double seconds) {
    register_thread all[MAX_THREADS];
    register_loop loop = find_loop(features, bf16);
    int started = 0;
    double rate = 0.0;
    if (loop == NULL) {
        return 0.0;
    }
    for (; started < threads && started < MAX_THREADS; started++) {
        all[started] = (register_thread){.loop = loop, .seconds = seconds};
        if (pthread_create(&all[started].thread, NULL, run_thread, &all[started]) != 0) {
            break;
        }
    }
    for (int i = 0; i < started; i++) {
        pthread_join(all[i].thread, NULL);
        rate += all[i].rate;
    }
    return rate;
}
