/* The inside of the CPU backend: what its device is, and what a kernel of ops/ is given. */
#ifndef LK_CPU_H
#define LK_CPU_H

#include "backends/cpu/isa.h"
#include "backends/cpu/pool.h"
#include "core/graph/ops.h"
#include "lorikeet_backend.h"

/* Each worker's own memory, for packed panels and blocks; a kernel finds nothing useful in it. */
enum { LK_CPU_WORKER_BYTES = 1 << 20 };

/* One run of a kernel. Pointers of absent tensors are NULL. Floating-point tensors are fp32, except inputs that the
 * kernel's row in kernels.def says it takes in 16 bits: program.c widens and narrows the others around the call. */
typedef struct lk_cpu_call {
    const lk_node *node;
    void *const *inputs;
    void *const *outputs;
    void *scratch; /* as many bytes as the row's scratch() asked for */
    lk_pool *pool;
    int threads;
    char *worker_memory;
} lk_cpu_call;

typedef void (*lk_cpu_run)(const lk_cpu_call *call);

static inline void *lk_cpu_worker_memory(const lk_cpu_call *call, int worker) {
    return call->worker_memory + (size_t)worker * LK_CPU_WORKER_BYTES;
}

/* Into how many tasks to split work on `items` that takes about `bytes` of memory traffic: several per thread, so that
 * a thread that falls behind does not hold up the rest, but none so small that handing it out costs more. */
static inline int lk_cpu_tasks(const lk_cpu_call *call, int64_t items, double bytes) {
    int64_t most = (int64_t)(bytes / 65536.0);
    return (int)LK_MAX((int64_t)1, LK_MIN(LK_MIN(items, most), (int64_t)call->threads * 4));
}

/* Rows of kernels.def and their parts. */
#define LK_CPU_DECLARE_RUN(isa, features, name) void LK_CPU_NAME(name, isa)(const lk_cpu_call *call);
#define LK_CPU_KERNEL(OP, name, in_place, scratch, native) LK_CPU_EACH_ISA(LK_CPU_DECLARE_RUN, name)
#define LK_CPU_PRODUCT(OP, name, in_place, scratch, native) LK_CPU_EACH_PRODUCT_ISA(LK_CPU_DECLARE_RUN, name)
#include "backends/cpu/kernels.def"

typedef struct lk_cpu_op {
    uint32_t native; /* tensors that the kernels take in 16 bits as they are: bit i input i, bit 16 + i output i */
    size_t (*scratch)(const lk_device_caps *caps, const lk_node *node); /* NULL: none */
} lk_cpu_op;
const lk_cpu_op *lk_cpu_op_of(lk_op op);
static inline bool lk_cpu_is_native(const lk_cpu_op *op, int index, bool is_output) {
    return op->native == UINT32_MAX || (index < 16 && (op->native >> (is_output ? 16 + index : index) & 1u) != 0);
}
/* Bytes of the op's own scratch for a row with these features. */
size_t lk_cpu_own_scratch(const lk_device_caps *caps, uint64_t features, const lk_node *node);
const lk_kernel *lk_cpu_kernels(int *count);

/* What each row's `variant` points to: conversions between bf16 or fp16 and fp32, narrowing to even. */
typedef struct lk_cpu_isa {
    void (*widen)(float *to, const void *from, lk_dtype dtype, int64_t count);
    void (*narrow)(void *to, const float *from, lk_dtype dtype, int64_t count);
} lk_cpu_isa;

#define LK_CPU_DECLARE_CONVERT(isa, features, unused)                                         \
    void LK_CPU_NAME(widen, isa)(float *to, const void *from, lk_dtype dtype, int64_t count); \
    void LK_CPU_NAME(narrow, isa)(void *to, const float *from, lk_dtype dtype, int64_t count);
LK_CPU_EACH_PRODUCT_ISA(LK_CPU_DECLARE_CONVERT, )
#undef LK_CPU_DECLARE_CONVERT

#if defined(__GNUC__) || defined(__clang__)
#define LK_CPU_INLINE static inline __attribute__((always_inline))
#define LK_CPU_UNROLL _Pragma("GCC unroll 16")
#define LK_CPU_PREFETCH(address) __builtin_prefetch(address)
#else
#define LK_CPU_INLINE static inline
#define LK_CPU_UNROLL
#define LK_CPU_PREFETCH(address) ((void)(address))
#endif

#endif
