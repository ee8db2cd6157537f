/* Between what files store and fp32: the 16-bit floats and the block-quantised types of GGUF. Sources and destinations
 * need no alignment beyond that of float for float pointers; files are little-endian, and so are the machines we run
 * on. */
#ifndef LK_CORE_FORMATS_DEQUANTIZE_H
#define LK_CORE_FORMATS_DEQUANTIZE_H

#include "core/base/dtype.h"

/* Whether a dtype can be read as fp32: all but I32. */
bool lk_can_dequantize(lk_dtype dtype);
/* Reads `elements` (whole blocks) of a dtype that can be read as fp32. */
void lk_dequantize(lk_dtype dtype, const void *source, int64_t elements, float *destination);

/* Whether lk_quantize can write a dtype: F32, BF16, F16, Q8_0. */
bool lk_can_quantize(lk_dtype dtype);
void lk_quantize(lk_dtype dtype, const float *source, int64_t elements, void *destination);

/* Any dtype to any that can be written, through fp32; equal dtypes are copied bit by bit. UNSUPPORTED names the pair,
 * INVALID_ARGUMENT a count that does not fill whole blocks. */
lk_status lk_convert(lk_context *context, lk_dtype from, const void *source, lk_dtype to, void *destination,
                     int64_t elements);

#endif
