/* Encoders of the BERT shape, to classify: learned positions, attention in both directions, LayerNorm after each block,
 * GELU. BERT (MiniLM is one), RoBERTa and DistilBERT differ by their weights' names, by the first position and by the
 * classification head. A sequence shorter than others needs no padding mask: sequences lie one after the other, and
 * attention ends where they do. All tokens are of the first type. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/models/model.h"

/* The names after the layer's prefix. */
typedef struct encoder_layout {
    const char *type;
    const char *embeddings; /* "bert.embeddings" */
    const char *layer;      /* "bert.encoder.layer" */
    const char *query, *key, *value, *attention_output, *attention_norm;
    const char *intermediate, *output, *output_norm;
    /* The head: dense, then tanh or ReLU, then scores; on the first token. */
    const char *head_dense, *head_scores;
    bool head_is_module; /* "classifier" is a module of both layers, rather than the name of the second */
} encoder_layout;

#define BERT_LAYER                                                                                 \
    .query = "attention.self.query", .key = "attention.self.key", .value = "attention.self.value", \
    .attention_output = "attention.output.dense", .attention_norm = "attention.output.LayerNorm",  \
    .intermediate = "intermediate.dense", .output = "output.dense", .output_norm = "output.LayerNorm"

static const encoder_layout layouts[] = {
    {.type = "bert",
     .embeddings = "bert.embeddings",
     .layer = "bert.encoder.layer",
     BERT_LAYER,
     .head_dense = "bert.pooler.dense",
     .head_scores = "classifier"},
    {.type = "roberta",
     .embeddings = "roberta.embeddings",
     .layer = "roberta.encoder.layer",
     BERT_LAYER,
     .head_dense = "classifier.dense",
     .head_scores = "classifier.out_proj",
     .head_is_module = true},
    {.type = "distilbert",
     .embeddings = "distilbert.embeddings",
     .layer = "distilbert.transformer.layer",
     .query = "attention.q_lin",
     .key = "attention.k_lin",
     .value = "attention.v_lin",
     .attention_output = "attention.out_lin",
     .attention_norm = "sa_layer_norm",
     .intermediate = "ffn.lin1",
     .output = "ffn.lin2",
     .output_norm = "output_layer_norm",
     .head_dense = "pre_classifier",
     .head_scores = "classifier"},
};

static const encoder_layout *layout_of(const lk_model_config *config) {
    for (size_t i = 0; i < LK_COUNT(layouts); i++) {
        if (strcmp(layouts[i].type, config->type->name) == 0) {
            return &layouts[i];
        }
    }
    return NULL;
}

static bool accepts(const lk_model_config *config) {
    return layout_of(config) != NULL;
}

/* ---- declaring ---- */

static lk_status declare_norm(lk_model *model, const char *path) {
    static const char *const parts[] = {"weight", "bias"};
    char name[160];
    for (size_t i = 0; i < LK_COUNT(parts); i++) {
        snprintf(name, sizeof name, "%s.%s", path, parts[i]);
        LK_TRY(lk_model_weight(model, name, 1, &model->config->hidden_size, NULL));
    }
    return LK_OK;
}

static lk_status declare_table(lk_model *model, const char *name, int64_t rows) {
    const int64_t shape[] = {rows, model->config->hidden_size};
    char path[160];
    snprintf(path, sizeof path, "%s.%s.weight", layout_of(model->config)->embeddings, name);
    return lk_model_weight(model, path, 2, shape, NULL);
}

static lk_status declare_tables(lk_model *model) {
    static const char *const names[] = {"word_embeddings", "position_embeddings", "token_type_embeddings"};
    size_t count = model->config->type_vocab_size > 0 ? 3 : 2;
    char path[160];
    for (size_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s.%s", layout_of(model->config)->embeddings, names[i]);
        LK_TRY(lk_model_embedding(model, path));
    }
    return LK_OK;
}

/* RoBERTa keeps the rows up to pad_token_id of its table of positions free. */
static lk_status count_positions(lk_model *model) {
    const lk_model_config *config = model->config;
    if (strcmp(config->type->name, "roberta") == 0) {
        model->first_position = (config->pad_token_id >= 0 ? config->pad_token_id : 1) + 1;
        model->max_length = config->max_position_embeddings - model->first_position;
    }
    if (model->max_length < 1) {
        return lk_fail(model->context, LK_STATUS_FORMAT, "%s: positions begin at %lld, but there are %lld",
                       lk_pretrained_path(model->pretrained), (long long)model->first_position,
                       (long long)config->max_position_embeddings);
    }
    return LK_OK;
}

static lk_status declare_embeddings(lk_model *model) {
    const lk_model_config *config = model->config;
    char path[160];
    LK_TRY(count_positions(model));
    LK_TRY(declare_table(model, "word_embeddings", config->vocab_size));
    LK_TRY(declare_table(model, "position_embeddings", config->max_position_embeddings));
    if (config->type_vocab_size > 0) {
        LK_TRY(declare_table(model, "token_type_embeddings", config->type_vocab_size));
    }
    snprintf(path, sizeof path, "%s.LayerNorm", layout_of(config)->embeddings);
    return declare_norm(model, path);
}

static lk_status declare_layer(lk_model *model, int64_t layer) {
    const lk_model_config *config = model->config;
    const encoder_layout *layout = layout_of(config);
    int64_t hidden = config->hidden_size, inner = config->intermediate_size;
    const struct {
        const char *path;
        int64_t in, out;
    } linears[] = {
        {layout->query, hidden, hidden},       {layout->key, hidden, hidden},
        {layout->value, hidden, hidden},       {layout->attention_output, hidden, hidden},
        {layout->intermediate, hidden, inner}, {layout->output, inner, hidden},
    };
    const char *const norms[] = {layout->attention_norm, layout->output_norm};
    char path[160];
    for (size_t i = 0; i < LK_COUNT(linears); i++) {
        snprintf(path, sizeof path, "%s.%lld.%s", layout->layer, (long long)layer, linears[i].path);
        LK_TRY(lk_model_linear(model, path, linears[i].in, linears[i].out, true));
    }
    for (size_t i = 0; i < LK_COUNT(norms); i++) {
        snprintf(path, sizeof path, "%s.%lld.%s", layout->layer, (long long)layer, norms[i]);
        LK_TRY(declare_norm(model, path));
    }
    return LK_OK;
}

static lk_status declare(lk_model *model) {
    const encoder_layout *layout = layout_of(model->config);
    int64_t hidden = model->config->hidden_size;
    LK_TRY(declare_embeddings(model));
    for (int64_t layer = 0; layer < model->config->num_hidden_layers; layer++) {
        LK_TRY(declare_layer(model, layer));
    }
    LK_TRY(lk_model_new_linear(model, layout->head_dense, hidden, hidden, layout->head_is_module));
    LK_TRY(lk_model_new_linear(model, layout->head_scores, hidden, model->num_labels, true));
    return declare_tables(model);
}

/* ---- building ---- */

static lk_tensor *norm(lk_forward *forward, lk_tensor *x, const char *path) {
    lk_graph_set_scope(forward->graph, path);
    return lk_build_layer_norm(forward->graph, x, lk_forward_weight(forward, "%s.weight", path),
                               lk_forward_weight(forward, "%s.bias", path), (float)forward->model->config->norm_eps);
}

static lk_tensor *embed(lk_forward *forward, const encoder_layout *layout) {
    lk_graph *graph = forward->graph;
    const char *embeddings = layout->embeddings;
    char path[160];
    lk_tensor *h = lk_forward_embedding(forward, forward->input_ids, "%s.word_embeddings", embeddings);
    h = lk_build_add(graph, h, lk_forward_embedding(forward, forward->positions, "%s.position_embeddings", embeddings));
    if (forward->model->config->type_vocab_size > 0) {
        h = lk_build_add(graph, h,
                         lk_forward_embedding(forward, forward->token_types, "%s.token_type_embeddings", embeddings));
    }
    snprintf(path, sizeof path, "%s.LayerNorm", embeddings);
    return norm(forward, h, path);
}

static lk_tensor *attention_block(lk_forward *forward, const encoder_layout *layout, const char *at, int32_t layer,
                                  lk_tensor *x) {
    const lk_model_config *config = forward->model->config;
    lk_tensor *q = lk_forward_linear(forward, x, "%s.%s", at, layout->query);
    lk_tensor *k = lk_forward_linear(forward, x, "%s.%s", at, layout->key);
    lk_tensor *v = lk_forward_linear(forward, x, "%s.%s", at, layout->value);
    lk_graph_set_scope(forward->graph, at);
    lk_attention_attributes attention = {.num_attention_heads = (int32_t)config->num_attention_heads,
                                         .num_key_value_heads = (int32_t)config->num_attention_heads,
                                         .head_dim = (int32_t)config->head_dim,
                                         .scale = (float)(1.0 / sqrt((double)config->head_dim)),
                                         .causal = false};
    lk_tensor *o = lk_forward_attention(forward, layer, q, k, v, &attention);
    return lk_forward_linear(forward, o, "%s.%s", at, layout->attention_output);
}

static lk_tensor *forward_pass(lk_forward *forward) {
    const encoder_layout *layout = layout_of(forward->model->config);
    lk_graph *graph = forward->graph;
    lk_tensor *h = embed(forward, layout);
    for (int32_t layer = 0; layer < (int32_t)forward->model->config->num_hidden_layers; layer++) {
        char at[96], path[160];
        snprintf(at, sizeof at, "%s.%d", layout->layer, layer);
        snprintf(path, sizeof path, "%s.%s", at, layout->attention_norm);
        h = norm(forward, lk_build_add(graph, h, attention_block(forward, layout, at, layer, h)), path);
        lk_tensor *inner = lk_forward_linear(forward, h, "%s.%s", at, layout->intermediate);
        inner = lk_forward_linear(forward, lk_forward_activation(forward, inner), "%s.%s", at, layout->output);
        snprintf(path, sizeof path, "%s.%s", at, layout->output_norm);
        h = norm(forward, lk_build_add(graph, h, inner), path);
    }
    return h;
}

static lk_tensor *classify(lk_forward *forward, lk_tensor *hidden) {
    const encoder_layout *layout = layout_of(forward->model->config);
    lk_graph_set_scope(forward->graph, layout->head_dense);
    lk_tensor *first = lk_build_embedding(forward->graph, forward->first_tokens, hidden); /* these rows of it */
    lk_tensor *pooled = lk_forward_linear(forward, first, "%s", layout->head_dense);
    pooled = strcmp(layout->type, "distilbert") == 0 ? lk_build_relu(forward->graph, pooled)
                                                     : lk_build_tanh(forward->graph, pooled);
    return lk_forward_linear(forward, pooled, "%s", layout->head_scores);
}

const lk_model_family lk_model_family_bert = {"bert", accepts, declare, forward_pass, NULL, classify};
