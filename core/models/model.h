/* A base model: its weights as variables, the linear layers that adapters may change, and how its graph is built. */
#ifndef LK_CORE_MODELS_MODEL_H
#define LK_CORE_MODELS_MODEL_H

#include "core/formats/model_config.h"
#include "core/formats/pretrained.h"
#include "core/graph/build.h"
#include "core/text/tokenizer.h"
#include "dispatch/session.h"

struct lk_model_family;

/* A linear layer, by the path that Hugging Face gives it ("model.layers.0.self_attn.q_proj"); or a table of embeddings,
 * which is one whose input has a single 1: in is then the number of rows. */
typedef struct lk_linear_site {
    const char *path;
    lk_variable *weight; /* [out, in]; of a table [in, out] */
    lk_variable *bias;   /* [out] or NULL */
    int64_t in, out;
    int32_t index;      /* of the site within the model */
    bool is_head;       /* the output projection: not part of "all-linear" */
    bool is_embedding;  /* a table, looked up by ids: not part of "all-linear" either */
    bool is_transposed; /* in the files: [in, out], a Conv1D of GPT-2 */
} lk_linear_site;

struct lk_model {
    lk_context *context;
    lk_session *session;
    lk_pretrained *pretrained;
    const lk_model_config *config;
    const struct lk_model_family *family;
    lk_tokenizer *tokenizer; /* NULL: the files have none */
    lk_arena arena;
    lk_variables *variables;
    lk_linear_site *sites;
    int32_t num_sites, capacity_sites;
    int64_t num_parameters;
    lk_dtype dtype;
    bool plan_only;
    lk_task task;
    int64_t num_labels;     /* when classifying */
    bool resizes_head;      /* num_labels was asked for: a stored head of another size is replaced */
    uint64_t seed;          /* of weights that the files lack */
    int64_t first_position; /* of a sequence: RoBERTa counts from pad_token_id + 1 */
    int64_t max_length;     /* of a sequence */
};

/* What a family's forward pass is given. Tensors that a mode does not need are NULL. */
typedef struct lk_forward {
    lk_model *model;
    lk_adapter *adapter; /* NULL: the base alone */
    lk_graph *graph;
    lk_tensor *input_ids, *positions; /* [T] */
    lk_tensor *cu_seqlens;            /* [S+1] */
    lk_tensor *first_tokens;          /* [S]: the rows at which sequences begin; when classifying */
    lk_tensor *token_types;           /* [T]: BERT's; when classifying */
    lk_tensor *rng;                   /* [4]: for dropout; NULL: none is applied */
    /* with a cache of keys and values (generation) */
    lk_tensor *cu_seqlens_k, *seqlens_k, *slots;
    lk_variable **key_caches, **value_caches; /* one each per layer */
    lk_tensor *adapter_rows;                  /* [T]: the part of a mixed adapter for each token; NULL otherwise */
    uint32_t next_stream;                     /* of dropout masks: counts the adapted layers */
} lk_forward;

/* One row of models.def. */
typedef struct lk_model_family {
    const char *name;
    bool (*accepts)(const lk_model_config *config);
    /* Declares the weights (lk_model_weight, lk_model_linear) and the constants. */
    lk_status (*declare)(lk_model *model);
    /* Appends the layers; returns the hidden states [T, hidden_size] that the output head is applied to. */
    lk_tensor *(*forward)(lk_forward *forward);
    /* Columns of the cache of keys (and of values) per layer; NULL: the family does not generate. */
    int64_t (*cache_width)(const lk_model_config *config);
    /* Scores of the classes [S, num_labels] from the hidden states; NULL: the family does not classify. */
    lk_tensor *(*classify)(lk_forward *forward, lk_tensor *hidden);
} lk_model_family;

/* ---- for families: declaring ---- */

/* A weight by its Hugging Face name, read from the files (or only described, with plan_only). */
lk_status lk_model_weight(lk_model *model, const char *name, int rank, const int64_t *shape, lk_variable **out);
/* <path>.weight [out, in] and, if has_bias, <path>.bias, as a site. */
lk_status lk_model_linear(lk_model *model, const char *path, int64_t in, int64_t out, bool has_bias);
/* The same, stored as [in, out], with a bias: a Conv1D. */
lk_status lk_model_conv1d(lk_model *model, const char *path, int64_t in, int64_t out);
/* A linear layer with a bias that belongs to a classification head: where the files lack it, it is initialised as in
 * Hugging Face (normal with deviation 0.02, bias zero). */
lk_status lk_model_new_linear(lk_model *model, const char *path, int64_t in, int64_t out, bool is_head);
/* The output head: its own weight, or that of the embedding (tied). */
lk_status lk_model_head(lk_model *model, const char *path, lk_variable *weight);
/* Lets adapters change a table that is declared: <path>.weight. */
lk_status lk_model_embedding(lk_model *model, const char *path);
/* A constant that the host computes. */
lk_status lk_model_constant(lk_model *model, const char *name, int64_t count, const float *values);

/* ---- for families: building ---- */

lk_tensor *lk_forward_weight(lk_forward *forward, const char *format, ...) LK_PRINTF(2, 3);
/* The graph's tensor for one of the model's variables, or for the copy of it that the adapter trains. NULL for NULL. */
lk_tensor *lk_forward_variable(lk_forward *forward, lk_variable *variable);
/* Rows of the table at a path, with what the adapter makes of them; in fp32 whatever the table is stored as: so is all
 * that is computed from them. */
lk_tensor *lk_forward_embedding(lk_forward *forward, lk_tensor *ids, const char *format, ...) LK_PRINTF(3, 4);
/* The same of a table as it is. */
lk_tensor *lk_forward_rows(lk_forward *forward, lk_tensor *ids, lk_variable *table);
/* The linear layer at a path, with what the adapter makes of it. */
lk_tensor *lk_forward_linear(lk_forward *forward, lk_tensor *x, const char *format, ...) LK_PRINTF(3, 4);
/* What the configuration names as hidden_act. */
lk_tensor *lk_forward_activation(lk_forward *forward, lk_tensor *x);
/* Attention over the sequence itself or, with caches, over what they hold after k and v are written. */
lk_tensor *lk_forward_attention(lk_forward *forward, int32_t layer, lk_tensor *q, lk_tensor *k, lk_tensor *v,
                                const lk_attention_attributes *attention);

/* ---- for training and generation ---- */

const lk_linear_site *lk_model_find_site(const lk_model *model, const char *path);
/* logits [rows of hidden, vocab_size], or [S, num_labels] when classifying */
lk_tensor *lk_forward_logits(lk_forward *forward, lk_tensor *hidden);
/* The summed cross entropy of hidden against targets (of tokens, or of sequences when classifying), times loss_scale;
 * fused where only the plain output head lies between. */
lk_tensor *lk_forward_loss(lk_forward *forward, lk_tensor *hidden, lk_tensor *targets, lk_tensor *loss_scale);

#endif
