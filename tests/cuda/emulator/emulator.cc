/* Lanes and their order, warps' operations, copies, global memory; shared memory's shadow is shadow.cc. */
#include "tests/cuda/emulator/emulator.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <sys/mman.h>
#include <vector>

#include "tests/cuda/emulator/shadow.h"
#include "tests/cuda/emulator/stacks.h"

emulator_position threadIdx, blockIdx, gridDim;

namespace {

constexpr unsigned MAX_LANES = 1024, WARP = 32;

enum state { READY, AT_WARP, AT_BARRIER, ENDED };
enum operation { LOAD_MATRICES, MMA, SHUFFLE };

/* What a lane has brought to an operation of its warp. */
struct share {
    operation kind;
    int line, mode;
    const void *a;
    unsigned b[2];
    void *out;
};

struct copy {
    unsigned to;
    const char *from;
    int bytes;
};

struct lane {
    place stack;
    state now;
    int line; /* of the barrier or the operation that it waits at */
    share given;
    std::deque<std::vector<copy>> groups; /* committed */
    std::vector<copy> open;
};

lane lanes[MAX_LANES];
char *stacks;
place scheduler;
unsigned current, num_lanes, num_live;
const emulator_kernel *running, *kernels;
void *const *given;
emulator_options options;
emulator_report *report;
std::map<uintptr_t, size_t> allowed;
uintptr_t hit_start, hit_end; /* of the range that was touched last */

void wait_as(state now, int line) {
    lanes[current].now = now;
    lanes[current].line = line;
    unsigned self = current;
    switch_stack(lanes[self].stack, scheduler);
}

void run_lane(unsigned index) {
    current = index;
    threadIdx.x = index;
    switch_stack(scheduler, lanes[index].stack);
}

void lane_entry() {
    running->call(given);
    lane &self = lanes[current];
    if (!self.open.empty()) {
        emulator_problem(0, "lost copy: a lane ends before it has committed its copies");
    }
    for (const auto &group : self.groups) {
        if (!group.empty()) {
            emulator_problem(0, "lost copy: a lane ends and never waited for its copies");
            break;
        }
    }
    self.now = ENDED;
    num_live--;
    switch_stack(self.stack, scheduler);
    abort(); /* nobody goes on with a lane that has ended */
}

/* Lets the lanes of a warp go on until all of them wait or have ended. */
bool run_warp(unsigned first) {
    bool any = false;
    unsigned count = num_lanes - first < WARP ? num_lanes - first : WARP;
    for (bool again = true; again;) {
        again = false;
        for (unsigned i = 0; i < count; i++) {
            unsigned index = first + (options.reversed ? count - 1 - i : i);
            if (lanes[index].now == READY) {
                run_lane(index);
                again = any = true;
            }
        }
    }
    return any;
}

/* All lanes that have not ended wait at the group's barrier. */
void pass_barrier() {
    int line = -1;
    for (unsigned i = 0; i < num_lanes; i++) {
        if (lanes[i].now != AT_BARRIER) {
            continue;
        }
        current = i;
        if (line >= 0 && line != lanes[i].line) {
            emulator_problem(line, "barrier: lanes wait at different barriers");
        }
        line = lanes[i].line;
        lanes[i].now = READY;
    }
    if (num_live != num_lanes) {
        emulator_problem(line, "barrier: %u of %u lanes wait, the others have ended", num_live, num_lanes);
    }
    shadow_barrier();
}

void run_group() {
    num_live = num_lanes;
    for (unsigned i = 0; i < num_lanes; i++) {
        place_at(lanes[i].stack, stacks + (size_t)i * STACK_BYTES, lane_entry);
        lanes[i].now = READY;
        lanes[i].groups.clear();
        lanes[i].open.clear();
    }
    unsigned warps = (num_lanes + WARP - 1) / WARP;
    while (num_live > 0) {
        bool any = false;
        for (unsigned w = 0; w < warps; w++) {
            any |= run_warp((options.reversed ? warps - 1 - w : w) * WARP);
        }
        unsigned waiting = 0;
        for (unsigned i = 0; i < num_lanes; i++) {
            waiting += lanes[i].now == AT_BARRIER;
        }
        if (num_live > 0 && waiting == num_live) {
            pass_barrier();
        } else if (!any) {
            for (current = 0; current + 1 < num_lanes && lanes[current].now == ENDED; current++) {
            }
            emulator_problem(lanes[current].line, "deadlock: %u of %u lanes wait at a barrier, the others elsewhere",
                             waiting, num_live);
            return;
        }
    }
}

/* ---- operations of a warp ---- */

void load_matrices(lane *warp) {
    uint16_t matrices[4][8][8];
    for (unsigned q = 0; q < 4; q++) {
        unsigned banks[8] = {0}, most = 0;
        for (unsigned r = 0; r < 8; r++) {
            const share &of = warp[q * 8 + r].given;
            unsigned row = of.b[0];
            current = (unsigned)(&warp[q * 8 + r] - lanes);
            if (row % 16 != 0) {
                emulator_problem(of.line, "alignment: a row of ldmatrix at %u", row);
            }
            std::memset(matrices[q][r], 0xff, 16);
            shadow_read(row, 16, matrices[q][r], current, of.line);
            unsigned used = ++banks[row / 16 % 8];
            most = used > most ? used : most;
        }
        report->matrix_loads++;
        report->matrix_load_cycles += most;
    }
    for (unsigned l = 0; l < WARP; l++) {
        unsigned *out = static_cast<unsigned *>(warp[l].given.out);
        unsigned g = l / 4, t = l % 4 * 2;
        for (unsigned q = 0; q < 4; q++) {
            bool transposed = warp[0].given.mode != 0;
            unsigned low = transposed ? matrices[q][t][g] : matrices[q][g][t];
            unsigned high = transposed ? matrices[q][t + 1][g] : matrices[q][g][t + 1];
            out[q] = low | high << 16;
        }
    }
}

float widened(unsigned bits) {
    float value;
    bits <<= 16;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

void put_pair(float *row, unsigned packed, unsigned stride) {
    row[0] = widened(packed & 0xffffu);
    row[stride] = widened(packed >> 16);
}

/* Sums go in the order of k, each rounded to fp32; a GPU adds several at once and rounds otherwise. */
void multiply(lane *warp) {
    float a[16][16], b[16][8], c[16][8];
    for (unsigned l = 0; l < WARP; l++) {
        const share &of = warp[l].given;
        const unsigned *part = static_cast<const unsigned *>(of.a);
        const float *sums = static_cast<const float *>(of.out);
        unsigned g = l / 4, t = l % 4 * 2;
        put_pair(&a[g][t], part[0], 1);
        put_pair(&a[g + 8][t], part[1], 1);
        put_pair(&a[g][t + 8], part[2], 1);
        put_pair(&a[g + 8][t + 8], part[3], 1);
        put_pair(&b[t][g], of.b[0], 8);
        put_pair(&b[t + 8][g], of.b[1], 8);
        std::memcpy(&c[g][t], sums, 2 * sizeof *sums);
        std::memcpy(&c[g + 8][t], sums + 2, 2 * sizeof *sums);
    }
    for (unsigned i = 0; i < 16; i++) {
        for (unsigned k = 0; k < 16; k++) {
            for (unsigned j = 0; j < 8; j++) {
                c[i][j] += a[i][k] * b[k][j];
            }
        }
    }
    for (unsigned l = 0; l < WARP; l++) {
        float *sums = static_cast<float *>(warp[l].given.out);
        unsigned g = l / 4, t = l % 4 * 2;
        std::memcpy(sums, &c[g][t], 2 * sizeof *sums);
        std::memcpy(sums + 2, &c[g + 8][t], 2 * sizeof *sums);
    }
    report->products++;
}

void shuffle(lane *warp) {
    float values[WARP];
    for (unsigned l = 0; l < WARP; l++) {
        std::memcpy(&values[l], &warp[l].given.b[0], sizeof values[l]);
    }
    for (unsigned l = 0; l < WARP; l++) {
        std::memcpy(warp[l].given.out, &values[(l ^ (unsigned)warp[l].given.mode) % WARP], sizeof(float));
    }
}

/* The last lane to come does the work for all. */
void together(const share &mine) {
    unsigned self = current, first = self / WARP * WARP;
    lanes[self].given = mine;
    lanes[self].now = AT_WARP;
    if (first + WARP > num_lanes) {
        emulator_problem(mine.line, "divergence: an operation of a warp that has fewer than 32 lanes");
        lanes[self].now = READY;
        return;
    }
    for (unsigned i = first; i < first + WARP; i++) {
        const lane &other = lanes[i];
        bool apart = other.now == AT_WARP && (other.given.kind != mine.kind || other.given.line != mine.line);
        if (other.now == ENDED || other.now == AT_BARRIER || apart) {
            emulator_problem(mine.line, "divergence: lane %u of the warp waits at line %d or has ended", i - first,
                             other.line);
        }
    }
    for (unsigned i = first; i < first + WARP; i++) {
        if (lanes[i].now != AT_WARP || lanes[i].given.line != mine.line) {
            wait_as(AT_WARP, mine.line);
            return;
        }
    }
    lane *warp = &lanes[first];
    mine.kind == LOAD_MATRICES ? load_matrices(warp) : mine.kind == MMA ? multiply(warp) : shuffle(warp);
    for (unsigned i = first; i < first + WARP; i++) {
        lanes[i].now = READY;
    }
    current = self;
}

bool is_allowed(const void *at, size_t bytes, int line) {
    uintptr_t start = (uintptr_t)at;
    if (allowed.empty() || (start >= hit_start && start + bytes <= hit_end)) {
        return true;
    }
    auto next = allowed.upper_bound(start);
    if (next == allowed.begin()) {
        emulator_problem(line, "out of bounds: %zu bytes of global memory before all that there is", bytes);
        return false;
    }
    auto range = std::prev(next);
    if (start + bytes > range->first + range->second) {
        emulator_problem(line, "out of bounds: %zu bytes of global memory at byte %zu of %zu", bytes,
                         (size_t)(start - range->first), range->second);
        return false;
    }
    hit_start = range->first;
    hit_end = range->first + range->second;
    return true;
}

void arrive(const copy &of) {
    char *to = shadow_bytes(of.to);
    std::memcpy(to, of.from, (size_t)of.bytes);
    std::memset(to + of.bytes, 0, 16 - (size_t)of.bytes);
}

} // namespace

void emulator_problem(int line, const char *format, ...) {
    if (report->problems++ > 0) {
        return;
    }
    char text[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(report->first, sizeof report->first, "%s (%.40s, line %d, group (%u, %u), lane %u)", text, running->name,
             line, blockIdx.x, blockIdx.y, current);
}

/* ---- for kernels ---- */

void emulator_barrier(int line) {
    wait_as(AT_BARRIER, line);
    threadIdx.x = current;
}

void emulator_store_shared(unsigned to, unsigned value, int line) {
    shadow_write(to, sizeof value, current, line);
    if (shadow_is_inside(to, sizeof value)) {
        std::memcpy(shadow_bytes(to), &value, sizeof value);
    }
}

unsigned emulator_load_shared(unsigned from, int line) {
    unsigned value = 0xffffffffu;
    shadow_read(from, sizeof value, &value, current, line);
    return value;
}

void emulator_copy(unsigned to, const void *from, int bytes, int line) {
    report->copies++;
    if (to % 16 != 0 || (bytes > 0 && (uintptr_t)from % 16 != 0) || bytes < 0 || bytes > 16) {
        emulator_problem(line, "alignment: cp.async of %d bytes to %u from an address that ends in %x", bytes, to,
                         (unsigned)((uintptr_t)from % 16));
    }
    if (!shadow_is_inside(to, 16)) {
        shadow_write(to, 16, current, line); /* reports it */
        return;
    }
    if (bytes > 0 && !is_allowed(from, (size_t)bytes, line)) {
        return;
    }
    shadow_copy_begins(to, current, line);
    copy made = {to, static_cast<const char *>(from), bytes};
    if (options.eager) {
        arrive(made);
    } else {
        std::memset(shadow_bytes(to), 0xff, 16); /* NaNs */
    }
    lanes[current].open.push_back(made);
}

void emulator_copy_commit(void) {
    lanes[current].groups.push_back(std::move(lanes[current].open));
    lanes[current].open.clear();
}

void emulator_copy_wait(int pending) {
    auto &groups = lanes[current].groups;
    while ((int)groups.size() > pending) {
        for (const copy &of : groups.front()) {
            if (!options.eager) {
                arrive(of);
            }
            shadow_copy_ends(of.to, current);
        }
        groups.pop_front();
    }
}

void emulator_load_matrices(unsigned *to, unsigned row, int transposed, int line) {
    together({LOAD_MATRICES, line, transposed, nullptr, {row, 0}, to});
}

void emulator_mma(float *c, const unsigned *a, unsigned b0, unsigned b1, int line) {
    together({MMA, line, 0, a, {b0, b1}, c});
}

float emulator_shuffle_xor(float value, int mask, int line) {
    float result = value;
    share mine = {SHUFFLE, line, mask, nullptr, {0, 0}, &result};
    std::memcpy(&mine.b[0], &value, sizeof value);
    together(mine);
    return result;
}

int emulator_may_touch(const void *at, size_t bytes, int line) {
    if ((uintptr_t)at % bytes != 0) {
        emulator_problem(line, "alignment: %zu bytes of global memory at an address that ends in %x", bytes,
                         (unsigned)((uintptr_t)at % 16));
    }
    return is_allowed(at, bytes, line);
}

/* ---- for those who run them ---- */

void emulator_register(emulator_kernel *kernel) {
    kernel->next = const_cast<emulator_kernel *>(kernels);
    kernels = kernel;
}

const emulator_kernel *emulator_find(const char *name) {
    const emulator_kernel *kernel = kernels;
    while (kernel != nullptr && std::strcmp(kernel->name, name) != 0) {
        kernel = kernel->next;
    }
    return kernel;
}

void emulator_allow(const void *start, size_t bytes) {
    allowed[(uintptr_t)start] = bytes;
}

void emulator_forbid(const void *start) {
    allowed.erase((uintptr_t)start);
    hit_start = hit_end = 0;
}

void emulator_run(const emulator_kernel *kernel, const unsigned grid[3], unsigned count, unsigned shared_bytes,
                  void *const *arguments, const emulator_options *chosen, emulator_report *out) {
    if (stacks == nullptr) {
        void *memory = mmap(nullptr, (size_t)MAX_LANES * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            abort();
        }
        stacks = static_cast<char *>(memory);
    }
    *out = {};
    report = out;
    running = kernel;
    given = arguments;
    num_lanes = count;
    options = chosen != nullptr ? *chosen : emulator_options{};
    gridDim = {grid[0], grid[1], grid[2]};
    unsigned groups = grid[0] * grid[1];
    for (unsigned i = 0; i < groups; i++) {
        unsigned index = options.reversed ? groups - 1 - i : i;
        blockIdx = {index % grid[0], index / grid[0], 0};
        shadow_reset(shared_bytes);
        run_group();
    }
}
