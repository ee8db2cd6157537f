/* Groups, warps and lanes: who goes on, where lanes part and meet. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/ptx/vm.h"

#define ALL_LANES 0xffffffffu
#define MAX_STEPS ((u64)1 << 32) /* instructions of one launch */

static const u32 type_bytes[] = {
#define PTX_TYPE(name, bytes, plain) bytes,
#include "tests/cuda/ptx/types.def"
#undef PTX_TYPE
};

size_t ptx_bytes_of(ptx_type type) {
    return type_bytes[type];
}

bool ptx_has(const instruction *i, const char *part) {
    for (int k = 1; k < i->num_parts; k++) {
        if (strcmp(i->parts[k], part) == 0) {
            return true;
        }
    }
    return false;
}

void ptx_fault(warp *w, const instruction *i, int lane, const char *format, ...) {
    machine *m = w->m;
    if (m->failed) {
        return;
    }
    m->failed = true;
    char what[PTX_MESSAGE / 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(m->message, PTX_MESSAGE, "%s, line %d, lane %d: %s: %s", m->kernel->name, (int)i->line,
             (int)w->number * LANES + lane, what, i->text);
}

/* ---- one warp ---- */

static void move_active(warp *w, s32 pc) {
    EACH_ACTIVE(w, l) {
        w->pc[l] = pc;
    }
}

static u32 passing_guard(warp *w, const instruction *i) {
    if (i->guard < 0) {
        return w->active;
    }
    const word *guard = w->registers[i->guard];
    u32 mask = 0;
    EACH_ACTIVE(w, l) {
        mask |= ((guard[l].pred != 0) != i->guard_negate) ? 1u << l : 0u;
    }
    return mask;
}

static void end_lanes(warp *w, const instruction *i, u32 ending) {
    u32 all = w->active;
    w->active = ending;
    ptx_check_copies(w, i);
    w->active = all;
    w->live &= ~ending;
}

/* Chooses the lanes at the lowest instruction. False: all that live wait. */
static bool choose(warp *w, s32 *pc) {
    u32 ready = w->live & ~w->waiting & ~w->held;
    if (ready == 0 && w->held != 0 && w->waiting == 0) { /* the collective's other lanes are elsewhere, or are these */
        ready = w->held;
        w->held = 0;
    }
    if (ready == 0) {
        return false;
    }
    s32 lowest = INT32_MAX;
    w->active = ready;
    EACH_ACTIVE(w, l) {
        lowest = w->pc[l] < lowest ? w->pc[l] : lowest;
    }
    u32 chosen = 0;
    EACH_ACTIVE(w, l) {
        chosen |= w->pc[l] == lowest ? 1u << l : 0u;
    }
    w->active = chosen;
    *pc = lowest;
    return true;
}

/* The lowest instruction where another lane waits to go on: the running ones stop there. */
static s32 next_of_others(const warp *w) {
    u32 others = w->live & ~w->active & ~w->waiting & ~w->held;
    s32 lowest = INT32_MAX;
    for (int l = 0; l < LANES; l++) {
        if ((others >> l & 1u) != 0 && w->pc[l] < lowest) {
            lowest = w->pc[l];
        }
    }
    return lowest;
}

/* A collective with lanes missing: they are waited for, unless these were all that could come. */
static bool hold(warp *w, const instruction *i, s32 pc) {
    for (int l = 0; l < LANES; l++) {
        if ((w->held >> l & 1u) != 0 && w->pc[l] == pc) { /* came here before */
            w->active |= 1u << l;
        }
    }
    w->held &= ~w->active;
    const u32 missing = w->live & ~w->active;
    if ((missing & ~w->waiting & ~w->held) == 0) { /* nobody can come any more */
        bool takes_some = strcmp(i->parts[0], "shfl") == 0 || strcmp(i->parts[0], "vote") == 0 ||
                          strcmp(i->parts[0], "activemask") == 0 || strcmp(i->parts[0], "bar") == 0;
        if (takes_some || w->active == ALL_LANES) {
            return false; /* those that take some check their masks */
        }
        ptx_fault(w, i, __builtin_ctz(~w->active), "lanes %#x do not come to this instruction of the whole warp",
                  ~w->active);
        return true;
    }
    w->held |= w->active;
    move_active(w, pc);
    return true;
}

/* Runs the warp until all its lanes have ended or wait at a barrier. */
static void run_warp(warp *w) {
    machine *m = w->m;
    s32 pc;
    while (!m->failed && choose(w, &pc)) {
        s32 stop = next_of_others(w);
        while (!m->failed) {
            const instruction *i = &m->kernel->code[pc];
            const u32 all = w->active;
            if (++m->counts.instructions > MAX_STEPS) {
                ptx_fault(w, i, 0, "does not end");
                return;
            }
            if (i->control == STRAIGHT) {
                w->active = passing_guard(w, i);
                if (w->active != 0) {
                    i->run(w, i);
                }
                w->active = all;
                pc++;
            } else if (i->control == BRANCH) {
                u32 taken = passing_guard(w, i);
                w->active = taken;
                move_active(w, i->target);
                w->active = all & ~taken;
                move_active(w, pc + 1);
                w->active = all;
                if (taken == all) {
                    pc = i->target;
                } else if (taken == 0) {
                    pc++;
                } else {
                    break;
                }
            } else if (i->control == EXIT) {
                u32 ending = passing_guard(w, i);
                end_lanes(w, i, ending);
                w->active = all & ~ending;
                pc++;
                if (w->active == 0) {
                    break;
                }
            } else {
                u32 coming = passing_guard(w, i);
                if (coming != all) {
                    ptx_fault(w, i, 0, "lanes part at an instruction for all of them");
                } else if (i->control == BARRIER) {
                    move_active(w, pc + 1);
                    w->waiting |= all;
                    break;
                } else if (hold(w, i, pc)) {
                    break;
                } else {
                    i->run(w, i);
                    pc++;
                    move_active(w, pc);
                    break; /* those that were held may go on */
                }
            }
            if (pc >= stop) {
                move_active(w, pc);
                break;
            }
        }
    }
}

/* ---- a group ---- */

static void begin_warp(warp *w, unsigned x, unsigned y, unsigned z) {
    const machine *m = w->m;
    const ptx_kernel *kernel = m->kernel;
    const ptx_launch *launch = m->launch;
    const s32 first = w->number * LANES, lanes = (s32)launch->lanes - first;
    w->live = lanes >= LANES ? ALL_LANES : (1u << lanes) - 1u;
    w->waiting = w->held = w->warp_epoch = 0;
    w->num_copies = 0;
    memset(w->pc, 0, sizeof w->pc);
    memset(w->groups, 0, sizeof w->groups);
    memset(w->registers, 0xff, (size_t)kernel->num_registers * sizeof(reg));
    memset(w->local, 0xff, LANES * kernel->local_bytes);
    for (s32 l = 0; l < LANES; l++) {
        const u32 values[NUM_SPECIAL] = {(u32)(first + l),
                                         0,
                                         0,
                                         launch->lanes,
                                         1,
                                         1,
                                         x,
                                         y,
                                         z,
                                         launch->grid[0],
                                         launch->grid[1],
                                         launch->grid[2],
                                         (u32)l,
                                         (u32)w->number,
                                         0};
        for (s32 k = 0; k < NUM_SPECIAL; k++) {
            w->registers[kernel->num_registers + k][l].u64 = values[k];
        }
        for (s32 k = 0; k < kernel->num_constants; k++) {
            w->registers[kernel->first_constant + k][l].u64 = kernel->constants[k];
        }
    }
}

/* At a barrier of the group all lanes must be there. */
static void release_barrier(machine *m, warp *warps, s32 count) {
    for (s32 k = 0; k < count; k++) {
        warp *w = &warps[k];
        const s32 lanes = (s32)m->launch->lanes - k * LANES;
        const u32 all = lanes >= LANES ? ALL_LANES : (1u << lanes) - 1u;
        if (w->waiting != all) {
            int missing = __builtin_ctz(all & ~w->waiting);
            s32 at = w->pc[missing] < m->kernel->count ? w->pc[missing] : m->kernel->count - 1;
            ptx_fault(w, &m->kernel->code[at], missing, "%s, while others wait at a barrier",
                      (w->live >> missing & 1u) != 0 ? "waits for its warp" : "has ended");
            return;
        }
    }
    for (s32 k = 0; k < count; k++) {
        warps[k].waiting = 0;
    }
    m->block_epoch++;
}

static void run_group(machine *m, warp *warps, s32 count, unsigned x, unsigned y, unsigned z) {
    memset(m->shared, 0xff, m->shared_bytes);
    for (size_t k = 0; k < m->shared_bytes / 2 + 1; k++) {
        m->shadows[k].writer.lane = m->shadows[k].reader.lane = NOBODY;
    }
    for (s32 k = 0; k < count; k++) {
        begin_warp(&warps[k], x, y, z);
    }
    for (bool live = true; live && !m->failed;) {
        bool waiting = false;
        live = false;
        for (s32 k = 0; k < count && !m->failed; k++) {
            run_warp(&warps[k]);
            live = live || warps[k].live != 0;
            waiting = waiting || warps[k].waiting != 0;
        }
        if (waiting && !m->failed) {
            release_barrier(m, warps, count);
        }
    }
}

static bool allocate(machine *m, warp *warps, s32 count) {
    const ptx_kernel *kernel = m->kernel;
    const size_t registers = (size_t)(kernel->first_constant + kernel->num_constants);
    m->shared = calloc(m->shared_bytes + 16, 1);
    m->shadows = calloc(m->shared_bytes / 2 + 1, sizeof *m->shadows);
    bool done = m->shared != NULL && m->shadows != NULL;
    for (s32 k = 0; k < count; k++) {
        warps[k] = (warp){.m = m, .number = k};
        warps[k].registers = calloc(registers, sizeof(reg));
        warps[k].local = calloc(LANES, kernel->local_bytes + 16);
        done = done && warps[k].registers != NULL && warps[k].local != NULL;
    }
    return done;
}

static void add_counts(ptx_counts *to, const ptx_counts *from) {
    to->instructions += from->instructions;
    to->mma += from->mma;
    to->ldmatrix += from->ldmatrix;
    to->async_copies += from->async_copies;
    to->ldmatrix_rows += from->ldmatrix_rows;
    to->ldmatrix_ways += from->ldmatrix_ways;
}

bool ptx_run(const ptx_kernel *kernel, const ptx_launch *launch, char message[PTX_MESSAGE]) {
    static machine m; /* the launches of a process come one after the other */
    static warp warps[MAX_LANES / LANES];
    message[0] = '\0';
    if (launch->lanes == 0 || launch->lanes > (unsigned)kernel->max_lanes) {
        snprintf(message, PTX_MESSAGE, "%s: groups of %u lanes, it is made for %d", kernel->name, launch->lanes,
                 kernel->max_lanes);
        return false;
    }
    const s32 count = (s32)(launch->lanes + LANES - 1) / LANES;
    m = (machine){.kernel = kernel,
                  .launch = launch,
                  .shared_bytes = kernel->shared_bytes + launch->shared_bytes,
                  .message = message};
    for (int k = 0; k < kernel->num_parameters; k++) {
        memcpy(m.parameters + kernel->parameters[k].offset, launch->arguments[k], kernel->parameters[k].bytes);
    }
    if (!allocate(&m, warps, count)) {
        m.failed = true;
        snprintf(message, PTX_MESSAGE, "out of memory");
    }
    for (unsigned z = 0; z < launch->grid[2]; z++) {
        for (unsigned y = 0; y < launch->grid[1]; y++) {
            for (unsigned x = 0; x < launch->grid[0] && !m.failed; x++) {
                run_group(&m, warps, count, x, y, z);
            }
        }
    }
    for (s32 k = 0; k < count; k++) {
        free(warps[k].registers);
        free(warps[k].local);
        free(warps[k].copies);
    }
    free(m.shared);
    free(m.shadows);
    if (launch->counts != NULL) {
        add_counts(launch->counts, &m.counts);
    }
    return !m.failed;
}
