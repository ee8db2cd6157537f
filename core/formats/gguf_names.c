#include "core/formats/gguf_names.h"

#include <stdio.h>
#include <string.h>

#include "core/base/base.h"

typedef struct name_row {
    const char *gguf, *hf;
} name_row;

/* Modules outside the layers, and within one; ".weight" or ".bias" follows. */
static const name_row outer[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
};
static const name_row inner[] = {
    {"attn_norm", "input_layernorm"},    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},      {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

/* The counterpart of the module name[0..length) in the given direction; NULL if there is none. */
static const char *counterpart(const name_row *rows, size_t count, bool from_gguf, const char *name, size_t length) {
    for (size_t i = 0; i < count; i++) {
        const char *wanted = from_gguf ? rows[i].gguf : rows[i].hf;
        if (strlen(wanted) == length && memcmp(wanted, name, length) == 0) {
            return from_gguf ? rows[i].hf : rows[i].gguf;
        }
    }
    return NULL;
}

static bool translate(bool from_gguf, const char *name, char *out, size_t size) {
    const char *layers = from_gguf ? "blk." : "model.layers.", *other_layers = from_gguf ? "model.layers." : "blk.";
    const char *suffix = strrchr(name, '.');
    out[0] = '\0';
    if (suffix == NULL || (strcmp(suffix, ".weight") != 0 && strcmp(suffix, ".bias") != 0)) {
        return false;
    }
    int written;
    if (strncmp(name, layers, strlen(layers)) == 0) {
        const char *number = name + strlen(layers), *module = number + strspn(number, "0123456789");
        if (module == number || *module != '.' || ++module > suffix) {
            return false;
        }
        const char *found = counterpart(inner, LK_COUNT(inner), from_gguf, module, (size_t)(suffix - module));
        written = found == NULL
                      ? -1
                      : snprintf(out, size, "%s%.*s%s%s", other_layers, (int)(module - number), number, found, suffix);
    } else {
        const char *found = counterpart(outer, LK_COUNT(outer), from_gguf, name, (size_t)(suffix - name));
        written = found == NULL ? -1 : snprintf(out, size, "%s%s", found, suffix);
    }
    if (written < 0 || (size_t)written >= size) {
        out[0] = '\0';
        return false;
    }
    return true;
}

bool lk_gguf_name_to_hf(const char *gguf_name, char *out, size_t size) {
    return translate(true, gguf_name, out, size);
}

bool lk_gguf_name_from_hf(const char *hf_name, char *out, size_t size) {
    return translate(false, hf_name, out, size);
}
