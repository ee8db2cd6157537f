/* Reading a model's configuration from GGUF metadata, whose keys begin with the architecture: "llama.block_count". */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/formats/dequantize.h"
#include "core/formats/model_config_check.h"

enum { SIZE_LIMIT = 1 << 24, COUNT_LIMIT = 1 << 16, TOKEN_LIMIT = INT32_MAX, KEY_SIZE = 128 };

typedef struct reader {
    lk_context *context;
    const lk_gguf *gguf;
    lk_model_config *config;
} reader;

static const char *key_of(const reader *from, const char *name, char buffer[KEY_SIZE]) {
    snprintf(buffer, KEY_SIZE, "%s.%s", from->config->type->gguf_architecture, name);
    return buffer;
}

static lk_status get_size(const reader *from, const char *name, bool required, int64_t limit, int64_t *value) {
    char key[KEY_SIZE];
    return lk_gguf_get_int(from->gguf, key_of(from, name, key), required, 1, limit, value);
}

static lk_status get_double(const reader *from, const char *name, double *value) {
    char key[KEY_SIZE];
    return lk_gguf_get_double(from->gguf, key_of(from, name, key), false, value);
}

static lk_status unsupported_int(const reader *from, const char *name, int64_t value, int64_t expected) {
    return lk_fail(from->context, LK_STATUS_UNSUPPORTED, "%s: metadata %s.%s is %" PRId64 ", expected %" PRId64,
                   lk_gguf_path(from->gguf), from->config->type->gguf_architecture, name, value, expected);
}

static bool has_tensor(const reader *from, const char *name) {
    return lk_gguf_lookup(from->gguf, name) != NULL;
}

static lk_status read_type(const reader *from) {
    lk_gguf_string architecture, type = {"model", 5};
    LK_TRY(lk_gguf_get_string(from->gguf, "general.type", false, &type));
    if (!lk_gguf_string_equals(type, "model")) {
        return lk_fail(from->context, LK_STATUS_UNSUPPORTED,
                       "%s: metadata general.type is \"%.*s\", expected \"model\"", lk_gguf_path(from->gguf),
                       (int)LK_MIN(type.length, (size_t)100), type.data);
    }
    LK_TRY(lk_gguf_get_string(from->gguf, "general.architecture", true, &architecture));
    from->config->type = lk_model_type_find_gguf(architecture);
    if (from->config->type == NULL) {
        return lk_fail(from->context, LK_STATUS_UNSUPPORTED,
                       "%s: metadata general.architecture is \"%.*s\", expected llama, qwen2 or qwen3",
                       lk_gguf_path(from->gguf), (int)LK_MIN(architecture.length, (size_t)100), architecture.data);
    }
    snprintf(from->config->architecture, sizeof from->config->architecture, "%s", from->config->type->causal_class);
    return lk_hidden_act_find(from->context, lk_gguf_path(from->gguf), "hidden_act",
                              from->config->type->defaults.hidden_act, from->config);
}

static lk_status read_vocab_size(const reader *from) {
    const lk_stored_tensor *embedding;
    LK_TRY(lk_gguf_find(from->gguf, "token_embd.weight", &embedding));
    if (embedding->rank != 2 || embedding->shape[0] < 1 || embedding->shape[0] > SIZE_LIMIT) {
        return lk_fail(from->context, LK_STATUS_FORMAT, "%s: tensor token_embd.weight is not [vocabulary, hidden size]",
                       lk_gguf_path(from->gguf));
    }
    from->config->vocab_size = embedding->shape[0];
    return LK_OK;
}

static lk_status read_sizes(const reader *from) {
    lk_model_config *config = from->config;
    int64_t experts = 0, value_length;
    char key[KEY_SIZE];
    LK_TRY(get_size(from, "embedding_length", true, SIZE_LIMIT, &config->hidden_size));
    LK_TRY(get_size(from, "feed_forward_length", true, SIZE_LIMIT, &config->intermediate_size));
    LK_TRY(get_size(from, "block_count", true, COUNT_LIMIT, &config->num_hidden_layers));
    LK_TRY(get_size(from, "attention.head_count", true, COUNT_LIMIT, &config->num_attention_heads));
    config->num_key_value_heads = config->num_attention_heads;
    LK_TRY(get_size(from, "attention.head_count_kv", false, COUNT_LIMIT, &config->num_key_value_heads));
    LK_TRY(get_size(from, "attention.key_length", false, SIZE_LIMIT, &config->head_dim));
    config->max_position_embeddings = config->type->defaults.max_position_embeddings;
    LK_TRY(get_size(from, "context_length", false, TOKEN_LIMIT, &config->max_position_embeddings));
    LK_TRY(lk_gguf_get_int(from->gguf, key_of(from, "expert_count", key), false, 0, COUNT_LIMIT, &experts));
    if (experts > 0) {
        return unsupported_int(from, "expert_count", experts, 0);
    }
    LK_TRY(lk_gguf_get_int(from->gguf, key_of(from, "attention.sliding_window", key), false, 0, TOKEN_LIMIT,
                           &config->sliding_window));
    LK_TRY(read_vocab_size(from));
    LK_TRY(lk_model_config_check(from->context, lk_gguf_path(from->gguf), config));
    value_length = config->head_dim;
    LK_TRY(get_size(from, "attention.value_length", false, SIZE_LIMIT, &value_length));
    return value_length == config->head_dim
               ? LK_OK
               : unsupported_int(from, "attention.value_length", value_length, config->head_dim);
}

/* "rope_freqs.weight" holds one divisor per frequency: llama3 scaling, already worked out. */
static lk_status read_rope_divisors(const reader *from, const lk_stored_tensor *divisors) {
    lk_model_config *config = from->config;
    float *values = lk_calloc(from->context, (size_t)config->head_dim, sizeof *values);
    if (values == NULL) {
        return lk_out_of_memory(from->context, (size_t)config->head_dim * sizeof *values, divisors->name);
    }
    lk_status status = lk_stored_tensor_expect_shape(from->context, divisors, 1, &(int64_t){config->head_dim / 2});
    if (status == LK_OK) {
        status = lk_convert(from->context, divisors->dtype, divisors->data, LK_DTYPE_F32, values, config->head_dim / 2);
    }
    if (status == LK_OK && !lk_rope_fit_llama3(values, config->head_dim, &config->rope)) {
        status =
            lk_fail(from->context, LK_STATUS_UNSUPPORTED,
                    "%s: tensor %s scales RoPE in a way that is not that of llama3", divisors->file, divisors->name);
    }
    lk_free(from->context, values);
    return status;
}

static lk_status read_rope(const reader *from) {
    lk_rope_config *rope = &from->config->rope;
    lk_gguf_string scaling = {"none", 4};
    int64_t dimensions = from->config->head_dim;
    char key[KEY_SIZE];
    *rope = (lk_rope_config){.type = LK_ROPE_DEFAULT, .theta = 10000, .factor = 1};
    LK_TRY(get_double(from, "rope.freq_base", &rope->theta));
    LK_TRY(get_size(from, "rope.dimension_count", false, SIZE_LIMIT, &dimensions));
    if (dimensions != from->config->head_dim) {
        return unsupported_int(from, "rope.dimension_count", dimensions, from->config->head_dim);
    }
    LK_TRY(get_double(from, "rope.scale_linear", &rope->factor));
    LK_TRY(get_double(from, "rope.scaling.factor", &rope->factor));
    LK_TRY(lk_gguf_get_string(from->gguf, key_of(from, "rope.scaling.type", key), false, &scaling));
    bool linear = lk_gguf_string_equals(scaling, "linear");
    if (!linear && !lk_gguf_string_equals(scaling, "none")) {
        return lk_fail(from->context, LK_STATUS_UNSUPPORTED, "%s: metadata %s is \"%.*s\", expected none or linear",
                       lk_gguf_path(from->gguf), key, (int)LK_MIN(scaling.length, (size_t)100), scaling.data);
    }
    const lk_stored_tensor *divisors = lk_gguf_lookup(from->gguf, "rope_freqs.weight");
    if (divisors != NULL) {
        LK_TRY(lk_gguf_find(from->gguf, "rope_freqs.weight", &divisors));
        LK_TRY(read_rope_divisors(from, divisors));
    } else if (linear || lk_gguf_has(from->gguf, key_of(from, "rope.scale_linear", key))) {
        rope->type = rope->factor == 1 ? LK_ROPE_DEFAULT : LK_ROPE_LINEAR;
    }
    return LK_OK;
}

static lk_status read_tokens(const reader *from) {
    lk_model_config *config = from->config;
    int64_t eos = -1, end_of_turn = -1;
    config->bos_token_id = config->pad_token_id = -1;
    LK_TRY(lk_gguf_get_int(from->gguf, "tokenizer.ggml.bos_token_id", false, 0, TOKEN_LIMIT, &config->bos_token_id));
    LK_TRY(
        lk_gguf_get_int(from->gguf, "tokenizer.ggml.padding_token_id", false, 0, TOKEN_LIMIT, &config->pad_token_id));
    LK_TRY(lk_gguf_get_int(from->gguf, "tokenizer.ggml.eos_token_id", false, 0, TOKEN_LIMIT, &eos));
    LK_TRY(lk_gguf_get_int(from->gguf, "tokenizer.ggml.eot_token_id", false, 0, TOKEN_LIMIT, &end_of_turn));
    if (eos >= 0) {
        config->eos_token_id[config->eos_count++] = eos;
    }
    if (end_of_turn >= 0 && end_of_turn != eos) {
        config->eos_token_id[config->eos_count++] = end_of_turn;
    }
    return LK_OK;
}

static lk_status read_config(const reader *from) {
    lk_model_config *config = from->config;
    LK_TRY(read_type(from));
    config->norm_eps = config->type->defaults.norm_eps;
    LK_TRY(get_double(from, "attention.layer_norm_rms_epsilon", &config->norm_eps));
    LK_TRY(read_sizes(from));
    LK_TRY(read_rope(from));
    LK_TRY(read_tokens(from));
    config->attention_bias = has_tensor(from, "blk.0.attn_q.bias");
    config->attention_output_bias = has_tensor(from, "blk.0.attn_output.bias");
    config->mlp_bias = has_tensor(from, "blk.0.ffn_up.bias");
    config->qk_norm = config->type->qk_norm;
    config->tie_word_embeddings = !has_tensor(from, "output.weight");
    return lk_model_config_check(from->context, lk_gguf_path(from->gguf), config);
}

lk_status lk_model_config_from_gguf(lk_context *context, const lk_gguf *gguf, lk_model_config *out) {
    *out = (lk_model_config){0};
    lk_status status = read_config(&(reader){context, gguf, out});
    if (status != LK_OK) {
        lk_model_config_free(out);
    }
    return status;
}
