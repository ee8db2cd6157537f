/* Sizes and names of the data types; the rows are in lorikeet/dtypes.def. */
#ifndef LK_CORE_BASE_DTYPE_H
#define LK_CORE_BASE_DTYPE_H

#include "core/base/base.h"

/* NULL for types that safetensors does not have. */
const char *lk_dtype_safetensors_name(lk_dtype dtype);
bool lk_dtype_from_safetensors_name(const char *name, lk_dtype *out);
/* The bytes that `elements` take; false when they do not fill whole blocks or overflow. */
bool lk_dtype_size(lk_dtype dtype, int64_t elements, size_t *out);
/* The product of a shape; false on a negative extent or overflow. */
bool lk_shape_elements(const int64_t *shape, int rank, int64_t *out);
/* The values of plain types (not of quantised ones) as doubles, and doubles rounded to them. */
void lk_dtype_to_f64(lk_dtype dtype, const void *bytes, int64_t count, double *values);
void lk_dtype_from_f64(lk_dtype dtype, const double *values, int64_t count, void *bytes);

#endif
