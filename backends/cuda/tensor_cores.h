/* Products and attention on tensor cores: bf16 operands, sums in fp32 (shaders/native/cuda). */
#ifndef LK_BACKENDS_CUDA_TENSOR_CORES_H
#define LK_BACKENDS_CUDA_TENSOR_CORES_H

#include "backends/shaders/rows.h"

/* By gemm.cu, after what is not in bf16 was rounded to it in scratch memory: for ops whose weight is stored in bf16. */
extern const lk_products lk_cuda_products_mma;
/* Whether they can make the products of a node with that weight (an input's number). */
bool lk_cuda_supports_mma(const lk_device_caps *caps, const lk_node *node, int weight, lk_refusal *why);

/* Rows of factor x as bf16, each `pitch` elements long (a multiple of 8) and filled with zeros. */
void lk_cuda_record_round_rows(lk_recorder *recorder, const lk_binding *x, const lk_binding *y, int64_t rows,
                               int64_t columns, int64_t pitch, float factor);

/* ---- attention (flash_attention.c) ---- */

bool lk_cuda_supports_flash(const lk_device_caps *caps, const lk_node *node, lk_refusal *why);
double lk_cuda_cost_flash(const lk_device_caps *caps, const lk_node *node);
size_t lk_cuda_scratch_flash(const lk_device_caps *caps, const lk_node *node);
void lk_cuda_record_flash_attention(lk_recorder *recorder, const lk_command *command);
void lk_cuda_record_flash_attention_backward(lk_recorder *recorder, const lk_command *command);

#endif
