/* Making a tokenizer from the texts of its files. */
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/text/tokenizer_internal.h"

static const lk_model_kind model_kinds[] = {
    {"BPE", lk_bpe_load, lk_bpe_encode},
    {"WordPiece", lk_word_piece_load, lk_word_piece_encode},
};

static const char *const file_names[LK_FILE_COUNT] = {"tokenizer.json", "tokenizer_config.json",
                                                      "special_tokens_map.json", "chat_template.jinja"};

/* ---- storage ---- */

lk_status lk_tokenizer_reserve(lk_tokenizer *tokenizer, const char *source, int64_t count) {
    if (count <= tokenizer->token_count) {
        return LK_OK;
    }
    if (count > INT32_MAX) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s: a token has id %lld", source, (long long)count - 1);
    }
    size_t old = (size_t)tokenizer->token_count, size = (size_t)count;
    lk_slice *tokens = lk_realloc(tokenizer->context, tokenizer->tokens, size, sizeof *tokens);
    if (tokens != NULL) {
        tokenizer->tokens = tokens;
    }
    uint8_t *flags = tokens == NULL ? NULL : lk_realloc(tokenizer->context, tokenizer->token_flags, size, 1);
    if (flags == NULL) {
        return lk_out_of_memory(tokenizer->context, size * sizeof *tokens, "the vocabulary");
    }
    tokenizer->token_flags = flags;
    memset(tokens + old, 0, (size - old) * sizeof *tokens);
    memset(flags + old, 0, size - old);
    tokenizer->token_count = (int32_t)count;
    return LK_OK;
}

lk_status lk_tokenizer_keep(lk_tokenizer *tokenizer, const char *bytes, size_t length, lk_slice *out) {
    char *copy = lk_arena_alloc(&tokenizer->arena, length + 1);
    if (copy == NULL) {
        return lk_out_of_memory(tokenizer->context, length, "the tokenizer");
    }
    memcpy(copy, bytes, length);
    *out = (lk_slice){copy, length};
    return LK_OK;
}

lk_status lk_tokenizer_put(lk_tokenizer *tokenizer, const char *source, const char *bytes, size_t length, int32_t id,
                           uint8_t flags) {
    lk_slice *token = &tokenizer->tokens[id];
    if (token->bytes == NULL) {
        LK_TRY(lk_tokenizer_keep(tokenizer, bytes, length, token));
    } else if (token->length != length || memcmp(token->bytes, bytes, length) != 0) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s: \"%s\" and \"%s\" have the same id %d", source,
                       token->bytes, bytes, (int)id);
    }
    tokenizer->token_flags[id] |= flags;
    return LK_OK;
}

lk_status lk_tokenizer_regex(lk_tokenizer *tokenizer, const char *source, const char *pattern, size_t length,
                             lk_regex **out) {
    lk_context *context = tokenizer->context;
    *out = NULL;
    lk_regex **regexes =
        lk_realloc(context, tokenizer->regexes, tokenizer->regex_count + 1, sizeof *tokenizer->regexes);
    if (regexes == NULL) {
        return lk_out_of_memory(context, sizeof *regexes, "a regular expression");
    }
    tokenizer->regexes = regexes;
    LK_TRY(lk_regex_compile(context, source, pattern, length, out));
    regexes[tokenizer->regex_count++] = *out;
    return LK_OK;
}

/* ---- tokenizer.json ---- */

static lk_status load_vocabulary(lk_tokenizer *tokenizer, const char *source, json_t *model) {
    lk_context *context = tokenizer->context;
    json_t *vocabulary = NULL, *value;
    LK_TRY(lk_json_get_object(context, source, model, "vocab", true, &vocabulary));
    size_t count = json_object_size(vocabulary);
    int64_t limit = (int64_t)LK_MIN(count, (size_t)INT32_MAX / 16) * 8 + 65536; /* some have gaps, not deserts */
    int64_t largest = -1;
    const char *token;
    json_object_foreach(vocabulary, token, value) {
        int64_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id >= limit) {
            return lk_fail(context, LK_STATUS_FORMAT, "%s: \"vocab\": token \"%s\" has an id that is not in 0 to %lld",
                           source, token, (long long)limit - 1);
        }
        largest = LK_MAX(largest, id);
    }
    if (largest < 0) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"vocab\" is empty", source);
    }
    LK_TRY(lk_tokenizer_reserve(tokenizer, source, largest + 1));
    tokenizer->model_map.context = context;
    json_object_foreach(vocabulary, token, value) {
        int32_t id = (int32_t)json_integer_value(value);
        LK_TRY(lk_tokenizer_put(tokenizer, source, token, strlen(token), id, LK_TOKEN_IN_MODEL));
        LK_TRY(lk_token_map_add(&tokenizer->model_map, tokenizer->tokens, id));
    }
    return LK_OK;
}

static lk_status load_model(lk_tokenizer *tokenizer, const char *source, const json_t *root) {
    json_t *model = NULL;
    LK_TRY(lk_json_get_object(tokenizer->context, source, root, "model", true, &model));
    /* older files do not name the type */
    const char *type = json_object_get(model, "merges") != NULL                     ? "BPE"
                       : json_object_get(model, "max_input_chars_per_word") != NULL ? "WordPiece"
                                                                                    : NULL;
    LK_TRY(lk_json_get_string(tokenizer->context, source, model, "type", type == NULL, &type));
    for (size_t i = 0; i < LK_COUNT(model_kinds); i++) {
        if (strcmp(model_kinds[i].type, type) == 0) {
            tokenizer->model = &model_kinds[i];
            LK_TRY(load_vocabulary(tokenizer, source, model));
            return model_kinds[i].load(tokenizer, source, model);
        }
    }
    return lk_fail(tokenizer->context, LK_STATUS_UNSUPPORTED, "%s: model of type \"%s\" is not supported", source,
                   type);
}

/* Regular expressions and byte maps read characters, so they must not come behind a decoder that makes bytes. */
static bool decodes_raw(const lk_steps *decoders) {
    bool bytes = false;
    for (size_t i = 0; i < decoders->count; i++) {
        const lk_step *step = &decoders->items[i];
        if (bytes && (step->kind->bytes || step->regex != NULL)) {
            return false;
        }
        bytes = bytes || step->kind->bytes;
    }
    return true;
}

static lk_status load_root(lk_tokenizer *tokenizer, const char *source, const json_t *root) {
    if (!json_is_object(root)) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s: not an object", source);
    }
    LK_TRY(load_model(tokenizer, source, root));
    LK_TRY(lk_added_tokens_load(tokenizer, source, root));
    LK_TRY(lk_steps_load(tokenizer, &lk_normalizers, json_object_get(root, "normalizer"), &tokenizer->normalizers));
    LK_TRY(lk_steps_load(tokenizer, &lk_pre_tokenizers, json_object_get(root, "pre_tokenizer"),
                         &tokenizer->pre_tokenizers));
    LK_TRY(lk_steps_load(tokenizer, &lk_decoders, json_object_get(root, "decoder"), &tokenizer->decoders));
    tokenizer->decodes_raw = decodes_raw(&tokenizer->decoders);
    LK_TRY(lk_post_processor_load(tokenizer, source, json_object_get(root, "post_processor")));
    return lk_added_tokens_index(tokenizer);
}

/* ---- tokenizer_config.json and its relatives ---- */

/* A token is named by a string or by {"content": string}. One that the vocabulary lacks counts as none. */
static lk_status special_id(lk_tokenizer *tokenizer, const char *source, const json_t *root, const char *key,
                            int32_t *id) {
    const json_t *value = json_object_get(root, key);
    if (*id >= 0 || value == NULL || json_is_null(value)) {
        return LK_OK;
    }
    if (json_is_object(value)) {
        value = json_object_get(value, "content");
    }
    if (!json_is_string(value)) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s: \"%s\" is not a token", source, key);
    }
    *id = lk_tokenizer_find(tokenizer, json_string_value(value), json_string_length(value));
    return LK_OK;
}

static lk_status load_specials(lk_tokenizer *tokenizer, const char *source, const json_t *root) {
    LK_TRY(special_id(tokenizer, source, root, "bos_token", &tokenizer->bos));
    LK_TRY(special_id(tokenizer, source, root, "eos_token", &tokenizer->eos));
    return special_id(tokenizer, source, root, "pad_token", &tokenizer->pad);
}

/* "chat_template" is a string, or a list of {"name", "template"} of which "default" is meant. */
static lk_status load_chat_template(lk_tokenizer *tokenizer, const char *source, const json_t *root) {
    const json_t *value = json_object_get(root, "chat_template");
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name != NULL && strcmp(name, "default") == 0) {
            value = json_object_get(item, "template");
        }
    }
    if (!json_is_string(value)) {
        return LK_OK;
    }
    lk_slice kept = {0};
    (void)source;
    LK_TRY(lk_tokenizer_keep(tokenizer, json_string_value(value), json_string_length(value), &kept));
    tokenizer->chat_template = kept.bytes;
    return LK_OK;
}

/* config.json of the model: ids, where no tokenizer file named the tokens. "eos_token_id" may be a list: its first. */
static lk_status model_config_id(lk_tokenizer *tokenizer, const json_t *root, const char *key, int32_t *id) {
    const json_t *value = json_object_get(root, key);
    if (json_is_array(value)) {
        value = json_array_get(value, 0);
    }
    if (*id < 0 && json_is_integer(value) && json_integer_value(value) >= 0 &&
        json_integer_value(value) < tokenizer->token_count) {
        *id = (int32_t)json_integer_value(value);
    }
    return LK_OK;
}

/* Parses one optional file and hands it on. */
static lk_status with_json(lk_tokenizer *tokenizer, const char *source, const char *bytes, size_t size,
                           lk_status (*use)(lk_tokenizer *tokenizer, const char *source, const json_t *root)) {
    if (bytes == NULL) {
        return LK_OK;
    }
    json_t *root;
    LK_TRY(lk_json_parse(tokenizer->context, source, bytes, size, &root));
    lk_status status = use(tokenizer, source, root);
    json_decref(root);
    return status;
}

static lk_status use_config(lk_tokenizer *tokenizer, const char *source, const json_t *root) {
    LK_TRY(load_specials(tokenizer, source, root));
    return load_chat_template(tokenizer, source, root);
}

static lk_status use_model_config(lk_tokenizer *tokenizer, const char *source, const json_t *root) {
    (void)source;
    LK_TRY(model_config_id(tokenizer, root, "bos_token_id", &tokenizer->bos));
    LK_TRY(model_config_id(tokenizer, root, "eos_token_id", &tokenizer->eos));
    return model_config_id(tokenizer, root, "pad_token_id", &tokenizer->pad);
}

/* Everything from tokenizer->files. */
static lk_status load_files(lk_tokenizer *tokenizer, const char *source) {
    const lk_tokenizer_file *files = tokenizer->files;
    if (files[LK_FILE_TOKENIZER].bytes == NULL) {
        return lk_fail(tokenizer->context, LK_STATUS_NOT_FOUND, "%s: there is no tokenizer", source);
    }
    LK_TRY(with_json(tokenizer, file_names[LK_FILE_TOKENIZER], files[LK_FILE_TOKENIZER].bytes,
                     files[LK_FILE_TOKENIZER].size, load_root));
    LK_TRY(with_json(tokenizer, file_names[LK_FILE_CONFIG], files[LK_FILE_CONFIG].bytes, files[LK_FILE_CONFIG].size,
                     use_config));
    LK_TRY(with_json(tokenizer, file_names[LK_FILE_SPECIAL], files[LK_FILE_SPECIAL].bytes, files[LK_FILE_SPECIAL].size,
                     load_specials));
    if (files[LK_FILE_TEMPLATE].bytes != NULL) {
        tokenizer->chat_template = files[LK_FILE_TEMPLATE].bytes;
    }
    return LK_OK;
}

/* ---- making and ending ---- */

static lk_status create(lk_context *context, lk_tokenizer **out) {
    *out = NULL;
    lk_tokenizer *tokenizer = lk_calloc(context, 1, sizeof *tokenizer);
    if (tokenizer == NULL) {
        return lk_out_of_memory(context, sizeof *tokenizer, "a tokenizer");
    }
    tokenizer->context = context;
    lk_arena_init(&tokenizer->arena, context);
    tokenizer->model_map.context = tokenizer->added_map.context = context;
    tokenizer->bpe.merges.context = context;
    tokenizer->raw_trie.children.context = tokenizer->normalized_trie.children.context = context;
    lk_text_init(&tokenizer->word_piece.candidate, context);
    lk_word_cache_init(&tokenizer->cache, context);
    lk_text_init(&tokenizer->repaired, context);
    lk_pieces_init(&tokenizer->pieces, context);
    lk_pieces_init(&tokenizer->spare, context);
    tokenizer->bos = tokenizer->eos = tokenizer->pad = -1;
    for (int i = 0; i < LK_FILE_COUNT; i++) {
        tokenizer->files[i].name = file_names[i];
    }
    *out = tokenizer;
    return LK_OK;
}

void lk_tokenizer_destroy(lk_tokenizer *tokenizer) {
    if (tokenizer == NULL) {
        return;
    }
    lk_context *context = tokenizer->context;
    for (size_t i = 0; i < tokenizer->regex_count; i++) {
        lk_regex_free(tokenizer->regexes[i]);
    }
    lk_free(context, tokenizer->regexes);
    for (int i = 0; i < LK_FILE_COUNT; i++) {
        lk_free(context, tokenizer->files[i].bytes);
    }
    lk_trie_free(context, &tokenizer->raw_trie);
    lk_trie_free(context, &tokenizer->normalized_trie);
    lk_token_map_free(&tokenizer->model_map);
    lk_token_map_free(&tokenizer->added_map);
    lk_bpe_free(context, &tokenizer->bpe);
    lk_text_free(&tokenizer->word_piece.candidate);
    lk_word_cache_free(&tokenizer->cache);
    lk_text_free(&tokenizer->repaired);
    lk_pieces_free(&tokenizer->pieces);
    lk_pieces_free(&tokenizer->spare);
    lk_free(context, tokenizer->tokens);
    lk_free(context, tokenizer->token_flags);
    lk_arena_free(&tokenizer->arena);
    lk_free(context, tokenizer);
}

static lk_status keep_file(lk_tokenizer *tokenizer, int which, const char *bytes, size_t size) {
    char *copy = lk_alloc(tokenizer->context, size + 1); /* NUL-terminated, for the chat template */
    if (copy == NULL) {
        return lk_out_of_memory(tokenizer->context, size, file_names[which]);
    }
    if (size > 0) {
        memcpy(copy, bytes, size);
    }
    copy[size] = '\0';
    tokenizer->files[which].bytes = copy;
    tokenizer->files[which].size = size;
    return LK_OK;
}

/* Ends the making: hands the tokenizer out, or destroys it and puts `source` before the message. */
static lk_status finish(lk_tokenizer *tokenizer, const char *source, lk_status status, lk_tokenizer **out) {
    if (status == LK_OK) {
        *out = tokenizer;
        return LK_OK;
    }
    lk_context *context = tokenizer->context;
    lk_tokenizer_destroy(tokenizer);
    return lk_fail_within(context, status, "%s", source);
}

lk_status lk_tokenizer_parse(lk_context *context, const char *source, const char *json, size_t json_size,
                             const char *config, size_t config_size, lk_tokenizer **out) {
    *out = NULL;
    lk_tokenizer *tokenizer;
    LK_TRY(create(context, &tokenizer));
    lk_status status = keep_file(tokenizer, LK_FILE_TOKENIZER, json, json_size);
    if (status == LK_OK && config != NULL) {
        status = keep_file(tokenizer, LK_FILE_CONFIG, config, config_size);
    }
    if (status == LK_OK) {
        status = load_files(tokenizer, source);
    }
    return finish(tokenizer, source, status, out);
}

/* Reads folder/name when it is there: into tokenizer->files[which], or, when which is negative, hands it to use(). */
static lk_status read_optional(lk_tokenizer *tokenizer, const char *folder, const char *name, int which,
                               lk_status (*use)(lk_tokenizer *tokenizer, const char *source, const json_t *root)) {
    char *path = lk_path_join(tokenizer->context, folder, name);
    if (path == NULL) {
        return lk_out_of_memory(tokenizer->context, strlen(name), "a path");
    }
    lk_status status = LK_OK;
    lk_mapping mapping = {0};
    if (lk_path_is_file(path)) {
        status = lk_mapping_open(tokenizer->context, path, &mapping);
        if (status == LK_OK) {
            status = which >= 0 ? keep_file(tokenizer, which, (const char *)mapping.data, mapping.size)
                                : with_json(tokenizer, name, (const char *)mapping.data, mapping.size, use);
        }
        lk_mapping_close(&mapping);
    }
    lk_free(tokenizer->context, path);
    return status;
}

static lk_status load_folder(lk_context *context, const char *folder, lk_tokenizer **out) {
    lk_tokenizer *tokenizer;
    LK_TRY(create(context, &tokenizer));
    lk_status status = LK_OK;
    for (int i = 0; i < LK_FILE_COUNT && status == LK_OK; i++) {
        status = read_optional(tokenizer, folder, file_names[i], i, NULL);
    }
    if (status == LK_OK && tokenizer->files[LK_FILE_TOKENIZER].bytes == NULL) {
        status = lk_fail(context, LK_STATUS_NOT_FOUND, "there is no tokenizer.json");
    }
    if (status == LK_OK) {
        status = load_files(tokenizer, folder);
    }
    if (status == LK_OK) {
        status = read_optional(tokenizer, folder, "config.json", -1, use_model_config);
    }
    return finish(tokenizer, folder, status, out);
}

static lk_status load_gguf(lk_context *context, const struct lk_gguf *gguf, lk_tokenizer **out) {
    json_t *tokenizer_json = NULL, *config_json = NULL;
    LK_TRY(lk_tokenizer_json_from_gguf(context, gguf, &tokenizer_json, &config_json));
    lk_text json, config;
    lk_text_init(&json, context);
    lk_text_init(&config, context);
    lk_json_print(&json, tokenizer_json, JSON_COMPACT);
    lk_json_print(&config, config_json, JSON_INDENT(2));
    json_decref(tokenizer_json);
    json_decref(config_json);
    lk_status status = lk_text_status(&json);
    if (status == LK_OK) {
        status = lk_text_status(&config);
    }
    if (status == LK_OK) {
        status = lk_tokenizer_parse(context, "GGUF metadata", json.data, json.length, config.data, config.length, out);
    }
    lk_text_free(&json);
    lk_text_free(&config);
    return status;
}

lk_status lk_tokenizer_load(lk_context *context, const char *folder, const struct lk_gguf *gguf, lk_tokenizer **out) {
    *out = NULL;
    if ((folder == NULL) == (gguf == NULL)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "a tokenizer comes from a folder or from a GGUF file");
    }
    return folder != NULL ? load_folder(context, folder, out) : load_gguf(context, gguf, out);
}

lk_status lk_tokenizer_save(lk_context *context, const lk_tokenizer *tokenizer, const char *folder) {
    for (int i = 0; i < LK_FILE_COUNT; i++) {
        const lk_tokenizer_file *file = &tokenizer->files[i];
        if (file->bytes == NULL) {
            continue;
        }
        char *path = lk_path_join(context, folder, file->name);
        if (path == NULL) {
            return lk_out_of_memory(context, strlen(folder), "a path");
        }
        lk_status status = lk_write_file(context, path, file->bytes, file->size);
        lk_free(context, path);
        LK_TRY(status);
    }
    return LK_OK;
}
