/* vf for AArch64 NEON: see simd.h. */
#include <arm_neon.h>

#define VF_WIDTH 4
typedef float32x4_t vf;

static inline vf vf_zero(void) {
    return vdupq_n_f32(0.0f);
}
static inline vf vf_set1(float x) {
    return vdupq_n_f32(x);
}
static inline vf vf_load(const float *p) {
    return vld1q_f32(p);
}
static inline void vf_store(float *p, vf x) {
    vst1q_f32(p, x);
}
static inline vf vf_load_n(const float *p, int n) {
    float lanes[VF_WIDTH] = {0};
    for (int i = 0; i < n; i++) {
        lanes[i] = p[i];
    }
    return vld1q_f32(lanes);
}
static inline void vf_store_n(float *p, vf x, int n) {
    float lanes[VF_WIDTH];
    vst1q_f32(lanes, x);
    for (int i = 0; i < n; i++) {
        p[i] = lanes[i];
    }
}
static inline vf vf_add(vf a, vf b) {
    return vaddq_f32(a, b);
}
static inline vf vf_sub(vf a, vf b) {
    return vsubq_f32(a, b);
}
static inline vf vf_mul(vf a, vf b) {
    return vmulq_f32(a, b);
}
static inline vf vf_div(vf a, vf b) {
    return vdivq_f32(a, b);
}
static inline vf vf_sqrt(vf a) {
    return vsqrtq_f32(a);
}
static inline vf vf_fma(vf a, vf b, vf c) {
    return vfmaq_f32(c, a, b);
}
static inline vf vf_fnma(vf a, vf b, vf c) {
    return vfmsq_f32(c, a, b);
}
static inline vf vf_min(vf a, vf b) {
    return vminq_f32(a, b);
}
static inline vf vf_max(vf a, vf b) {
    return vmaxq_f32(a, b);
}
static inline vf vf_abs(vf a) {
    return vabsq_f32(a);
}
static inline vf vf_copysign(vf magnitude, vf sign) {
    return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude);
}
static inline vf vf_select_lt(vf a, vf b, vf x, vf y) {
    return vbslq_f32(vcltq_f32(a, b), x, y);
}
static inline vf vf_round(vf x) {
    return vrndnq_f32(x);
}
/* In two steps, since 2^n itself may lie outside the range of normal numbers. */
static inline vf vf_scale2(vf x, vf n) {
    int32x4_t exponent = vcvtq_s32_f32(n), half = vshrq_n_s32(exponent, 1), bias = vdupq_n_s32(127);
    int32x4_t rest = vsubq_s32(exponent, half);
    vf first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    vf second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
    return vmulq_f32(vmulq_f32(x, first), second);
}
static inline float vf_sum(vf x) {
    return vaddvq_f32(x);
}
static inline float vf_maximum(vf x) {
    return vmaxvq_f32(x);
}
static inline vf vf_load_bf16(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline void vf_store_bf16(uint16_t *p, vf x) {
    uint32x4_t bits = vreinterpretq_u32_f32(x), high = vshrq_n_u32(bits, 16);
    uint32x4_t odd = vandq_u32(high, vdupq_n_u32(1));
    uint32x4_t rounded = vshrq_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16);
    uint32x4_t quiet = vorrq_u32(high, vdupq_n_u32(0x40));
    vst1_u16(p, vmovn_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet)));
}
static inline vf vf_load_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline void vf_store_f16(uint16_t *p, vf x) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x)));
}
static inline void vf_transpose(vf row[4]) {
    float32x4x2_t a = vtrnq_f32(row[0], row[1]), b = vtrnq_f32(row[2], row[3]);
    row[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    row[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    row[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    row[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define VF_PAIRS 1
typedef uint32x4_t vp;

static inline vp vp_load(const uint32_t *p) {
    return vld1q_u32(p);
}
static inline void vp_store(uint32_t *p, vp x) {
    vst1q_u32(p, x);
}
static inline vp vp_set1(const uint16_t *p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    return vdupq_n_u32(pair);
}
static inline vp vp_round(vf a, vf b) {
    uint16x4_t low = vreinterpret_u16_bf16(vcvt_bf16_f32(a)), high = vreinterpret_u16_bf16(vcvt_bf16_f32(b));
    return vorrq_u32(vmovl_u16(low), vshll_n_u16(high, 16));
}
static inline vp vp_join(const uint16_t *p, const uint16_t *q) {
    return vorrq_u32(vmovl_u16(vld1_u16(p)), vshll_n_u16(vld1_u16(q), 16));
}
static inline vf vp_dot(vp x, vp y, vf c) {
    return vbfdotq_f32(c, vreinterpretq_bf16_u32(x), vreinterpretq_bf16_u32(y));
}
#endif
