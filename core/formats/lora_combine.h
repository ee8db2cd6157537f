/* Weighted sums of adapters, as PEFT's add_weighted_adapter. */
#ifndef LK_CORE_FORMATS_LORA_COMBINE_H
#define LK_CORE_FORMATS_LORA_COMBINE_H

#include "core/formats/lora_file.h"

/* out (initialised, empty) gets the sum of weights[i] * files[i]. Modules that only some have are those of a sum with
 * zero. rank: of SVD; 0: the largest there is. UNSUPPORTED for DoRA, whose magnitudes do not add. */
lk_status lk_lora_combine(const lk_lora_file *files, const double *weights, size_t count, lk_combine how, int64_t rank,
                          lk_lora_file *out);

/* Singular values and vectors of a matrix [rows, columns] with rows >= columns, by one-sided Jacobi rotations:
 * m = u diag(s) v', s in falling order. m becomes u; v is [columns, columns]. */
void lk_svd_jacobi(double *m, int64_t rows, int64_t columns, double *s, double *v);

#endif
