/* Adapters: the trainable tensors that a method adds to linear layers, and how the method uses them. */
#ifndef LK_CORE_ADAPTERS_ADAPTER_H
#define LK_CORE_ADAPTERS_ADAPTER_H

#include "core/formats/peft.h"
#include "core/models/model.h"

enum { LK_MAX_SITE_TENSORS = 5, LK_MAX_SITE_CONSTANTS = 2 };

/* A tensor that is kept in the adapter's file. */
typedef struct lk_adapter_tensor {
    lk_variable *value;
    lk_variable *gradient; /* the sum of its gradients over a step; NULL: it is not trained */
    const char *name;      /* in a PEFT file: "base_model.model.<path>.lora_A.weight" */
    const char *module;    /* <path>; "" where all modules share it */
    lk_peft_kind kind;
    const char *parameter; /* of one of the model's own tensors: "weight" or "bias"; otherwise "" */
    int32_t stored_rank;   /* its shape in the file: the same elements, but a vector may be stored as a matrix */
    int64_t stored_shape[2];
    bool is_transposed;                 /* stored as the transpose */
    const struct lk_adapter_site *site; /* NULL: shared */
    int32_t index;                      /* within the site */
} lk_adapter_tensor;

/* A linear layer that the adapter changes. */
typedef struct lk_adapter_site {
    const lk_linear_site *site;
    const struct lk_adapter_method *method; /* the adapter's, or lk_adapter_method_saved */
    int32_t rank;
    float scale;   /* of the update */
    bool on_input; /* IA3: the layer's input is scaled, not its output */
    lk_adapter_tensor *tensors[LK_MAX_SITE_TENSORS];
    int32_t num_tensors;
    lk_variable *start[2]; /* A and B of a LoRA that was made of the weight (lora_init.h); otherwise NULL */
    lk_variable *constants[LK_MAX_SITE_CONSTANTS]; /* what the method computes once (lk_adapter_add_constant) */
    const bool *kept; /* [rank]: which ranks are saved (lk_adapter_method.pack); NULL: all */
} lk_adapter_site;

/* What is merged: a layer's weight [out, in] and bias [out] in fp32. Either may be NULL: it is not asked for. */
typedef struct lk_adapter_merge {
    const lk_adapter *adapter;
    const lk_adapter_site *site;
    float *const *values; /* of the site's tensors */
    float *weight, *bias;
} lk_adapter_merge;

/* The run that an adapter is trained in. */
typedef struct lk_adapter_run {
    int64_t total_steps;
    double max_grad_norm;
} lk_adapter_run;

/* One row of adapters.def. Members that are NULL do nothing. */
typedef struct lk_adapter_method {
    const char *name;
    lk_peft_type type;
    bool no_dropout, no_bias; /* PEFT's type has no such option */
    /* Whether a PEFT adapter of this type is of this method; NULL: always. */
    bool (*accepts)(const lk_peft_config *config);
    /* Sets what distinguishes the method in a PEFT config with PEFT's defaults; the targets are set already. */
    lk_status (*configure)(lk_adapter *adapter, const lk_adapter_options *options);
    /* Before the sites: makes what they share. The sites' layers are known (lk_adapter_targets). */
    lk_status (*share)(lk_adapter *adapter);
    /* Adds the site's tensors (lk_adapter_add_tensor) with their initial values. */
    lk_status (*declare)(lk_adapter *adapter, lk_adapter_site *site);
    /* After the tensors have their first values, drawn or read, or a checkpoint's: computes what depends on them. */
    lk_status (*finish)(lk_adapter *adapter, lk_adapter_site *site);
    /* Builds the layer's output. */
    lk_tensor *(*apply)(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x);
    /* Builds rows [T, out] of an adapted table; NULL: the method adapts no tables. */
    lk_tensor *(*embed)(lk_forward *forward, const lk_adapter_site *site, lk_tensor *ids);
    /* Builds what the optimizer is given for the gradient of the site's tensor `index`. */
    lk_tensor *(*project)(lk_graph *graph, const lk_adapter_site *site, int32_t index, lk_tensor *gradient);
    /* Before training: makes what is kept between steps (lk_adapter_add_state), or resets it. adapter->run is set. */
    lk_status (*prepare)(lk_adapter *adapter);
    /* Builds a term of the loss that depends on the adapter's tensors alone, [1]. */
    lk_tensor *(*penalty)(lk_graph *graph, const lk_adapter *adapter);
    /* Appends to the update, after the optimizer's step and while the gradients are there; norm is theirs. */
    void (*observe)(lk_graph *graph, const lk_adapter *adapter, lk_tensor *norm);
    /* Before and after the update of a step, which count from 0. */
    lk_status (*before_update)(lk_adapter *adapter, int64_t step);
    lk_status (*after_update)(lk_adapter *adapter, int64_t step);
    /* Before the adapter is saved: brings its configuration up to date, and says what is kept (lk_adapter_site.kept).
     */
    lk_status (*pack)(lk_adapter *adapter);
    /* Applies the adapter to what is asked for, in place. */
    lk_status (*merge)(const lk_adapter_merge *merge);
} lk_adapter_method;

/* One of the model's own tensors that is trained: the adapter has its copy. */
typedef struct lk_adapter_replacement {
    const lk_variable *base;
    lk_adapter_tensor *tensor;
} lk_adapter_replacement;

struct lk_adapter {
    lk_context *context;
    lk_model *model;
    const lk_adapter_method *method;
    lk_peft_config config;
    const lk_adapter_options *options; /* while it is made; NULL: it is read from files */
    uint64_t seed;
    float dropout;
    lk_arena arena;
    lk_variables *variables;
    lk_adapter_site *sites;
    int32_t num_sites;
    int32_t *site_of;            /* per site of the model; -1: not adapted */
    lk_adapter_tensor **tensors; /* all, in the order in which they were added */
    int32_t num_tensors, capacity_tensors;
    lk_adapter_tensor **trained; /* those with a gradient, in the same order */
    int32_t num_trained;
    lk_adapter_replacement *replacements;
    int32_t num_replacements;
    lk_adapter_run run;
    lk_variable **states; /* kept between steps, and in checkpoints, besides the trained tensors */
    int32_t num_states, capacity_states;
    void *shared; /* a method's own, from the arena */
};

/* Of the layers that modules_to_save names: trained in full, whatever the adapter's own method. */
extern const lk_adapter_method lk_adapter_method_saved;

const lk_adapter_method *lk_adapter_method_find(const char *name);
const lk_adapter_site *lk_adapter_site_of(const lk_adapter *adapter, const lk_linear_site *site); /* or NULL */
/* Whether a layer of the model is adapted. */
lk_status lk_adapter_targets(const lk_adapter *adapter, const lk_linear_site *site, bool *out);

/* What stands for one of the model's variables: the adapter's copy, if it trains it. adapter may be NULL. */
lk_variable *lk_adapter_variable(const lk_adapter *adapter, lk_variable *base);

/* ---- for methods ---- */

typedef struct lk_adapter_tensor_spec {
    lk_peft_kind kind;
    int64_t rows, columns; /* columns 0: a vector */
    bool frozen, stored_transposed;
    bool is_state;         /* frozen, too, but the method changes it between steps */
    const float *values;   /* NULL: zeros; not used when the adapter is read from files */
    const char *parameter; /* of one of the model's own tensors: "weight" or "bias"; NULL: "" */
} lk_adapter_tensor_spec;
/* Adds a tensor of the site; site NULL: one that all share. `out` may be NULL. */
lk_status lk_adapter_add_tensor(lk_adapter *adapter, lk_adapter_site *site, const lk_adapter_tensor_spec *spec,
                                lk_adapter_tensor **out);
/* Adds a frozen variable that is not kept in the file, or gives the one of this name new values. values NULL: not
 * computed (a plan). */
lk_status lk_adapter_add_constant(lk_adapter *adapter, const char *name, int64_t rows, int64_t columns,
                                  const float *values, lk_variable **out);
/* Adds a variable that the method keeps between steps; zeros. */
lk_status lk_adapter_add_state(lk_adapter *adapter, const char *name, int rank, const int64_t *shape,
                               lk_variable **out);
/* The same of a variable that is there already. */
lk_status lk_adapter_keep_state(lk_adapter *adapter, lk_variable *variable);
/* A copy of a variable in fp32, to be released by lk_free. */
lk_status lk_adapter_download(lk_adapter *adapter, lk_variable *variable, float **out);
/* A variable of the tensor's shape (its value or gradient), laid out as the tensor is stored. */
lk_status lk_adapter_download_stored(const lk_adapter *adapter, const lk_adapter_tensor *tensor, lk_variable *variable,
                                     float *values);
/* To and from the stored layout where that is the transpose; otherwise nothing happens. */
lk_status lk_adapter_transpose(const lk_adapter *adapter, const lk_adapter_tensor *tensor, bool from_stored,
                               float *values);
/* `name`, a dot, and the site's path, from the adapter's arena; NULL: out of memory. */
const char *lk_adapter_name(lk_adapter *adapter, const char *name, const lk_adapter_site *site);

/* ---- for training and files ---- */

int32_t lk_adapter_num_tensors(const lk_adapter *adapter);
lk_adapter_tensor *lk_adapter_tensor_at(const lk_adapter *adapter, int32_t index);
int32_t lk_adapter_num_trained(const lk_adapter *adapter);
lk_adapter_tensor *lk_adapter_trained_at(const lk_adapter *adapter, int32_t index);
lk_status lk_adapter_prepare(lk_adapter *adapter, const lk_adapter_run *run); /* for training */
/* What the optimizer is given for the gradient of trained tensor `index`. */
lk_tensor *lk_adapter_project(const lk_adapter *adapter, int32_t index, lk_graph *graph, lk_tensor *gradient);

#endif
