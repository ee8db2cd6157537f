/* The functions that the rows of kernels.def name. */
#ifndef LK_BACKENDS_SHADERS_ROWS_H
#define LK_BACKENDS_SHADERS_ROWS_H

#include "backends/shaders/launch.h"

/* ---- what most rows share (rows.c) ---- */

int64_t lk_count_of(const lk_tensor *tensor); /* elements; 0 for NULL */
/* Lanes in a group: for elements that do not meet, and for a group that works on one row. */
int32_t lk_lanes_for_elements(const lk_device_caps *caps);
int32_t lk_lanes_for_row(const lk_device_caps *caps);
/* Sums that one lane of a row keeps side by side (the kernels' LANES). */
int32_t lk_row_vector(const lk_device_caps *caps);
/* Begins a launch whose groups reduce rows (LK_ROW_REDUCE), in the recorder's way. */
lk_launch *lk_launch_rows(lk_recorder *recorder, const char *file, const char *entry, int32_t group);
/* Floats in a vector register of a processor that OpenCL or Vulkan runs on: 16, 8 or 4; 1 on GPUs. */
int32_t lk_vector_width(const lk_device_caps *caps);
/* Begins a launch over `count` elements, `count` being the kernel's first parameter after the buffers. */
lk_launch *lk_launch_elements(lk_recorder *recorder, const char *entry);
void lk_launch_cover(lk_launch *launch, const lk_recorder *recorder, int64_t count);

/* Every float tensor is f32, every integer one i32, and indices fit 32 bits. */
bool lk_supports_f32(const lk_device_caps *caps, const lk_node *node, lk_refusal *why);
/* The same, but 16-bit floats may stand for input `index`. */
bool lk_supports_f32_but(const lk_node *node, int index, lk_refusal *why);
/* What matmul.lk needs of a device that is no processor. */
bool lk_supports_tiles(const lk_device_caps *caps, lk_refusal *why);
/* Time by arithmetic or bytes, whichever takes longer, and one launch; `efficiency` of the peak. */
double lk_cost(const lk_device_caps *caps, const lk_node *node, double efficiency);
double lk_cost_memory(const lk_device_caps *caps, const lk_node *node);

/* y = x mask / (1 - probability): DROPOUT, also as a part of other ops. */
void lk_record_mask(lk_recorder *recorder, const lk_binding *x, const lk_binding *rng, const lk_binding *y,
                    int64_t count, float probability, uint32_t stream);

/* delta = rowsum(do o) for each token and head: the first pass of ATTENTION_BACKWARD. */
void lk_record_attention_delta(lk_recorder *recorder, const lk_command *command, const lk_binding *delta);
/* sum += x: ACCUMULATE, likewise. */
void lk_record_sum_into(lk_recorder *recorder, const lk_binding *sum, const lk_binding *x, int64_t count);
/* y = value: FILL, likewise. */
void lk_record_fill_with(lk_recorder *recorder, const lk_binding *y, lk_dtype y_type, int64_t count, float value);
/* y = x in another type: CAST, likewise. */
void lk_record_cast_into(lk_recorder *recorder, const lk_binding *x, lk_dtype x_type, const lk_binding *y,
                         lk_dtype y_type, int64_t count);
/* y[j] = sum over the rows of a function of sum_rows.lk, with its operands in order. */
void lk_record_column_sums(lk_recorder *recorder, const char *function, const lk_binding *const *operands,
                           int num_operands, const lk_binding *y, int64_t rows, int64_t columns);
/* y[0] = factor[0] sum x, or the root of the sum, over `count` numbers. */
void lk_record_sum(lk_recorder *recorder, const lk_binding *x, int64_t count, const lk_binding *factor, bool takes_root,
                   const lk_binding *y);

/* ---- products ---- */

/* y[M,N] = alpha op(a) op(b) + c + bias. Element (i, k) of op(a) is a[i a_row + k a_inner], (k, j) of op(b) is
 * b[k b_inner + j b_column]; y, c are dense. */
typedef struct lk_product {
    int64_t M, N, K;
    lk_binding a, b, c, bias, y, scratch;
    int64_t a_row, a_inner, b_inner, b_column;
    lk_dtype b_type;
    float alpha;
    lk_binding a_ready; /* a after lk_products.prepare; absent: it was not prepared */
    /* y += low_scale low_a op(low_b), of fp32 and with the inner size `rank`, low_a [M, rank] and low_b stored as b is:
     * for makers that have low_scratch. 0: none. */
    int64_t rank;
    lk_binding low_a, low_b;
    float low_scale;
} lk_product;

/* Who makes the products that ops consist of: a backend may have better kernels than the dialect's. */
typedef struct lk_products {
    double (*cost)(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready);
    size_t (*scratch)(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready);
    void (*record)(lk_recorder *recorder, const lk_product *product);
    /* A left operand of several products is made ready for them once, in memory of its own; NULL: taken as it is. */
    size_t (*prepared_bytes)(int64_t rows, int64_t columns);
    void (*prepare)(lk_recorder *recorder, const lk_binding *x, int64_t rows, int64_t columns, const lk_binding *to);
    /* What a low-rank addend to a product needs besides; NULL: it must be a product of its own. */
    size_t (*low_scratch)(int64_t m, int64_t n, int64_t rank);
} lk_products;
/* By matmul.lk and matmul_panel.lk; which of them is chosen by the device's kind alone. */
extern const lk_products lk_products_dialect;
const lk_products *lk_products_of(const lk_recorder *recorder); /* its own, or the dialect's */
void lk_record_product(lk_recorder *recorder, const lk_product *product);

/* y = alpha (the sum of `count` matrices of M x N, one after the other) + c + bias: after K was shared out. */
void lk_record_sum_of_parts(lk_recorder *recorder, const lk_product *product, const lk_binding *parts, int64_t count);

/* Costs and scratch memory of the rows that consist of products, by whom they are made. */
double lk_cost_matmul_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node);
size_t lk_scratch_matmul_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node);
void lk_record_matmul_product(lk_recorder *recorder, const lk_command *command);
double lk_cost_linear_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node);
size_t lk_scratch_linear_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node);
double lk_cost_lora_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node);
size_t lk_scratch_lora_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node);
size_t lk_scratch_lora_backward_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node);
double lk_cost_linear_cross_entropy_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node);
size_t lk_scratch_linear_cross_entropy_by(const lk_products *by, const lk_device_caps *caps, const lk_node *node);

#define LK_SHADER_KERNEL(name, OP, supports_function, cost_function, scratch_function, in_place, record) \
    bool supports_function(const lk_device_caps *caps, const lk_node *node, lk_refusal *why);            \
    double cost_function(const lk_device_caps *caps, const lk_node *node);                               \
    size_t scratch_function(const lk_device_caps *caps, const lk_node *node);                            \
    void record(lk_recorder *recorder, const lk_command *command);
#include "backends/shaders/kernels.def"
#undef LK_SHADER_KERNEL

#endif
