/* Adapters: the trainable tensors that a method adds to linear layers, and how the method uses them. */
#ifndef LK_CORE_ADAPTERS_ADAPTER_H
#define LK_CORE_ADAPTERS_ADAPTER_H

#include "core/formats/peft.h"
#include "core/models/model.h"

enum { LK_MAX_SITE_TENSORS = 4 };

/* A trainable tensor: its variable, the sum of its gradients over a step, and its name in a PEFT file. */
typedef struct lk_adapter_tensor {
    lk_variable *value, *gradient;
    const char *name;             /* "base_model.model.<path>.lora_A.weight" */
    lk_peft_kind kind;
} lk_adapter_tensor;

/* A linear layer that the adapter changes. */
typedef struct lk_adapter_site {
    const lk_linear_site *site;
    int32_t rank;
    float scale; /* of the update */
    lk_adapter_tensor tensors[LK_MAX_SITE_TENSORS];
    int32_t num_tensors;
} lk_adapter_site;

/* One row of adapters.def. */
typedef struct lk_adapter_method {
    const char *name;
    bool (*accepts)(const lk_peft_config *config); /* whether a PEFT adapter is of this method */
    /* Sets what distinguishes the method in a PEFT config with PEFT's defaults. */
    void (*configure)(lk_peft_config *config);
    /* Adds the site's tensors (lk_adapter_add_tensor) with their initial values. */
    lk_status (*declare)(lk_adapter *adapter, lk_adapter_site *site);
    /* Builds the layer's output. */
    lk_tensor *(*apply)(lk_forward *forward, const lk_adapter_site *site, lk_tensor *x);
    /* Adds the update to the weight, [out, in] in fp32. values[i] are the site's tensors. */
    void (*merge)(const lk_adapter_site *site, float *const *values, float *weight);
} lk_adapter_method;

struct lk_adapter {
    lk_context *context;
    lk_model *model;
    const lk_adapter_method *method;
    lk_peft_config config;
    uint64_t seed;
    float dropout;
    lk_arena arena;
    lk_variables *variables;
    lk_adapter_site *sites;
    int32_t num_sites;
    int32_t *site_of; /* per site of the model; -1: not adapted */
};

const lk_adapter_method *lk_adapter_method_find(const char *name);
const lk_adapter_site *lk_adapter_site_of(const lk_adapter *adapter, const lk_linear_site *site); /* or NULL */
/* Adds a tensor of the site and its gradient sum. `values` may be NULL: zeros; they are not used when the adapter is
 * read from files. */
lk_status lk_adapter_add_tensor(lk_adapter *adapter, lk_adapter_site *site, lk_peft_kind kind, int64_t rows,
                                int64_t columns, const float *values);
int32_t lk_adapter_num_tensors(const lk_adapter *adapter);
lk_adapter_tensor *lk_adapter_tensor_at(const lk_adapter *adapter, int32_t index); /* in the order of the sites */

#endif
