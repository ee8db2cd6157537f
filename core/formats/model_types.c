/* The model types that configurations are read for; the defaults are those of their classes in transformers. */
#include <string.h>

#include "core/formats/model_config.h"

/* llama, mistral, qwen2 and qwen3 spell their fields alike, and so do bert and roberta. */
#define DECODER_KEYS                                                                                               \
    {                                                                                                              \
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", \
            "rms_norm_eps", "hidden_act"                                                                           \
    }
#define BERT_KEYS                                                                                                  \
    {                                                                                                              \
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", \
            "layer_norm_eps", "hidden_act"                                                                         \
    }

static const lk_model_type types[] = {
    {.name = "llama",
     .causal_class = "LlamaForCausalLM",
     .base_model_prefix = "model.",
     .gguf_architecture = "llama",
     .gguf_permutes_qk = true,
     .keys = DECODER_KEYS,
     .defaults = {.norm_eps = 1e-6, .max_position_embeddings = 2048, .hidden_act = "silu"},
     .rope = true,
     .attention_bias_key = true,
     .mlp_bias_key = true},
    {.name = "mistral",
     .causal_class = "MistralForCausalLM",
     .base_model_prefix = "model.",
     .keys = DECODER_KEYS,
     .defaults = {.norm_eps = 1e-6, .max_position_embeddings = 131072, .sliding_window = 4096, .hidden_act = "silu"},
     .rope = true},
    {.name = "qwen2",
     .causal_class = "Qwen2ForCausalLM",
     .base_model_prefix = "model.",
     .gguf_architecture = "qwen2",
     .keys = DECODER_KEYS,
     .defaults = {.norm_eps = 1e-6, .max_position_embeddings = 32768, .hidden_act = "silu"},
     .rope = true,
     .qkv_bias = true,
     .use_sliding_window_key = true},
    {.name = "qwen3",
     .causal_class = "Qwen3ForCausalLM",
     .base_model_prefix = "model.",
     .gguf_architecture = "qwen3",
     .keys = DECODER_KEYS,
     .defaults = {.norm_eps = 1e-6, .max_position_embeddings = 32768, .head_dim = 128, .hidden_act = "silu"},
     .rope = true,
     .qk_norm = true,
     .attention_bias_key = true,
     .use_sliding_window_key = true},
    {.name = "gpt2",
     .causal_class = "GPT2LMHeadModel",
     .base_model_prefix = "transformer.",
     .keys = {"n_embd", "n_inner", "n_layer", "n_head", "n_positions", "layer_norm_epsilon", "activation_function"},
     .defaults =
         {.norm_eps = 1e-5, .max_position_embeddings = 1024, .hidden_act = "gelu_new", .tie_word_embeddings = true},
     .qkv_bias = true,
     .output_bias = true,
     .mlp_bias = true},
    {.name = "bert",
     .causal_class = "BertLMHeadModel",
     .classify_class = "BertForSequenceClassification",
     .base_model_prefix = "bert.",
     .keys = BERT_KEYS,
     .defaults = {.norm_eps = 1e-12, .max_position_embeddings = 512, .hidden_act = "gelu", .tie_word_embeddings = true},
     .qkv_bias = true,
     .output_bias = true,
     .mlp_bias = true},
    {.name = "roberta",
     .causal_class = "RobertaForCausalLM",
     .classify_class = "RobertaForSequenceClassification",
     .base_model_prefix = "roberta.",
     .keys = BERT_KEYS,
     .defaults = {.norm_eps = 1e-12, .max_position_embeddings = 512, .hidden_act = "gelu", .tie_word_embeddings = true},
     .qkv_bias = true,
     .output_bias = true,
     .mlp_bias = true},
    {.name = "distilbert",
     .causal_class = "DistilBertForMaskedLM",
     .classify_class = "DistilBertForSequenceClassification",
     .base_model_prefix = "distilbert.",
     .keys = {"dim", "hidden_dim", "n_layers", "n_heads", "max_position_embeddings", "layer_norm_eps", "activation"},
     .defaults = {.norm_eps = 1e-12, .max_position_embeddings = 512, .hidden_act = "gelu", .tie_word_embeddings = true},
     .qkv_bias = true,
     .output_bias = true,
     .mlp_bias = true},
};

const lk_model_type *lk_model_type_find(const char *name) {
    for (size_t i = 0; i < LK_COUNT(types); i++) {
        if (strcmp(types[i].name, name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

const lk_model_type *lk_model_type_find_gguf(lk_gguf_string architecture) {
    for (size_t i = 0; i < LK_COUNT(types); i++) {
        if (types[i].gguf_architecture != NULL && lk_gguf_string_equals(architecture, types[i].gguf_architecture)) {
            return &types[i];
        }
    }
    return NULL;
}

void lk_model_type_list(lk_text *text) {
    for (size_t i = 0; i < LK_COUNT(types); i++) {
        lk_text_printf(text, "%s%s", i ? ", " : "", types[i].name);
    }
}
