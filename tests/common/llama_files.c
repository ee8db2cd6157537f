#include "tests/common/llama_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const llama_shape llama_3_8b = {"Llama-3-8B", 32, 4096, 14336, 32, 8, 128256, false};
const llama_shape smollm2_135m = {"SmolLM2-135M", 30, 576, 1536, 9, 3, 49152, true};
const llama_shape llama_toy = {"toy", 2, 64, 96, 4, 2, 256, false};

enum { BF16 = 2, HEADER_CAPACITY = 1 << 17 };

typedef struct writer {
    char *header;
    size_t used;
    int64_t bytes; /* of tensors so far */
} writer;

static void add(writer *to, const char *name, int64_t rows, int64_t columns) {
    int64_t bytes = BF16 * rows * (columns > 0 ? columns : 1);
    char shape[64];
    if (columns > 0) {
        snprintf(shape, sizeof shape, "%lld,%lld", (long long)rows, (long long)columns);
    } else {
        snprintf(shape, sizeof shape, "%lld", (long long)rows);
    }
    to->used +=
        (size_t)snprintf(to->header + to->used, HEADER_CAPACITY - to->used,
                         "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%lld,%lld]}",
                         to->used > 1 ? "," : "", name, shape, (long long)to->bytes, (long long)(to->bytes + bytes));
    to->bytes += bytes;
}

static void add_layer(writer *to, const llama_shape *s, int64_t layer) {
    int64_t kv = s->hidden / s->heads * s->kv_heads;
    const struct {
        const char *name;
        int64_t rows, columns;
    } tensors[] = {
        {"input_layernorm", s->hidden, 0},          {"self_attn.q_proj", s->hidden, s->hidden},
        {"self_attn.k_proj", kv, s->hidden},        {"self_attn.v_proj", kv, s->hidden},
        {"self_attn.o_proj", s->hidden, s->hidden}, {"post_attention_layernorm", s->hidden, 0},
        {"mlp.gate_proj", s->inner, s->hidden},     {"mlp.up_proj", s->inner, s->hidden},
        {"mlp.down_proj", s->hidden, s->inner},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%lld.%s.weight", (long long)layer, tensors[i].name);
        add(to, name, tensors[i].rows, tensors[i].columns);
    }
}

/* About normal(0, 0.02): bf16 values of one sign pattern and few exponents, made of a hash. */
static bool write_random(FILE *file, int64_t bytes) {
    enum { BLOCK = 1 << 20 };
    uint16_t *block = malloc(BLOCK);
    uint64_t state = 20260101;
    bool written = block != NULL;
    for (int64_t i = 0; written && i < BLOCK / BF16; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t bits = (uint32_t)(state >> 40);
        block[i] = (uint16_t)((bits & 0x8000u) | (0x3c00u + (bits & 0x7fu) - (bits >> 9 & 0x180u)));
    }
    for (int64_t done = 0; written && done < bytes; done += BLOCK) {
        size_t size = (size_t)(bytes - done < BLOCK ? bytes - done : BLOCK);
        written = fwrite(block, 1, size, file) == size;
    }
    free(block);
    return written;
}

static bool write_weights(const char *path, const llama_shape *s, bool random) {
    writer to = {calloc(HEADER_CAPACITY, 1), 0, 0};
    FILE *file = fopen(path, "wb");
    bool written = to.header != NULL && file != NULL;
    if (written) {
        to.header[to.used++] = '{';
        add(&to, "model.embed_tokens.weight", s->vocab, s->hidden);
        for (int64_t layer = 0; layer < s->layers; layer++) {
            add_layer(&to, s, layer);
        }
        add(&to, "model.norm.weight", s->hidden, 0);
        if (!s->tied) {
            add(&to, "lm_head.weight", s->vocab, s->hidden);
        }
        to.header[to.used++] = '}';
        while (to.used % 8 != 0) {
            to.header[to.used++] = ' ';
        }
        uint64_t size = to.used; /* little-endian in the file, as here */
        written = fwrite(&size, sizeof size, 1, file) == 1 && fwrite(to.header, 1, to.used, file) == to.used;
        written = written && (random ? write_random(file, to.bytes)
                                     : fflush(file) == 0 && ftruncate(fileno(file), (off_t)(8 + size) + to.bytes) == 0);
    }
    written = (file == NULL || fclose(file) == 0) && written;
    free(to.header);
    return written;
}

static bool write_config(const char *path, const llama_shape *s) {
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        return false;
    }
    fprintf(file,
            "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": %lld,\n"
            " \"hidden_size\": %lld, \"intermediate_size\": %lld, \"num_attention_heads\": %lld,\n"
            " \"num_key_value_heads\": %lld, \"num_hidden_layers\": %lld, \"rms_norm_eps\": 1e-05,\n"
            " \"tie_word_embeddings\": %s, \"rope_theta\": 500000.0, \"hidden_act\": \"silu\",\n"
            " \"max_position_embeddings\": 8192, \"bos_token_id\": 1, \"eos_token_id\": 2, \"torch_dtype\": "
            "\"bfloat16\"}\n",
            (long long)s->vocab, (long long)s->hidden, (long long)s->inner, (long long)s->heads, (long long)s->kv_heads,
            (long long)s->layers, s->tied ? "true" : "false");
    return fclose(file) == 0;
}

bool llama_write(const char *folder, const llama_shape *shape, bool random) {
    char path[1024];
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/config.json", folder);
    bool written = write_config(path, shape);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    written = written && write_weights(path, shape, random);
    if (!written) {
        perror(path);
    }
    return written;
}

int64_t llama_parameters(const llama_shape *s) {
    int64_t kv = s->hidden / s->heads * s->kv_heads;
    return s->layers * (2 * s->hidden * s->hidden + 2 * s->hidden * kv + 3 * s->hidden * s->inner) +
           s->vocab * s->hidden;
}
