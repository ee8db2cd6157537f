/* A PEFT adapter on disk: a folder with adapter_config.json and adapter_model.safetensors. */
#ifndef LK_CORE_FORMATS_PEFT_H
#define LK_CORE_FORMATS_PEFT_H

#include "core/formats/peft_config.h"
#include "core/formats/safetensors.h"

/* LK_PEFT_KIND(NAME, "name in the file", "what follows the name when it is written").
 * lora_A [r, in], lora_B [out, r]; embeddings: lora_embedding_A [r, vocabulary], lora_embedding_B [size, r];
 * lora_magnitude_vector [out] (DoRA); vera_lambda_b [out], vera_lambda_d [r], and once for all modules vera_A [r,
 * largest in], vera_B [largest out, r]; ia3_l [out, 1], or [1, in] for feedforward modules; hada_w1_a, hada_w2_a [out,
 * r], hada_w1_b, hada_w2_b [r, in]; lokr_w1 [a, b] or its factors lokr_w1_a [a, r] and lokr_w1_b [r, b], lokr_w2 [c, d]
 * or its factors, with out = ac and in = bd; oft_R [blocks, upper triangle of one]; lora_E [r, 1];
 * delta_lora_A, delta_lora_B as lora_A, lora_B. */
#define LK_PEFT_KINDS(X)                           \
    X(LORA_A, "lora_A", ".weight")                 \
    X(LORA_B, "lora_B", ".weight")                 \
    X(LORA_EMBEDDING_A, "lora_embedding_A", "")    \
    X(LORA_EMBEDDING_B, "lora_embedding_B", "")    \
    X(LORA_MAGNITUDE, "lora_magnitude_vector", "") \
    X(VERA_LAMBDA_B, "vera_lambda_b", "")          \
    X(VERA_LAMBDA_D, "vera_lambda_d", "")          \
    X(VERA_A, "vera_A", "")                        \
    X(VERA_B, "vera_B", "")                        \
    X(IA3_L, "ia3_l", "")                          \
    X(HADA_W1_A, "hada_w1_a", "")                  \
    X(HADA_W1_B, "hada_w1_b", "")                  \
    X(HADA_W2_A, "hada_w2_a", "")                  \
    X(HADA_W2_B, "hada_w2_b", "")                  \
    X(LOKR_W1, "lokr_w1", "")                      \
    X(LOKR_W1_A, "lokr_w1_a", "")                  \
    X(LOKR_W1_B, "lokr_w1_b", "")                  \
    X(LOKR_W2, "lokr_w2", "")                      \
    X(LOKR_W2_A, "lokr_w2_a", "")                  \
    X(LOKR_W2_B, "lokr_w2_b", "")                  \
    X(OFT_R, "oft_R", ".weight")                   \
    X(LORA_E, "lora_E", "")                        \
    X(DELTA_LORA_A, "delta_lora_A", ".weight")     \
    X(DELTA_LORA_B, "delta_lora_B", ".weight")
typedef enum lk_peft_kind {
#define LK_PEFT_KIND(NAME, text, suffix) LK_PEFT_KIND_##NAME,
    LK_PEFT_KINDS(LK_PEFT_KIND)
#undef LK_PEFT_KIND
        LK_PEFT_KIND_SAVED, /* a parameter of one of modules_to_save */
    LK_PEFT_KIND_OTHER,
} lk_peft_kind;

typedef struct lk_peft_tensor {
    const lk_stored_tensor *tensor;
    const char *module;    /* "model.layers.0.self_attn.q_proj"; "" for vera_A and vera_B */
    const char *parameter; /* "weight" or "bias" of SAVED and OTHER, otherwise "" */
    lk_peft_kind kind;
} lk_peft_tensor;

typedef struct lk_peft_adapter lk_peft_adapter;
lk_status lk_peft_open(lk_context *context, const char *folder, lk_peft_adapter **out);
void lk_peft_destroy(lk_peft_adapter *adapter);
const lk_peft_config *lk_peft_get_config(const lk_peft_adapter *adapter);
size_t lk_peft_count(const lk_peft_adapter *adapter);
const lk_peft_tensor *lk_peft_at(const lk_peft_adapter *adapter, size_t index);
/* parameter: as above. NULL: not there. */
const lk_peft_tensor *lk_peft_lookup(const lk_peft_adapter *adapter, const char *module, lk_peft_kind kind,
                                     const char *parameter);
/* Reads a tensor of exactly this shape as fp32; errors name file, tensor, found and expected. */
lk_status lk_peft_read_f32(const lk_peft_adapter *adapter, const lk_peft_tensor *tensor, int rank, const int64_t *shape,
                           float *destination);

/* The name in the file: "base_model.model.<module>.lora_A.weight", without ".weight" in ADALORA files; for SAVED
 * "base_model.model.<module>.<parameter>".
 */
void lk_peft_name(lk_text *text, lk_peft_type type, const char *module, lk_peft_kind kind, const char *parameter);

/* Writes the folder: the tensors (named by lk_peft_name; source as in lk_safetensors_write), then the configuration,
 * each atomically, so that a configuration is never without its tensors. */
lk_status lk_peft_save(const lk_peft_config *config, const char *folder, const lk_stored_tensor *tensors, size_t count,
                       lk_safetensors_source source, void *user);

#endif
