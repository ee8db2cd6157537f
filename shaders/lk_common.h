/* What all three languages share, in the dialect itself. */
#define LK_TYPE(type) LK_TYPE_1(type)
#define LK_TYPE_1(type) LK_TYPE_##type
#define LK_GET(type, buffer, i) LK_GET_1(type, buffer, i)
#define LK_GET_1(type, buffer, i) LK_GET_##type(buffer, i)
#define LK_PUT(type, buffer, i, value) LK_PUT_1(type, buffer, i, value)
#define LK_PUT_1(type, buffer, i, value) LK_PUT_##type(buffer, i, value)

/* The macro whose name is `prefix` and what the word (set when the kernel is compiled) stands for. */
#define LK_WORD(prefix, word) LK_WORD_1(prefix, word)
#define LK_WORD_1(prefix, word) prefix##word

/* lanes in a group; the first constant of every kernel */
LK_CONSTANT(0, GROUP, 64)

/* The group's number where the grid is one row too long for a device and so has two, and the lane's number in the grid.
 */
#define LK_GROUP_INDEX (LK_GROUP_X + LK_GROUP_Y * LK_GROUPS_X)
#define LK_INDEX (LK_GROUP_INDEX * GROUP + LK_LANE)

/* The lanes of a group share the iterations. */
#define LK_FOR(i, count) for (int i = LK_LANE; i < (count); i += GROUP)

/* Combines shared[0 .. GROUP) into shared[0], in a fixed order; GROUP is a power of two. */
#define LK_ADD(a, b) ((a) + (b))
#define LK_REDUCE(shared, combine)                                                 \
    for (int lk_half = GROUP / 2; lk_half > 0; lk_half /= 2) {                     \
        LK_BARRIER();                                                              \
        if (LK_LANE < lk_half) {                                                   \
            shared[LK_LANE] = combine(shared[LK_LANE], shared[LK_LANE + lk_half]); \
        }                                                                          \
    }                                                                              \
    LK_BARRIER();

/* `total` becomes all lanes' `part`, combined in a fixed order: through the shared array `parts` of GROUP, or, where the word
 * REDUCTION is `subgroup`, by exchange within subgroups of SUBGROUP lanes first: then groups of one need no barrier. */
#ifndef REDUCTION
#define REDUCTION group
#endif
#define LK_COMBINE LK_WORD(LK_COMBINE_, REDUCTION)
#define LK_COMBINE_group(total, parts, part, combine) \
    LK_BARRIER(); /* an earlier total has been read */ \
    parts[LK_LANE] = part;                            \
    LK_REDUCE(parts, combine)                         \
    total = parts[0];
#define LK_COMBINE_subgroup(total, parts, part, combine)                \
    for (int lk_mask = SUBGROUP / 2; lk_mask > 0; lk_mask /= 2) {       \
        float lk_other = LK_SHUFFLE_XOR(part, lk_mask);                 \
        part = combine(part, lk_other);                                 \
    }                                                                   \
    total = part;                                                       \
    if (GROUP > SUBGROUP) {                                             \
        LK_BARRIER(); /* an earlier total has been read */              \
        if (LK_LANE % SUBGROUP == 0) {                                  \
            parts[LK_LANE / SUBGROUP] = part;                           \
        }                                                               \
        LK_BARRIER();                                                   \
        total = parts[0];                                               \
        for (int lk_p = 1; lk_p < GROUP / SUBGROUP; lk_p++) {           \
            total = combine(total, parts[lk_p]);                        \
        }                                                               \
    }
#define LK_BY_SUBGROUPS_group 0
#define LK_BY_SUBGROUPS_subgroup 1
#if LK_WORD(LK_BY_SUBGROUPS_, REDUCTION)
LK_CONSTANT(7, SUBGROUP, 32)
#endif

/* `total` becomes TERM(i) over all i < width, combined (a sum from 0, a maximum from -3e38) by the lanes of a group in a
 * fixed order. Each lane keeps LANES partial results side by side: 16 let a processor use its vectors. `parts` is a
 * shared array of GROUP. All lanes of the group must come here. */
#define LK_MAX(a, b) ((a) > (b) ? (a) : (b))
#define LK_ROW_REDUCE(total, parts, width, initial, combine, TERM)                                    \
    {                                                                                                 \
        float lk_lanes[LANES], lk_part = initial;                                                     \
        int lk_whole = (width) / LANES * LANES;                                                       \
        for (int lk_l = 0; lk_l < LANES; lk_l++) {                                                    \
            lk_lanes[lk_l] = initial;                                                                 \
        }                                                                                             \
        for (int lk_i = LK_LANE * LANES; lk_i < lk_whole; lk_i += GROUP * LANES) {                    \
            for (int lk_m = 0; lk_m < LANES; lk_m++) {                                                \
                lk_lanes[lk_m] = combine(lk_lanes[lk_m], TERM(lk_i + lk_m));                          \
            }                                                                                         \
        }                                                                                             \
        for (int lk_j = lk_whole + LK_LANE; lk_j < (width); lk_j += GROUP) {                          \
            lk_part = combine(lk_part, TERM(lk_j));                                                   \
        }                                                                                             \
        for (int lk_n = 0; lk_n < LANES; lk_n++) {                                                    \
            lk_part = combine(lk_part, lk_lanes[lk_n]);                                               \
        }                                                                                             \
        LK_COMBINE(total, parts, lk_part, combine)                                                    \
    }
#define LK_ROW_SUM(total, parts, width, TERM) LK_ROW_REDUCE(total, parts, width, 0.0f, LK_ADD, TERM)

/* exp(x) to 2 units in the last place, the same on every device, of arithmetic only so that compilers vectorise it:
 * x = n ln 2 + r, a polynomial in r (Cephes' expf), and n added to the exponent. 0 below -87, finite above 88. */
#define LK_DEFINE_EXP(name, T, SPLAT, TO_INT, FROM_BITS, LESS)             \
    LK_FUNCTION T name(T x) {                                              \
        T limited = fmin(fmax(x, SPLAT(-87.0f)), SPLAT(88.0f));            \
        T n = floor(LK_FMA(limited, SPLAT(1.44269504f), SPLAT(0.5f)));     \
        T r = LK_FMA(n, SPLAT(-0.693359375f), limited);                    \
        r = LK_FMA(n, SPLAT(2.12194440e-4f), r);                           \
        T p = LK_FMA(SPLAT(1.9875691500e-4f), r, SPLAT(1.3981999507e-3f)); \
        p = LK_FMA(p, r, SPLAT(8.3334519073e-3f));                         \
        p = LK_FMA(p, r, SPLAT(4.1665795894e-2f));                         \
        p = LK_FMA(p, r, SPLAT(1.6666665459e-1f));                         \
        p = LK_FMA(p, r, SPLAT(5.0000001201e-1f));                         \
        p = LK_FMA(p, r * r, r) + SPLAT(1.0f);                             \
        p = p * FROM_BITS((TO_INT(n) + 127) << 23);                        \
        return LESS(x, SPLAT(-87.0f), SPLAT(0.0f), p);                     \
    }
#define LK_SCALAR(x) (x)
#define LK_LESS(x, limit, then, otherwise) ((x) < (limit) ? (then) : (otherwise))
LK_DEFINE_EXP(lk_exp, float, LK_SCALAR, LK_INT, LK_FLOAT_FROM_BITS, LK_LESS)
#ifdef LK_SET_VECTOR
LK_DEFINE_EXP(lk_vexp, V, LK_SPLAT, LK_VINT, LK_VFLOAT_FROM_BITS, LK_VLESS)
#endif

/* The upper half of a float's bits, rounded to the nearest, ties to even; a NaN stays one. */
LK_FUNCTION uint lk_bf16_bits(float x) {
    uint bits = LK_BITS_FROM_FLOAT(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (bits >> 16) | 64u;
    }
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

/* Philox4x32-10: lk_philox4x32() of core/base, with the 64-bit numbers as two words each. */
LK_FUNCTION LK_UINT4 lk_philox(uint seed_low, uint seed_high, uint stream_low, uint stream_high, uint index_low,
                               uint index_high) {
    uint c0 = index_low, c1 = index_high, c2 = stream_low, c3 = stream_high;
    uint k0 = seed_low, k1 = seed_high;
    for (int i = 0; i < 10; i++) {
        uint high0 = LK_MUL_HIGH(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        uint high1 = LK_MUL_HIGH(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return LK_MAKE_UINT4(c0, c1, c2, c3);
}
