/* The rows whose products are made by cuBLASLt. */
#include "backends/cuda/cublaslt.h"
#include "backends/cuda/cuda.h"
#include "backends/cuda/tensor_cores.h"

enum { WORKSPACE = 4 << 20, WORKSPACE_HOPPER = 32 << 20 }; /* as the library's reference advises */

static int64_t round_up(int64_t a, int64_t b) {
    return (a + b - 1) / b * b;
}

static size_t workspace_bytes(const lk_device_caps *caps) {
    return caps->capability >= 90 ? WORKSPACE_HOPPER : WORKSPACE;
}

/* a in bf16, as [M, K] or [K, M]. */
static size_t operand_bytes(int64_t m, int64_t k) {
    size_t bytes = (size_t)LK_MAX(m * round_up(k, 8), k * round_up(m, 8)) * sizeof(uint16_t);
    return (bytes + LK_BUFFER_ALIGNMENT - 1) / LK_BUFFER_ALIGNMENT * LK_BUFFER_ALIGNMENT;
}

static bool is_there(const lk_device_caps *caps, lk_refusal *why) {
    LK_REQUIRE(why, (caps->features & LK_CUDA_FEATURE_CUBLASLT) != 0, "cuBLASLt is not there");
    return true;
}

/* It reaches about 0.75 of the peak where the matrices fill the device; small ones are bound by memory. It is no slower
 * than our own kernels, whose estimates leave other things out. */
static double arithmetic_seconds(const lk_device_caps *caps, double multiplications, bool narrow) {
    return 2.0 * multiplications / (0.75 * (narrow ? caps->flops_16 : caps->flops_f32));
}

/* A call cannot be cut: what watchdogs would end is left to kernels that can be. */
static bool fits(const lk_device_caps *caps, const lk_node *node, int weight, bool narrow, lk_refusal *why) {
    double rows = (double)node->inputs[0]->shape[0], elements = (double)lk_tensor_elements(node->inputs[weight]);
    LK_REQUIRE(why, lk_fits_submission(caps, arithmetic_seconds(caps, rows * elements, narrow)),
               "a call cannot be cut, and would take longer than a submission may");
    return true;
}

bool lk_cuda_supports_lt(const lk_device_caps *caps, const lk_node *node, int weight, lk_refusal *why) {
    LK_REQUIRE(why, node->inputs[weight]->dtype == LK_DTYPE_F32, "the weight is not stored in fp32");
    return is_there(caps, why) && fits(caps, node, weight, false, why);
}

bool lk_cuda_supports_lt_bf16(const lk_device_caps *caps, const lk_node *node, int weight, lk_refusal *why) {
    return is_there(caps, why) && lk_cuda_supports_mma(caps, node, weight, why) && fits(caps, node, weight, true, why);
}

static double seconds_of(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, bool narrow, double rounding) {
    double arithmetic = arithmetic_seconds(caps, (double)m * (double)n * (double)k, narrow);
    double operands = (narrow ? 2.0 : 4.0) * (double)(m + n) * (double)k, result = 4.0 * (double)m * (double)n;
    return caps->launch_seconds + rounding + LK_MAX(arithmetic, (operands + result) / caps->bandwidth);
}

static double cost(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    return LK_MIN(seconds_of(caps, m, n, k, false, 0.0), lk_products_dialect.cost(caps, m, n, k, b_type, a_ready));
}

static double cost_bf16(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    double rounding = a_ready ? 0.0 : caps->launch_seconds + 6.0 * (double)m * (double)k / caps->bandwidth;
    return LK_MIN(b_type == LK_DTYPE_BF16 ? seconds_of(caps, m, n, k, true, rounding)
                                          : seconds_of(caps, m, n, k, false, 0.0),
                  lk_cuda_products_mma.cost(caps, m, n, k, b_type, a_ready));
}

static size_t scratch(const lk_device_caps *caps, int64_t m, int64_t n, int64_t k, lk_dtype b_type, bool a_ready) {
    (void)n;
    return workspace_bytes(caps) + (b_type == LK_DTYPE_BF16 && !a_ready ? operand_bytes(m, k) : 0);
}

/* Products with adapters' tensors, which are in fp32, stay so. */
static void record(lk_recorder *recorder, const lk_product *p) {
    const bool narrow = p->b_type == LK_DTYPE_BF16;
    const bool transpose_a = p->a_inner != 1 || p->a_row != p->K, transpose_b = p->b_column != 1 || p->b_inner != p->N;
    const size_t workspace = workspace_bytes(recorder->caps);
    /* as they are stored: [M, K] or [K, M]; [K, N] or [N, K] */
    const int64_t rows = transpose_a ? p->K : p->M, columns = transpose_a ? p->M : p->K;
    int64_t a_pitch = columns;
    lk_binding a = p->a, space = lk_binding_part(&p->scratch, 0, workspace);
    if (narrow) {
        a_pitch = round_up(columns, 8);
        a = p->a_ready;
    }
    if (narrow && a.buffer == NULL) {
        a = lk_binding_part(&p->scratch, workspace, (size_t)(rows * a_pitch) * sizeof(uint16_t));
        lk_cuda_record_round_rows(recorder, &p->a, &a, rows, columns, a_pitch, 1.0f);
    }
    lk_launch *launch = lk_launch_begin(recorder, LK_CUDA_LT_FILE, "matmul", 1);
    const lk_binding *buffers[] = {&a, &p->b, &p->c, &p->bias, &p->y, &space};
    for (size_t i = 0; i < LK_COUNT(buffers); i++) {
        lk_launch_buffer(launch, buffers[i]);
    }
    const int64_t numbers[] = {p->M,
                               p->N,
                               p->K,
                               transpose_a,
                               a_pitch,
                               transpose_b,
                               transpose_b ? p->K : p->N,
                               p->c.buffer != NULL,
                               p->bias.buffer != NULL,
                               narrow};
    for (size_t i = 0; i < LK_COUNT(numbers); i++) {
        lk_launch_int(launch, numbers[i]);
    }
    lk_launch_float(launch, p->alpha);
    lk_launch_grid(launch, 1, 1);
}

/* What is prepared is what gemm.cu's products prepare. */
static size_t prepared_bytes(int64_t rows, int64_t columns) {
    return lk_cuda_products_mma.prepared_bytes(rows, columns);
}

static void prepare(lk_recorder *recorder, const lk_binding *x, int64_t rows, int64_t columns, const lk_binding *to) {
    lk_cuda_products_mma.prepare(recorder, x, rows, columns, to);
}

const lk_products lk_cuda_products_lt = {.cost = cost, .scratch = scratch, .record = record};
const lk_products lk_cuda_products_lt_bf16 = {
    .cost = cost_bf16, .scratch = scratch, .record = record, .prepared_bytes = prepared_bytes, .prepare = prepare};
