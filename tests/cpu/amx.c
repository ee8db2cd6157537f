#if defined(__x86_64__)
#include "tests/cpu/amx.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "core/base/float16.h"

enum { REGISTERS = 8, ROWS = 16, ROW_BYTES = 64 };

typedef struct shape {
    int rows, bytes;
} shape;

static _Thread_local bool configured;
static _Thread_local shape shapes[REGISTERS];
static _Thread_local unsigned char registers[REGISTERS][ROWS][ROW_BYTES];

static atomic_int faults, open_threads;
static atomic_llong multiplications;
static _Atomic(const char *) last_fault;

static void fault(const char *what) {
    atomic_fetch_add(&faults, 1);
    atomic_store(&last_fault, what);
}

int amx_faults(const char **last) {
    if (atomic_exchange(&open_threads, 0) != 0) {
        fault("a configuration was not released");
    }
    if (last != NULL) {
        *last = atomic_load(&last_fault);
    }
    return atomic_exchange(&faults, 0);
}

int64_t amx_multiplications(void) {
    return atomic_exchange(&multiplications, 0);
}

void amx_release(void) {
    if (!configured) {
        fault("released without a configuration");
        return;
    }
    configured = false;
    atomic_fetch_sub(&open_threads, 1);
}

void amx_configure(const void *from) {
    const unsigned char *bytes = from;
    if (configured) {
        fault("configured twice");
    } else {
        atomic_fetch_add(&open_threads, 1);
    }
    configured = true;
    memset(registers, 0, sizeof registers);
    memset(shapes, 0, sizeof shapes);
    if (bytes[0] != 1) {
        fault("another palette than 1");
        return;
    }
    for (int i = 2; i < 16; i++) {
        if (bytes[i] != 0) {
            fault("a reserved byte of the configuration is not zero");
        }
    }
    for (int i = 0; i < 16; i++) {
        int width = bytes[16 + 2 * i] | bytes[17 + 2 * i] << 8, rows = bytes[48 + i];
        if (i >= REGISTERS ? width != 0 || rows != 0
                           : width > ROW_BYTES || rows > ROWS || (width == 0) != (rows == 0)) {
            fault("a configuration outside the palette");
        } else if (i < REGISTERS) {
            shapes[i] = (shape){rows, width};
        }
    }
}

static bool usable(int index) {
    if (!configured || index < 0 || index >= REGISTERS || shapes[index].rows == 0) {
        fault("a register that is not configured");
        return false;
    }
    return true;
}

void amx_zero(int to) {
    if (usable(to)) {
        memset(registers[to], 0, sizeof registers[to]);
    }
}

void amx_load(int to, const void *from, int64_t stride) {
    if (!usable(to)) {
        return;
    }
    memset(registers[to], 0, sizeof registers[to]);
    for (int i = 0; i < shapes[to].rows; i++) {
        memcpy(registers[to][i], (const char *)from + i * stride, (size_t)shapes[to].bytes);
    }
}

void amx_store(int from, void *to, int64_t stride) {
    if (!usable(from)) {
        return;
    }
    if (stride < shapes[from].bytes) {
        fault("rows are stored over one another");
    }
    for (int i = 0; i < shapes[from].rows; i++) {
        memcpy((char *)to + i * stride, registers[from][i], (size_t)shapes[from].bytes);
    }
}

/* Numbers below the normal range count as zero, in operands and results. */
static float flushed(float x) {
    return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x;
}

static void widen(int from, float to[ROWS][ROW_BYTES / 2]) {
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < ROW_BYTES / 2; j++) {
            uint16_t bits;
            memcpy(&bits, registers[from][i] + 2 * j, sizeof bits);
            to[i][j] = flushed(lk_bf16_to_f32(bits));
        }
    }
}

/* Even and odd elements are summed apart, then both are added to what was there. */
void amx_multiply(int to, int a, int b) {
    if (!usable(to) || !usable(a) || !usable(b)) {
        return;
    }
    if (to == a || to == b || a == b) {
        fault("a register is used twice in a multiplication");
        return;
    }
    if (shapes[a].rows != shapes[to].rows || shapes[b].bytes != shapes[to].bytes ||
        shapes[a].bytes != 4 * shapes[b].rows || shapes[b].bytes % 4 != 0) {
        fault("registers whose shapes do not fit");
        return;
    }
    float x[ROWS][ROW_BYTES / 2], y[ROWS][ROW_BYTES / 2];
    widen(a, x);
    widen(b, y);
    for (int i = 0; i < shapes[to].rows; i++) {
        float even[ROW_BYTES / 4] = {0}, odd[ROW_BYTES / 4] = {0}, sum[ROW_BYTES / 4];
        for (int k = 0; k < shapes[b].rows; k++) {
            for (int j = 0; j < shapes[to].bytes / 4; j++) {
                even[j] = flushed(x[i][2 * k] * y[k][2 * j] + even[j]); /* products of bf16 are exact in fp32 */
                odd[j] = flushed(x[i][2 * k + 1] * y[k][2 * j + 1] + odd[j]);
            }
        }
        memcpy(sum, registers[to][i], sizeof sum);
        for (int j = 0; j < shapes[to].bytes / 4; j++) {
            sum[j] = flushed(flushed(sum[j]) + (even[j] + odd[j]));
        }
        memcpy(registers[to][i], sum, sizeof sum);
    }
    atomic_fetch_add(&multiplications, 1);
}
#endif
