#include "core/formats/model_config_check.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const char *const act_names[] = {
#define LK_HIDDEN_ACT(NAME, text) text,
    LK_HIDDEN_ACTS(LK_HIDDEN_ACT)
#undef LK_HIDDEN_ACT
};

const char *lk_hidden_act_name(lk_hidden_act act) {
    return act_names[act];
}

lk_status lk_hidden_act_find(lk_context *context, const char *path, const char *key, const char *name,
                             lk_model_config *config) {
    static const struct {
        const char *alias;
        lk_hidden_act act;
    } aliases[] = {{"swish", LK_HIDDEN_ACT_SILU}, {"gelu_pytorch_tanh", LK_HIDDEN_ACT_GELU_NEW}};
    size_t act = LK_COUNT(act_names);
    for (size_t i = 0; i < LK_COUNT(act_names); i++) {
        act = strcmp(act_names[i], name) == 0 ? i : act;
    }
    for (size_t i = 0; i < LK_COUNT(aliases); i++) {
        act = strcmp(aliases[i].alias, name) == 0 ? (size_t)aliases[i].act : act;
    }
    /* A gated MLP exists with SiLU, a plain one with the others. */
    bool gated = config->type->rope;
    if (act == LK_COUNT(act_names) || gated != (act == LK_HIDDEN_ACT_SILU)) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: \"%s\" is \"%s\", which is not supported for %s models",
                       path, key, name, config->type->name);
    }
    config->hidden_act = (lk_hidden_act)act;
    return LK_OK;
}

static lk_status check_heads(lk_context *context, const char *path, lk_model_config *config) {
    if (config->head_dim == 0) {
        if (config->hidden_size % config->num_attention_heads != 0) {
            return lk_fail(context, LK_STATUS_FORMAT,
                           "%s: hidden size %" PRId64 " is not a multiple of %" PRId64 " attention heads", path,
                           config->hidden_size, config->num_attention_heads);
        }
        config->head_dim = config->hidden_size / config->num_attention_heads;
    }
    if (config->num_attention_heads % config->num_key_value_heads != 0) {
        return lk_fail(context, LK_STATUS_FORMAT,
                       "%s: %" PRId64 " attention heads are not a multiple of %" PRId64 " key/value heads", path,
                       config->num_attention_heads, config->num_key_value_heads);
    }
    if (config->type->rope && config->head_dim % 2 != 0) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: head_dim %" PRId64 " is odd, which RoPE does not allow", path,
                       config->head_dim);
    }
    return LK_OK;
}

static lk_status check_rope(lk_context *context, const char *path, const lk_rope_config *rope) {
    if (rope->type == LK_ROPE_NONE) {
        return LK_OK;
    }
    if (!(rope->theta > 0) || !isfinite(rope->theta)) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: rope_theta is %g, expected a positive number", path,
                       rope->theta);
    }
    if (rope->type != LK_ROPE_DEFAULT && (!(rope->factor >= 1) || !isfinite(rope->factor))) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: the RoPE scaling factor is %g, expected 1 or more", path,
                       rope->factor);
    }
    if (rope->type == LK_ROPE_LLAMA3 &&
        (!(rope->low_freq_factor > 0) || !(rope->high_freq_factor > rope->low_freq_factor) ||
         !isfinite(rope->high_freq_factor))) {
        return lk_fail(context, LK_STATUS_FORMAT,
                       "%s: low_freq_factor %g and high_freq_factor %g: expected 0 < low < high", path,
                       rope->low_freq_factor, rope->high_freq_factor);
    }
    return LK_OK;
}

lk_status lk_model_config_check(lk_context *context, const char *path, lk_model_config *config) {
    LK_TRY(check_heads(context, path, config));
    LK_TRY(check_rope(context, path, &config->rope));
    if (!(config->norm_eps >= 0) || !isfinite(config->norm_eps)) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: %s is %g, expected a small positive number", path,
                       config->type->keys.norm_eps, config->norm_eps);
    }
    return LK_OK;
}
