/* The words of the native CUDA kernels: what C++ cannot say of a GPU of compute capability 8.0 and newer.
 *
 * Each function is one PTX instruction for nvcc and one call of the emulator (tests/cuda/emulator) for the host's
 * compiler, so that the kernels' text is executed and checked without a GPU. This is the only file with inline
 * assembly, and kernels reach shared and global memory through it alone: shared memory has addresses, no pointers, so
 * that no access escapes the emulator's checks. The instructions and the layouts of fragments are those of the PTX ISA
 * (sections "cp.async", "ldmatrix", "mma.m16n8k16").
 *
 * Fragments of one warp's product of 16x16 by 16x8, for lane l with g = l / 4 and t = l % 4, two bf16 a register, the
 * lower index in the lower half:
 *     a[0] = A[g][2t..]      a[1] = A[g + 8][2t..]      a[2] = A[g][2t + 8..]      a[3] = A[g + 8][2t + 8..]
 *     b[0] = B[2t..][g]      b[1] = B[2t + 8..][g]
 *     c[0..1] = C[g][2t..]   c[2..3] = C[g + 8][2t..] */
#ifndef LK_NATIVE_CUDA_VOCABULARY_H
#define LK_NATIVE_CUDA_VOCABULARY_H

typedef unsigned short lk_bf16; /* the upper half of a float */
typedef unsigned lk_shared;     /* an address in shared memory, in bytes */
enum { LK_WARP = 32 };

/* This group's place in a launch that may come in parts: a kernel's last parameter is lk_first, the part's first row of
 * groups, or minus its first group of the only row (backends/shaders/launch.h). */
#define LK_PLACE_X (lk_block_x() - (lk_first < 0 ? lk_first : 0))
#define LK_PLACE_Y (lk_block_y() + (lk_first > 0 ? lk_first : 0))

#ifdef __CUDACC__

#define LK_DEVICE static __device__ __forceinline__
/* Begins a kernel: its name is the variant's (cmake/cuda_variants.cmake), its lanes are GROUP. */
#define LK_NATIVE_KERNEL extern "C" __global__ __launch_bounds__(LK_SET_GROUP) void LK_VARIANT

/* ---- where this lane is ---- */
LK_DEVICE int lk_thread() {
    return (int)threadIdx.x;
}
LK_DEVICE int lk_block_x() {
    return (int)blockIdx.x;
}
LK_DEVICE int lk_block_y() {
    return (int)blockIdx.y;
}
LK_DEVICE int lk_blocks_x() {
    return (int)gridDim.x;
}

/* ---- shared memory: all that the launch asked for ---- */
extern __shared__ __align__(1024) unsigned char lk_dynamic_shared[];
LK_DEVICE lk_shared lk_shared_start() {
    return (lk_shared)__cvta_generic_to_shared(lk_dynamic_shared);
}
LK_DEVICE void lk_store_shared(lk_shared to, unsigned value) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
LK_DEVICE unsigned lk_load_shared(lk_shared from) {
    unsigned value;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(value) : "r"(from) : "memory");
    return value;
}

/* ---- copies from global to shared memory that go on while the kernel does ---- */

/* 16 bytes, of which the first `bytes` are read and the others become 0. */
LK_DEVICE void lk_copy_async(lk_shared to, const void *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
/* This lane's copies since the last commit become a group. */
LK_DEVICE void lk_copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Until at most `pending` of this lane's newest groups are under way; other lanes' copies need a barrier as well. */
template <int pending> LK_DEVICE void lk_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/* ---- of a warp together ---- */

/* Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8 and receives, of each
 * matrix, elements 2t and 2t + 1 of row g. */
LK_DEVICE void lk_load_matrices(unsigned to[4], lk_shared row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}
/* The same of the matrices' transposes. */
LK_DEVICE void lk_load_matrices_transposed(unsigned to[4], lk_shared row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}
/* c += a b, bf16 with sums in fp32. */
LK_DEVICE void lk_mma(float c[4], const unsigned a[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/* The value of lane l ^ mask. */
LK_DEVICE float lk_shuffle_xor(float value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}

/* ---- of a group together ---- */
LK_DEVICE void lk_barrier() {
    __syncthreads();
}

/* ---- arithmetic ---- */

/* Two bf16 in a register, rounded to the nearest, ties to even. */
LK_DEVICE unsigned lk_pack(float low, float high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
/* A float's bits, and back. */
LK_DEVICE unsigned lk_bits(float x) {
    return __float_as_uint(x);
}
LK_DEVICE float lk_float(unsigned bits) {
    return __uint_as_float(bits);
}
/* 2 to the power x, to 2 units in the last place; results below 2^-126 are 0. */
LK_DEVICE float lk_exp2(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

/* ---- global memory ---- */
template <typename T> LK_DEVICE T lk_load(const T *from) {
    return *from;
}
template <typename T> LK_DEVICE void lk_store(T *to, T value) {
    *to = value;
}
/* Two and four floats, at addresses that are multiples of their size. */
LK_DEVICE void lk_load_pair(const float *from, float to[2]) {
    float2 pair = *reinterpret_cast<const float2 *>(from);
    to[0] = pair.x;
    to[1] = pair.y;
}
LK_DEVICE void lk_store_pair(float *to, float first, float second) {
    *reinterpret_cast<float2 *>(to) = make_float2(first, second);
}
LK_DEVICE void lk_load_quad(const float *from, float to[4]) {
    float4 quad = *reinterpret_cast<const float4 *>(from);
    to[0] = quad.x;
    to[1] = quad.y;
    to[2] = quad.z;
    to[3] = quad.w;
}
/* Two and four bf16, as lk_pack() makes them. */
LK_DEVICE void lk_store_bf16_pair(lk_bf16 *to, unsigned packed) {
    *reinterpret_cast<unsigned *>(to) = packed;
}
LK_DEVICE void lk_store_bf16_quad(lk_bf16 *to, unsigned first, unsigned second) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(first, second);
}

#else
#include "tests/cuda/emulator/device.h"
#endif

#endif
