/* vf as a single float, in portable C: see simd.h. */
#define VF_WIDTH 1
typedef float vf;

static inline vf vf_zero(void) {
    return 0.0f;
}
static inline vf vf_set1(float x) {
    return x;
}
static inline vf vf_load(const float *p) {
    return *p;
}
static inline void vf_store(float *p, vf x) {
    *p = x;
}
static inline vf vf_load_n(const float *p, int n) {
    return n > 0 ? *p : 0.0f;
}
static inline void vf_store_n(float *p, vf x, int n) {
    if (n > 0) {
        *p = x;
    }
}
static inline vf vf_add(vf a, vf b) {
    return a + b;
}
static inline vf vf_sub(vf a, vf b) {
    return a - b;
}
static inline vf vf_mul(vf a, vf b) {
    return a * b;
}
static inline vf vf_div(vf a, vf b) {
    return a / b;
}
static inline vf vf_sqrt(vf a) {
    return sqrtf(a);
}
static inline vf vf_fma(vf a, vf b, vf c) {
    return a * b + c;
}
static inline vf vf_fnma(vf a, vf b, vf c) {
    return c - a * b;
}
static inline vf vf_min(vf a, vf b) {
    return a < b ? a : b;
}
static inline vf vf_max(vf a, vf b) {
    return a > b ? a : b;
}
static inline vf vf_abs(vf a) {
    return fabsf(a);
}
static inline vf vf_copysign(vf magnitude, vf sign) {
    return copysignf(magnitude, sign);
}
static inline vf vf_select_lt(vf a, vf b, vf x, vf y) {
    return a < b ? x : y;
}
static inline vf vf_round(vf x) {
    return nearbyintf(x);
}
/* In two steps, since 2^n itself may lie outside the range of normal numbers. */
static inline vf vf_scale2(vf x, vf n) {
    if (!(n >= -150.0f && n <= 150.0f)) {
        return x * n; /* NaN */
    }
    int exponent = (int)n, half = exponent / 2;
    float first = lk_f32_from_bits((uint32_t)(half + 127) << 23);
    float second = lk_f32_from_bits((uint32_t)(exponent - half + 127) << 23);
    return x * first * second;
}
static inline float vf_sum(vf x) {
    return x;
}
static inline float vf_maximum(vf x) {
    return x;
}
static inline vf vf_load_bf16(const uint16_t *p) {
    return lk_bf16_to_f32(*p);
}
static inline void vf_store_bf16(uint16_t *p, vf x) {
    *p = lk_f32_to_bf16(x);
}
static inline vf vf_load_f16(const uint16_t *p) {
    return lk_f16_to_f32(*p);
}
static inline void vf_store_f16(uint16_t *p, vf x) {
    *p = lk_f32_to_f16(x);
}
static inline void vf_transpose(vf row[1]) {
    (void)row;
}
