/* Kernels with planted faults, each of which the emulator or a comparison must find. Those of the library are compiled
 * again with one word of the vocabulary changed. */
#include "native/cuda/vocabulary.h"

namespace {

LK_DEVICE void nothing() {
}
template <int pending> LK_DEVICE void no_wait() {
}
template <int pending> LK_DEVICE void short_wait() {
    lk_copy_wait<pending + 1>();
}

} // namespace

#define LK_SET_GROUP 128
#define LK_SET_BM 64
#define LK_SET_BN 64
#define LK_SET_BK 32
#define LK_SET_STAGES 4
#define LK_SET_TRANSPOSE_A 0
#define LK_SET_TRANSPOSE_B 0
#define LK_SET_BQ 128
#define LK_SET_DP 64

#define LK_VARIANT gemm_without_wait
#define lk_copy_wait no_wait
namespace faults_1 {
#include "native/cuda/gemm.cu"
}
LK_REGISTER(faults_1, gemm_without_wait)
#undef lk_copy_wait
#undef LK_VARIANT

#define LK_VARIANT gemm_waits_too_little
#define lk_copy_wait short_wait
namespace faults_2 {
#include "native/cuda/gemm.cu"
}
LK_REGISTER(faults_2, gemm_waits_too_little)
#undef lk_copy_wait
#undef LK_VARIANT

#define LK_VARIANT gemm_without_barrier
#define lk_barrier nothing
namespace faults_3 {
#include "native/cuda/gemm.cu"
}
LK_REGISTER(faults_3, gemm_without_barrier)
#undef lk_barrier
#undef LK_VARIANT

#define LK_VARIANT gemm_without_commit
#define lk_copy_commit nothing
namespace faults_4 {
#include "native/cuda/gemm.cu"
}
LK_REGISTER(faults_4, gemm_without_commit)
#undef lk_copy_commit
#undef LK_VARIANT

#define LK_VARIANT gemm_with_wrong_fragment
#define lk_load_matrices_transposed lk_load_matrices
namespace faults_5 {
#include "native/cuda/gemm.cu"
}
LK_REGISTER(faults_5, gemm_with_wrong_fragment)
#undef lk_load_matrices_transposed
#undef LK_VARIANT

#define LK_VARIANT gemm_with_swapped_registers
#define lk_mma(c, a, b0, b1) lk_mma(c, a, b1, b0)
namespace faults_6 {
#include "native/cuda/gemm.cu"
}
LK_REGISTER(faults_6, gemm_with_swapped_registers)
#undef lk_mma
#undef LK_VARIANT

#define LK_VARIANT gemm_copies_beyond_rows
#define lk_copy_async(to, from, bytes) lk_copy_async(to, from, 16)
namespace faults_7 {
#include "native/cuda/gemm.cu"
}
LK_REGISTER(faults_7, gemm_copies_beyond_rows)
#undef lk_copy_async
#undef LK_VARIANT

#undef LK_SET_BK
#define LK_SET_BK 64
#define LK_VARIANT attention_without_barrier
#define lk_barrier nothing
namespace faults_8 {
#include "native/cuda/flash_attention.cu"
}
LK_REGISTER(faults_8, attention_without_barrier)
#undef lk_barrier
#undef LK_VARIANT

#define LK_VARIANT attention_without_wait
#define lk_copy_wait no_wait
namespace faults_9 {
#include "native/cuda/flash_attention.cu"
}
LK_REGISTER(faults_9, attention_without_wait)
#undef lk_copy_wait
#undef LK_VARIANT

/* Small ones, of one kind each; y has 64 floats. */
namespace small {

LK_DEVICE lk_shared word(int index) {
    return lk_shared_start() + (lk_shared)(index * 4);
}

void reads_what_nobody_wrote(float *y, int) {
    lk_store(y + lk_thread(), lk_float(lk_load_shared(word(lk_thread()))));
}
void reads_before_the_barrier(float *y, int) {
    lk_store_shared(word(lk_thread()), lk_bits(1.0f));
    lk_store(y + lk_thread(), lk_float(lk_load_shared(word(max(0, lk_thread() - 1)))));
}
void writes_before_the_barrier(float *y, int) {
    lk_store_shared(word(lk_thread()), lk_bits(1.0f));
    lk_barrier();
    float value = lk_float(lk_load_shared(word(lk_thread() ^ 32)));
    lk_store_shared(word(lk_thread()), lk_bits(2.0f));
    lk_store(y + lk_thread(), value);
}
void writes_beyond_shared(float *y, int) {
    lk_store_shared(word(lk_thread() + 1), lk_bits(1.0f));
    lk_store(y + lk_thread(), 1.0f);
}
void writes_beyond_global(float *y, int) {
    lk_store(y + lk_thread() + 1, 1.0f);
}
void never_waits_for_its_copy(float *y, int) {
    if (lk_thread() < 16) {
        lk_copy_async(word(lk_thread() * 4), y, 16);
        lk_copy_commit();
    }
}
void never_commits_its_copy(float *y, int) {
    if (lk_thread() < 16) {
        lk_copy_async(word(lk_thread() * 4), y, 16);
    }
}
void parts_at_a_barrier(float *y, int) {
    if (lk_thread() < 32) {
        lk_barrier();
    }
    lk_store(y + lk_thread(), 1.0f);
}
void waits_at_two_barriers(float *y, int) {
    if (lk_thread() < 32) {
        lk_barrier();
    } else {
        lk_barrier();
    }
    lk_store(y + lk_thread(), 1.0f);
}
void parts_in_a_warp(float *y, int) {
    float value = 1.0f;
    if (lk_thread() % 32 < 16) {
        value = lk_shuffle_xor(value, 1);
    }
    lk_store(y + lk_thread(), value);
}
void is_misaligned(float *y, int) {
    lk_store_pair(y + lk_thread() % 32 * 2 + 1 - lk_thread() % 32 / 31 * 2, 1.0f, 1.0f);
}
/* Rows of 128 bytes as they are: all eight that are read at a time begin in the same bank. */
void has_bank_conflicts(float *y, int) {
    for (int i = 0; i < 16; i++) {
        lk_store_shared(word(lk_thread() + 64 * i), 0);
    }
    lk_barrier();
    unsigned part[4];
    lk_load_matrices(part, lk_shared_start() + (lk_shared)(lk_thread() % 8 * 128));
    lk_store(y + lk_thread(), lk_float(part[0]));
}

#undef LK_SET_GROUP
#define LK_SET_GROUP 64
} // namespace small
LK_REGISTER(small, reads_what_nobody_wrote)
LK_REGISTER(small, reads_before_the_barrier)
LK_REGISTER(small, writes_before_the_barrier)
LK_REGISTER(small, writes_beyond_shared)
LK_REGISTER(small, writes_beyond_global)
LK_REGISTER(small, never_waits_for_its_copy)
LK_REGISTER(small, never_commits_its_copy)
LK_REGISTER(small, parts_at_a_barrier)
LK_REGISTER(small, waits_at_two_barriers)
LK_REGISTER(small, parts_in_a_warp)
LK_REGISTER(small, is_misaligned)
LK_REGISTER(small, has_bank_conflicts)
