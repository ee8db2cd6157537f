#include "core/base/dtype.h"

#include <string.h>

typedef struct dtype_row {
    const char *name, *safetensors_name;
    int64_t block_size;
    size_t block_bytes;
} dtype_row;

static const dtype_row rows[LK_DTYPE_COUNT] = {
#define LK_DTYPE(NAME, name, safetensors_name, block_size, block_bytes) \
    {#name, safetensors_name, block_size, block_bytes},
#include "lorikeet/dtypes.def"
#undef LK_DTYPE
};

const char *lk_dtype_name(lk_dtype dtype) {
    return (unsigned)dtype < LK_DTYPE_COUNT ? rows[dtype].name : "unknown";
}

int64_t lk_dtype_block_size(lk_dtype dtype) {
    return rows[dtype].block_size;
}

size_t lk_dtype_block_bytes(lk_dtype dtype) {
    return rows[dtype].block_bytes;
}

const char *lk_dtype_safetensors_name(lk_dtype dtype) {
    return rows[dtype].safetensors_name;
}

bool lk_dtype_from_safetensors_name(const char *name, lk_dtype *out) {
    for (int i = 0; i < LK_DTYPE_COUNT; i++) {
        if (rows[i].safetensors_name != NULL && strcmp(rows[i].safetensors_name, name) == 0) {
            *out = (lk_dtype)i;
            return true;
        }
    }
    return false;
}

bool lk_dtype_size(lk_dtype dtype, int64_t elements, size_t *out) {
    *out = 0;
    int64_t block = rows[dtype].block_size;
    if (elements < 0 || elements % block != 0 || (uint64_t)(elements / block) > SIZE_MAX) {
        return false;
    }
    return lk_mul_size((size_t)(elements / block), rows[dtype].block_bytes, out);
}

bool lk_shape_elements(const int64_t *shape, int rank, int64_t *out) {
    int64_t elements = 1;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || (shape[i] > 0 && elements > INT64_MAX / shape[i])) {
            *out = 0;
            return false;
        }
        elements *= shape[i];
    }
    *out = elements;
    return true;
}

void lk_dtype_to_f64(lk_dtype dtype, const void *bytes, int64_t count, double *values) {
    switch (dtype) {
    case LK_DTYPE_F64:
        memcpy(values, bytes, (size_t)count * sizeof *values);
        return;
    case LK_DTYPE_F32:
        for (int64_t i = 0; i < count; i++) {
            values[i] = (double)((const float *)bytes)[i];
        }
        return;
    case LK_DTYPE_I32:
        for (int64_t i = 0; i < count; i++) {
            values[i] = (double)((const int32_t *)bytes)[i];
        }
        return;
    case LK_DTYPE_BF16:
        for (int64_t i = 0; i < count; i++) {
            values[i] = (double)lk_bf16_to_f32(((const uint16_t *)bytes)[i]);
        }
        return;
    case LK_DTYPE_F16:
        for (int64_t i = 0; i < count; i++) {
            values[i] = (double)lk_f16_to_f32(((const uint16_t *)bytes)[i]);
        }
        return;
    default:
        return;
    }
}

void lk_dtype_from_f64(lk_dtype dtype, const double *values, int64_t count, void *bytes) {
    for (int64_t i = 0; i < count; i++) {
        switch (dtype) {
        case LK_DTYPE_F64:
            ((double *)bytes)[i] = values[i];
            break;
        case LK_DTYPE_F32:
            ((float *)bytes)[i] = (float)values[i];
            break;
        case LK_DTYPE_I32:
            ((int32_t *)bytes)[i] = (int32_t)values[i];
            break;
        case LK_DTYPE_BF16:
            ((uint16_t *)bytes)[i] = lk_f32_to_bf16((float)values[i]);
            break;
        case LK_DTYPE_F16:
            ((uint16_t *)bytes)[i] = lk_f32_to_f16((float)values[i]);
            break;
        default:
            break;
        }
    }
}
