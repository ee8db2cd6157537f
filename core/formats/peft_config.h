/* adapter_config.json, the configuration of a PEFT adapter (https://github.com/huggingface/peft, as of 0.21), and its
 * rules of which modules are adapted with which rank. Composite fields are kept as JSON, in the file's own form. */
#ifndef LK_CORE_FORMATS_PEFT_CONFIG_H
#define LK_CORE_FORMATS_PEFT_CONFIG_H

#include <jansson.h>

#include "core/base/base.h"

/* DELTA_LORA is ours: PEFT does not know it, and would take its files for something else. */
#define LK_PEFT_TYPES(X)  \
    X(LORA, "LORA")       \
    X(VERA, "VERA")       \
    X(IA3, "IA3")         \
    X(LOHA, "LOHA")       \
    X(LOKR, "LOKR")       \
    X(OFT, "OFT")         \
    X(ADALORA, "ADALORA") \
    X(DELTA_LORA, "DELTA_LORA")
typedef enum lk_peft_type {
#define LK_PEFT_TYPE(NAME, text) LK_PEFT_##NAME,
    LK_PEFT_TYPES(LK_PEFT_TYPE)
#undef LK_PEFT_TYPE
        LK_PEFT_TYPE_COUNT
} lk_peft_type;
#define LK_PEFT_BIT(NAME) (1u << LK_PEFT_##NAME)
typedef bool lk_peft_field_BOOL;
typedef int64_t lk_peft_field_INT;
typedef double lk_peft_field_REAL;

/* All json_t and char pointers are owned; NULL stands for null or absent. Values are checked by load and by save. */
typedef struct lk_peft_config {
    lk_context *context;
    lk_peft_type peft_type;
    int64_t r;           /* LORA, VERA, LOHA, LOKR; OFT: the number of blocks, or 0 */
    double lora_alpha;   /* LORA, ADALORA; LOHA's and LOKR's alpha */
    double lora_dropout; /* LORA, ADALORA; VERA's vera_dropout */
    bool use_rslora, use_dora, fan_in_fan_out, inference_mode;
    int64_t projection_prng_key; /* VERA */
    double d_initial;
    bool save_projection;
#define LK_PEFT_FIELD(types, kind, name, value, least, most) lk_peft_field_##kind name;
#include "core/formats/peft_fields.def"
#undef LK_PEFT_FIELD
    json_t *target_modules;      /* an array of names, a regular expression, or "all-linear" */
    json_t *exclude_modules;     /* an array of names or a regular expression */
    json_t *modules_to_save;     /* an array of names */
    json_t *feedforward_modules; /* IA3: as target_modules */
    json_t *rank_pattern;        /* LORA, LOHA, LOKR: an object of regular expression: rank */
    json_t *alpha_pattern;
    json_t *layers_to_transform; /* an array of integers, or one */
    json_t *layers_pattern;      /* an array of names, or one */
    json_t *init_lora_weights;   /* true, false or a name; LORA */
    char *bias;                  /* "none", "all", "lora_only" */
    char *task_type;             /* "CAUSAL_LM", "SEQ_CLS", ... */
    char *base_model_name_or_path;
    json_t *source; /* the file as read: its other keys are kept by save */
} lk_peft_config;

/* PEFT's defaults. Set the public fields, target_modules first of all, then save; free when done. */
lk_status lk_peft_config_init(lk_context *context, lk_peft_type type, lk_peft_config *out);
void lk_peft_config_free(lk_peft_config *config);
/* Replaces an owned text field; NULL clears it. */
lk_status lk_peft_config_set_text(lk_peft_config *config, char **field, const char *value);
/* "all-linear", or names separated by commas. */
lk_status lk_peft_config_set_targets(lk_peft_config *config, const char *targets);

/* modules_to_save: names separated by commas; NULL or "": none. */
lk_status lk_peft_config_set_saved(lk_peft_config *config, const char *names);

/* UNSUPPORTED, naming file, key and value: unknown peft_type, or an enabled option that changes the mathematics and is
 * not known here. On failure *out is zeroed. */
lk_status lk_peft_config_load(lk_context *context, const char *path, lk_peft_config *out);
lk_status lk_peft_config_save(const lk_peft_config *config, const char *path);

/* PiSSA and OLoRA: PEFT has taken the first s B A out of the base's weights. */
bool lk_peft_changes_base(const lk_peft_config *config);
/* The configuration of a plain LoRA with twice the rank and the same scale: [A; A0] and [B, -B0] in place of a change
 * of the base. */
lk_status lk_peft_config_double_rank(const lk_peft_config *config, lk_peft_config *out);
/* Frees what double_rank made; the rest is that of the configuration it was made of. */
void lk_peft_config_free_doubled(lk_peft_config *doubled);

/* ---- the rules (peft_match.c); module is the full path, "model.layers.0.self_attn.q_proj" ---- */

/* Whether the module is adapted. `linear`: it is a linear layer other than the output or classification head, which is
 * what "all-linear" stands for. */
lk_status lk_peft_targets_module(const lk_peft_config *config, const char *module, bool linear, bool *out);
/* Whether it is trained and stored in full: a name of modules_to_save is its path's end, or that of a module around it.
 */
bool lk_peft_saves_module(const lk_peft_config *config, const char *module);
/* IA3: whether the module's input is scaled rather than its output. */
lk_status lk_peft_is_feedforward(const lk_peft_config *config, const char *module, bool *out);
/* LORA, LOHA, LOKR: rank and alpha after the patterns (the first key that fits wins), and alpha / rank or alpha /
 * sqrt(rank). */
typedef struct lk_peft_scaling {
    int64_t rank;
    double alpha, scale;
} lk_peft_scaling;
lk_status lk_peft_scaling_of(const lk_peft_config *config, const char *module, lk_peft_scaling *out);

#endif
