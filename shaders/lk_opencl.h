/* The kernel dialect in OpenCL C 1.2. README.md explains the words; lk_common.h follows this file. */

#undef tanh /* PoCL's headers make it a macro, and words (LK_WORD) are expanded */

/* ---- storage types: what a buffer's elements are, and how they become float ---- */
#define LK_TYPE_f32 float
#define LK_TYPE_f16 half
#define LK_TYPE_bf16 ushort
#define LK_TYPE_i32 int
#define LK_TYPE_u32 uint
#define LK_GET_f32(buffer, i) buffer[i]
#define LK_GET_f16(buffer, i) vload_half(i, buffer)
#define LK_GET_bf16(buffer, i) as_float((uint)buffer[i] << 16)
#define LK_GET_i32(buffer, i) ((float)buffer[i])
#define LK_PUT_f32(buffer, i, value) buffer[i] = (value)
#define LK_PUT_f16(buffer, i, value) vstore_half_rte(value, i, buffer)
#define LK_PUT_bf16(buffer, i, value) buffer[i] = (ushort)lk_bf16_bits(value)
#define LK_PUT_i32(buffer, i, value) buffer[i] = (int)(value)

/* ---- kernels: buffers are (memory, offset in bytes), so that no sub-buffer is needed ---- */
#define LK_ENTRY(entry) LK_ENTRY_##entry
#define LK_CONSTANT(id, name, initial) enum { name = LK_SET_##name };
#define LK_DERIVED(name, expression) enum { name = expression };
#define LK_ARGUMENT_IN(slot, type, name) __global const LK_TYPE(type) * name##_memory, ulong name##_offset,
#define LK_ARGUMENT_OUT(slot, type, name) __global LK_TYPE(type) * name##_memory, ulong name##_offset,
#define LK_ARGUMENT(type, name) type name,
#define LK_POINTER_IN(slot, type, name)        \
    __global const LK_TYPE(type) *const name = \
        (__global const LK_TYPE(type) *)((__global const char *)name##_memory + name##_offset);
#define LK_POINTER_OUT(slot, type, name) \
    __global LK_TYPE(type) *const name = (__global LK_TYPE(type) *)((__global char *)name##_memory + name##_offset);
#if LK_SET_GROUP == 1 /* nobody to share with: private memory, and barriers would only hinder the compiler */
#define LK_SHARED_ARRAY(type, name, size) type name[size];
#define LK_BARRIER()
#else
#define LK_SHARED_ARRAY(type, name, size) __local type name[size];
#define LK_BARRIER() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#endif
#define LK_KERNEL(name)                                                                                \
    __kernel __attribute__((reqd_work_group_size(LK_SET_GROUP, 1, 1))) void name(                      \
        name##_BUFFERS(LK_ARGUMENT_IN, LK_ARGUMENT_OUT) name##_PARAMETERS(LK_ARGUMENT) int lk_first) { \
        name##_BUFFERS(LK_POINTER_IN, LK_POINTER_OUT) name##_SHARED(LK_SHARED_ARRAY)
#define LK_END }
#define LK_FUNCTION static inline

#define LK_LANE ((int)get_local_id(0))
/* A large launch may come in parts, of which each is told its first row of groups, or minus its first group of the only
 * row (launch.h). */
#define LK_GROUP_X ((int)get_group_id(0) - min(lk_first, 0))
#define LK_GROUP_Y ((int)get_group_id(1) + max(lk_first, 0))
#define LK_GROUPS_X ((int)get_num_groups(0))

/* ---- conversions and functions whose names differ ---- */
#define LK_FLOAT(x) ((float)(x))
#define LK_INT(x) ((int)(x))
#define LK_UINT(x) ((uint)(x))
#define LK_FLOAT_FROM_BITS(x) as_float(x)
#define LK_BITS_FROM_FLOAT(x) as_uint(x)
#define LK_UINT4 uint4
#define LK_MAKE_UINT4(a, b, c, d) ((uint4)(a, b, c, d))
#define LK_MUL_HIGH(a, b) mul_hi(a, b)
#define LK_RSQRT(x) (1.0f / sqrt(x))
#define LK_FMA(a, b, c) fma(a, b, c)
#define LK_UNROLL _Pragma("unroll")

/* ---- the vector type V of VECTOR floats ---- */
#ifdef LK_SET_VECTOR
#define VECTOR LK_SET_VECTOR
#if VECTOR == 1
#define V float
#define VI int
#define LK_VLOAD(array, i) array[i]
#define LK_VSTORE(array, i, value) array[i] = (value)
#define LK_VINT(x) ((int)(x))
#define LK_VFLOAT_FROM_BITS(x) as_float(x)
#define LK_VSUM(x) (x)
#define LK_VMAX(x) (x)
#else
#define LK_JOIN_1(a, b) a##b
#define LK_JOIN(a, b) LK_JOIN_1(a, b)
#define V LK_JOIN(float, VECTOR)
#define VI LK_JOIN(int, VECTOR)
#define LK_VLOAD(array, i) LK_JOIN(vload, VECTOR)(0, array + (i))
#define LK_VSTORE(array, i, value) LK_JOIN(vstore, VECTOR)(value, 0, array + (i))
#define LK_VINT(x) LK_JOIN(convert_int, VECTOR)(x)
#define LK_VFLOAT_FROM_BITS(x) LK_JOIN(as_float, VECTOR)(x)
#define LK_VSUM(x) LK_JOIN(lk_sum, VECTOR)(x)
#define LK_VMAX(x) LK_JOIN(lk_max, VECTOR)(x)
static inline float lk_sum4(float4 x) {
    return (x.x + x.z) + (x.y + x.w);
}
static inline float lk_sum8(float8 x) {
    return lk_sum4(x.lo + x.hi);
}
static inline float lk_sum16(float16 x) {
    return lk_sum8(x.lo + x.hi);
}
static inline float lk_max4(float4 x) {
    return fmax(fmax(x.x, x.z), fmax(x.y, x.w));
}
static inline float lk_max8(float8 x) {
    return lk_max4(fmax(x.lo, x.hi));
}
static inline float lk_max16(float16 x) {
    return lk_max8(fmax(x.lo, x.hi));
}
#endif
#define LK_SPLAT(x) ((V)(x))
#define LK_VLESS(x, limit, then, otherwise) ((x) < (limit) ? (then) : (otherwise))
#endif
