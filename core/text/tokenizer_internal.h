/* The inside of lk_tokenizer, for the tokenizer's own files. */
#ifndef LK_CORE_TEXT_TOKENIZER_INTERNAL_H
#define LK_CORE_TEXT_TOKENIZER_INTERNAL_H

#include "core/base/json.h"
#include "core/text/regex.h"
#include "core/text/tokenizer.h"

/* Borrowed bytes; not NUL-terminated unless said so. */
typedef struct lk_slice {
    const char *bytes;
    size_t length;
} lk_slice;

/* ---- hash tables (token_maps.c) ---- */

/* token -> id. The tokens themselves stand in an array indexed by id. */
typedef struct lk_token_map {
    lk_context *context;
    int32_t *slots; /* id + 1; 0: empty */
    size_t capacity, count;
} lk_token_map;
lk_status lk_token_map_add(lk_token_map *map, const lk_slice *tokens, int32_t id);
int32_t lk_token_map_find(const lk_token_map *map, const lk_slice *tokens, const char *bytes, size_t length);
void lk_token_map_free(lk_token_map *map);

/* A pair of 32-bit numbers -> a pair of them. */
typedef struct lk_pair_entry {
    uint64_t key; /* first << 32 | second; UINT64_MAX: empty */
    uint32_t a, b;
} lk_pair_entry;
typedef struct lk_pair_map {
    lk_context *context;
    lk_pair_entry *entries;
    size_t capacity, count;
} lk_pair_map;
lk_status lk_pair_map_set(lk_pair_map *map, uint32_t first, uint32_t second, uint32_t a, uint32_t b);
const lk_pair_entry *lk_pair_map_find(const lk_pair_map *map, uint32_t first, uint32_t second);
void lk_pair_map_free(lk_pair_map *map);

/* ---- pieces of text (pieces.c): what flows through normalizers, pre-tokenizers and decoders ---- */

typedef struct lk_piece {
    size_t begin, length;
    bool at_start; /* begins where the whole text begins */
} lk_piece;

typedef struct lk_pieces {
    lk_text text;
    lk_piece *items;
    size_t count, capacity;
} lk_pieces;
void lk_pieces_init(lk_pieces *pieces, lk_context *context);
void lk_pieces_free(lk_pieces *pieces);
void lk_pieces_clear(lk_pieces *pieces);
lk_status lk_pieces_add(lk_pieces *pieces, size_t begin, size_t length, bool at_start);
/* Appends the bytes and a piece of them. */
lk_status lk_pieces_add_text(lk_pieces *pieces, const char *bytes, size_t length, bool at_start);
/* Ends a piece whose bytes were appended to pieces->text from `begin` on. */
lk_status lk_pieces_close(lk_pieces *pieces, size_t begin, bool at_start);

/* ---- steps ---- */

typedef enum lk_split_behavior {
    LK_SPLIT_REMOVED,
    LK_SPLIT_ISOLATED,
    LK_SPLIT_MERGED_WITH_PREVIOUS,
    LK_SPLIT_MERGED_WITH_NEXT,
    LK_SPLIT_CONTIGUOUS
} lk_split_behavior;

/* One normalizer, pre-tokenizer or decoder with its settings; which ones are used depends on its kind. */
typedef struct lk_step {
    const struct lk_step_kind *kind;
    lk_regex *regex;  /* or NULL, and the pattern is literal */
    lk_slice pattern; /* what is looked for */
    lk_slice content; /* what is put in */
    lk_split_behavior behavior;
    bool invert;
    bool clean_text, cjk, strip_accents, lowercase; /* BertNormalizer */
    bool left, right;                               /* Strip (normalizer) */
    bool first, always;                             /* Metaspace, ByteLevel: where a space is put in front */
    bool split;                                     /* Metaspace, ByteLevel: whether it cuts */
    size_t start, stop;                             /* Strip (decoder) */
} lk_step;

/* run: takes in->items and fills the cleared *out; the two are swapped afterwards. A step that changes no text swaps
 * in->text into out. */
typedef struct lk_step_kind {
    const char *type;
    bool bytes; /* a decoder that makes bytes, which is the first to see text that may not be valid UTF-8 */
    lk_status (*load)(struct lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step);
    lk_status (*run)(struct lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out);
} lk_step_kind;

typedef struct lk_steps {
    lk_step *items;
    size_t count;
} lk_steps;

/* The tables: normalizers.c, pre_tokenizers.c, decoders.c. */
typedef struct lk_step_table {
    const char *section; /* "normalizer" */
    const char *list;    /* the key of a Sequence's parts: "normalizers" */
    const lk_step_kind *kinds;
    size_t count;
} lk_step_table;
extern const lk_step_table lk_normalizers, lk_pre_tokenizers, lk_decoders;
/* Reads json (null: no steps), with Sequence laid flat. */
lk_status lk_steps_load(struct lk_tokenizer *tokenizer, const lk_step_table *table, const json_t *json, lk_steps *out);
/* Runs them over *pieces in place; *spare is working memory. */
lk_status lk_steps_run(struct lk_tokenizer *tokenizer, const lk_steps *steps, lk_pieces *pieces, lk_pieces *spare);

lk_status lk_step_load_nothing(struct lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step);
/* "pattern": {"String": ..} or {"Regex": ..} */
lk_status lk_step_load_pattern(struct lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step);
/* A string kept by the tokenizer. */
lk_status lk_step_load_text(struct lk_tokenizer *tokenizer, const char *source, const json_t *json, const char *key,
                            bool required, lk_slice *out);
/* Replace is a normalizer and a decoder. */
lk_status lk_step_load_replace(struct lk_tokenizer *tokenizer, const char *source, const json_t *json, lk_step *step);
lk_status lk_step_run_replace(struct lk_tokenizer *tokenizer, const lk_step *step, lk_pieces *in, lk_pieces *out);

/* The matches of a step's pattern in a text, one after the other. */
typedef struct lk_matches {
    const lk_step *step;
    const char *text;
    size_t length, from, last_end;
    bool any;
} lk_matches;
lk_status lk_matches_next(lk_matches *matches, bool *found, size_t *begin, size_t *end);

/* GPT-2's reversible map of bytes to printable characters (byte_map.c). */
void lk_byte_map_append(lk_text *text, const char *bytes, size_t length);
/* The byte of a character; -1: it stands for none. */
int lk_byte_map_byte(int32_t character);

/* ---- added tokens (added_tokens.c) ---- */

typedef struct lk_added_token {
    lk_slice content;
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
} lk_added_token;

/* Finds the longest added token that starts at each place. */
typedef struct lk_trie {
    lk_pair_map children; /* (node, byte) -> (node, -) */
    int32_t *token;       /* by node: index into added_tokens, -1: none */
    size_t nodes, capacity;
    bool starts[256];
} lk_trie;

lk_status lk_added_tokens_load(struct lk_tokenizer *tokenizer, const char *source, const json_t *json);
/* Builds the tries; needs the normalizers. */
lk_status lk_added_tokens_index(struct lk_tokenizer *tokenizer);
void lk_trie_free(lk_context *context, lk_trie *trie);

/* A stretch of text between added tokens (token -1), or one of those. */
typedef struct lk_section {
    size_t begin, end;
    int32_t id;
} lk_section;
/* The next section at or after *position, which moves behind it; false at the end. *pending holds a token that was
 * found while looking for the end of a text section; start with id -1. */
typedef struct lk_section_scan {
    const lk_trie *trie;
    const char *text;
    size_t length, position, search;
    bool parse_special;
    lk_section pending;
} lk_section_scan;
void lk_section_scan_init(lk_section_scan *scan, const lk_trie *trie, const char *text, size_t length,
                          bool parse_special);
bool lk_section_scan_next(const struct lk_tokenizer *tokenizer, lk_section_scan *scan, lk_section *out);

/* ---- models ---- */

typedef struct lk_bpe {
    lk_pair_map merges; /* (left, right) -> (rank, new id) */
    lk_slice prefix, suffix;
    int32_t unknown; /* -1: none */
    bool fuse_unknown, byte_fallback, ignore_merges;
    int32_t byte_ids[256];
    bool cut_at_word_mark; /* no token has the mark U+2581 behind another character: text may be cut before marks */
    struct lk_bpe_symbol *symbols; /* working memory */
    size_t symbol_capacity;
    struct lk_bpe_candidate *heap;
    size_t heap_count, heap_capacity;
} lk_bpe;

typedef struct lk_word_piece {
    lk_slice prefix;
    int32_t unknown;
    size_t max_characters;
    lk_text candidate; /* working memory */
} lk_word_piece;

typedef struct lk_model_kind {
    const char *type;
    lk_status (*load)(struct lk_tokenizer *tokenizer, const char *source, const json_t *json);
    /* Appends the ids of one piece. */
    lk_status (*encode)(struct lk_tokenizer *tokenizer, const char *bytes, size_t length, lk_ids *ids);
} lk_model_kind;

lk_status lk_bpe_load(struct lk_tokenizer *tokenizer, const char *source, const json_t *json);
lk_status lk_bpe_encode(struct lk_tokenizer *tokenizer, const char *bytes, size_t length, lk_ids *ids);
void lk_bpe_free(lk_context *context, lk_bpe *bpe);
lk_status lk_word_piece_load(struct lk_tokenizer *tokenizer, const char *source, const json_t *json);
lk_status lk_word_piece_encode(struct lk_tokenizer *tokenizer, const char *bytes, size_t length, lk_ids *ids);

/* Encodings of words seen before, compared in full (word_cache.c). */
typedef struct lk_word_cache {
    struct lk_word_slot *slots; /* NULL until first used */
    lk_text bytes;
    lk_ids ids;
} lk_word_cache;
void lk_word_cache_init(lk_word_cache *cache, lk_context *context);
void lk_word_cache_free(lk_word_cache *cache);
bool lk_word_cache_find(const lk_word_cache *cache, uint64_t hash, const char *bytes, size_t length,
                        const int32_t **ids, size_t *count);
/* Best effort: without memory the word is not kept. */
void lk_word_cache_put(lk_word_cache *cache, uint64_t hash, const char *bytes, size_t length, const int32_t *ids,
                       size_t count);

/* ---- post-processing: a template of special tokens and the texts (post_processor.c) ---- */

typedef struct lk_template_item {
    int32_t id;      /* of a special token, or -1 for a text */
    int sequence;    /* which text, 0 or 1 */
    int32_t type_id; /* BERT's token type */
} lk_template_item;
typedef struct lk_template {
    lk_template_item *items;
    size_t count;
} lk_template;
lk_status lk_post_processor_load(struct lk_tokenizer *tokenizer, const char *source, const json_t *json);

/* ---- the tokenizer ---- */

enum { LK_TOKEN_IN_MODEL = 1, LK_TOKEN_ADDED = 2, LK_TOKEN_SPECIAL = 4 };

/* A file that save writes again. */
typedef struct lk_tokenizer_file {
    const char *name;
    char *bytes; /* NULL: absent */
    size_t size;
} lk_tokenizer_file;
enum { LK_FILE_TOKENIZER, LK_FILE_CONFIG, LK_FILE_SPECIAL, LK_FILE_TEMPLATE, LK_FILE_COUNT };

struct lk_tokenizer {
    lk_context *context;
    lk_arena arena;   /* strings and steps */
    lk_slice *tokens; /* by id, NUL-terminated; bytes NULL: no such token */
    uint8_t *token_flags;
    int32_t token_count;
    lk_token_map model_map, added_map;

    lk_added_token *added;
    size_t added_count;
    lk_trie raw_trie, normalized_trie;

    lk_steps normalizers, pre_tokenizers, decoders;
    bool decodes_raw;   /* the decoders can hand on bytes that are not valid UTF-8 (yet) */
    bool raw_bytes;     /* and are to do so now */
    lk_regex **regexes; /* all of them, for release */
    size_t regex_count;

    const lk_model_kind *model;
    lk_bpe bpe;
    lk_word_piece word_piece;
    lk_word_cache cache;

    lk_template single, pair;

    int32_t bos, eos, pad;
    const char *chat_template;
    lk_tokenizer_file files[LK_FILE_COUNT];

    lk_text repaired; /* working memory of encode */
    lk_pieces pieces, spare;
};

/* Makes room for ids below count. */
lk_status lk_tokenizer_reserve(lk_tokenizer *tokenizer, const char *source, int64_t count);
/* Keeps a copy of a token under an id that must be free or hold the same token. */
lk_status lk_tokenizer_put(lk_tokenizer *tokenizer, const char *source, const char *bytes, size_t length, int32_t id,
                           uint8_t flags);
lk_status lk_tokenizer_keep(lk_tokenizer *tokenizer, const char *bytes, size_t length, lk_slice *out);
/* Compiles a pattern that lives as long as the tokenizer. */
lk_status lk_tokenizer_regex(lk_tokenizer *tokenizer, const char *source, const char *pattern, size_t length,
                             lk_regex **out);
int32_t lk_tokenizer_find(const lk_tokenizer *tokenizer, const char *bytes, size_t length);

/* tokenizer_gguf.c: the tokenizer.json and tokenizer_config.json that a GGUF file's metadata amount to. */
lk_status lk_tokenizer_json_from_gguf(lk_context *context, const struct lk_gguf *gguf, json_t **tokenizer_json,
                                      json_t **config_json);

/* llama.cpp's name of the pre-tokenizer that splits by a pattern, or as GPT-2's (NULL), with digits alone or not; NULL:
 * it has none (tokenizer_gguf.c). */
const char *lk_gguf_pre_tokenizer_name(const char *pattern, bool digits);

#endif
