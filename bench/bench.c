#include "bench/bench.h"

#include <stdlib.h>
#include <string.h>

lk_status lk_bench_fill(lk_context *context, lk_variable *variable, float scale, int64_t last) {
    size_t size = lk_dtype_block_bytes(variable->dtype), count = variable->bytes / size;
    unsigned char *bytes = lk_alloc(context, variable->bytes);
    if (bytes == NULL) {
        return lk_out_of_memory(context, variable->bytes, "an operand");
    }
    uint64_t state = lk_hash64(variable->name, strlen(variable->name), 20260101);
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float value = scale == 0.0f ? 1.0f : scale * (float)(int32_t)(state >> 32) / 2147483648.0f;
        uint16_t half = lk_f32_to_bf16(value);
        int32_t border = i > 0 ? (int32_t)last : 0;
        value = lk_bf16_to_f32(half);
        if (variable->dtype == LK_DTYPE_I32) {
            memcpy(bytes + i * size, &border, size);
        } else if (variable->dtype == LK_DTYPE_BF16) {
            memcpy(bytes + i * size, &half, size);
        } else {
            memcpy(bytes + i * size, &value, size);
        }
    }
    lk_status status = lk_variable_upload(variable, bytes);
    lk_free(context, bytes);
    return status;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double lk_bench_median(double *values, int count) {
    if (count == 0) {
        return 0.0;
    }
    qsort(values, (size_t)count, sizeof *values, by_value);
    return count % 2 != 0 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}
