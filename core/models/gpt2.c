/* GPT-2: learned positions, LayerNorm before each block, q, k and v from one projection, GELU, tied output head. Its
 * linear layers are Conv1D: the files hold their weights as [in, out]. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/json.h"
#include "core/models/model.h"

static bool accepts(const lk_model_config *config) {
    return strcmp(config->type->name, "gpt2") == 0;
}

static lk_status declare_layer(lk_model *model, int64_t layer) {
    int64_t hidden = model->config->hidden_size, inner = model->config->intermediate_size;
    const struct {
        const char *path;
        int64_t in, out;
    } linears[] = {
        {"attn.c_attn", hidden, 3 * hidden},
        {"attn.c_proj", hidden, hidden},
        {"mlp.c_fc", hidden, inner},
        {"mlp.c_proj", inner, hidden},
    };
    static const char *const norms[] = {"ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"};
    char name[128];
    for (size_t i = 0; i < LK_COUNT(linears); i++) {
        snprintf(name, sizeof name, "transformer.h.%lld.%s", (long long)layer, linears[i].path);
        LK_TRY(lk_model_conv1d(model, name, linears[i].in, linears[i].out));
    }
    for (size_t i = 0; i < LK_COUNT(norms); i++) {
        snprintf(name, sizeof name, "transformer.h.%lld.%s", (long long)layer, norms[i]);
        LK_TRY(lk_model_weight(model, name, 1, &hidden, NULL));
    }
    return LK_OK;
}

static lk_status declare(lk_model *model) {
    const lk_model_config *config = model->config;
    const int64_t table[] = {config->vocab_size, config->hidden_size};
    const int64_t positions[] = {config->max_position_embeddings, config->hidden_size};
    lk_variable *embedding, *head;
    LK_TRY(lk_model_weight(model, "transformer.wte.weight", 2, table, &embedding));
    LK_TRY(lk_model_weight(model, "transformer.wpe.weight", 2, positions, NULL));
    head = embedding;
    for (int64_t layer = 0; layer < config->num_hidden_layers; layer++) {
        LK_TRY(declare_layer(model, layer));
    }
    LK_TRY(lk_model_weight(model, "transformer.ln_f.weight", 1, &config->hidden_size, NULL));
    LK_TRY(lk_model_weight(model, "transformer.ln_f.bias", 1, &config->hidden_size, NULL));
    if (!config->tie_word_embeddings) {
        LK_TRY(lk_model_weight(model, "lm_head.weight", 2, table, &head));
    }
    LK_TRY(lk_model_head(model, "lm_head", head));
    LK_TRY(lk_model_embedding(model, "transformer.wte"));
    return lk_model_embedding(model, "transformer.wpe");
}

static lk_tensor *norm(lk_forward *forward, lk_tensor *x, const char *name) {
    lk_graph_set_scope(forward->graph, name);
    return lk_build_layer_norm(forward->graph, x, lk_forward_weight(forward, "%s.weight", name),
                               lk_forward_weight(forward, "%s.bias", name), (float)forward->model->config->norm_eps);
}

/* Two settings of few models: without the division by sqrt(head_dim), and with one by the layer's number from 1. */
static double attention_scale(const lk_model_config *config, int32_t layer) {
    double scale = json_is_false(json_object_get(config->source, "scale_attn_weights"))
                       ? 1.0
                       : 1.0 / sqrt((double)config->head_dim);
    bool inverse = json_is_true(json_object_get(config->source, "scale_attn_by_inverse_layer_idx"));
    return inverse ? scale / (double)(layer + 1) : scale;
}

static lk_tensor *attention_block(lk_forward *forward, int32_t layer, lk_tensor *x) {
    const lk_model_config *config = forward->model->config;
    lk_graph *graph = forward->graph;
    int64_t width = config->hidden_size;
    lk_tensor *qkv = lk_forward_linear(forward, x, "transformer.h.%d.attn.c_attn", layer);
    lk_tensor *parts[3];
    for (int i = 0; i < 3; i++) {
        parts[i] = lk_build_slice_columns(graph, qkv, i * width, width);
    }
    lk_attention_attributes attention = {.num_attention_heads = (int32_t)config->num_attention_heads,
                                         .num_key_value_heads = (int32_t)config->num_attention_heads,
                                         .head_dim = (int32_t)config->head_dim,
                                         .scale = (float)attention_scale(config, layer),
                                         .causal = true};
    lk_tensor *o = lk_forward_attention(forward, layer, parts[0], parts[1], parts[2], &attention);
    return lk_forward_linear(forward, o, "transformer.h.%d.attn.c_proj", layer);
}

static lk_tensor *mlp_block(lk_forward *forward, int32_t layer, lk_tensor *x) {
    lk_tensor *h = lk_forward_linear(forward, x, "transformer.h.%d.mlp.c_fc", layer);
    h = lk_forward_activation(forward, h);
    return lk_forward_linear(forward, h, "transformer.h.%d.mlp.c_proj", layer);
}

static lk_tensor *forward_pass(lk_forward *forward) {
    lk_graph *graph = forward->graph;
    char name[64];
    lk_tensor *h = lk_forward_embedding(forward, forward->input_ids, "transformer.wte");
    h = lk_build_add(graph, h, lk_forward_embedding(forward, forward->positions, "transformer.wpe"));
    for (int32_t layer = 0; layer < (int32_t)forward->model->config->num_hidden_layers; layer++) {
        snprintf(name, sizeof name, "transformer.h.%d.ln_1", layer);
        h = lk_build_add(graph, h, attention_block(forward, layer, norm(forward, h, name)));
        snprintf(name, sizeof name, "transformer.h.%d.ln_2", layer);
        h = lk_build_add(graph, h, mlp_block(forward, layer, norm(forward, h, name)));
    }
    return norm(forward, h, "transformer.ln_f");
}

static int64_t cache_width(const lk_model_config *config) {
    return config->hidden_size;
}

const lk_model_family lk_model_family_gpt2 = {"gpt2", accepts, declare, forward_pass, cache_width, NULL};
