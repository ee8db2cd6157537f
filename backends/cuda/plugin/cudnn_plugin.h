/* The C interface of liblorikeet_cudnn.so: attention by cuDNN. Its graphs can be described by NVIDIA's C++ headers
 * (cudnn_frontend) alone, which are kept out of the library by this plugin (cudnn_plugin.cc). It loads cuDNN itself, at
 * run time. Nothing here throws; a handle is used by one thread at a time. */
#ifndef LK_BACKENDS_CUDA_CUDNN_PLUGIN_H
#define LK_BACKENDS_CUDA_CUDNN_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LK_CUDNN_ABI_VERSION 1

typedef struct lk_cudnn lk_cudnn;           /* cuDNN on one device */
typedef struct lk_cudnn_plan lk_cudnn_plan; /* one attention, compiled */

enum { LK_CUDNN_SUCCESS = 0, LK_CUDNN_FAILED = 1, LK_CUDNN_UNSUPPORTED = 2, LK_CUDNN_OUT_OF_MEMORY = 3 };
enum { LK_CUDNN_PROBLEM = 256 }; /* bytes of a text that says what went wrong */

/* Of packed sequences, the tokens of one following those of another. */
typedef struct lk_cudnn_attention {
    int64_t tokens; /* of all sequences; one may be as long as this */
    int32_t sequences;
    int32_t num_attention_heads, num_key_value_heads, head_dim;
    float scale;
    int32_t causal, backward;
    int32_t wants_lse; /* forward */
} lk_cudnn_attention;

/* q, o and their gradients are bf16 [tokens, num_attention_heads, head_dim], k and v [tokens, num_key_value_heads,
 * head_dim]; lse is fp32 [tokens, num_attention_heads], natural logarithms. The borders are i32: the sequences' lengths
 * [sequences]; and [sequences + 1] where each begins, in elements of q, of k, and of lse. Rows of no sequence are not
 * written. Every address is a multiple of 16. */
enum lk_cudnn_tensor {
    LK_CUDNN_Q,
    LK_CUDNN_K,
    LK_CUDNN_V,
    LK_CUDNN_O,   /* the forward's output, the backward's input */
    LK_CUDNN_LSE, /* likewise */
    LK_CUDNN_DO,
    LK_CUDNN_DQ,
    LK_CUDNN_DK,
    LK_CUDNN_DV,
    LK_CUDNN_LENGTHS,
    LK_CUDNN_Q_STARTS,
    LK_CUDNN_K_STARTS,
    LK_CUDNN_LSE_STARTS,
    LK_CUDNN_TENSORS
};

#ifdef _WIN32
#define LK_CUDNN_EXPORT __declspec(dllexport)
#else
#define LK_CUDNN_EXPORT __attribute__((visibility("default")))
#endif
#define LK_CUDNN(name, result, parameters) LK_CUDNN_EXPORT result name parameters;
#include "backends/cuda/plugin/cudnn_plugin.def"
#undef LK_CUDNN

#ifdef __cplusplus
}
#endif

#endif
