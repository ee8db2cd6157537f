/* The shape of a model, under the field names of Hugging Face's config.json, from config.json or from GGUF metadata. */
#ifndef LK_CORE_FORMATS_MODEL_CONFIG_H
#define LK_CORE_FORMATS_MODEL_CONFIG_H

#include <jansson.h>

#include "core/formats/gguf.h"

/* How a model type spells its fields, and what holds when they are absent (model_types.c). */
typedef struct lk_model_type {
    const char *name;              /* config.json's model_type */
    const char *causal_class;      /* what "architectures" names for a language model */
    const char *classify_class;    /* and for a model that classifies sequences; NULL: not supported */
    const char *base_model_prefix; /* "model.": may be missing from or added to the names of stored tensors */
    const char *gguf_architecture; /* NULL: not read from GGUF */
    bool gguf_permutes_qk;         /* llama.cpp reorders q and k rows for its interleaved RoPE */
    struct {
        const char *hidden_size, *intermediate_size, *num_hidden_layers, *num_attention_heads, *max_position_embeddings,
            *norm_eps, *hidden_act;
    } keys;
    struct {
        double norm_eps;
        int64_t max_position_embeddings;
        int64_t head_dim;       /* 0: hidden_size / num_attention_heads */
        int64_t sliding_window; /* where the key is absent and no use_sliding_window key rules */
        const char *hidden_act;
        bool tie_word_embeddings;
    } defaults;
    bool rope, qk_norm;
    bool qkv_bias, output_bias, mlp_bias; /* always there */
    bool attention_bias_key;              /* "attention_bias" turns on biases of q, k, v and o */
    bool mlp_bias_key;                    /* "mlp_bias" */
    bool use_sliding_window_key;          /* "use_sliding_window" (default false) and "max_window_layers" rule */
} lk_model_type;
const lk_model_type *lk_model_type_find(const char *name); /* NULL: not known */
const lk_model_type *lk_model_type_find_gguf(lk_gguf_string architecture);
/* "llama, mistral, ..." for messages. */
void lk_model_type_list(lk_text *text);

#define LK_HIDDEN_ACTS(X) X(SILU, "silu") X(GELU, "gelu") X(GELU_NEW, "gelu_new") X(RELU, "relu")
typedef enum lk_hidden_act {
#define LK_HIDDEN_ACT(NAME, text) LK_HIDDEN_ACT_##NAME,
    LK_HIDDEN_ACTS(LK_HIDDEN_ACT)
#undef LK_HIDDEN_ACT
} lk_hidden_act;

typedef enum lk_rope_type { LK_ROPE_NONE, LK_ROPE_DEFAULT, LK_ROPE_LINEAR, LK_ROPE_LLAMA3 } lk_rope_type;

typedef struct lk_rope_config {
    lk_rope_type type;
    double theta;
    double factor; /* linear and llama3 */
    double low_freq_factor, high_freq_factor;
    int64_t original_max_position_embeddings; /* llama3 */
} lk_rope_config;

enum { LK_EOS_MAX = 8 };

typedef struct lk_model_config {
    const lk_model_type *type;
    char architecture[64]; /* config.json's architectures[0], "LlamaForCausalLM"; "" where not stated */
    int64_t hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim;
    int64_t vocab_size, max_position_embeddings;
    int64_t type_vocab_size; /* bert, roberta; otherwise 0 */
    int64_t num_labels;      /* from id2label or num_labels; 0 where not stated */
    double norm_eps;
    lk_rope_config rope;
    lk_hidden_act hidden_act;
    bool tie_word_embeddings;
    bool attention_bias;        /* q, k and v projections have biases */
    bool attention_output_bias; /* so has the output projection */
    bool mlp_bias;
    bool qk_norm;                       /* RMS norm of q and k per head, before RoPE (qwen3) */
    int64_t sliding_window;             /* 0: none. A token sees itself and the sliding_window - 1 before it */
    int64_t sliding_window_from;        /* the first layer that has the window */
    int64_t bos_token_id, pad_token_id; /* -1: none */
    int64_t eos_token_id[LK_EOS_MAX];
    int eos_count;
    json_t *source; /* the config.json it came from, or NULL; owned */
} lk_model_config;

/* Unknown model types, activations, RoPE types and settings that change the mathematics in ways not supported give
 * UNSUPPORTED, naming file, key and value. On failure *out is zeroed. */
lk_status lk_model_config_load(lk_context *context, const char *path, lk_model_config *out);
lk_status lk_model_config_from_gguf(lk_context *context, const lk_gguf *gguf, lk_model_config *out);
void lk_model_config_free(lk_model_config *config);

/* Writes a config.json that transformers loads: the source's, unknown keys included, or one made from the fields, with
 * dtype, tie_word_embeddings, the architecture and the number of labels as they are now (labels that are not those of
 * the source are called LABEL_0 and so on). */
lk_status lk_model_config_save(lk_context *context, const lk_model_config *config, lk_dtype dtype, const char *path);

/* The head_dim / 2 inverse frequencies of RoPE, scaling applied: position p turns pair i by p * out[i] radians. */
void lk_rope_inverse_frequencies(const lk_rope_config *rope, int64_t head_dim, double *out);

/* "rope_freqs.weight" of a GGUF divides the frequencies one by one. Finds the llama3 scaling that gives these divisors
 * (rope->theta is used, the rest is set), or returns false. */
bool lk_rope_fit_llama3(const float *divisors, int64_t head_dim, lk_rope_config *rope);

#endif
