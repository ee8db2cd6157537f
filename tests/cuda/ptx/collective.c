/* What the lanes of a warp do together: shuffles, votes, matrices. Fragments are laid out as in the PTX ISA, "Matrix
 * Fragments for mma.m16n8k16" and "ldmatrix". */
#include <string.h>

#include "tests/cuda/ptx/vm.h"

/* ---- shuffles and votes ---- */

static bool mask_is_active(warp *w, const instruction *i, u32 mask) {
    if (mask != w->active && (mask & w->live) != w->active) {
        ptx_fault(w, i, 0, "the mask is %#x, but lanes %#x are here", mask, w->active);
        return false;
    }
    return true;
}

/* shfl.sync.mode.b32 d{|p}, a, b, c, mask */
static void shfl(warp *w, const instruction *i) {
    const int first = i->pairs ? 2 : 1;
    reg source;
    memcpy(source, ptx_reg(w, i, first), sizeof source);
    const char *mode = i->parts[2];
    int any = __builtin_ctz(w->active);
    if (!mask_is_active(w, i, ptx_reg(w, i, first + 3)[any].u32)) {
        return;
    }
    EACH_ACTIVE(w, l) {
        const s32 b = ptx_reg(w, i, first + 1)[l].s32 & 31, c = ptx_reg(w, i, first + 2)[l].s32;
        const s32 segment = c >> 8 & 31, clamp = c & 31, low = l & segment, limit = low | (clamp & ~segment);
        s32 j = strcmp(mode, "bfly") == 0   ? l ^ b
                : strcmp(mode, "down") == 0 ? l + b
                : strcmp(mode, "up") == 0   ? l - b
                                            : (low | (b & ~segment));
        bool inside = strcmp(mode, "up") == 0 ? j >= limit : j <= limit;
        j = inside ? j : l;
        if ((w->active >> j & 1u) == 0) {
            ptx_fault(w, i, l, "reads of lane %d, which is not here", (int)j);
            return;
        }
        ptx_reg(w, i, 0)[l].u64 = source[j].u32;
        if (i->pairs) {
            ptx_reg(w, i, 1)[l].pred = inside;
        }
    }
}

static void vote(warp *w, const instruction *i) {
    u32 yes = 0;
    EACH_ACTIVE(w, l) {
        bool value = (ptx_reg(w, i, 1)[l].pred != 0) != i->operands[1].negate;
        yes |= value ? 1u << l : 0u;
    }
    if (!mask_is_active(w, i, ptx_reg(w, i, 2)[__builtin_ctz(w->active)].u32)) {
        return;
    }
    EACH_ACTIVE(w, l) {
        ptx_reg(w, i, 0)[l].u64 = ptx_has(i, "ballot") ? yes
                                  : ptx_has(i, "all")  ? yes == w->active
                                  : ptx_has(i, "any")  ? yes != 0
                                                       : yes == 0 || yes == w->active;
    }
}

static void activemask(warp *w, const instruction *i) {
    EACH_ACTIVE(w, l) {
        ptx_reg(w, i, 0)[l].u64 = w->active;
    }
}

/* ---- matrices ---- */

/* In how many passes eight rows of 16 bytes are read from 32 banks of 4 bytes. */
static unsigned ways(const u64 rows[8]) {
    unsigned used[8] = {0}, most = 0;
    for (int k = 0; k < 8; k++) {
        unsigned *at = &used[rows[k] / 16 % 8];
        bool is_same = false; /* the same bytes are read once */
        for (int j = 0; j < k; j++) {
            is_same = is_same || rows[j] == rows[k];
        }
        *at += !is_same;
        most = *at > most ? *at : most;
    }
    return most;
}

/* ldmatrix.sync.aligned.m8n8.xN{.trans}.shared.b16 {d..}, [row]; lane 8q + r has the address of row r of matrix q */
static void ldmatrix(warp *w, const instruction *i) {
    const int count = i->num_operands - 1;
    u16 rows[4][8][8];
    for (int q = 0; q < count; q++) {
        u64 addresses[8];
        for (int r = 0; r < 8; r++) {
            const int lane = q * 8 + r;
            addresses[r] = (u32)ptx_reg(w, i, count)[lane].u64 + (u64)(s64)i->operands[count].offset;
            const unsigned char *from = ptx_address(w, i, lane, SHARED, addresses[r], 16, false);
            if (from == NULL) {
                return;
            }
            memcpy(rows[q][r], from, 16);
        }
        w->m->counts.ldmatrix_rows++;
        w->m->counts.ldmatrix_ways += ways(addresses);
    }
    const bool transposed = ptx_has(i, "trans");
    for (int q = 0; q < count; q++) {
        for (int l = 0; l < LANES; l++) {
            const int row = l / 4, column = l % 4 * 2;
            u32 low = transposed ? rows[q][column][row] : rows[q][row][column];
            u32 high = transposed ? rows[q][column + 1][row] : rows[q][row][column + 1];
            ptx_reg(w, i, q)[l].u64 = low | high << 16;
        }
    }
    w->m->counts.ldmatrix++;
}

/* stmatrix: the same the other way */
static void stmatrix(warp *w, const instruction *i) {
    const int count = i->num_operands - 1;
    const bool transposed = ptx_has(i, "trans");
    for (int q = 0; q < count; q++) {
        u16 rows[8][8];
        for (int l = 0; l < LANES; l++) {
            const int row = l / 4, column = l % 4 * 2;
            u32 both = ptx_reg(w, i, q + 1)[l].u32;
            *(transposed ? &rows[column][row] : &rows[row][column]) = (u16)both;
            *(transposed ? &rows[column + 1][row] : &rows[row][column + 1]) = (u16)(both >> 16);
        }
        for (int r = 0; r < 8; r++) {
            const int lane = q * 8 + r;
            u64 address = (u32)ptx_reg(w, i, 0)[lane].u64 + (u64)(s64)i->operands[0].offset;
            unsigned char *to = ptx_address(w, i, lane, SHARED, address, 16, true);
            if (to == NULL) {
                return;
            }
            memcpy(to, rows[r], 16);
        }
    }
}

/* movmatrix.sync.aligned.m8n8.trans.b16 d, a */
static void movmatrix(warp *w, const instruction *i) {
    u16 matrix[8][8];
    for (int l = 0; l < LANES; l++) {
        memcpy(&matrix[l / 4][l % 4 * 2], &ptx_reg(w, i, 1)[l].u32, sizeof(u32));
    }
    for (int l = 0; l < LANES; l++) {
        ptx_reg(w, i, 0)[l].u64 = matrix[l % 4 * 2][l / 4] | (u32)matrix[l % 4 * 2 + 1][l / 4] << 16;
    }
}

static float half_of(u32 pair, int which, bool is_bfloat) {
    u32 bits = pair >> 16 * which & 0xffffu;
    word value = {.u64 = 0};
    value.u32 = bits << 16;
    return is_bfloat ? value.f32 : ptx_from_half(bits);
}

/* mma.sync.aligned.m16n8kK.row.col.f32.T.T.f32 {d0..3}, {a..}, {b..}, {c0..3}, T bf16 or f16, K 16 or 8: D = A B + C.
 * Products are exact; the sums are rounded once, tensor cores round more often. */
static void mma(warp *w, const instruction *i) {
    const int depth = ptx_has(i, "m16n8k16") ? 16 : 8, na = depth / 4, nb = depth / 8;
    const bool is_bfloat = ptx_has(i, "bf16");
    float a[16][16], b[16][8];
    for (int l = 0; l < LANES; l++) {
        const int row = l / 4, pair = l % 4 * 2;
        for (int k = 0; k < na; k++) {
            for (int h = 0; h < 2; h++) { /* registers go down 8 rows first, then to the right 8 columns */
                a[row + k % 2 * 8][pair + k / 2 * 8 + h] = half_of(ptx_reg(w, i, 4 + k)[l].u32, h, is_bfloat);
            }
        }
        for (int k = 0; k < nb; k++) {
            for (int h = 0; h < 2; h++) {
                b[pair + k * 8 + h][row] = half_of(ptx_reg(w, i, 4 + na + k)[l].u32, h, is_bfloat);
            }
        }
    }
    double sums[16][8] = {{0}};
    for (int r = 0; r < 16; r++) {
        for (int k = 0; k < depth; k++) {
            for (int c = 0; c < 8; c++) {
                sums[r][c] += (double)a[r][k] * (double)b[k][c];
            }
        }
    }
    for (int l = 0; l < LANES; l++) {
        for (int k = 0; k < 4; k++) {
            const float c = ptx_reg(w, i, 4 + na + nb + k)[l].f32;
            ptx_reg(w, i, k)[l].u64 = 0;
            ptx_reg(w, i, k)[l].f32 = (float)((double)c + sums[l / 4 + k / 2 * 8][l % 4 * 2 + k % 2]);
        }
    }
    w->m->counts.mma++;
}

static bool mma_is_known(const instruction *i) {
    bool shape = ptx_has(i, "m16n8k16") || ptx_has(i, "m16n8k8");
    int depth = ptx_has(i, "m16n8k16") ? 16 : 8;
    bool types = i->num_parts == 10 && strcmp(i->parts[6], "f32") == 0 && strcmp(i->parts[9], "f32") == 0 &&
                 strcmp(i->parts[7], i->parts[8]) == 0 &&
                 (strcmp(i->parts[7], "bf16") == 0 || strcmp(i->parts[7], "f16") == 0);
    return shape && types && ptx_has(i, "row") && ptx_has(i, "col") && i->num_operands == 8 + depth / 4 + depth / 8;
}

static void warp_barrier(warp *w, const instruction *i) {
    if (mask_is_active(w, i, ptx_reg(w, i, 0)[__builtin_ctz(w->active)].u32)) {
        w->warp_epoch++;
    }
}

handler ptx_collective(const instruction *i) {
    const char *family = i->parts[0];
    if (strcmp(family, "shfl") == 0 && ptx_has(i, "sync") && ptx_has(i, "b32")) {
        return shfl;
    }
    if (strcmp(family, "vote") == 0 && ptx_has(i, "sync")) {
        return vote;
    }
    if (strcmp(family, "activemask") == 0) {
        return activemask;
    }
    if (strcmp(family, "bar") == 0 && ptx_has(i, "warp")) {
        return warp_barrier;
    }
    bool is_matrix = ptx_has(i, "m8n8") && ptx_has(i, "b16") && ptx_has(i, "sync") && ptx_has(i, "aligned");
    int count = ptx_has(i, "x4") ? 4 : ptx_has(i, "x2") ? 2 : 1;
    if (is_matrix && i->num_operands == count + 1 && strcmp(family, "ldmatrix") == 0) {
        return ldmatrix;
    }
    if (is_matrix && i->num_operands == count + 1 && strcmp(family, "stmatrix") == 0) {
        return stmatrix;
    }
    if (is_matrix && i->num_operands == 2 && strcmp(family, "movmatrix") == 0 && ptx_has(i, "trans")) {
        return movmatrix;
    }
    return strcmp(family, "mma") == 0 && mma_is_known(i) ? mma : NULL;
}
