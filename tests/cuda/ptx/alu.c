/* Instructions that concern one lane each: arithmetic, logic, comparisons, conversions. */
#include <math.h>
#include <string.h>

#include "tests/cuda/ptx/vm.h"

/* prmt: four of the eight bytes of x and y; the fourth bit of a selector repeats the byte's sign. */
static u32 permute(u32 x, u32 y, u32 selectors) {
    u64 bytes = (u64)y << 32 | x;
    u32 result = 0;
    for (int i = 0; i < 4; i++) {
        u32 selector = selectors >> 4 * i & 15u, byte = (u32)(bytes >> 8 * (selector & 7u)) & 255u;
        if ((selector & 8u) != 0) {
            byte = (byte & 128u) != 0 ? 255u : 0u;
        }
        result |= byte << 8 * i;
    }
    return result;
}

static u64 extract(u64 x, u32 start, u32 length, u32 bits, bool is_signed) {
    start &= 255u;
    length &= 255u;
    u64 field = start < bits ? x >> start : 0;
    if (length < 64) {
        field &= ((u64)1 << length) - 1;
    }
    u32 top = start + length > bits ? bits - 1 : start + length - 1;
    bool negative = is_signed && length > 0 && (x >> top & 1u) != 0;
    return negative && length < 64 ? field | ~(u64)0 << length : field;
}

/* The loops have no condition where all lanes go on, so that the compiler makes vectors of them. */
#define LOOP(w, body)                     \
    if ((w)->active == 0xffffffffu) {     \
        for (int l = 0; l < LANES; l++) { \
            body                          \
        }                                 \
    } else {                              \
        EACH_ACTIVE(w, l) {               \
            body                          \
        }                                 \
    }

#define PTX_1(name, to, type, value)                                  \
    static void name##_##to##_##type(warp *w, const instruction *i) { \
        word *d = ptx_reg(w, i, 0);                                   \
        const word *a = ptx_reg(w, i, 1);                             \
        LOOP(w, const type x = a[l].type; d[l].to = (value);)         \
    }
#define BINARY(name, to, type, type_y, value)                                               \
    static void name##_##to##_##type(warp *w, const instruction *i) {                       \
        word *d = ptx_reg(w, i, 0);                                                         \
        const word *a = ptx_reg(w, i, 1), *b = ptx_reg(w, i, 2);                            \
        LOOP(w, const type x = a[l].type; const type_y y = b[l].type_y; d[l].to = (value);) \
    }
#define PTX_2(name, to, type, value) BINARY(name, to, type, type, value)
#define PTX_SHIFT(name, type, value) BINARY(name, type, type, u32, value)
#define PTX_3(name, to, type, type_z, value)                                                                          \
    static void name##_##to##_##type(warp *w, const instruction *i) {                                                 \
        word *d = ptx_reg(w, i, 0);                                                                                   \
        const word *a = ptx_reg(w, i, 1), *b = ptx_reg(w, i, 2), *c = ptx_reg(w, i, 3);                               \
        LOOP(w, const type x = a[l].type; const type y = b[l].type; const type_z z = c[l].type_z; d[l].to = (value);) \
    }
#include "tests/cuda/ptx/alu.def"
#undef PTX_1
#undef PTX_2
#undef PTX_3
#undef PTX_SHIFT

static const struct {
    const char *name, *type;
    handler run;
} rows[] = {
#define PTX_1(name, to, type, value) {#name, #type, name##_##to##_##type},
#define PTX_2(name, to, type, value) {#name, #type, name##_##to##_##type},
#define PTX_3(name, to, type, type_z, value) {#name, #type, name##_##to##_##type},
#define PTX_SHIFT(name, type, value) {#name, #type, name##_##type##_##type},
#include "tests/cuda/ptx/alu.def"
#undef PTX_1
#undef PTX_2
#undef PTX_3
#undef PTX_SHIFT
};

/* ---- comparisons ---- */

#define COMPARE(type)                                                                          \
    static void setp_##type(warp *w, const instruction *i) {                                   \
        word *d = ptx_reg(w, i, 0), *e = i->pairs ? ptx_reg(w, i, 1) : NULL;                   \
        const int first = i->pairs ? 2 : 1;                                                    \
        const word *a = ptx_reg(w, i, first), *b = ptx_reg(w, i, first + 1);                   \
        const word *c = i->combine != ALONE ? ptx_reg(w, i, first + 2) : NULL;                 \
        EACH_ACTIVE(w, l) {                                                                    \
            const type x = a[l].type, y = b[l].type;                                           \
            bool is_number = x == x && y == y, is = false;                                     \
            switch (i->compare) {                                                              \
            case EQ:                                                                           \
                is = x == y;                                                                   \
                break;                                                                         \
            case NE:                                                                           \
                is = is_number && x != y;                                                      \
                break;                                                                         \
            case LT:                                                                           \
                is = x < y;                                                                    \
                break;                                                                         \
            case LE:                                                                           \
                is = x <= y;                                                                   \
                break;                                                                         \
            case GT:                                                                           \
                is = x > y;                                                                    \
                break;                                                                         \
            case GE:                                                                           \
                is = x >= y;                                                                   \
                break;                                                                         \
            case NUM:                                                                          \
                is = is_number;                                                                \
                break;                                                                         \
            case NOT_A_NUMBER:                                                                 \
                is = !is_number;                                                               \
                break;                                                                         \
            }                                                                                  \
            is = is || (i->unordered && !is_number);                                           \
            const bool other = c != NULL && (c[l].pred != 0) != i->operands[first + 2].negate; \
            const bool results[2] = {is, !is};                                                 \
            for (int r = 0; r < (e != NULL ? 2 : 1); r++) {                                    \
                bool value = results[r];                                                       \
                value = i->combine == AND   ? value && other                                   \
                        : i->combine == OR  ? value || other                                   \
                        : i->combine == XOR ? value != other                                   \
                                            : value;                                           \
                (r == 0 ? d : e)[l].pred = value;                                              \
            }                                                                                  \
        }                                                                                      \
    }
COMPARE(u16)
COMPARE(s16)
COMPARE(u32)
COMPARE(s32)
COMPARE(u64)
COMPARE(s64)
COMPARE(f32)
COMPARE(f64)

static handler comparison(ptx_type type) {
    switch (type) {
    case T_u16:
    case T_b16:
        return setp_u16;
    case T_s16:
        return setp_s16;
    case T_u32:
    case T_b32:
        return setp_u32;
    case T_s32:
        return setp_s32;
    case T_u64:
    case T_b64:
        return setp_u64;
    case T_s64:
        return setp_s64;
    case T_f32:
        return setp_f32;
    case T_f64:
        return setp_f64;
    default:
        return NULL;
    }
}

/* ---- conversions ---- */

static u32 bits_of(float x) {
    u32 bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static float float_of(u32 bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

u32 ptx_to_bfloat(float x) {
    u32 bits = bits_of(x);
    return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

float ptx_from_half(u32 h) {
    u32 sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31) {
        return float_of(sign | 0x7f800000u | mantissa << 13);
    }
    float size = exponent == 0 ? ldexpf((float)mantissa, -24) : ldexpf((float)(mantissa | 0x400u), (int)exponent - 25);
    return sign != 0 ? -size : size;
}

u32 ptx_to_half(float x) {
    u32 sign = bits_of(x) >> 16 & 0x8000u;
    float size = fabsf(x);
    if (x != x) {
        return 0x7fffu;
    }
    if (size >= 65520.0f) {
        return sign | 0x7c00u;
    }
    int exponent = size < 6.103515625e-05f ? -14 : ilogbf(size);
    u32 units = (u32)lrintf(ldexpf(size, 10 - exponent)); /* to even; may carry into the exponent */
    return sign | (units + ((u32)(exponent + 14) << 10));
}

static bool is_float(ptx_type type) {
    return type == T_f16 || type == T_bf16 || type == T_f32 || type == T_f64;
}

/* The value in both forms. */
static double value_of(const word *a, ptx_type from, s64 *whole) {
    *whole = 0;
    switch (from) {
    case T_f16:
        return (double)ptx_from_half(a->u16);
    case T_bf16:
        return (double)float_of((u32)a->u16 << 16);
    case T_f32:
        return (double)a->f32;
    case T_f64:
        return a->f64;
    case T_u8:
        *whole = a->u8;
        break;
    case T_s8:
        *whole = a->s8;
        break;
    case T_u16:
        *whole = a->u16;
        break;
    case T_s16:
        *whole = a->s16;
        break;
    case T_u32:
        *whole = a->u32;
        break;
    case T_s32:
        *whole = a->s32;
        break;
    default:
        *whole = a->s64;
        return from == T_u64 ? (double)a->u64 : (double)a->s64;
    }
    return (double)*whole;
}

static double rounded(const instruction *i, double x) {
    return ptx_has(i, "rni")   ? rint(x)
           : ptx_has(i, "rmi") ? floor(x)
           : ptx_has(i, "rpi") ? ceil(x)
           : ptx_has(i, "rzi") ? trunc(x)
                               : x;
}

/* Conversions to integers saturate. */
static s64 to_whole(double x, ptx_type to) {
    double bits = 8.0 * (double)ptx_bytes_of(to);
    bool is_signed = to == T_s8 || to == T_s16 || to == T_s32 || to == T_s64;
    double low = is_signed ? -ldexp(1.0, (int)bits - 1) : 0.0, high = ldexp(1.0, (int)bits - (is_signed ? 1 : 0));
    if (x != x) {
        return 0;
    }
    if (x <= low) {
        return is_signed ? (s64)low : 0;
    }
    if (x >= high) {
        return is_signed ? (s64)(((u64)1 << ((int)bits - 1)) - 1) : (s64)(~(u64)0 >> (64 - (int)bits));
    }
    return is_signed ? (s64)x : (s64)(u64)x;
}

static void cvt(warp *w, const instruction *i) {
    word *d = ptx_reg(w, i, 0);
    const word *a = ptx_reg(w, i, 1);
    EACH_ACTIVE(w, l) {
        s64 whole;
        double x = value_of(&a[l], i->from, &whole);
        if (is_float(i->from)) {
            x = rounded(i, x);
            whole = is_float(i->type) ? 0 : to_whole(x, i->type);
        }
        switch (i->type) {
        case T_f16:
            d[l].u64 = ptx_to_half((float)x);
            break;
        case T_bf16:
            d[l].u64 = ptx_to_bfloat((float)x);
            break;
        case T_f32: /* whole numbers are rounded once */
            d[l].f32 = is_float(i->from) ? (float)x : i->from == T_u64 ? (float)(u64)whole : (float)whole;
            break;
        case T_f64:
            d[l].f64 = x;
            break;
        case T_u8:
            d[l].u64 = (u8)whole;
            break;
        case T_u16:
            d[l].u64 = (u16)whole;
            break;
        case T_u32:
            d[l].u64 = (u32)whole;
            break;
        case T_s8:
            d[l].s64 = (s8)whole;
            break;
        case T_s16:
            d[l].s64 = (s16)whole;
            break;
        case T_s32:
            d[l].s64 = (s32)whole;
            break;
        default:
            d[l].s64 = whole;
        }
    }
}

/* cvt.rn.bf16x2.f32 d, a, b: a becomes the upper half. */
static void cvt_pair(warp *w, const instruction *i) {
    word *d = ptx_reg(w, i, 0);
    const word *a = ptx_reg(w, i, 1), *b = ptx_reg(w, i, 2);
    EACH_ACTIVE(w, l) {
        d[l].u32 = i->type == T_bf16x2 ? ptx_to_bfloat(a[l].f32) << 16 | ptx_to_bfloat(b[l].f32)
                                       : ptx_to_half(a[l].f32) << 16 | ptx_to_half(b[l].f32);
    }
}

/* ---- parts of registers ---- */

static void pack(warp *w, const instruction *i) {
    const int parts = i->num_operands - 1;
    const u32 bits = (u32)(8 * ptx_bytes_of(i->type)) / (u32)parts;
    EACH_ACTIVE(w, l) {
        u64 value = 0;
        for (int k = 0; k < parts; k++) {
            value |= (ptx_reg(w, i, k + 1)[l].u64 & (((u64)1 << bits) - 1)) << bits * (u32)k;
        }
        ptx_reg(w, i, 0)[l].u64 = value;
    }
}

static void unpack(warp *w, const instruction *i) {
    const int parts = i->num_operands - 1;
    const u32 bits = (u32)(8 * ptx_bytes_of(i->type)) / (u32)parts;
    EACH_ACTIVE(w, l) {
        u64 value = ptx_reg(w, i, parts)[l].u64;
        for (int k = 0; k < parts; k++) {
            ptx_reg(w, i, k)[l].u64 = value >> bits * (u32)k & (((u64)1 << bits) - 1);
        }
    }
}

static void bfi(warp *w, const instruction *i) {
    const u32 bits = (u32)(8 * ptx_bytes_of(i->type));
    EACH_ACTIVE(w, l) {
        u64 field = ptx_reg(w, i, 1)[l].u64, base = ptx_reg(w, i, 2)[l].u64;
        u32 start = ptx_reg(w, i, 3)[l].u32 & 255u, length = ptx_reg(w, i, 4)[l].u32 & 255u;
        u64 mask = length >= 64 ? ~(u64)0 : ((u64)1 << length) - 1;
        mask = start >= bits ? 0 : mask << start;
        u64 value = (base & ~mask) | (start >= bits ? 0 : field << start & mask);
        ptx_reg(w, i, 0)[l].u64 = bits == 32 ? (u32)value : value;
    }
}

static void lop3(warp *w, const instruction *i) {
    EACH_ACTIVE(w, l) {
        u32 x = ptx_reg(w, i, 1)[l].u32, y = ptx_reg(w, i, 2)[l].u32, z = ptx_reg(w, i, 3)[l].u32, result = 0;
        u32 table = ptx_reg(w, i, 4)[l].u32;
        for (int k = 0; k < 8; k++) {
            u32 a = (k & 4) != 0 ? x : ~x, b = (k & 2) != 0 ? y : ~y, c = (k & 1) != 0 ? z : ~z;
            result |= (table >> k & 1u) != 0 ? a & b & c : 0;
        }
        ptx_reg(w, i, 0)[l].u32 = result;
    }
}

/* From and to generic addresses. */
static void cvta(warp *w, const instruction *i) {
    u64 window = i->space == SHARED ? SHARED_WINDOW : i->space == LOCAL ? LOCAL_WINDOW : 0;
    window = ptx_has(i, "to") ? 0u - window : window;
    EACH_ACTIVE(w, l) {
        ptx_reg(w, i, 0)[l].u64 = ptx_reg(w, i, 1)[l].u64 + window;
    }
}

/* Does nothing that can be seen here. */
static void nothing(warp *w, const instruction *i) {
    (void)w;
    (void)i;
}

/* ---- finding the handler ---- */

static const char *const plain_names[] = {
#define PTX_TYPE(name, bytes, plain) #plain,
#include "tests/cuda/ptx/types.def"
#undef PTX_TYPE
};
static const char *const own_names[] = {
#define PTX_TYPE(name, bytes, plain) #name,
#include "tests/cuda/ptx/types.def"
#undef PTX_TYPE
};

static handler row_of(const char *name, const char *type) {
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        if (strcmp(rows[k].name, name) == 0 && strcmp(rows[k].type, type) == 0) {
            return rows[k].run;
        }
    }
    return NULL;
}

/* Parts of a name that change nothing here: default rounding, approximations, hints. */
static bool is_neutral(const char *part) {
    static const char *const neutral[] = {"rn", "ftz", "approx", "full", "lo", "uni"};
    for (size_t k = 0; k < sizeof neutral / sizeof *neutral; k++) {
        if (strcmp(part, neutral[k]) == 0) {
            return true;
        }
    }
    return false;
}

handler ptx_alu(const instruction *i) {
    const char *family = i->parts[0];
    if (strcmp(family, "setp") == 0) {
        return comparison(i->type);
    }
    if (strcmp(family, "cvt") == 0) {
        return i->type == T_bf16x2 || i->type == T_f16x2 ? cvt_pair : cvt;
    }
    if (strcmp(family, "cvta") == 0) {
        return cvta;
    }
    if (strcmp(family, "mov") == 0 && i->num_operands > 2) {
        return i->unpacks ? unpack : pack;
    }
    if (strcmp(family, "bfi") == 0) {
        return bfi;
    }
    if (strcmp(family, "lop3") == 0) {
        return lop3;
    }
    static const char *const silent[] = {"fence", "membar", "prefetch", "griddepcontrol", "nanosleep", "prefetchu"};
    for (size_t k = 0; k < sizeof silent / sizeof *silent; k++) {
        if (strcmp(family, silent[k]) == 0) {
            return nothing;
        }
    }
    char name[32] = "";
    for (int k = 0; k < i->num_parts; k++) {
        bool is_type = k == i->num_parts - 1;
        if (!is_type && !is_neutral(i->parts[k])) {
            size_t used = strlen(name), length = strlen(i->parts[k]);
            if (used + length + 2 > sizeof name) {
                return NULL;
            }
            name[used] = '_';
            memcpy(name + used + (used > 0), i->parts[k], length + 1);
        }
    }
    handler run = row_of(name, own_names[i->type]); /* where the sign matters, there is a row of its own */
    return run != NULL ? run : row_of(name, plain_names[i->type]);
}
