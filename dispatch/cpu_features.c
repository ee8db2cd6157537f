#define _POSIX_C_SOURCE 200809L
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/topology.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#define PROBE_X86 1
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#define PROBE_AARCH64 1
#endif

static const char *const names[] = {
#define LK_CPU_FEATURE(NAME, name) #name,
#include "lorikeet/cpu_features.def"
#undef LK_CPU_FEATURE
};

const char *lk_cpu_feature_name(int index) {
    return index >= 0 && index < LK_CPU_FEATURE_COUNT ? names[index] : NULL;
}

lk_status lk_cpu_features_parse(lk_context *context, const char *list, uint64_t *out) {
    *out = 0;
    uint64_t bits = 0;
    for (const char *start = list; *start != '\0';) {
        size_t length = strcspn(start, ", ");
        int found = -1;
        for (int i = 0; i < LK_CPU_FEATURE_COUNT && length > 0; i++) {
            if (strlen(names[i]) == length && memcmp(names[i], start, length) == 0) {
                found = i;
            }
        }
        if (length > 0 && found < 0) {
            return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "\"%.*s\" is not the name of a CPU feature",
                           (int)LK_MIN(length, (size_t)64), start);
        }
        if (found >= 0) {
            bits |= UINT64_C(1) << found;
        }
        start += length;
        start += strspn(start, ", ");
    }
    *out = bits;
    return LK_OK;
}

static uint64_t bit_if(bool there, uint64_t bit) {
    return there ? bit : 0;
}

/* Bits as Intel's manual numbers them (volume 2A, CPUID; volume 1, 13.2: XCR0): 1-2 SSE and AVX, 5-7 AVX-512, 17-18
 * tiles. */
uint64_t lk_x86_features(const lk_x86_identity *x) {
    bool avx = (x->saved & 0x6) == 0x6, avx512 = avx && (x->saved & 0xe0) == 0xe0;
    uint64_t bits = bit_if(avx && (x->leaf1_c & 1u << 12), LK_CPU_BIT(FMA)) |
                    bit_if(avx && (x->leaf1_c & 1u << 29), LK_CPU_BIT(F16C)) |
                    bit_if(avx && (x->leaf7_b & 1u << 5), LK_CPU_BIT(AVX2)) |
                    bit_if(avx512 && (x->leaf7_b & 1u << 16), LK_CPU_BIT(AVX512F)) |
                    bit_if(avx512 && (x->leaf7_b & 1u << 17), LK_CPU_BIT(AVX512DQ)) |
                    bit_if(avx512 && (x->leaf7_b & 1u << 30), LK_CPU_BIT(AVX512BW)) |
                    bit_if(avx512 && (x->leaf7_b & 1u << 31), LK_CPU_BIT(AVX512VL)) |
                    bit_if(avx512 && (x->leaf7_c & 1u << 11), LK_CPU_BIT(AVX512_VNNI)) |
                    bit_if(avx512 && (x->leaf7_1_a & 1u << 5), LK_CPU_BIT(AVX512_BF16));
    bool tiles = (x->saved & 0x60000) == 0x60000 && (x->leaf7_d & 1u << 24) != 0;
    if (tiles && x->permits_tiles()) {
        bits |= LK_CPU_BIT(AMX_TILE) | bit_if(x->leaf7_d & 1u << 22, LK_CPU_BIT(AMX_BF16));
    }
    return bits;
}

#if defined(PROBE_X86)
/* XCR0 */
static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
long syscall(long number, ...); /* hidden by _POSIX_C_SOURCE */
#endif

/* Linux hands out the tile registers on request only (arch_prctl ARCH_REQ_XCOMP_PERM, XTILEDATA). */
static bool tiles_permitted(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return false;
#endif
}

static uint64_t detect(void) {
    lk_x86_identity identity = {.permits_tiles = tiles_permitted};
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) {
        return 0;
    }
    identity.leaf1_c = c;
    identity.saved = saved_registers();
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        uint32_t leaves = a;
        identity.leaf7_b = b;
        identity.leaf7_c = c;
        identity.leaf7_d = d;
        if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
            identity.leaf7_1_a = a;
        }
    }
    return lk_x86_features(&identity);
}
#elif defined(PROBE_AARCH64)
static uint64_t detect(void) {
    unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    uint64_t bits = LK_CPU_BIT(NEON); /* part of the architecture */
    bits |= first & (1ul << 22) ? LK_CPU_BIT(SVE) : 0;
    bits |= second & (1ul << 14) ? LK_CPU_BIT(NEON_BF16) : 0;
    return bits;
}
#elif defined(__aarch64__)
static uint64_t detect(void) {
    return LK_CPU_BIT(NEON);
}
#else
static uint64_t detect(void) {
    return 0;
}
#endif

lk_status lk_cpu_features_probe(lk_context *context, uint64_t *out) {
    *out = 0;
    uint64_t taken_away = 0;
    const char *list = getenv("LORIKEET_CPU_DISABLE");
    if (list != NULL) {
        lk_status status = lk_cpu_features_parse(context, list, &taken_away);
        if (status != LK_OK) {
            return lk_fail_within(context, status, "LORIKEET_CPU_DISABLE");
        }
    }
    *out = detect() & ~taken_away;
    return LK_OK;
}
