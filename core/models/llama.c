/* Decoder-only models of the Llama shape: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases or only
 * some. Llama 2 and 3, SmolLM2, Mistral (sliding window), Qwen2 (biases on q, k, v) and Qwen3 (RMSNorm on the heads of
 * q and k) differ by their config alone. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/models/model.h"

static bool accepts(const lk_model_config *config) {
    static const char *const types[] = {"llama", "mistral", "qwen2", "qwen3"};
    for (size_t i = 0; i < LK_COUNT(types); i++) {
        if (strcmp(config->type->name, types[i]) == 0) {
            return true;
        }
    }
    return false;
}

static lk_status declare_rope(lk_model *model) {
    size_t half = (size_t)model->config->head_dim / 2;
    double *exact = lk_calloc(model->context, half, sizeof *exact);
    float *inv_freq = lk_calloc(model->context, half, sizeof *inv_freq);
    lk_status status = LK_OK;
    if (exact == NULL || inv_freq == NULL) {
        status = lk_out_of_memory(model->context, half * sizeof *exact, "rotary frequencies");
    } else {
        lk_rope_inverse_frequencies(&model->config->rope, model->config->head_dim, exact);
        for (size_t i = 0; i < half; i++) {
            inv_freq[i] = (float)exact[i];
        }
        status = lk_model_constant(model, "rope.inv_freq", (int64_t)half, inv_freq);
    }
    lk_free(model->context, exact);
    lk_free(model->context, inv_freq);
    return status;
}

static lk_status declare_layer(lk_model *model, int64_t layer) {
    const lk_model_config *config = model->config;
    int64_t hidden = config->hidden_size, head_dim = config->head_dim;
    int64_t q_width = config->num_attention_heads * head_dim, kv_width = config->num_key_value_heads * head_dim;
    const struct {
        const char *path;
        int64_t in, out;
        bool has_bias;
    } linears[] = {
        {"self_attn.q_proj", hidden, q_width, config->attention_bias},
        {"self_attn.k_proj", hidden, kv_width, config->attention_bias},
        {"self_attn.v_proj", hidden, kv_width, config->attention_bias},
        {"self_attn.o_proj", q_width, hidden, config->attention_output_bias},
        {"mlp.gate_proj", hidden, config->intermediate_size, config->mlp_bias},
        {"mlp.up_proj", hidden, config->intermediate_size, config->mlp_bias},
        {"mlp.down_proj", config->intermediate_size, hidden, config->mlp_bias},
    };
    const struct {
        const char *name;
        int64_t size;
        bool present;
    } norms[] = {
        {"input_layernorm", hidden, true},
        {"post_attention_layernorm", hidden, true},
        {"self_attn.q_norm", head_dim, config->qk_norm},
        {"self_attn.k_norm", head_dim, config->qk_norm},
    };
    char name[128];
    for (size_t i = 0; i < LK_COUNT(linears); i++) {
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, linears[i].path);
        LK_TRY(lk_model_linear(model, name, linears[i].in, linears[i].out, linears[i].has_bias));
    }
    for (size_t i = 0; i < LK_COUNT(norms); i++) {
        if (norms[i].present) {
            snprintf(name, sizeof name, "model.layers.%lld.%s.weight", (long long)layer, norms[i].name);
            LK_TRY(lk_model_weight(model, name, 1, &norms[i].size, NULL));
        }
    }
    return LK_OK;
}

static lk_status declare(lk_model *model) {
    const lk_model_config *config = model->config;
    int64_t table[] = {config->vocab_size, config->hidden_size};
    lk_variable *embedding, *head;
    LK_TRY(lk_model_weight(model, "model.embed_tokens.weight", 2, table, &embedding));
    head = embedding;
    for (int64_t layer = 0; layer < config->num_hidden_layers; layer++) {
        LK_TRY(declare_layer(model, layer));
    }
    LK_TRY(lk_model_weight(model, "model.norm.weight", 1, &config->hidden_size, NULL));
    if (!config->tie_word_embeddings) {
        LK_TRY(lk_model_weight(model, "lm_head.weight", 2, table, &head));
    }
    LK_TRY(lk_model_head(model, "lm_head", head));
    LK_TRY(lk_model_embedding(model, "model.embed_tokens"));
    return declare_rope(model);
}

static lk_tensor *attention_block(lk_forward *forward, int32_t layer, lk_tensor *x, lk_tensor *cos, lk_tensor *sin) {
    const lk_model_config *config = forward->model->config;
    lk_graph *graph = forward->graph;
    int32_t head_dim = (int32_t)config->head_dim;
    lk_tensor *q = lk_forward_linear(forward, x, "model.layers.%d.self_attn.q_proj", layer);
    lk_tensor *k = lk_forward_linear(forward, x, "model.layers.%d.self_attn.k_proj", layer);
    lk_tensor *v = lk_forward_linear(forward, x, "model.layers.%d.self_attn.v_proj", layer);
    char scope[64];
    snprintf(scope, sizeof scope, "model.layers.%d.self_attn", layer);
    lk_graph_set_scope(graph, scope);
    if (config->qk_norm) {
        float epsilon = (float)config->norm_eps;
        q = lk_build_rms_norm(graph, q, lk_forward_weight(forward, "%s.q_norm.weight", scope), epsilon);
        k = lk_build_rms_norm(graph, k, lk_forward_weight(forward, "%s.k_norm.weight", scope), epsilon);
    }
    q = lk_build_rope(graph, q, cos, sin, head_dim, false);
    k = lk_build_rope(graph, k, cos, sin, head_dim, false);
    lk_attention_attributes attention = {
        .num_attention_heads = (int32_t)config->num_attention_heads,
        .num_key_value_heads = (int32_t)config->num_key_value_heads,
        .head_dim = head_dim,
        .scale = (float)(1.0 / sqrt((double)head_dim)),
        .causal = true,
        .window = layer >= (int32_t)config->sliding_window_from ? (int32_t)config->sliding_window : 0};
    lk_tensor *o = lk_forward_attention(forward, layer, q, k, v, &attention);
    return lk_forward_linear(forward, o, "model.layers.%d.self_attn.o_proj", layer);
}

static lk_tensor *mlp_block(lk_forward *forward, int32_t layer, lk_tensor *x) {
    lk_tensor *gate = lk_forward_linear(forward, x, "model.layers.%d.mlp.gate_proj", layer);
    lk_tensor *up = lk_forward_linear(forward, x, "model.layers.%d.mlp.up_proj", layer);
    lk_tensor *h = lk_build_swiglu(forward->graph, gate, up);
    return lk_forward_linear(forward, h, "model.layers.%d.mlp.down_proj", layer);
}

static lk_tensor *norm(lk_forward *forward, lk_tensor *x, const char *name) {
    lk_graph_set_scope(forward->graph, name);
    return lk_build_rms_norm(forward->graph, x, lk_forward_weight(forward, "%s.weight", name),
                             (float)forward->model->config->norm_eps);
}

static lk_tensor *forward_pass(lk_forward *forward) {
    lk_graph *graph = forward->graph;
    lk_tensor *cos, *sin;
    lk_tensor *h = lk_forward_embedding(forward, forward->input_ids, "model.embed_tokens");
    lk_graph_set_scope(graph, "model.rotary_emb");
    lk_build_rope_table(graph, forward->positions, lk_forward_weight(forward, "rope.inv_freq"), &cos, &sin);
    for (int32_t layer = 0; layer < (int32_t)forward->model->config->num_hidden_layers; layer++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm", layer);
        h = lk_build_add(graph, h, attention_block(forward, layer, norm(forward, h, name), cos, sin));
        snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm", layer);
        h = lk_build_add(graph, h, mlp_block(forward, layer, norm(forward, h, name)));
    }
    return norm(forward, h, "model.norm");
}

static int64_t cache_width(const lk_model_config *config) {
    return config->num_key_value_heads * config->head_dim;
}

const lk_model_family lk_model_family_llama = {"llama", accepts, declare, forward_pass, cache_width, NULL};
