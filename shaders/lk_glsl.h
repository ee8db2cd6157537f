/* The kernel dialect in GLSL 4.50 for Vulkan; it goes through the C preprocessor, because GLSL's own has no ##. The
 * build puts `#version 450` and the extensions before the result. README.md explains the words; lk_common.h follows. */

/* ---- storage types ---- */
#define LK_TYPE_f32 float
#define LK_TYPE_f16 float16_t
#define LK_TYPE_bf16 uint16_t
#define LK_TYPE_i32 int
#define LK_TYPE_u32 uint
#define LK_GET_f32(buffer, i) buffer[i]
#define LK_GET_f16(buffer, i) float(buffer[i])
#define LK_GET_bf16(buffer, i) uintBitsToFloat(uint(buffer[i]) << 16)
#define LK_GET_i32(buffer, i) float(buffer[i])
#define LK_PUT_f32(buffer, i, value) buffer[i] = (value)
#define LK_PUT_f16(buffer, i, value) buffer[i] = float16_t(value)
#define LK_PUT_bf16(buffer, i, value) buffer[i] = uint16_t(lk_bf16_bits(value))
#define LK_PUT_i32(buffer, i, value) buffer[i] = int(value)

/* ---- kernels: one per module; buffers are bound at their offsets, parameters are push constants ---- */
#define LK_ENTRY(entry) LK_ENTRY_##entry
#define LK_CONSTANT(id, name, initial) layout(constant_id = id) const int name = initial;
#define LK_DERIVED(name, expression) const int name = expression;
#define LK_BLOCK_IN(slot, type, name)                                      \
    layout(set = 0, binding = slot, std430) readonly buffer name##_block { \
        LK_TYPE(type) name[];                                              \
    };
#define LK_BLOCK_OUT(slot, type, name)                            \
    layout(set = 0, binding = slot, std430) buffer name##_block { \
        LK_TYPE(type) name[];                                     \
    };
#define LK_MEMBER(type, name) type name;
#define LK_SHARED_ARRAY(type, name, size) shared type name[size];
#define LK_BARRIER() barrier()
#define LK_KERNEL(name)                                                                                            \
    name##_BUFFERS(LK_BLOCK_IN, LK_BLOCK_OUT) layout(push_constant) uniform lk_push{name##_PARAMETERS(LK_MEMBER)}; \
    name##_SHARED(LK_SHARED_ARRAY) layout(local_size_x_id = 0) in;                                                 \
    void main() {
#define LK_END }
#define LK_FUNCTION

#define LK_LANE int(gl_LocalInvocationID.x)
#define LK_GROUP_X int(gl_WorkGroupID.x) /* with the base of a launch that comes in parts */
#define LK_GROUP_Y int(gl_WorkGroupID.y)
#define LK_GROUPS_X int(gl_NumWorkGroups.x)

/* ---- conversions and functions whose names differ ---- */
#define LK_FLOAT(x) float(x)
#define LK_INT(x) int(x)
#define LK_UINT(x) uint(x)
#define LK_FLOAT_FROM_BITS(x) intBitsToFloat(x)
#define LK_BITS_FROM_FLOAT(x) floatBitsToUint(x)
#define LK_UINT4 uvec4
#define LK_MAKE_UINT4(a, b, c, d) uvec4(a, b, c, d)
#define LK_MUL_HIGH(a, b) lk_mul_high(a, b)
#define LK_RSQRT(x) (1.0f / sqrt(x))
#define LK_FMA(a, b, c) fma(a, b, c)
#define LK_UNROLL
#define LK_SHUFFLE_XOR(x, mask) subgroupShuffleXor(x, uint(mask))
#define fmax(a, b) max(a, b)
#define fmin(a, b) min(a, b)
uint lk_mul_high(uint a, uint b) {
    uint high, low;
    umulExtended(a, b, high, low);
    return high;
}

/* ---- the vector type V of VECTOR floats: 1 or 4 ---- */
#ifdef LK_SET_VECTOR
#define VECTOR LK_SET_VECTOR
#if VECTOR == 1
#define V float
#define VI int
#define LK_VLOAD(array, i) array[i]
#define LK_VSTORE(array, i, value) array[i] = (value)
#define LK_VINT(x) int(x)
#define LK_VSUM(x) (x)
#define LK_VMAX(x) (x)
#define LK_VLESS(x, limit, then, otherwise) ((x) < (limit) ? (then) : (otherwise))
#else
#define V vec4
#define VI ivec4
#define LK_VLOAD(array, i) vec4(array[i], array[(i) + 1], array[(i) + 2], array[(i) + 3])
#define LK_VSTORE(array, i, value)    \
    {                                 \
        vec4 lk_stored = value;       \
        array[i] = lk_stored.x;       \
        array[(i) + 1] = lk_stored.y; \
        array[(i) + 2] = lk_stored.z; \
        array[(i) + 3] = lk_stored.w; \
    }
#define LK_VINT(x) ivec4(x)
#define LK_VSUM(x) lk_sum4(x)
#define LK_VMAX(x) lk_max4(x)
#define LK_VLESS(x, limit, then, otherwise) mix(otherwise, then, lessThan(x, limit))
float lk_sum4(vec4 x) {
    return (x.x + x.z) + (x.y + x.w);
}
float lk_max4(vec4 x) {
    return max(max(x.x, x.z), max(x.y, x.w));
}
#endif
#define LK_VFLOAT_FROM_BITS(x) intBitsToFloat(x)
#define LK_SPLAT(x) V(x)
#endif
