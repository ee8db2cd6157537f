/* Mutated files: readers must answer with a status and stay within the mapping (the sanitizers see to the latter).
 * LK_FUZZ_SEED and LK_FUZZ_ROUNDS change the run; the seed is printed. */
#include <inttypes.h>
#include <stdio.h>

#include "core/formats/dequantize.h"
#include "core/formats/peft.h"
#include "core/formats/pretrained.h"
#include "files.h"
#include "tests/common/runner.h"

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* One to four changes: a flipped bit, an interesting byte, a run doubled or removed, a 64-bit number made large. */
static void mutate(byte_list *file, uint64_t *state) {
    static const uint8_t interesting[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '[', '-', '9', ','};
    for (uint64_t changes = 1 + next_random(state) % 4; changes > 0 && file->size > 16; changes--) {
        size_t at = (size_t)(next_random(state) % file->size), run = (size_t)(next_random(state) % 16);
        switch (next_random(state) % 5) {
        case 0:
            file->data[at] ^= (uint8_t)(1u << next_random(state) % 8);
            break;
        case 1:
            file->data[at] = interesting[next_random(state) % sizeof interesting];
            break;
        case 2:
            run = LK_MIN(run, file->size - at);
            memmove(file->data + at, file->data + at + run, file->size - at - run);
            file->size -= run;
            break;
        case 3: {
            byte_list copy = {0};
            run = LK_MIN(run, file->size - at);
            add_bytes(&copy, file->data, at + run);
            add_bytes(&copy, file->data + at, file->size - at);
            bytes_free(file);
            *file = copy;
            break;
        }
        default: {
            uint64_t large = next_random(state) >> next_random(state) % 64;
            memcpy(file->data + LK_MIN(at, file->size - sizeof large), &large, sizeof large);
        }
        }
    }
}

/* Touches every byte of every readable tensor. */
static uint64_t read_all(const lk_stored_tensor *tensor) {
    uint64_t sum = 0;
    for (size_t i = 0; tensor->unsupported == NULL && i < tensor->bytes; i++) {
        sum += ((const uint8_t *)tensor->data)[i];
    }
    return sum + strlen(tensor->name);
}

static lk_status try_safetensors(const char *path) {
    lk_safetensors *file;
    LK_TRY(lk_safetensors_open(context, path, &file));
    for (size_t i = 0; i < lk_safetensors_count(file); i++) {
        ck_assert_uint_ge(read_all(lk_safetensors_at(file, i)), 0);
    }
    lk_safetensors_destroy(file);
    return LK_OK;
}

static void read_metadata(const lk_gguf *gguf) {
    for (size_t i = 0; i < lk_gguf_key_count(gguf); i++) {
        lk_gguf_type type;
        lk_gguf_string key = lk_gguf_key_at(gguf, i, &type), string;
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)LK_MIN(key.length, sizeof name - 1), key.data);
        lk_gguf_array array;
        int64_t integer;
        double number;
        uint64_t sum = 0;
        if (lk_gguf_get_string(gguf, name, true, &string) == LK_OK && string.length > 0) {
            sum += (uint64_t)string.data[string.length - 1];
        }
        if (lk_gguf_get_strings(gguf, name, true, &array) == LK_OK) {
            while (lk_gguf_next_string(&array, &string)) {
                sum += string.length ? (uint64_t)string.data[string.length - 1] : 0;
            }
        }
        if (lk_gguf_get_ints(gguf, name, true, &array) == LK_OK) {
            while (lk_gguf_next_int(&array, &integer)) {
                sum += (uint64_t)integer;
            }
        }
        if (lk_gguf_get_double(gguf, name, true, &number) == LK_OK) {
            sum += number > 0;
        }
        ck_assert_uint_ge(sum, 0);
    }
}

static lk_status try_gguf(const char *path) {
    lk_gguf *gguf;
    lk_pretrained *model;
    LK_TRY(lk_gguf_open(context, path, &gguf));
    read_metadata(gguf);
    for (size_t i = 0; i < lk_gguf_count(gguf); i++) {
        ck_assert_uint_ge(read_all(lk_gguf_at(gguf, i)), 0);
    }
    lk_gguf_destroy(gguf);
    LK_TRY(lk_pretrained_open(context, path, &model));
    for (size_t i = 0; i < lk_pretrained_count(model); i++) {
        const lk_stored_tensor *tensor = lk_pretrained_at(model, i);
        float values[256];
        int64_t elements;
        if (lk_shape_elements(tensor->shape, tensor->rank, &elements) && elements <= (int64_t)LK_COUNT(values)) {
            (void)lk_pretrained_read_f32(model, tensor->name, tensor->rank, tensor->shape, values);
        }
    }
    lk_pretrained_destroy(model);
    return LK_OK;
}

/* Every 64th time: each write waits for the disk. */
static bool save_now(void) {
    static unsigned turn;
    return turn++ % 64 == 0;
}

static lk_status try_config(const char *path) {
    lk_model_config config;
    LK_TRY(lk_model_config_load(context, path, &config));
    lk_status status =
        save_now() ? lk_model_config_save(context, &config, LK_DTYPE_F32, in_folder("again.json")) : LK_OK;
    lk_model_config_free(&config);
    return status;
}

static lk_status try_peft(const char *path) {
    lk_peft_config config;
    lk_peft_scaling scaling;
    bool result;
    LK_TRY(lk_peft_config_load(context, path, &config));
    (void)lk_peft_targets_module(&config, "model.layers.1.self_attn.q_proj", true, &result);
    (void)lk_peft_scaling_of(&config, "model.layers.1.self_attn.q_proj", &scaling);
    lk_status status = save_now() ? lk_peft_config_save(&config, in_folder("again.json")) : LK_OK;
    lk_peft_config_free(&config);
    return status;
}

static byte_list safetensors_seed(void) {
    static const uint8_t data[20];
    byte_list file = {0};
    add_string(&file, "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":"
                      "[0,16]},\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[16,20]}}");
    add_bytes(&file, data, sizeof data);
    return file;
}

static byte_list gguf_seed(void) {
    gguf_builder builder = {0};
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"llama.embedding_length", 8}, {"llama.feed_forward_length", 12},
                 {"llama.block_count", 1},      {"llama.attention.head_count", 2},
                 {"llama.context_length", 64},  {"tokenizer.ggml.eos_token_id", 2}};
    static const uint8_t data[320];
    byte_list array = {0};
    gguf_add_string(&builder, "general.architecture", "llama");
    for (size_t i = 0; i < LK_COUNT(sizes); i++) {
        gguf_add_u32(&builder, sizes[i].key, sizes[i].value);
    }
    add_u32(&array, LK_GGUF_STRING);
    add_u64(&array, 2);
    add_string(&array, "ab");
    add_string(&array, "c");
    gguf_add_raw(&builder, "tokenizer.ggml.tokens", LK_GGUF_ARRAY, array.data, array.size);
    bytes_free(&array);
    gguf_add_tensor(&builder, "token_embd.weight", 0, 2, (uint64_t[]){8, 10}, data, 320);
    gguf_add_tensor(&builder, "blk.0.attn_q.weight", 1, 2, (uint64_t[]){8, 8}, data, 128);
    gguf_add_tensor(&builder, "blk.0.ffn_up.weight", 8, 2, (uint64_t[]){32, 2}, data, 68);
    gguf_add_tensor(&builder, "rope_freqs.weight", 0, 1, (uint64_t[]){2}, (float[]){1, 8}, 8);
    return gguf_finish(&builder);
}

static byte_list text_seed(const char *text) {
    byte_list file = {0};
    add_bytes(&file, text, strlen(text));
    return file;
}

/* The unchanged seed must be accepted, or nothing behind the first check is reached; and mutations must be refused at
 * times, or they change nothing. */
static void fuzz(const char *name, byte_list seed_file, lk_status (*attempt)(const char *)) {
    uint64_t seed = setting("LK_FUZZ_SEED", 20260701), state = seed, refused = 0;
    uint64_t rounds = setting("LK_FUZZ_ROUNDS", 1500);
    printf("%s: LK_FUZZ_SEED=%" PRIu64 "\n", name, seed);
    fflush(stdout);
    lk_status first = attempt(put_file(name, seed_file.data, seed_file.size));
    ck_assert_msg(first == LK_OK, "%s", lk_error_message(context));
    for (uint64_t i = 0; i < rounds; i++) {
        byte_list file = {0};
        add_bytes(&file, seed_file.data, seed_file.size);
        mutate(&file, &state);
        lk_status status = attempt(put_file(name, file.data, file.size));
        ck_assert_msg(status == LK_OK || status == LK_STATUS_FORMAT || status == LK_STATUS_UNSUPPORTED ||
                          status == LK_STATUS_NOT_FOUND,
                      "round %" PRIu64 ": %s: %s", i, lk_status_name(status), lk_error_message(context));
        refused += status != LK_OK;
        bytes_free(&file);
    }
    ck_assert_uint_gt(refused, 0);
    bytes_free(&seed_file);
}

START_TEST(test_fuzz_safetensors) {
    fuzz("f.safetensors", safetensors_seed(), try_safetensors);
}
END_TEST

START_TEST(test_fuzz_gguf) {
    fuzz("f.gguf", gguf_seed(), try_gguf);
}
END_TEST

START_TEST(test_fuzz_model_config) {
    fuzz("config.json",
         text_seed(
             "{\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 4,"
             "\"num_attention_heads\": 4, \"vocab_size\": 512, \"eos_token_id\": [1, 2], \"rope_parameters\":"
             "{\"rope_theta\": 500000, \"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1,"
             "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 32}}"),
         try_config);
}
END_TEST

START_TEST(test_fuzz_peft_config) {
    fuzz("adapter_config.json",
         text_seed("{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"target_modules\": [\"q_proj\"],"
                   "\"rank_pattern\": {\".*q_(proj|x)\": 4}, \"layers_to_transform\": [0, 1], \"lora_dropout\": 0.5}"),
         try_peft);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("fuzz");
    tcase_set_timeout(tests, 0); /* as many rounds as asked for */
    tcase_add_checked_fixture(tests, files_setup, files_teardown);
    tcase_add_test(tests, test_fuzz_safetensors);
    tcase_add_test(tests, test_fuzz_gguf);
    tcase_add_test(tests, test_fuzz_model_config);
    tcase_add_test(tests, test_fuzz_peft_config);
    return run_case("fuzz", tests);
}
