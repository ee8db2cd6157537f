/* The kernel dialect in CUDA C++. README.md explains the words; lk_common.h follows this file. Buffers are pointers
 * that the host has moved to the tensor already. Constants must be known when it is compiled: the build makes of each
 * file one .cu with all its variants (cmake/cuda_variants.cmake), each in a namespace of its own, its kernel called
 * LK_VARIANT. */
#include <cuda_fp16.h>

/* ---- storage types ---- */
#define LK_TYPE_f32 float
#define LK_TYPE_f16 __half
#define LK_TYPE_bf16 unsigned short
#define LK_TYPE_i32 int
#define LK_TYPE_u32 unsigned
#define LK_GET_f32(buffer, i) buffer[i]
#define LK_GET_f16(buffer, i) __half2float(buffer[i])
#define LK_GET_bf16(buffer, i) __uint_as_float((unsigned)buffer[i] << 16)
#define LK_GET_i32(buffer, i) ((float)buffer[i])
#define LK_PUT_f32(buffer, i, value) buffer[i] = (value)
#define LK_PUT_f16(buffer, i, value) buffer[i] = __float2half_rn(value)
#define LK_PUT_bf16(buffer, i, value) buffer[i] = (unsigned short)lk_bf16_bits(value)
#define LK_PUT_i32(buffer, i, value) buffer[i] = (int)(value)

/* ---- kernels ---- */
typedef unsigned uint;
#define LK_ENTRY(entry) LK_ENTRY_##entry
#define LK_CONSTANT(id, name, initial) enum { name = LK_SET_##name };
#define LK_DERIVED(name, expression) enum { name = expression };
#define LK_ARGUMENT_IN(slot, type, name) const LK_TYPE(type) * name,
#define LK_ARGUMENT_OUT(slot, type, name) LK_TYPE(type) * name,
#define LK_ARGUMENT(type, name) type name,
#define LK_SHARED_ARRAY(type, name, size) __shared__ type name[size];
#define LK_BARRIER() __syncthreads()
#define LK_KERNEL(name)                                                                                \
    extern "C" __global__ __launch_bounds__(LK_SET_GROUP) void LK_VARIANT(                             \
        name##_BUFFERS(LK_ARGUMENT_IN, LK_ARGUMENT_OUT) name##_PARAMETERS(LK_ARGUMENT) int lk_first) { \
        name##_SHARED(LK_SHARED_ARRAY)
#define LK_END }
#define LK_FUNCTION static __device__ inline

#define LK_LANE ((int)threadIdx.x)
/* A large launch may come in parts, of which each is told its first row of groups, or minus its first group of the only
 * row (launch.h). */
#define LK_GROUP_X ((int)blockIdx.x - (lk_first < 0 ? lk_first : 0))
#define LK_GROUP_Y ((int)blockIdx.y + (lk_first > 0 ? lk_first : 0))
#define LK_GROUPS_X ((int)gridDim.x)

/* ---- conversions and functions whose names differ ---- */
#define LK_FLOAT(x) ((float)(x))
#define LK_INT(x) ((int)(x))
#define LK_UINT(x) ((unsigned)(x))
#define LK_FLOAT_FROM_BITS(x) __int_as_float(x)
#define LK_BITS_FROM_FLOAT(x) __float_as_uint(x)
#define LK_UINT4 uint4
#define LK_MAKE_UINT4(a, b, c, d) make_uint4(a, b, c, d)
#define LK_MUL_HIGH(a, b) __umulhi(a, b)
#define LK_RSQRT(x) (1.0f / sqrtf(x))
#define LK_FMA(a, b, c) fmaf(a, b, c)
#define LK_UNROLL _Pragma("unroll")

/* ---- the vector type V: one float ---- */
#define VECTOR 1
#define V float
#define VI int
#define LK_VLOAD(array, i) array[i]
#define LK_VSTORE(array, i, value) array[i] = (value)
#define LK_VINT(x) ((int)(x))
#define LK_VFLOAT_FROM_BITS(x) __int_as_float(x)
#define LK_VSUM(x) (x)
#define LK_VMAX(x) (x)
#define LK_SPLAT(x) (x)
#define LK_VLESS(x, limit, then, otherwise) ((x) < (limit) ? (then) : (otherwise))
