#include <stdio.h>

#include "core/formats/gguf.h"
#include "core/text/utf8.h"
#include "text_test.h"

/* ---- against Hugging Face ---- */

static void check_row(const json_t *row, void *user) {
    lk_tokenizer *tokenizer = user;
    const char *text = json_text(row, "text");
    lk_ids ids;
    lk_ids_init(&ids, context);
    ck_ok(lk_tokenizer_encode(tokenizer, text, strlen(text), LK_ENCODE_DEFAULT, &ids));
    assert_ids(json_object_get(row, "ids"), &ids, text);
    for (int skip = 0; skip < 2; skip++) {
        const char *expected = json_text(row, skip ? "skipped" : "decoded");
        lk_text decoded, streamed;
        lk_text_init(&decoded, context);
        lk_text_init(&streamed, context);
        lk_text_append(&decoded, "", 0);
        lk_text_append(&streamed, "", 0);
        ck_ok(lk_tokenizer_decode(tokenizer, ids.data, ids.count, skip, &decoded));
        ck_assert_str_eq(decoded.data, expected);
        lk_decode_stream stream;
        lk_decode_stream_init(&stream, tokenizer, skip);
        for (size_t i = 0; i < ids.count; i++) {
            ck_ok(lk_decode_stream_push(&stream, ids.data[i], &streamed));
        }
        ck_ok(lk_decode_stream_finish(&stream, &streamed));
        ck_assert_str_eq(streamed.data, expected);
        lk_decode_stream_free(&stream);
        lk_text_free(&decoded);
        lk_text_free(&streamed);
    }
    ids.count = 0;
    ck_ok(lk_tokenizer_encode(tokenizer, text, strlen(text), LK_ENCODE_PARSE_SPECIAL, &ids));
    assert_ids(json_object_get(row, "plain"), &ids, text);
    lk_ids_free(&ids);
}

static const struct {
    const char *folder, *rows;
} goldens[] = {{"models/stories260k", "tokenizers/stories260k.jsonl"},
               {"tokenizers/bytes", "tokenizers/bytes.jsonl"},
               {"tokenizers/words", "tokenizers/words.jsonl"}};

START_TEST(test_golden) {
    lk_tokenizer *tokenizer = load_tokenizer(goldens[_i].folder);
    for_each_row(goldens[_i].rows, check_row, tokenizer);
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

static void check_pair(const json_t *row, void *user) {
    const char *first = json_text(row, "text"), *second = json_text(row, "pair");
    lk_ids ids, type_ids;
    lk_ids_init(&ids, context);
    lk_ids_init(&type_ids, context);
    ck_ok(lk_tokenizer_encode_pair(user, first, strlen(first), second, strlen(second), LK_ENCODE_DEFAULT, &ids,
                                   &type_ids));
    assert_ids(json_object_get(row, "ids"), &ids, first);
    assert_ids(json_object_get(row, "type_ids"), &type_ids, first);
    lk_ids_free(&ids);
    lk_ids_free(&type_ids);
}

START_TEST(test_golden_pairs) {
    lk_tokenizer *tokenizer = load_tokenizer("tokenizers/words");
    for_each_row("tokenizers/words_pairs.jsonl", check_pair, tokenizer);
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

static lk_tokenizer *parse(const json_t *root) {
    char *text = json_dumps(root, JSON_COMPACT);
    lk_tokenizer *tokenizer;
    ck_ok(lk_tokenizer_parse(context, "variant", text, strlen(text), NULL, 0, &tokenizer));
    free(text);
    return tokenizer;
}

static json_t *load_json(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", LK_TEST_DATA, name);
    json_t *root;
    ck_ok(lk_json_load(context, path, &root));
    return root;
}

typedef struct variants {
    json_t *base, *patches;
    char name[64];
    lk_tokenizer *tokenizer;
} variants;

static void check_variant(const json_t *row, void *user) {
    variants *all = user;
    const char *name = json_text(row, "variant"), *text = json_text(row, "text");
    if (strcmp(name, all->name) != 0) {
        lk_tokenizer_destroy(all->tokenizer);
        json_t *root = json_copy(all->base);
        json_object_update(root, json_object_get(all->patches, name));
        all->tokenizer = parse(root);
        json_decref(root);
        snprintf(all->name, sizeof all->name, "%s", name);
    }
    char what[512];
    snprintf(what, sizeof what, "%s: \"%.400s\"", name, text);
    lk_ids ids;
    lk_ids_init(&ids, context);
    ck_ok(lk_tokenizer_encode(all->tokenizer, text, strlen(text), LK_ENCODE_DEFAULT, &ids));
    assert_ids(json_object_get(row, "ids"), &ids, what);
    lk_text decoded;
    lk_text_init(&decoded, context);
    lk_text_append(&decoded, "", 0);
    ck_ok(lk_tokenizer_decode(all->tokenizer, ids.data, ids.count, false, &decoded));
    ck_assert_str_eq(decoded.data, json_text(row, "decoded"));
    lk_text_free(&decoded);
    lk_ids_free(&ids);
}

START_TEST(test_golden_variants) {
    variants all = {.base = load_json("tokenizers/bytes/tokenizer.json"),
                    .patches = load_json("tokenizers/variants.json")};
    for_each_row("tokenizers/variants.jsonl", check_variant, &all);
    lk_tokenizer_destroy(all.tokenizer);
    json_decref(all.base);
    json_decref(all.patches);
}
END_TEST

/* ---- properties ---- */

static uint64_t seed_of_run(void) {
    const char *given = getenv("LK_TEST_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 20240611;
    printf("seed %llu\n", (unsigned long long)seed);
    return seed;
}

/* Bytes of all kinds: whole characters, halves of them, spaces, special tokens. */
static size_t random_bytes(uint64_t seed, uint64_t index, char *out, size_t limit) {
    static const char *const parts[] = {" ",      "  ",           "\n",       "é",  "世",         "🙂",
                                        "\xff",   "\xe4\xb8",     "\xf0",     "'s", "<|im_end|>", "<s>",
                                        "<0x0A>", "\xed\xa0\x80", "\xc0\x80", "12"};
    uint32_t words[4];
    lk_philox4x32(seed, 1, index, words);
    size_t count = words[0] % 60, length = 0;
    for (size_t i = 0; i < count; i++) {
        lk_philox4x32(seed, index + 2, i, words);
        const char *part = parts[words[1] % LK_COUNT(parts)];
        char byte[2] = {(char)words[2], '\0'};
        bool single = words[3] % 2 == 0;
        size_t size = single ? 1 : strlen(part);
        if (length + size > limit) {
            break;
        }
        memcpy(out + length, single ? byte : part, size);
        length += size;
    }
    return length;
}

/* Any bytes can be encoded; the byte-level tokenizer gives valid text back as it was. */
START_TEST(test_any_bytes_encode_and_decode) {
    uint64_t seed = seed_of_run();
    lk_tokenizer *tokenizer = load_tokenizer(goldens[_i].folder);
    lk_ids ids, again;
    lk_ids_init(&ids, context);
    lk_ids_init(&again, context);
    for (uint64_t round = 0; round < 1500; round++) {
        char bytes[512];
        size_t length = random_bytes(seed, round, bytes, sizeof bytes);
        ids.count = again.count = 0;
        lk_text decoded, streamed;
        lk_text_init(&decoded, context);
        lk_text_init(&streamed, context);
        lk_text_append(&decoded, "", 0);
        lk_text_append(&streamed, "", 0);
        ck_ok(lk_tokenizer_encode(tokenizer, bytes, length, 0, &ids));
        ck_ok(lk_tokenizer_decode(tokenizer, ids.data, ids.count, false, &decoded));
        lk_decode_stream stream;
        lk_decode_stream_init(&stream, tokenizer, false);
        for (size_t i = 0; i < ids.count; i++) {
            ck_ok(lk_decode_stream_push(&stream, ids.data[i], &streamed));
        }
        ck_ok(lk_decode_stream_finish(&stream, &streamed));
        lk_decode_stream_free(&stream);
        ck_assert_uint_eq(decoded.length, streamed.length);
        ck_assert_mem_eq(decoded.data, streamed.data, decoded.length);
        if (_i == 1) { /* encoding what came back gives the same ids: the text was repaired once and for all */
            ck_ok(lk_tokenizer_encode(tokenizer, decoded.data, decoded.length, 0, &again));
            ck_assert_uint_eq(ids.count, again.count);
            ck_assert(ids.count == 0 || memcmp(ids.data, again.data, ids.count * sizeof *ids.data) == 0);
        }
        lk_text_free(&decoded);
        lk_text_free(&streamed);
    }
    lk_ids_free(&ids);
    lk_ids_free(&again);
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

/* Ids in any order, so bytes in any order: streamed parts are valid text, and together the text of all. */
START_TEST(test_any_ids_decode) {
    uint64_t seed = seed_of_run();
    lk_tokenizer *tokenizer = load_tokenizer(goldens[_i].folder);
    for (uint64_t round = 0; round < 300; round++) {
        int32_t ids[40];
        lk_text decoded, streamed;
        lk_text_init(&decoded, context);
        lk_text_init(&streamed, context);
        lk_text_append(&streamed, "", 0);
        lk_decode_stream stream;
        lk_decode_stream_init(&stream, tokenizer, round % 2);
        for (uint64_t i = 0; i < LK_COUNT(ids); i++) {
            uint32_t words[4];
            lk_philox4x32(seed, round + 10, i, words);
            ids[i] = (int32_t)(words[0] % (round % 3 == 0 ? 280 : (uint32_t)lk_tokenizer_vocab_size(tokenizer)));
            ck_ok(lk_decode_stream_push(&stream, ids[i], &streamed));
            ck_assert_uint_eq(lk_utf8_valid_prefix(streamed.data, streamed.length), streamed.length);
        }
        ck_ok(lk_decode_stream_finish(&stream, &streamed));
        ck_ok(lk_tokenizer_decode(tokenizer, ids, LK_COUNT(ids), round % 2, &decoded));
        ck_assert_uint_eq(lk_utf8_valid_prefix(decoded.data, decoded.length), decoded.length);
        if (_i > 0) {
            ck_assert_str_eq(streamed.data, decoded.data);
        }
        lk_decode_stream_free(&stream);
        lk_text_free(&decoded);
        lk_text_free(&streamed);
    }
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(test_invalid_bytes_become_replacement_characters) {
    /* the maximal invalid parts of Unicode 3.9, table 3-8, and an overlong form */
    static const char broken[] = "a\xF1\x80\x80\xE1\x80\xC2z\xC0\xAF\xED\xA0\x80";
    static const char repaired[] = "a\uFFFD\uFFFD\uFFFDz\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD";
    lk_tokenizer *tokenizer = load_tokenizer("tokenizers/bytes");
    lk_ids ids;
    lk_ids_init(&ids, context);
    lk_text decoded;
    lk_text_init(&decoded, context);
    ck_ok(lk_tokenizer_encode(tokenizer, broken, sizeof broken - 1, 0, &ids));
    ck_ok(lk_tokenizer_decode(tokenizer, ids.data, ids.count, false, &decoded));
    ck_assert_str_eq(decoded.data, repaired);
    lk_text_free(&decoded);
    lk_ids_free(&ids);
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

/* A word of a million letters: only an algorithm that is not quadratic ends. */
START_TEST(test_long_words_are_not_quadratic) {
    enum { LENGTH = 1000000 };
    lk_tokenizer *tokenizer = load_tokenizer(goldens[_i].folder);
    char *word = malloc(LENGTH);
    ck_assert_ptr_nonnull(word);
    for (int i = 0; i < LENGTH; i++) {
        word[i] = "thequickbrown"[(i * 7 + i / 13) % 13];
    }
    lk_ids ids;
    lk_ids_init(&ids, context);
    ck_ok(lk_tokenizer_encode(tokenizer, word, LENGTH, 0, &ids));
    ck_assert_uint_gt(ids.count, _i == 2 ? 0 : LENGTH / 16);
    memset(word, ' ', LENGTH);
    ck_ok(lk_tokenizer_encode(tokenizer, word, LENGTH, 0, &ids));
    free(word);
    lk_ids_free(&ids);
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(test_flags) {
    lk_tokenizer *tokenizer = load_tokenizer("tokenizers/bytes");
    int32_t end = lk_tokenizer_token_to_id(tokenizer, "<|im_end|>");
    lk_ids ids;
    lk_ids_init(&ids, context);
    ck_ok(lk_tokenizer_encode(tokenizer, "<|im_end|>", 10, LK_ENCODE_PARSE_SPECIAL, &ids));
    ck_assert_uint_eq(ids.count, 1);
    ck_assert_int_eq(ids.data[0], end);
    ids.count = 0;
    ck_ok(lk_tokenizer_encode(tokenizer, "<|im_end|>", 10, 0, &ids));
    ck_assert_uint_gt(ids.count, 1);
    for (size_t i = 0; i < ids.count; i++) {
        ck_assert(!lk_tokenizer_is_special(tokenizer, ids.data[i]));
    }
    lk_ids_free(&ids);
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(test_marks_find_token_boundaries) {
    static const char text[] = "<|im_start|>ab cd<|im_end|> ef";
    static const size_t offsets[] = {0, 12, 14, 17, 27, 30};
    lk_tokenizer *tokenizer = load_tokenizer("tokenizers/bytes");
    lk_ids ids, prefix;
    lk_ids_init(&ids, context);
    lk_ids_init(&prefix, context);
    size_t tokens[LK_COUNT(offsets)];
    ck_ok(lk_ids_push(&ids, 7)); /* what was there stays and is not counted */
    ck_ok(lk_tokenizer_encode_marked(tokenizer, text, sizeof text - 1, LK_ENCODE_DEFAULT, offsets, LK_COUNT(offsets),
                                     tokens, &ids));
    ck_assert_int_eq(ids.data[0], 7);
    for (size_t i = 0; i < LK_COUNT(offsets); i++) { /* all of these are clean boundaries */
        prefix.count = 0;
        ck_ok(lk_tokenizer_encode(tokenizer, text, offsets[i], LK_ENCODE_DEFAULT, &prefix));
        ck_assert_uint_eq(tokens[i], prefix.count);
        ck_assert(prefix.count == 0 || memcmp(prefix.data, ids.data + 1, prefix.count * sizeof *ids.data) == 0);
    }
    ck_assert_uint_eq(tokens[5], ids.count - 1);
    size_t before = ids.count;
    const size_t descending[] = {3, 2};
    ck_fails(lk_tokenizer_encode_marked(tokenizer, text, sizeof text - 1, 0, descending, 2, tokens, &ids),
             LK_STATUS_INVALID_ARGUMENT, "ascend");
    ck_assert_uint_eq(ids.count, before);
    lk_ids_free(&ids);
    lk_ids_free(&prefix);
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(test_look_ups) {
    lk_tokenizer *tokenizer = load_tokenizer("tokenizers/bytes");
    ck_assert_int_eq(lk_tokenizer_bos_id(tokenizer), 0);
    ck_assert_int_eq(lk_tokenizer_eos_id(tokenizer), 2);
    ck_assert_int_eq(lk_tokenizer_pad_id(tokenizer), 0);
    int32_t size = lk_tokenizer_vocab_size(tokenizer);
    for (int32_t id = 0; id < size; id++) {
        const char *token = lk_tokenizer_id_to_token(tokenizer, id);
        ck_assert_ptr_nonnull(token);
        ck_assert_int_eq(lk_tokenizer_token_to_id(tokenizer, token), id);
    }
    ck_assert_ptr_null(lk_tokenizer_id_to_token(tokenizer, size));
    ck_assert_ptr_null(lk_tokenizer_id_to_token(tokenizer, -1));
    ck_assert_int_eq(lk_tokenizer_token_to_id(tokenizer, "no such token"), -1);
    ck_assert_ptr_nonnull(strstr(lk_tokenizer_chat_template(tokenizer), "<|im_start|>"));
    lk_text text;
    lk_text_init(&text, context);
    ck_fails(lk_tokenizer_decode(tokenizer, &size, 1, false, &text), LK_STATUS_INVALID_ARGUMENT, "vocabulary");
    lk_text_free(&text);
    lk_tokenizer_destroy(tokenizer);
    tokenizer = load_tokenizer("models/stories260k"); /* these ids come from config.json */
    ck_assert_int_eq(lk_tokenizer_bos_id(tokenizer), 1);
    ck_assert_int_eq(lk_tokenizer_eos_id(tokenizer), 2);
    ck_assert_ptr_null(lk_tokenizer_chat_template(tokenizer));
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

START_TEST(test_save_copies_the_files) {
    lk_tokenizer *tokenizer = load_tokenizer("tokenizers/bytes"), *again;
    ck_ok(lk_tokenizer_save(context, tokenizer, folder));
    ck_ok(lk_tokenizer_load(context, folder, NULL, &again));
    ck_assert_uint_eq(lk_tokenizer_identity(tokenizer), lk_tokenizer_identity(again));
    ck_assert_str_eq(lk_tokenizer_chat_template(tokenizer), lk_tokenizer_chat_template(again));
    for_each_row("tokenizers/bytes.jsonl", check_row, again);
    lk_tokenizer_destroy(again);
    lk_tokenizer_destroy(tokenizer);
}
END_TEST

/* ---- GGUF ---- */

typedef struct gguf_writer {
    lk_text bytes;
    uint64_t keys;
} gguf_writer;

static void put_number(gguf_writer *writer, uint64_t value, size_t size) {
    char bytes[8];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (char)(value >> (8 * i));
    }
    lk_text_append(&writer->bytes, bytes, size);
}

static void put_string(gguf_writer *writer, const char *text) {
    put_number(writer, strlen(text), 8);
    lk_text_append(&writer->bytes, text, strlen(text));
}

static void put_key(gguf_writer *writer, const char *key, lk_gguf_type type) {
    put_string(writer, key);
    put_number(writer, type, 4);
    writer->keys++;
}

static void put_string_key(gguf_writer *writer, const char *key, const char *value) {
    put_key(writer, key, LK_GGUF_STRING);
    put_string(writer, value);
}

static void put_array_key(gguf_writer *writer, const char *key, lk_gguf_type type, size_t count) {
    put_key(writer, key, LK_GGUF_ARRAY);
    put_number(writer, type, 4);
    put_number(writer, count, 8);
}

static void put_id_key(gguf_writer *writer, const char *key, uint32_t id) {
    put_key(writer, key, LK_GGUF_U32);
    put_number(writer, id, 4);
}

static lk_status load_gguf(const gguf_writer *writer, lk_tokenizer **out) {
    gguf_writer file = {.keys = 0};
    lk_text_init(&file.bytes, context);
    lk_text_append(&file.bytes, "GGUF", 4);
    put_number(&file, 3, 4);
    put_number(&file, 0, 8);
    put_number(&file, writer->keys, 8);
    lk_text_append(&file.bytes, writer->bytes.data, writer->bytes.length);
    ck_ok(lk_text_status(&file.bytes));
    const char *path = path_of("tokenizer.gguf");
    ck_ok(lk_write_file(context, path, file.bytes.data, file.bytes.length));
    lk_gguf *gguf;
    ck_ok(lk_gguf_open(context, path, &gguf));
    lk_status status = lk_tokenizer_load(context, NULL, gguf, out);
    lk_gguf_destroy(gguf);
    lk_text_free(&file.bytes);
    return status;
}

/* The tokens of a tokenizer.json in the order of their ids, with their types. */
static void put_tokens(gguf_writer *writer, const lk_tokenizer *tokenizer, const json_t *added) {
    int32_t count = lk_tokenizer_vocab_size(tokenizer);
    put_array_key(writer, "tokenizer.ggml.tokens", LK_GGUF_STRING, (size_t)count);
    for (int32_t id = 0; id < count; id++) {
        put_string(writer, lk_tokenizer_id_to_token(tokenizer, id));
    }
    put_array_key(writer, "tokenizer.ggml.token_type", LK_GGUF_I32, (size_t)count);
    for (int32_t id = 0; id < count; id++) {
        const char *token = lk_tokenizer_id_to_token(tokenizer, id);
        int type = strcmp(token, "<unk>") == 0 ? 2 : lk_tokenizer_is_special(tokenizer, id) ? 3 : 1;
        for (size_t i = 0; i < json_array_size(added) && type == 1; i++) {
            type = strcmp(json_text(json_array_get(added, i), "content"), token) == 0 ? 4 : 1;
        }
        put_number(writer, (uint64_t)(strncmp(token, "<0x", 3) == 0 ? 6 : type), 4);
    }
}

START_TEST(test_gguf_byte_level) {
    json_t *root = load_json("tokenizers/bytes/tokenizer.json");
    lk_tokenizer *tokenizer, *plain;
    /* GGUF cannot say that added tokens take spaces or are single words */
    json_t *added = json_object_get(root, "added_tokens");
    while (json_array_size(added) > 3) {
        json_array_remove(added, 3);
    }
    plain = parse(root);
    gguf_writer writer = {.keys = 0};
    lk_text_init(&writer.bytes, context);
    put_string_key(&writer, "tokenizer.ggml.model", "gpt2");
    put_string_key(&writer, "tokenizer.ggml.pre", "smollm");
    put_tokens(&writer, plain, added);
    const json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    put_array_key(&writer, "tokenizer.ggml.merges", LK_GGUF_STRING, json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        char merge[256];
        const json_t *pair = json_array_get(merges, i);
        snprintf(merge, sizeof merge, "%s %s", json_string_value(json_array_get(pair, 0)),
                 json_string_value(json_array_get(pair, 1)));
        put_string(&writer, merge);
    }
    put_id_key(&writer, "tokenizer.ggml.bos_token_id", 0);
    put_id_key(&writer, "tokenizer.ggml.eos_token_id", 2);
    put_string_key(&writer, "tokenizer.chat_template", "<|im_start|>{{ x }}<|im_end|>");
    ck_ok(load_gguf(&writer, &tokenizer));
    lk_text_free(&writer.bytes);
    ck_assert_int_eq(lk_tokenizer_bos_id(tokenizer), 0);
    ck_assert_int_eq(lk_tokenizer_eos_id(tokenizer), 2);
    ck_assert_str_eq(lk_tokenizer_chat_template(tokenizer), "<|im_start|>{{ x }}<|im_end|>");
    lk_ids expected, got;
    lk_ids_init(&expected, context);
    lk_ids_init(&got, context);
    static const char text[] = "KING: it's 1623, isn't it?\n\n  <|im_end|>naïve";
    ck_ok(lk_tokenizer_encode(plain, text, sizeof text - 1, LK_ENCODE_DEFAULT, &expected));
    ck_ok(lk_tokenizer_encode(tokenizer, text, sizeof text - 1, LK_ENCODE_DEFAULT, &got));
    ck_assert_uint_eq(got.count, expected.count);
    ck_assert_mem_eq(got.data, expected.data, got.count * sizeof *got.data);
    /* saved as a Hugging Face folder it is the same */
    lk_tokenizer *saved;
    ck_ok(lk_tokenizer_save(context, tokenizer, folder));
    ck_ok(lk_tokenizer_load(context, folder, NULL, &saved));
    got.count = 0;
    ck_ok(lk_tokenizer_encode(saved, text, sizeof text - 1, LK_ENCODE_DEFAULT, &got));
    ck_assert_mem_eq(got.data, expected.data, got.count * sizeof *got.data);
    ck_assert_int_eq(lk_tokenizer_eos_id(saved), 2);
    ck_assert_str_eq(lk_tokenizer_chat_template(saved), "<|im_start|>{{ x }}<|im_end|>");
    lk_ids_free(&expected);
    lk_ids_free(&got);
    lk_tokenizer_destroy(saved);
    lk_tokenizer_destroy(tokenizer);
    lk_tokenizer_destroy(plain);
    json_decref(root);
}
END_TEST

/* SentencePiece vocabularies carry scores in place of merges; those of tok512 are minus the rank of the merge. */
START_TEST(test_gguf_sentence_piece) {
    json_t *root = load_json("models/stories260k/tokenizer.json");
    lk_tokenizer *plain = parse(root), *tokenizer;
    gguf_writer writer = {.keys = 0};
    lk_text_init(&writer.bytes, context);
    put_string_key(&writer, "tokenizer.ggml.model", "llama");
    put_tokens(&writer, plain, json_object_get(root, "added_tokens"));
    int32_t count = lk_tokenizer_vocab_size(plain);
    put_array_key(&writer, "tokenizer.ggml.scores", LK_GGUF_F32, (size_t)count);
    for (int32_t id = 0; id < count; id++) {
        put_number(&writer, lk_f32_bits(id < 259 ? 0.0f : (float)(259 - id)), 4);
    }
    put_id_key(&writer, "tokenizer.ggml.bos_token_id", 1);
    put_id_key(&writer, "tokenizer.ggml.eos_token_id", 2);
    ck_ok(load_gguf(&writer, &tokenizer));
    lk_text_free(&writer.bytes);
    lk_ids expected, got;
    lk_ids_init(&expected, context);
    lk_ids_init(&got, context);
    static const char text[] = "Once upon a time, there was a little girl named Lily. 世 She loved it!";
    ck_ok(lk_tokenizer_encode(plain, text, sizeof text - 1, 0, &expected));
    ck_ok(lk_tokenizer_encode(tokenizer, text, sizeof text - 1, LK_ENCODE_DEFAULT, &got));
    ck_assert_uint_eq(got.count, expected.count + 1); /* these begin with <s> unless the file says otherwise */
    ck_assert_int_eq(got.data[0], 1);
    ck_assert_mem_eq(got.data + 1, expected.data, expected.count * sizeof *got.data);
    lk_text decoded;
    lk_text_init(&decoded, context);
    ck_ok(lk_tokenizer_decode(tokenizer, got.data, got.count, true, &decoded));
    ck_assert_str_eq(decoded.data, text);
    lk_text_free(&decoded);
    lk_ids_free(&expected);
    lk_ids_free(&got);
    lk_tokenizer_destroy(tokenizer);
    lk_tokenizer_destroy(plain);
    json_decref(root);
}
END_TEST

START_TEST(test_gguf_errors) {
    gguf_writer writer = {.keys = 0};
    lk_text_init(&writer.bytes, context);
    lk_tokenizer *tokenizer;
    put_string_key(&writer, "tokenizer.ggml.model", "rwkv");
    ck_fails(load_gguf(&writer, &tokenizer), LK_STATUS_UNSUPPORTED, "rwkv");
    writer.bytes.length = 0;
    writer.keys = 0;
    put_string_key(&writer, "tokenizer.ggml.model", "gpt2");
    put_string_key(&writer, "tokenizer.ggml.pre", "novel");
    put_array_key(&writer, "tokenizer.ggml.tokens", LK_GGUF_STRING, 1);
    put_string(&writer, "a");
    ck_fails(load_gguf(&writer, &tokenizer), LK_STATUS_UNSUPPORTED, "novel");
    ck_assert_ptr_null(tokenizer);
    put_array_key(&writer, "tokenizer.ggml.token_type", LK_GGUF_I32, 2);
    put_number(&writer, 1, 4);
    put_number(&writer, 1, 4);
    ck_fails(load_gguf(&writer, &tokenizer), LK_STATUS_FORMAT, "token_type has 2 entries");
    lk_text_free(&writer.bytes);
}
END_TEST

/* ---- malformed files ---- */

static const struct {
    const char *json;
    lk_status status;
    const char *message;
} malformed[] = {
    {"", LK_STATUS_FORMAT, "not valid JSON"},
    {"[]", LK_STATUS_FORMAT, "not an object"},
    {"{}", LK_STATUS_FORMAT, "\"model\" is missing"},
    {"{\"model\": 3}", LK_STATUS_FORMAT, "\"model\""},
    {"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", LK_STATUS_UNSUPPORTED, "Unigram"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}}", LK_STATUS_FORMAT, "empty"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}", LK_STATUS_FORMAT, "\"a\""},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 2000000000}, \"merges\": []}}", LK_STATUS_FORMAT, "\"a\""},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": \"x\"}, \"merges\": []}}", LK_STATUS_FORMAT, "\"a\""},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1, \"b\": 1}, \"merges\": []}}", LK_STATUS_FORMAT, "same id"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}", LK_STATUS_FORMAT, "\"b\""},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a a\"]}}", LK_STATUS_FORMAT, "\"aa\""},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}}", LK_STATUS_FORMAT, "merges"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [], \"dropout\": 0.1}}", LK_STATUS_UNSUPPORTED,
     "dropout"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [], \"unk_token\": \"u\"}}", LK_STATUS_FORMAT,
     "\"u\""},
    {"{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"a\": 0}}}", LK_STATUS_FORMAT, "[UNK]"},
#define WITH(rest) "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": []}, " rest "}"
    {WITH("\"normalizer\": {\"type\": \"Nmt\"}"), LK_STATUS_UNSUPPORTED, "normalizer of type \"Nmt\""},
    {WITH("\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"(\"}, \"content\": \"\"}"),
     LK_STATUS_UNSUPPORTED, "regular expression ("},
    {WITH("\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"[a[b]]\"}, \"content\": \"\"}"),
     LK_STATUS_UNSUPPORTED, "brackets"},
    {WITH("\"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}"), LK_STATUS_UNSUPPORTED, "pre_tokenizer"},
    {WITH("\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Odd\"}"),
     LK_STATUS_UNSUPPORTED, "Odd"},
    {WITH("\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\"}"), LK_STATUS_FORMAT, "replacement"},
    {WITH("\"decoder\": {\"type\": \"CTC\"}"), LK_STATUS_UNSUPPORTED, "decoder of type \"CTC\""},
    {WITH("\"decoder\": {\"type\": \"Strip\", \"content\": \" \", \"start\": -1, \"stop\": 0}"), LK_STATUS_FORMAT,
     "\"start\" is -1"},
    {WITH("\"post_processor\": {\"type\": \"Odd\"}"), LK_STATUS_UNSUPPORTED, "post_processor of type \"Odd\""},
    {WITH("\"post_processor\": {\"type\": \"BertProcessing\", \"cls\": [\"a\", 0], \"sep\": [\"x\", 9]}"),
     LK_STATUS_FORMAT, "id 9"},
    {WITH("\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"c\"}}], "
          "\"pair\": []}"),
     LK_STATUS_FORMAT, "\"c\""},
    {WITH("\"added_tokens\": [{\"id\": 2000000000, \"content\": \"x\"}]"), LK_STATUS_FORMAT, "far beyond"},
    {WITH("\"added_tokens\": [{\"id\": 1, \"content\": \"x\"}]"), LK_STATUS_FORMAT, "same id"},
    {WITH("\"added_tokens\": [3]"), LK_STATUS_FORMAT, "added_tokens"},
#undef WITH
};

START_TEST(test_malformed) {
    lk_tokenizer *tokenizer = (lk_tokenizer *)1;
    const char *json = malformed[_i].json;
    ck_fails(lk_tokenizer_parse(context, "bad", json, strlen(json), NULL, 0, &tokenizer), malformed[_i].status,
             malformed[_i].message);
    ck_assert_ptr_null(tokenizer);
    ck_assert(strncmp(lk_error_message(context), "bad: ", 5) == 0);
}
END_TEST

/* Every prefix of a real file is refused and nothing leaks; bytes flipped at random never crash. */
START_TEST(test_damaged_files) {
    uint64_t seed = seed_of_run();
    char path[512];
    snprintf(path, sizeof path, "%s/tokenizers/words/tokenizer.json", LK_TEST_DATA);
    size_t size;
    char *text = read_text(path, &size);
    lk_tokenizer *tokenizer;
    for (size_t cut = 0; cut + 1 < size; cut += 61) {
        ck_assert_int_ne(lk_tokenizer_parse(context, "cut", text, cut, NULL, 0, &tokenizer), LK_OK);
    }
    for (uint64_t round = 0; round < 300; round++) {
        uint32_t words[4];
        lk_philox4x32(seed, 3, round, words);
        char kept = text[words[0] % size];
        text[words[0] % size] = (char)words[1];
        if (lk_tokenizer_parse(context, "flipped", text, size, NULL, 0, &tokenizer) == LK_OK) {
            lk_ids ids;
            lk_ids_init(&ids, context);
            (void)lk_tokenizer_encode(tokenizer, "Hello, world", 12, LK_ENCODE_DEFAULT, &ids);
            lk_ids_free(&ids);
            lk_tokenizer_destroy(tokenizer);
        }
        text[words[0] % size] = kept;
    }
    free(text);
}
END_TEST

START_TEST(test_missing_files) {
    lk_tokenizer *tokenizer;
    ck_fails(lk_tokenizer_load(context, folder, NULL, &tokenizer), LK_STATUS_NOT_FOUND, "tokenizer.json");
    ck_fails(lk_tokenizer_load(context, NULL, NULL, &tokenizer), LK_STATUS_INVALID_ARGUMENT, "folder");
}
END_TEST

static void add(TCase *cases) {
    tcase_add_loop_test(cases, test_golden, 0, LK_COUNT(goldens));
    tcase_add_test(cases, test_golden_pairs);
    tcase_add_test(cases, test_golden_variants);
    tcase_add_loop_test(cases, test_any_bytes_encode_and_decode, 0, LK_COUNT(goldens));
    tcase_add_loop_test(cases, test_any_ids_decode, 0, LK_COUNT(goldens));
    tcase_add_test(cases, test_invalid_bytes_become_replacement_characters);
    tcase_add_loop_test(cases, test_long_words_are_not_quadratic, 0, LK_COUNT(goldens));
    tcase_add_test(cases, test_flags);
    tcase_add_test(cases, test_marks_find_token_boundaries);
    tcase_add_test(cases, test_look_ups);
    tcase_add_test(cases, test_save_copies_the_files);
    tcase_add_test(cases, test_gguf_byte_level);
    tcase_add_test(cases, test_gguf_sentence_piece);
    tcase_add_test(cases, test_gguf_errors);
    tcase_add_loop_test(cases, test_malformed, 0, LK_COUNT(malformed));
    tcase_add_test(cases, test_damaged_files);
    tcase_add_test(cases, test_missing_files);
}

int main(void) {
    return run_text_case("tokenizer", text_setup, text_teardown, add);
}
