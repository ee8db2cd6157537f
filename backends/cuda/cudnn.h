/* Attention by cuDNN through a plugin (plugin/cudnn_plugin.h), which is looked for at run time and may be absent: then
 * flash_attention.cu makes it.
 *
 * LORIKEET_CUDNN: the plugin's file, instead of liblorikeet_cudnn.so beside the program or library, where it was
 * installed, or where the loader looks; `none` does without. */
#ifndef LK_BACKENDS_CUDA_CUDNN_H
#define LK_BACKENDS_CUDA_CUDNN_H

#include "backends/cuda/cuda.h"
#include "backends/cuda/plugin/cudnn_plugin.h"

/* ---- the backend's side (cudnn.c) ---- */

typedef struct lk_cuda_dnn lk_cuda_dnn; /* cuDNN on one device, and its plans */

/* NULL where the plugin and cuDNN are there, else why they are not. */
const char *lk_cuda_dnn_absent(void);
int64_t lk_cuda_dnn_version(void); /* 91900; 0: absent */
void lk_cuda_dnn_close(lk_cuda_device *device, lk_cuda_dnn *dnn);

/* Launches of the file `cudnn` (cudnn_attention.c records them). A shape's plan is made once per device. */
extern const lk_cuda_library lk_cuda_cudnn;

/* ---- rows (cudnn_attention.c) ---- */

#define LK_CUDA_DNN_FILE "cudnn"
/* A launch's buffers are the tensors before LK_CUDNN_LENGTHS, then this one: the borders, each at a multiple of
 * `pitch` integers, and behind them the workspace. */
enum { DNN_SPACE = LK_CUDNN_LENGTHS };
enum lk_cuda_dnn_parameter {
    DNN_BACKWARD,
    DNN_TOKENS,
    DNN_SEQUENCES,
    DNN_HEADS,
    DNN_KV_HEADS,
    DNN_HEAD_DIM,
    DNN_CAUSAL,
    DNN_WANTS_LSE,
    DNN_PITCH,
    DNN_SCALE
};

bool lk_cuda_supports_dnn(const lk_device_caps *caps, const lk_node *node, lk_refusal *why);
double lk_cuda_cost_dnn(const lk_device_caps *caps, const lk_node *node);
size_t lk_cuda_scratch_dnn(const lk_device_caps *caps, const lk_node *node);
void lk_cuda_record_dnn_attention(lk_recorder *recorder, const lk_command *command);
void lk_cuda_record_dnn_attention_backward(lk_recorder *recorder, const lk_command *command);
/* Bytes of workspace that are planned for an attention: no less than what cuDNN asks for. */
size_t lk_cuda_dnn_workspace(const lk_cudnn_attention *attention);

#endif
