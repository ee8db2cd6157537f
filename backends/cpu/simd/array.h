/* A tensor's elements as fp32, whatever they are stored as: for kernels that read and write 16 bits themselves. */
#ifndef LK_CPU_ARRAY_H
#define LK_CPU_ARRAY_H

#include "backends/cpu/cpu.h"
#include "backends/cpu/simd/simd.h"

typedef struct array {
    void *data; /* NULL: absent */
    lk_dtype dtype;
} array;

static inline array array_input(const lk_cpu_call *call, int index) {
    return (array){call->inputs[index], call->node->inputs[index]->dtype};
}

static inline array array_optional(const lk_cpu_call *call, int index) {
    return lk_has_input(call->node, index) ? array_input(call, index) : (array){NULL, LK_DTYPE_F32};
}

static inline array array_output(const lk_cpu_call *call, int index) {
    const lk_tensor *tensor = call->node->outputs[index];
    return (array){call->outputs[index], tensor != NULL ? tensor->dtype : LK_DTYPE_F32};
}

static inline vf array_get(array x, int64_t i, int lanes) {
    return vf_read(x.data, x.dtype, i, lanes);
}

static inline void array_put(array y, int64_t i, vf x, int lanes) {
    vf_write(y.data, y.dtype, i, x, lanes);
}

#endif
