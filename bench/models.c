/* Models of known sizes with random weights, for measurements and plans. */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

static const lk_bench_model models[] = {
    {"toy", 2, 64, 96, 4, 2, 256, false},
    {"smollm2-135m", 30, 576, 1536, 9, 3, 49152, true},
    {"smollm2-360m", 32, 960, 2560, 15, 5, 49152, true},
    {"llama-3.2-1b", 16, 2048, 8192, 32, 8, 128256, true},
    {"llama-3-8b", 32, 4096, 14336, 32, 8, 128256, false},
    {NULL, 0, 0, 0, 0, 0, 0, false},
};

const lk_bench_model *lk_bench_models(void) {
    return models;
}

const lk_bench_model *lk_bench_model_find(const char *name) {
    for (const lk_bench_model *model = models; model->name != NULL; model++) {
        if (strcmp(model->name, name) == 0) {
            return model;
        }
    }
    return NULL;
}

/* ---- the file of weights, in bf16 ---- */

enum { BF16 = 2, BLOCK = 1 << 20 };

typedef struct writer {
    lk_text header;
    int64_t bytes; /* of tensors so far */
} writer;

static void add(writer *to, const char *name, int64_t rows, int64_t columns) {
    int64_t bytes = BF16 * rows * (columns > 0 ? columns : 1);
    char shape[64];
    snprintf(shape, sizeof shape, columns > 0 ? "%lld,%lld" : "%lld", (long long)rows, (long long)columns);
    lk_text_printf(&to->header, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%lld,%lld]}",
                   to->header.length > 1 ? "," : "", name, shape, (long long)to->bytes, (long long)(to->bytes + bytes));
    to->bytes += bytes;
}

static void add_layer(writer *to, const lk_bench_model *model, int64_t layer) {
    int64_t hidden = model->hidden_size, inner = model->intermediate_size;
    int64_t kv = hidden / model->num_attention_heads * model->num_key_value_heads;
    const struct {
        const char *name;
        int64_t rows, columns;
    } tensors[] = {
        {"input_layernorm", hidden, 0},   {"self_attn.q_proj", hidden, hidden}, {"self_attn.k_proj", kv, hidden},
        {"self_attn.v_proj", kv, hidden}, {"self_attn.o_proj", hidden, hidden}, {"post_attention_layernorm", hidden, 0},
        {"mlp.gate_proj", inner, hidden}, {"mlp.up_proj", inner, hidden},       {"mlp.down_proj", hidden, inner},
    };
    for (size_t i = 0; i < LK_COUNT(tensors); i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%lld.%s.weight", (long long)layer, tensors[i].name);
        add(to, name, tensors[i].rows, tensors[i].columns);
    }
}

static void list_tensors(writer *to, const lk_bench_model *model) {
    lk_text_append(&to->header, "{", 1);
    add(to, "model.embed_tokens.weight", model->vocab_size, model->hidden_size);
    for (int64_t layer = 0; layer < model->num_hidden_layers; layer++) {
        add_layer(to, model, layer);
    }
    add(to, "model.norm.weight", model->hidden_size, 0);
    if (!model->tie_word_embeddings) {
        add(to, "lm_head.weight", model->vocab_size, model->hidden_size);
    }
    lk_text_append(&to->header, "}", 1);
    while (to->header.length % 8 != 0 && !to->header.failed) {
        lk_text_append(&to->header, " ", 1);
    }
}

/* Uniform in [-0.04, 0.04): the deviation is about 0.02. One block is written again and again. */
static bool write_random(FILE *file, int64_t bytes, uint16_t *block) {
    uint64_t state = 20260101;
    bool written = true;
    for (int64_t i = 0; i < BLOCK / BF16; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        block[i] = lk_f32_to_bf16(0.04f * (float)(int32_t)(state >> 32) / 2147483648.0f);
    }
    for (int64_t done = 0; written && done < bytes; done += BLOCK) {
        size_t size = (size_t)LK_MIN(bytes - done, (int64_t)BLOCK);
        written = fwrite(block, 1, size, file) == size;
    }
    return written;
}

static bool write_hole(FILE *file, int64_t bytes) {
    return bytes == 0 || (fseek(file, (long)(bytes - 1), SEEK_CUR) == 0 && fputc(0, file) != EOF);
}

static bool write_all(FILE *file, const writer *to, bool zeros, uint16_t *block) {
    unsigned char size[8];
    for (int i = 0; i < 8; i++) {
        size[i] = (unsigned char)(to->header.length >> (8 * i));
    }
    return fwrite(size, sizeof size, 1, file) == 1 &&
           fwrite(to->header.data, 1, to->header.length, file) == to->header.length &&
           (zeros ? write_hole(file, to->bytes) : write_random(file, to->bytes, block));
}

static lk_status write_weights(lk_context *context, const lk_bench_model *model, bool zeros, const char *path) {
    writer to = {.bytes = 0};
    lk_text_init(&to.header, context);
    list_tensors(&to, model);
    lk_status status = lk_text_status(&to.header);
    uint16_t *block = lk_alloc(context, BLOCK);
    if (status == LK_OK && block == NULL) {
        status = lk_out_of_memory(context, BLOCK, "a block of weights");
    }
    if (status == LK_OK) {
        FILE *file = fopen(path, "wb");
        bool written = file != NULL && write_all(file, &to, zeros, block);
        written = (file == NULL || fclose(file) == 0) && written;
        status = written ? LK_OK : lk_fail(context, LK_STATUS_IO, "%s cannot be written", path);
    }
    lk_free(context, block);
    lk_text_free(&to.header);
    return status;
}

static lk_status write_config(lk_context *context, const lk_bench_model *model, const char *path) {
    lk_text text;
    lk_text_init(&text, context);
    lk_text_printf(&text,
                   "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": %lld,\n"
                   " \"hidden_size\": %lld, \"intermediate_size\": %lld, \"num_attention_heads\": %lld,\n"
                   " \"num_key_value_heads\": %lld, \"num_hidden_layers\": %lld, \"rms_norm_eps\": 1e-05,\n"
                   " \"tie_word_embeddings\": %s, \"rope_theta\": 500000.0, \"hidden_act\": \"silu\",\n"
                   " \"max_position_embeddings\": 131072, \"bos_token_id\": 1, \"eos_token_id\": 2,\n"
                   " \"torch_dtype\": \"bfloat16\"}\n",
                   (long long)model->vocab_size, (long long)model->hidden_size, (long long)model->intermediate_size,
                   (long long)model->num_attention_heads, (long long)model->num_key_value_heads,
                   (long long)model->num_hidden_layers, model->tie_word_embeddings ? "true" : "false");
    lk_status status = lk_text_status(&text);
    if (status == LK_OK) {
        status = lk_write_file(context, path, text.data, text.length);
    }
    lk_text_free(&text);
    return status;
}

lk_status lk_bench_model_write(lk_context *context, const lk_bench_model *model, bool zeros, const char *folder) {
    LK_TRY(lk_make_directories(context, folder));
    char *config = lk_path_join(context, folder, "config.json");
    char *weights = lk_path_join(context, folder, "model.safetensors");
    lk_status status = config && weights ? LK_OK : lk_out_of_memory(context, 0, "a path");
    if (status == LK_OK) {
        status = write_config(context, model, config);
    }
    if (status == LK_OK) {
        status = write_weights(context, model, zeros, weights);
    }
    lk_free(context, weights);
    lk_free(context, config);
    return status;
}
