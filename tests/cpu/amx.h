/* The AMX intrinsics that simd/amx.h uses, in C: included before it, in place of the processor's. The registers are
 * each thread's own. What the processor would refuse, and a configuration that is left behind or made twice, is counted
 * as a fault (Intel Architecture Instruction Set Extensions Programming Reference, chapter 3). */
#ifndef LK_TEST_AMX_H
#define LK_TEST_AMX_H

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <stdint.h>

#define _tile_loadconfig(from) amx_configure(from)
#define _tile_release() amx_release()
#undef _tile_zero
#define _tile_zero(to) amx_zero(to)
#undef _tile_loadd
#define _tile_loadd(to, from, stride) amx_load(to, from, stride)
#undef _tile_stored
#define _tile_stored(from, to, stride) amx_store(from, to, stride)
#undef _tile_dpbf16ps
#define _tile_dpbf16ps(to, a, b) amx_multiply(to, a, b)

void amx_configure(const void *from);
void amx_release(void);
void amx_zero(int to);
void amx_load(int to, const void *from, int64_t stride);
void amx_store(int from, void *to, int64_t stride);
void amx_multiply(int to, int a, int b);

/* Faults since the last call, of all threads, configurations that were not released included; *last (may be NULL) is
 * what the last was. */
int amx_faults(const char **last);
/* Multiplications since the last call. */
int64_t amx_multiplications(void);

#endif
