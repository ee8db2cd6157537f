/* What both sources of a configuration, config.json and GGUF, share. */
#ifndef LK_CORE_FORMATS_MODEL_CONFIG_CHECK_H
#define LK_CORE_FORMATS_MODEL_CONFIG_CHECK_H

#include "core/formats/model_config.h"

/* Sets hidden_act from one of transformers' names for it, where the model type can have it. */
lk_status lk_hidden_act_find(lk_context *context, const char *path, const char *key, const char *name,
                             lk_model_config *config);
const char *lk_hidden_act_name(lk_hidden_act act);

/* Fills in head_dim, and checks what concerns several fields at once. */
lk_status lk_model_config_check(lk_context *context, const char *path, lk_model_config *config);

#endif
