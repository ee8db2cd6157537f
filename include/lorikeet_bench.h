/* Measurements of a device, as `lorikeet bench` shows them: rates, single kernels, attention with and without LoRA.
 * Training is measured with lorikeet.h alone. Times are wall clock, or the device's own where it has timestamps; they
 * mean something only on a machine that does nothing else. The conventions are those of lorikeet.h. */
#ifndef LORIKEET_BENCH_H
#define LORIKEET_BENCH_H

#include "lorikeet.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- sizes ---- */

/* The sizes of a Llama model. */
typedef struct lk_bench_model {
    const char *name;
    int64_t num_hidden_layers, hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, vocab_size;
    bool tie_word_embeddings;
} lk_bench_model;
/* Known ones: "toy", "smollm2-135m", "llama-3-8b", ... The array ends with a name of NULL. */
LK_API const lk_bench_model *lk_bench_models(void);
LK_API const lk_bench_model *lk_bench_model_find(const char *name); /* NULL: none of that name */
/* Writes config.json and model.safetensors (bf16, small random values, the same each time) into a folder, which is
 * made. With zeros the weights are a hole in the file that takes no room, for plans. */
LK_API lk_status lk_bench_model_write(lk_context *context, const lk_bench_model *model, bool zeros, const char *folder);

/* ---- rates of a device ---- */

typedef struct lk_bench_rates {
    double flops_f32;       /* operations per second of the best of several matrix products */
    double flops_bf16;      /* the same with weights in bf16 */
    double flops_registers; /* fused multiply-adds that touch no memory, on all threads; 0: not known for this device */
    double flops_registers_bf16; /* of products of bf16 pairs; 0: the device has none, or it is not known */
    double bandwidth;            /* bytes read and written per second by y = a + b, larger than the caches */
} lk_bench_rates;
/* Takes about `seconds` for each. */
LK_API lk_status lk_bench_measure_rates(lk_session *session, double seconds, lk_bench_rates *out);

/* ---- kernels ---- */

typedef struct lk_bench_kernel_options {
    size_t struct_size;
    const lk_bench_model *model; /* whose sizes; default smollm2-135m */
    int64_t tokens;              /* one sequence of so many; default 1024 */
    int64_t rank;                /* default 16 */
    lk_dtype dtype;              /* of weight matrices: LK_DTYPE_F32 (default) or LK_DTYPE_BF16 */
    const char *op;              /* only this operation; NULL: all */
    double seconds;              /* for each kernel, at most about this long; default 0.2 */
    double check_flops;          /* the kernel is compared with the reference on as many tokens as that does with so
                                  * many operations; 0: not at all. Default 5e7 */
} lk_bench_kernel_options;
LK_API void lk_bench_kernel_options_init(lk_bench_kernel_options *options);

/* One kernel on one operation. Texts are valid during the call. */
typedef struct lk_bench_kernel {
    const char *op, *shape;          /* "lora_linear", "T=1024 K=576 N=1536 r=16" */
    const char *kernel;              /* "cpu_lora_linear_avx512" */
    bool chosen;                     /* by selection, when nobody asks for another */
    double flops, bytes;             /* of one run: arithmetic, and memory traffic if each tensor is touched once */
    double seconds, fastest_seconds; /* median and fastest of `runs` */
    int runs;
    double error, tolerance; /* largest deviation from the reference in double precision over the largest magnitude of
                              * the output, and what rounding allows; error < 0: not checked */
    int64_t checked_tokens;
    const char *failure; /* NULL; else what went wrong, and the times are 0 */
} lk_bench_kernel;
typedef bool (*lk_bench_kernel_function)(void *user, const lk_bench_kernel *kernel); /* false stops */

/* Every row of the session's main device that supports an operation, on all operations with the model's sizes. */
LK_API lk_status lk_bench_kernels(lk_session *session, const lk_bench_kernel_options *options,
                                  lk_bench_kernel_function each, void *user);

/* ---- attention: full fine-tuning against LoRA ---- */

/* loss = sum(softmax(Q K' / sqrt(h)) V) with Q = X Wq', K = X Wk', V = X Wv' and X[b,e], W[h,e] in fp32: forward,
 * and the gradients of Wq, Wk and Wv (full), or, with a rank-r pair on Wq and on Wk, those of the four low-rank factors
 * alone (LoRA). */
typedef struct lk_bench_attention lk_bench_attention;
LK_API lk_status lk_bench_attention_create(lk_session *session, int64_t b, int64_t e, int64_t h, int64_t r,
                                           lk_bench_attention **out);
LK_API void lk_bench_attention_destroy(lk_bench_attention *attention);

typedef struct lk_bench_attention_report {
    double full_seconds, lora_seconds; /* medians of runs taken in turn */
    double full_fastest, lora_fastest;
    int runs; /* of each */
} lk_bench_attention_report;
/* Runs both in turn for about `seconds` and at least 3 times each. */
LK_API lk_status lk_bench_attention_run(lk_bench_attention *attention, double seconds,
                                        lk_bench_attention_report *report);
/* The gradient of one of the trained tensors in the last run: of Wq, Wk, Wv [h,e] with lora false; of A and B of Wq,
 * then of Wk ([r,e] and [h,r]) with lora true. values: as many floats as it has. */
LK_API lk_status lk_bench_attention_gradient(lk_bench_attention *attention, bool lora, int index, float *values);

#ifdef __cplusplus
}
#endif

#endif
