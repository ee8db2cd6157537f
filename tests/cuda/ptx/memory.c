/* Loads, stores and asynchronous copies, each checked: bounds, alignment, and in shared memory who else was there. */
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/ptx/vm.h"

/* ---- races in shared memory ---- */

static bool touched_by_another(const warp *w, const stamp *old, s32 lane) {
    if (old->lane == NOBODY || old->block_epoch != w->m->block_epoch || old->lane == lane) {
        return false;
    }
    if (old->lane == SEVERAL_WARPS) {
        return true;
    }
    s32 other = old->lane <= -2 ? -2 - old->lane : old->lane / LANES;
    return other != w->number || old->warp_epoch == w->warp_epoch;
}

static void note(const warp *w, stamp *at, s32 lane) {
    bool is_old = at->lane == NOBODY || at->block_epoch != w->m->block_epoch;
    if (!is_old && at->lane != lane) {
        s32 other = at->lane == SEVERAL_WARPS ? -1 : at->lane <= -2 ? -2 - at->lane : at->lane / LANES;
        bool is_same_warp = other == w->number;
        if (!is_same_warp || at->warp_epoch == w->warp_epoch) {
            lane = is_same_warp ? -2 - w->number : SEVERAL_WARPS;
        }
    }
    *at = (stamp){w->m->block_epoch, w->warp_epoch, lane};
}

static bool check_race(warp *w, const instruction *i, int lane, u64 start, size_t bytes, bool writes) {
    const s32 me = w->number * LANES + lane;
    for (u64 k = start / 2; k <= (start + bytes - 1) / 2; k++) {
        shadow *at = &w->m->shadows[k];
        bool race = touched_by_another(w, &at->writer, me) || (writes && touched_by_another(w, &at->reader, me));
        if (race) {
            ptx_fault(w, i, lane, "shared byte %llu: another lane was there since the last barrier",
                      (unsigned long long)(2 * k));
            return false;
        }
        note(w, writes ? &at->writer : &at->reader, me);
    }
    return true;
}

/* ---- addresses ---- */

unsigned char *ptx_address(warp *w, const instruction *i, int lane, ptx_space space, u64 address, size_t bytes,
                           bool writes) {
    machine *m = w->m;
    if (space == GENERIC) {
        space = address >= LOCAL_WINDOW ? LOCAL : address >= SHARED_WINDOW ? SHARED : GLOBAL;
        address -= space == LOCAL ? LOCAL_WINDOW : space == SHARED ? SHARED_WINDOW : 0;
    }
    if ((address & (bytes - 1)) != 0) {
        ptx_fault(w, i, lane, "address %#llx is not aligned to %zu bytes", (unsigned long long)address, bytes);
        return NULL;
    }
    if (space == SHARED) {
        address &= 0xffffffffu; /* shared addresses are 32 bits */
        if (address > m->shared_bytes || bytes > m->shared_bytes - address) {
            ptx_fault(w, i, lane, "shared byte %llu of %zu", (unsigned long long)address, m->shared_bytes);
            return NULL;
        }
        return check_race(w, i, lane, address, bytes, writes) ? m->shared + address : NULL;
    }
    if (space == LOCAL) {
        const size_t size = m->kernel->local_bytes;
        if (address > size || bytes > size - address) {
            ptx_fault(w, i, lane, "local byte %llu of %zu", (unsigned long long)address, size);
            return NULL;
        }
        return w->local + (size_t)lane * size + address;
    }
    const ptx_module *module = m->kernel->module;
    for (int k = 0; k < module->num_data; k++) {
        u64 start = (u64)(uintptr_t)module->data[k].bytes;
        if (address >= start && address - start + bytes <= module->data[k].size) {
            return (unsigned char *)(uintptr_t)address;
        }
    }
    if (!m->launch->is_memory(m->launch->user, address, bytes)) {
        ptx_fault(w, i, lane, "global address %#llx of %zu bytes is outside of all buffers",
                  (unsigned long long)address, bytes);
        return NULL;
    }
    return (unsigned char *)(uintptr_t)address;
}

static u64 address_of(warp *w, const instruction *i, int operand, int lane) {
    u64 base = ptx_reg(w, i, operand)[lane].u64;
    if (i->space == SHARED) {
        base = (u32)base;
    }
    return base + (u64)(s64)i->operands[operand].offset;
}

/* ---- loads and stores ---- */

/* Registers may be wider than what is loaded: signs are repeated, the rest is zero. */
static void put(word *to, const unsigned char *from, ptx_type type) {
    to->u64 = 0;
    memcpy(to, from, ptx_bytes_of(type));
    if (type == T_s8) {
        to->s64 = to->s8;
    } else if (type == T_s16) {
        to->s64 = to->s16;
    } else if (type == T_s32) {
        to->s64 = to->s32;
    }
}

static void ld(warp *w, const instruction *i) {
    const size_t size = ptx_bytes_of(i->type);
    const int count = i->num_operands - 1;
    EACH_ACTIVE(w, l) {
        const unsigned char *from =
            ptx_address(w, i, l, i->space, address_of(w, i, count, l), size * (size_t)count, false);
        if (from == NULL) {
            return;
        }
        unsigned char copied[16]; /* a target may be the address */
        memcpy(copied, from, size * (size_t)count);
        for (int k = 0; k < count; k++) {
            put(&ptx_reg(w, i, k)[l], copied + size * (size_t)k, i->type);
        }
    }
}

static void st(warp *w, const instruction *i) {
    const size_t size = ptx_bytes_of(i->type);
    const int count = i->num_operands - 1;
    EACH_ACTIVE(w, l) {
        unsigned char *to = ptx_address(w, i, l, i->space, address_of(w, i, 0, l), size * (size_t)count, true);
        if (to == NULL) {
            return;
        }
        for (int k = 0; k < count; k++) {
            memcpy(to + size * (size_t)k, &ptx_reg(w, i, k + 1)[l], size);
        }
    }
}

static void ld_param(warp *w, const instruction *i) {
    const size_t size = ptx_bytes_of(i->type);
    const int count = i->num_operands - 1;
    EACH_ACTIVE(w, l) {
        u64 at = address_of(w, i, count, l);
        if (at + size * (size_t)count > w->m->kernel->parameter_bytes) {
            ptx_fault(w, i, l, "byte %llu of the parameters", (unsigned long long)at);
            return;
        }
        for (int k = 0; k < count; k++) {
            put(&ptx_reg(w, i, k)[l], w->m->parameters + at + size * (size_t)k, i->type);
        }
    }
}

/* ---- asynchronous copies ---- */

static void land(warp *w, const copy *c) {
    const instruction *i = &w->m->kernel->code[c->at];
    unsigned char *to = ptx_address(w, i, c->lane, SHARED, c->to, c->bytes, true);
    const unsigned char *from =
        to != NULL && c->given > 0 ? ptx_address(w, i, c->lane, GLOBAL, c->from, c->given, false) : NULL;
    if (to != NULL) {
        memset(to, 0, c->bytes);
    }
    if (from != NULL) {
        memcpy(to, from, c->given);
    }
}

/* cp.async.ca|cg.shared.global [to], [from], bytes{, given} */
static void cp_async(warp *w, const instruction *i) {
    EACH_ACTIVE(w, l) {
        const u32 bytes = ptx_reg(w, i, 2)[l].u32, given = i->num_operands > 3 ? ptx_reg(w, i, 3)[l].u32 : bytes;
        const u64 to = (u32)ptx_reg(w, i, 0)[l].u64 + (u64)(s64)i->operands[0].offset;
        const u64 from = ptx_reg(w, i, 1)[l].u64 + (u64)(s64)i->operands[1].offset;
        bool is_legal = (bytes == 16 || (ptx_has(i, "ca") && (bytes == 4 || bytes == 8))) && given <= bytes;
        if (!is_legal || from % bytes != 0) {
            ptx_fault(w, i, l, "a copy of %u of %u bytes from %#llx", given, bytes, (unsigned long long)from);
            return;
        }
        unsigned char *target = ptx_address(w, i, l, SHARED, to, bytes, true);
        if (target == NULL) {
            return;
        }
        memset(target, 0xff, bytes);
        if (w->num_copies == w->copy_capacity) {
            s32 capacity = 2 * w->copy_capacity + 64;
            copy *grown = realloc(w->copies, (size_t)capacity * sizeof *grown);
            if (grown == NULL) {
                ptx_fault(w, i, l, "out of memory");
                return;
            }
            w->copies = grown;
            w->copy_capacity = capacity;
        }
        w->copies[w->num_copies++] = (copy){to, from, bytes, given, l, w->groups[l], (s32)(i - w->m->kernel->code)};
        w->m->counts.async_copies++;
    }
}

static void cp_async_commit(warp *w, const instruction *i) {
    (void)i;
    EACH_ACTIVE(w, l) {
        w->groups[l]++;
    }
}

/* Those of the active lanes that are in groups before the last `pending` of each. */
static void land_before(warp *w, s32 pending, bool uncommitted) {
    s32 kept = 0;
    for (s32 k = 0; k < w->num_copies; k++) {
        const copy c = w->copies[k];
        bool waited = (w->active >> c.lane & 1u) != 0 && (uncommitted || c.group < w->groups[c.lane] - pending);
        if (waited) {
            land(w, &c);
        } else {
            w->copies[kept++] = c;
        }
    }
    w->num_copies = kept;
}

static void cp_async_wait_group(warp *w, const instruction *i) {
    land_before(w, (s32)ptx_reg(w, i, 0)[0].u32, false);
}

static void cp_async_wait_all(warp *w, const instruction *i) {
    (void)i;
    land_before(w, 0, true);
}

void ptx_check_copies(warp *w, const instruction *i) {
    for (s32 k = 0; k < w->num_copies; k++) {
        if ((w->active >> w->copies[k].lane & 1u) != 0) {
            ptx_fault(w, i, w->copies[k].lane, "ends, but nobody has waited for the asynchronous copy in line %d",
                      (int)w->m->kernel->code[w->copies[k].at].line);
            return;
        }
    }
}

handler ptx_memory(const instruction *i) {
    if (strcmp(i->parts[0], "ld") == 0) {
        return i->space == PARAM ? ld_param : ld;
    }
    if (strcmp(i->parts[0], "st") == 0) {
        return i->space == PARAM ? NULL : st;
    }
    if (strcmp(i->parts[0], "cp") == 0 && ptx_has(i, "async") && !ptx_has(i, "bulk")) {
        return ptx_has(i, "commit_group") ? cp_async_commit
               : ptx_has(i, "wait_group") ? cp_async_wait_group
               : ptx_has(i, "wait_all")   ? cp_async_wait_all
               : i->num_operands >= 3     ? cp_async
                                          : NULL;
    }
    return NULL;
}
