/* The metadata of a GGUF file, said as a tokenizer.json: there is one loader, and merging into a Hugging Face folder
 * needs that file anyway. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#include <stdlib.h>
#include <string.h>

#include "core/formats/gguf.h"
#include "core/text/tokenizer_internal.h"

enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4 };

typedef struct gguf_vocabulary {
    lk_context *context;
    const char *source;
    lk_slice *tokens; /* NUL-terminated copies */
    int32_t *types;
    double *scores; /* NULL: none */
    size_t count;
    lk_token_map map;
    lk_arena arena;
} gguf_vocabulary;

#define KEY(name) "tokenizer.ggml." name

/* ---- pre-tokenizers by name ---- */

#define LLAMA3_DIGITS(digits)                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* pattern NULL: GPT-2's own, which the ByteLevel pre-tokenizer has built in. */
static const struct pre_tokenizer {
    const char *name;
    const char *pattern;
    bool digits, nfc, ignore_merges, bos;
} pre_tokenizers[] = {
    {"gpt-2", NULL, false, false, false, false},
    {"default", NULL, false, false, false, false},
    {"mpt", NULL, false, false, false, false},
    {"olmo", NULL, false, false, false, false},
    {"phi-2", NULL, false, false, false, false},
    {"jais", NULL, false, false, false, false},
    {"smollm", NULL, true, false, false, false},
    {"starcoder", NULL, true, false, false, false},
    {"refact", NULL, true, false, false, false},
    {"command-r", NULL, true, false, false, false},
    {"codeshell", NULL, true, false, false, false},
    {"llama-bpe", LLAMA3_DIGITS("\\p{N}{1,3}"), false, false, true, true},
    {"llama3", LLAMA3_DIGITS("\\p{N}{1,3}"), false, false, true, true},
    {"llama-v3", LLAMA3_DIGITS("\\p{N}{1,3}"), false, false, true, true},
    {"smaug-bpe", LLAMA3_DIGITS("\\p{N}{1,3}"), false, false, true, true},
    {"dbrx", LLAMA3_DIGITS("\\p{N}{1,3}"), false, false, false, false},
    {"qwen2", LLAMA3_DIGITS("\\p{N}"), false, true, false, false},
    {"deepseek-r1-qwen", LLAMA3_DIGITS("\\p{N}"), false, true, false, false},
    {"stablelm2", LLAMA3_DIGITS("\\p{N}"), false, true, false, false},
};

const char *lk_gguf_pre_tokenizer_name(const char *pattern, bool digits) {
    for (size_t i = 0; i < LK_COUNT(pre_tokenizers); i++) {
        const struct pre_tokenizer *row = &pre_tokenizers[i];
        bool same = pattern == NULL ? row->pattern == NULL : row->pattern && strcmp(pattern, row->pattern) == 0;
        if (same && row->digits == (pattern == NULL && digits)) {
            return row->name;
        }
    }
    return NULL;
}

static lk_status find_pre_tokenizer(const lk_gguf *gguf, lk_context *context, const struct pre_tokenizer **out) {
    lk_gguf_string name = {"default", 7};
    LK_TRY(lk_gguf_get_string(gguf, KEY("pre"), false, &name));
    for (size_t i = 0; i < LK_COUNT(pre_tokenizers); i++) {
        if (lk_gguf_string_equals(name, pre_tokenizers[i].name)) {
            *out = &pre_tokenizers[i];
            return LK_OK;
        }
    }
    lk_text known;
    lk_text_init(&known, context);
    for (size_t i = 0; i < LK_COUNT(pre_tokenizers); i++) {
        lk_text_printf(&known, "%s%s", i > 0 ? ", " : "", pre_tokenizers[i].name);
    }
    lk_status status =
        lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: %s is \"%.*s\"; known are %s", lk_gguf_path(gguf), KEY("pre"),
                (int)LK_MIN(name.length, (size_t)100), name.data, known.failed ? "others" : known.data);
    lk_text_free(&known);
    return status;
}

static json_t *byte_level(bool use_regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     use_regex);
}

static json_t *byte_pre_tokenizer(const struct pre_tokenizer *row) {
    if (row->pattern != NULL) {
        return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Split",
                         "pattern", "Regex", row->pattern, "behavior", "Isolated", "invert", 0, byte_level(false));
    }
    if (row->digits) {
        return json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Digits",
                         "individual_digits", 1, byte_level(true));
    }
    return byte_level(true);
}

/* ---- the vocabulary ---- */

static lk_status read_tokens(gguf_vocabulary *vocabulary, const lk_gguf *gguf) {
    lk_context *context = vocabulary->context;
    lk_gguf_array array = {0};
    LK_TRY(lk_gguf_get_strings(gguf, KEY("tokens"), true, &array));
    vocabulary->count = array.count;
    if (array.count == 0 || array.count > INT32_MAX / 16) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: %s has %zu entries", vocabulary->source, KEY("tokens"),
                       array.count);
    }
    vocabulary->tokens = lk_calloc(context, array.count, sizeof *vocabulary->tokens);
    vocabulary->types = lk_calloc(context, array.count, sizeof *vocabulary->types);
    if (vocabulary->tokens == NULL || vocabulary->types == NULL) {
        return lk_out_of_memory(context, array.count * sizeof *vocabulary->tokens, "the vocabulary");
    }
    vocabulary->map.context = context;
    for (size_t i = 0; i < vocabulary->count; i++) {
        lk_gguf_string token = {0};
        (void)lk_gguf_next_string(&array, &token);
        char *copy = lk_arena_alloc(&vocabulary->arena, token.length + 1);
        if (copy == NULL) {
            return lk_out_of_memory(context, token.length, "the vocabulary");
        }
        if (token.length > 0) {
            memcpy(copy, token.data, token.length);
        }
        vocabulary->tokens[i] = (lk_slice){copy, token.length};
        vocabulary->types[i] = TOKEN_NORMAL;
        LK_TRY(lk_token_map_add(&vocabulary->map, vocabulary->tokens, (int32_t)i));
    }
    return LK_OK;
}

static lk_status wrong_count(const gguf_vocabulary *vocabulary, const char *key, size_t count) {
    return lk_fail(vocabulary->context, LK_STATUS_FORMAT, "%s: %s has %zu entries, but there are %zu tokens",
                   vocabulary->source, key, count, vocabulary->count);
}

static lk_status read_types_and_scores(gguf_vocabulary *vocabulary, const lk_gguf *gguf) {
    lk_gguf_array array = {0};
    LK_TRY(lk_gguf_get_ints(gguf, KEY("token_type"), false, &array));
    if (array.count != 0 && array.count != vocabulary->count) {
        return wrong_count(vocabulary, KEY("token_type"), array.count);
    }
    int64_t type;
    for (size_t i = 0; lk_gguf_next_int(&array, &type); i++) {
        vocabulary->types[i] = (int32_t)LK_MAX(INT32_MIN, LK_MIN(INT32_MAX, type));
    }
    array = (lk_gguf_array){0};
    LK_TRY(lk_gguf_get_doubles(gguf, KEY("scores"), false, &array));
    if (array.count == 0) {
        return LK_OK;
    }
    if (array.count != vocabulary->count) {
        return wrong_count(vocabulary, KEY("scores"), array.count);
    }
    vocabulary->scores = lk_calloc(vocabulary->context, array.count, sizeof *vocabulary->scores);
    if (vocabulary->scores == NULL) {
        return lk_out_of_memory(vocabulary->context, array.count * sizeof *vocabulary->scores, "the vocabulary");
    }
    for (size_t i = 0; i < vocabulary->count; i++) {
        (void)lk_gguf_next_double(&array, &vocabulary->scores[i]);
    }
    return LK_OK;
}

static void free_vocabulary(gguf_vocabulary *vocabulary) {
    lk_free(vocabulary->context, vocabulary->tokens);
    lk_free(vocabulary->context, vocabulary->types);
    lk_free(vocabulary->context, vocabulary->scores);
    lk_token_map_free(&vocabulary->map);
    lk_arena_free(&vocabulary->arena);
}

/* jansson refuses what is not UTF-8. */
static lk_status bad_token(const gguf_vocabulary *vocabulary, size_t id) {
    return lk_fail(vocabulary->context, LK_STATUS_FORMAT, "%s: %s[%zu] is not valid UTF-8 text", vocabulary->source,
                   KEY("tokens"), id);
}

static lk_status put_vocabulary(const gguf_vocabulary *vocabulary, json_t *model, json_t *added) {
    json_t *vocab = json_object();
    (void)json_object_set_new(model, "vocab", vocab);
    for (size_t id = 0; id < vocabulary->count; id++) {
        lk_slice token = vocabulary->tokens[id];
        int32_t type = vocabulary->types[id];
        if (strlen(token.bytes) != token.length ||
            json_object_set_new(vocab, token.bytes, json_integer((json_int_t)id)) != 0) {
            return bad_token(vocabulary, id);
        }
        bool special = type == TOKEN_CONTROL || type == TOKEN_UNKNOWN;
        if ((special || type == TOKEN_USER_DEFINED) && token.length > 0) {
            json_t *item =
                json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id, "content", token.bytes,
                          "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", special);
            if (item == NULL || json_array_append_new(added, item) != 0) {
                return bad_token(vocabulary, id);
            }
        }
    }
    return LK_OK;
}

/* ---- merges ---- */

static lk_status put_listed_merges(const gguf_vocabulary *vocabulary, const lk_gguf *gguf, json_t *merges) {
    lk_gguf_array array = {0};
    lk_gguf_string merge;
    LK_TRY(lk_gguf_get_strings(gguf, KEY("merges"), true, &array));
    while (lk_gguf_next_string(&array, &merge)) {
        const char *space = merge.length > 1 ? memchr(merge.data + 1, ' ', merge.length - 1) : NULL;
        json_t *pair = NULL;
        if (space != NULL) {
            size_t left = (size_t)(space - merge.data);
            pair = json_pack("[s%, s%]", merge.data, left, space + 1, merge.length - left - 1);
        }
        if (pair == NULL || json_array_append_new(merges, pair) != 0) {
            return lk_fail(vocabulary->context, LK_STATUS_FORMAT, "%s: %s[%zu] is not a pair of tokens",
                           vocabulary->source, KEY("merges"), json_array_size(merges));
        }
    }
    return LK_OK;
}

/* A merge that a SentencePiece vocabulary implies: both halves of a token are tokens. */
typedef struct implied_merge {
    double score;
    size_t left_length, right_length, order;
    int32_t left, right;
} implied_merge;

/* Hugging Face's order: the better score first, then the longer left, then the longer right. */
static int compare_merges(const void *first, const void *second) {
    const implied_merge *a = first, *b = second;
    if (a->score != b->score) {
        return a->score > b->score ? -1 : 1;
    }
    if (a->left_length != b->left_length) {
        return a->left_length > b->left_length ? -1 : 1;
    }
    if (a->right_length != b->right_length) {
        return a->right_length > b->right_length ? -1 : 1;
    }
    return a->order < b->order ? -1 : a->order > b->order;
}

static size_t characters(const char *bytes, size_t length) {
    size_t count = 0;
    for (size_t i = 0; i < length; i++) {
        count += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    }
    return count;
}

static lk_status collect_implied(const gguf_vocabulary *vocabulary, implied_merge **out, size_t *out_count) {
    size_t capacity = 0;
    for (size_t id = 0; id < vocabulary->count; id++) {
        lk_slice token = vocabulary->tokens[id];
        for (size_t cut = 1; cut < token.length && vocabulary->types[id] == TOKEN_NORMAL; cut++) {
            if (((unsigned char)token.bytes[cut] & 0xC0) == 0x80) {
                continue;
            }
            int32_t left = lk_token_map_find(&vocabulary->map, vocabulary->tokens, token.bytes, cut);
            int32_t right =
                lk_token_map_find(&vocabulary->map, vocabulary->tokens, token.bytes + cut, token.length - cut);
            if (left < 0 || right < 0) {
                continue;
            }
            if (*out_count == capacity) {
                capacity = LK_MAX((size_t)1024, capacity * 2);
                implied_merge *grown = lk_realloc(vocabulary->context, *out, capacity, sizeof *grown);
                if (grown == NULL) {
                    return lk_out_of_memory(vocabulary->context, capacity * sizeof *grown, "merges");
                }
                *out = grown;
            }
            (*out)[*out_count] = (implied_merge){.score = vocabulary->scores[id],
                                                 .left_length = characters(token.bytes, cut),
                                                 .right_length = characters(token.bytes + cut, token.length - cut),
                                                 .order = *out_count,
                                                 .left = left,
                                                 .right = right};
            ++*out_count;
        }
    }
    return LK_OK;
}

static lk_status put_implied_merges(const gguf_vocabulary *vocabulary, json_t *merges) {
    if (vocabulary->scores == NULL) {
        return lk_fail(vocabulary->context, LK_STATUS_FORMAT, "%s: %s is missing", vocabulary->source, KEY("scores"));
    }
    implied_merge *implied = NULL;
    size_t count = 0;
    lk_status status = collect_implied(vocabulary, &implied, &count);
    if (status == LK_OK && count > 0) {
        qsort(implied, count, sizeof *implied, compare_merges);
    }
    for (size_t i = 0; i < count && status == LK_OK; i++) {
        json_t *pair =
            json_pack("[s, s]", vocabulary->tokens[implied[i].left].bytes, vocabulary->tokens[implied[i].right].bytes);
        if (pair == NULL || json_array_append_new(merges, pair) != 0) {
            status = bad_token(vocabulary, (size_t)implied[i].left);
        }
    }
    lk_free(vocabulary->context, implied);
    return status;
}

/* ---- special tokens, the configuration ---- */

/* The token whose id a key holds; NULL when the key is absent. */
static lk_status named_token(const gguf_vocabulary *vocabulary, const lk_gguf *gguf, const char *key, int64_t *id,
                             const char **out) {
    *id = -1;
    *out = NULL;
    LK_TRY(lk_gguf_get_int(gguf, key, false, 0, (int64_t)vocabulary->count - 1, id));
    if (*id >= 0) {
        *out = vocabulary->tokens[*id].bytes;
    }
    return LK_OK;
}

static void add_template_part(json_t *list, const char *key, const char *name, int type_id) {
    (void)json_array_append_new(list, json_pack("{s:{s:s, s:i}}", key, "id", name, "type_id", type_id));
}

/* bos A eos, bos A eos bos B eos, each where it is asked for. */
static json_t *special_template(const char *bos, int64_t bos_id, const char *eos, int64_t eos_id) {
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    for (int i = 0; i < 3; i++) {
        json_t *list = i == 0 ? single : pair;
        int type_id = i == 2;
        if (bos != NULL) {
            add_template_part(list, "SpecialToken", bos, type_id);
        }
        add_template_part(list, "Sequence", i == 2 ? "B" : "A", type_id);
        if (eos != NULL) {
            add_template_part(list, "SpecialToken", eos, type_id);
        }
    }
    if (bos != NULL) {
        (void)json_object_set_new(
            specials, bos, json_pack("{s:s, s:[I], s:[s]}", "id", bos, "ids", (json_int_t)bos_id, "tokens", bos));
    }
    if (eos != NULL) {
        (void)json_object_set_new(
            specials, eos, json_pack("{s:s, s:[I], s:[s]}", "id", eos, "ids", (json_int_t)eos_id, "tokens", eos));
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                     "special_tokens", specials);
}

static lk_status put_specials(const gguf_vocabulary *vocabulary, const lk_gguf *gguf, bool default_bos, json_t *root,
                              json_t *config) {
    static const struct {
        const char *key, *name;
    } specials[] = {{KEY("bos_token_id"), "bos_token"},
                    {KEY("eos_token_id"), "eos_token"},
                    {KEY("unknown_token_id"), "unk_token"},
                    {KEY("padding_token_id"), "pad_token"}};
    const char *names[LK_COUNT(specials)];
    int64_t ids[LK_COUNT(specials)];
    for (size_t i = 0; i < LK_COUNT(specials); i++) {
        LK_TRY(named_token(vocabulary, gguf, specials[i].key, &ids[i], &names[i]));
        if (names[i] != NULL) {
            (void)json_object_set_new(config, specials[i].name, json_string(names[i]));
        }
    }
    bool add_bos = default_bos, add_eos = false;
    LK_TRY(lk_gguf_get_bool(gguf, KEY("add_bos_token"), false, &add_bos));
    LK_TRY(lk_gguf_get_bool(gguf, KEY("add_eos_token"), false, &add_eos));
    add_bos = add_bos && names[0] != NULL;
    add_eos = add_eos && names[1] != NULL;
    if (add_bos || add_eos) {
        (void)json_object_set_new(
            root, "post_processor",
            special_template(add_bos ? names[0] : NULL, ids[0], add_eos ? names[1] : NULL, ids[1]));
    }
    lk_gguf_string chat_template = {0};
    LK_TRY(lk_gguf_get_string(gguf, "tokenizer.chat_template", false, &chat_template));
    if (chat_template.data != NULL &&
        json_object_set_new(config, "chat_template", json_stringn(chat_template.data, chat_template.length)) != 0) {
        return lk_fail(vocabulary->context, LK_STATUS_FORMAT, "%s: tokenizer.chat_template is not valid UTF-8",
                       vocabulary->source);
    }
    return LK_OK;
}

/* ---- the two kinds ---- */

static lk_status build_byte_level(const gguf_vocabulary *vocabulary, const lk_gguf *gguf, json_t *root, json_t *model,
                                  bool *default_bos) {
    const struct pre_tokenizer *row = NULL;
    LK_TRY(find_pre_tokenizer(gguf, vocabulary->context, &row));
    *default_bos = row->bos;
    if (row->nfc) {
        (void)json_object_set_new(root, "normalizer", json_pack("{s:s}", "type", "NFC"));
    }
    (void)json_object_set_new(root, "pre_tokenizer", byte_pre_tokenizer(row));
    (void)json_object_set_new(root, "decoder", byte_level(true));
    (void)json_object_set_new(model, "ignore_merges", json_boolean(row->ignore_merges));
    json_t *merges = json_array();
    (void)json_object_set_new(model, "merges", merges);
    return put_listed_merges(vocabulary, gguf, merges);
}

static lk_status build_sentence_piece(const gguf_vocabulary *vocabulary, const lk_gguf *gguf, json_t *root,
                                      json_t *model, bool *default_bos) {
    static const char mark[] = "\xE2\x96\x81";
    bool prefix = true;
    LK_TRY(lk_gguf_get_bool(gguf, KEY("add_space_prefix"), false, &prefix));
    *default_bos = true;
    json_t *normalizers = json_array(), *decoders = json_array();
    if (prefix) {
        (void)json_array_append_new(normalizers, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", mark));
    }
    (void)json_array_append_new(
        normalizers, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", mark));
    (void)json_array_append_new(
        decoders, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", mark, "content", " "));
    (void)json_array_append_new(decoders, json_pack("{s:s}", "type", "ByteFallback"));
    (void)json_array_append_new(decoders, json_pack("{s:s}", "type", "Fuse"));
    if (prefix) {
        (void)json_array_append_new(
            decoders, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    }
    (void)json_object_set_new(root, "normalizer",
                              json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", normalizers));
    (void)json_object_set_new(root, "decoder", json_pack("{s:s, s:o}", "type", "Sequence", "decoders", decoders));
    for (size_t id = 0; id < vocabulary->count; id++) {
        if (vocabulary->types[id] == TOKEN_UNKNOWN) {
            (void)json_object_set_new(model, "unk_token", json_string(vocabulary->tokens[id].bytes));
        }
    }
    (void)json_object_set_new(model, "fuse_unk", json_true());
    (void)json_object_set_new(model, "byte_fallback", json_true());
    json_t *merges = json_array();
    (void)json_object_set_new(model, "merges", merges);
    if (lk_gguf_has(gguf, KEY("merges"))) {
        return put_listed_merges(vocabulary, gguf, merges);
    }
    return put_implied_merges(vocabulary, merges);
}

static lk_status build(gguf_vocabulary *vocabulary, const lk_gguf *gguf, json_t *root, json_t *config) {
    lk_gguf_string kind = {0};
    LK_TRY(lk_gguf_get_string(gguf, KEY("model"), true, &kind));
    bool bytes = lk_gguf_string_equals(kind, "gpt2");
    if (!bytes && !lk_gguf_string_equals(kind, "llama")) {
        return lk_fail(vocabulary->context, LK_STATUS_UNSUPPORTED, "%s: %s is \"%.*s\"; known are gpt2 and llama",
                       vocabulary->source, KEY("model"), (int)LK_MIN(kind.length, (size_t)100), kind.data);
    }
    LK_TRY(read_tokens(vocabulary, gguf));
    LK_TRY(read_types_and_scores(vocabulary, gguf));
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b}", "type", "BPE", "dropout", "unk_token",
                              "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                              "ignore_merges", 0);
    json_t *added = json_array();
    (void)json_object_set_new(root, "added_tokens", added);
    (void)json_object_set_new(root, "model", model);
    bool default_bos = false;
    LK_TRY((bytes ? build_byte_level : build_sentence_piece)(vocabulary, gguf, root, model, &default_bos));
    LK_TRY(put_vocabulary(vocabulary, model, added));
    return put_specials(vocabulary, gguf, default_bos, root, config);
}

lk_status lk_tokenizer_json_from_gguf(lk_context *context, const lk_gguf *gguf, json_t **tokenizer_json,
                                      json_t **config_json) {
    gguf_vocabulary vocabulary = {.context = context, .source = lk_gguf_path(gguf)};
    lk_arena_init(&vocabulary.arena, context);
    *tokenizer_json = json_pack("{s:s, s:n, s:n, s:n, s:n, s:n, s:n, s:n}", "version", "1.0", "truncation", "padding",
                                "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder");
    *config_json =
        json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "clean_up_tokenization_spaces", 0);
    lk_status status = *tokenizer_json == NULL || *config_json == NULL
                           ? lk_out_of_memory(context, 0, "a tokenizer")
                           : build(&vocabulary, gguf, *tokenizer_json, *config_json);
    free_vocabulary(&vocabulary);
    if (status != LK_OK) {
        json_decref(*tokenizer_json);
        json_decref(*config_json);
        *tokenizer_json = *config_json = NULL;
    }
    return status;
}
