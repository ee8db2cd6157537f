/* Post-processors of tokenizer.json, all brought into one form: a template of special tokens and texts. */
#include <string.h>

#include "core/text/tokenizer_internal.h"

enum { TEMPLATE_LIMIT = 1024 };

typedef struct builder {
    lk_template_item items[TEMPLATE_LIMIT];
    size_t count;
} builder;

static lk_status put(lk_tokenizer *tokenizer, const char *source, builder *build, lk_template_item item) {
    if (build->count == TEMPLATE_LIMIT) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s: the template has more than %d parts", source,
                       TEMPLATE_LIMIT);
    }
    build->items[build->count++] = item;
    return LK_OK;
}

static lk_status keep(lk_tokenizer *tokenizer, const builder *build, lk_template *out) {
    out->items = lk_arena_alloc(&tokenizer->arena, (build->count + 1) * sizeof *out->items);
    if (out->items == NULL) {
        return lk_out_of_memory(tokenizer->context, build->count * sizeof *out->items, "a post-processor");
    }
    memcpy(out->items, build->items, build->count * sizeof *out->items);
    out->count = build->count;
    return LK_OK;
}

static lk_status check_id(lk_tokenizer *tokenizer, const char *source, const json_t *value, int32_t *id) {
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || number >= tokenizer->token_count) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT,
                       "%s: a special token has id %lld, which is not in the vocabulary", source, (long long)number);
    }
    *id = (int32_t)number;
    return LK_OK;
}

/* ---- TemplateProcessing ---- */

static lk_status add_special(lk_tokenizer *tokenizer, const char *source, const json_t *specials, const char *name,
                             int32_t type_id, builder *build) {
    const json_t *special = json_object_get(specials, name);
    json_t *ids = NULL;
    if (special == NULL) {
        return lk_fail(tokenizer->context, LK_STATUS_FORMAT, "%s: \"special_tokens\" lacks \"%s\"", source, name);
    }
    LK_TRY(lk_json_get_array(tokenizer->context, source, special, "ids", true, &ids));
    for (size_t i = 0; i < json_array_size(ids); i++) {
        int32_t id = -1;
        LK_TRY(check_id(tokenizer, source, json_array_get(ids, i), &id));
        LK_TRY(put(tokenizer, source, build, (lk_template_item){.id = id, .type_id = type_id}));
    }
    return LK_OK;
}

static lk_status load_side(lk_tokenizer *tokenizer, const char *source, const json_t *json, const char *key,
                           builder *build, lk_template *out) {
    lk_context *context = tokenizer->context;
    json_t *list = NULL, *specials = NULL;
    LK_TRY(lk_json_get_array(context, source, json, key, true, &list));
    LK_TRY(lk_json_get_object(context, source, json, "special_tokens", false, &specials));
    build->count = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        json_t *special = NULL, *sequence = NULL;
        if (!json_is_object(item)) {
            return lk_fail(context, LK_STATUS_FORMAT, "%s: \"%s\"[%zu] is not an object", source, key, i);
        }
        LK_TRY(lk_json_get_object(context, source, item, "SpecialToken", false, &special));
        if (special == NULL) {
            LK_TRY(lk_json_get_object(context, source, item, "Sequence", true, &sequence));
        }
        const char *name = NULL;
        int64_t type_id = 0;
        LK_TRY(lk_json_get_string(context, source, special != NULL ? special : sequence, "id", true, &name));
        LK_TRY(lk_json_get_int(context, source, special != NULL ? special : sequence, "type_id", false, 0, INT32_MAX,
                               &type_id));
        if (special != NULL) {
            LK_TRY(add_special(tokenizer, source, specials, name, (int32_t)type_id, build));
        } else {
            LK_TRY(put(tokenizer, source, build,
                       (lk_template_item){.id = -1, .sequence = strcmp(name, "B") == 0, .type_id = (int32_t)type_id}));
        }
    }
    return keep(tokenizer, build, out);
}

static lk_status load_template(lk_tokenizer *tokenizer, const char *source, const json_t *json, builder *build) {
    LK_TRY(load_side(tokenizer, source, json, "single", build, &tokenizer->single));
    return load_side(tokenizer, source, json, "pair", build, &tokenizer->pair);
}

/* ---- BertProcessing: cls A sep B sep; RobertaProcessing: cls A sep sep B sep ---- */

static lk_status load_classic(lk_tokenizer *tokenizer, const char *source, const json_t *json, builder *build,
                              bool roberta) {
    static const char *const keys[2] = {"cls", "sep"};
    int32_t ids[2] = {-1, -1};
    for (int i = 0; i < 2; i++) {
        json_t *token = NULL; /* ["[SEP]", 102] */
        LK_TRY(lk_json_get_array(tokenizer->context, source, json, keys[i], true, &token));
        LK_TRY(check_id(tokenizer, source, json_array_get(token, 1), &ids[i]));
    }
    int32_t second = roberta ? 0 : 1; /* RoBERTa has one token type */
    const lk_template_item all[] = {{ids[0], 0, 0}, {-1, 0, 0},      {ids[1], 0, 0},
                                    {ids[1], 0, 0}, {-1, 1, second}, {ids[1], 0, second}};
    for (size_t i = 0; i < LK_COUNT(all); i++) {
        if (i == 3) {
            LK_TRY(keep(tokenizer, build, &tokenizer->single));
        }
        if (i != 3 || roberta) {
            LK_TRY(put(tokenizer, source, build, all[i]));
        }
    }
    return keep(tokenizer, build, &tokenizer->pair);
}

static lk_status load_bert(lk_tokenizer *tokenizer, const char *source, const json_t *json, builder *build) {
    return load_classic(tokenizer, source, json, build, false);
}

static lk_status load_roberta(lk_tokenizer *tokenizer, const char *source, const json_t *json, builder *build) {
    return load_classic(tokenizer, source, json, build, true);
}

/* Only moves offsets, which are not kept here. */
static lk_status load_byte_level(lk_tokenizer *tokenizer, const char *source, const json_t *json, builder *build) {
    (void)tokenizer;
    (void)source;
    (void)json;
    (void)build;
    return LK_OK;
}

static const struct {
    const char *type;
    lk_status (*load)(lk_tokenizer *tokenizer, const char *source, const json_t *json, builder *build);
} kinds[] = {
    {"TemplateProcessing", load_template},
    {"BertProcessing", load_bert},
    {"RobertaProcessing", load_roberta},
    {"ByteLevel", load_byte_level},
};

/* *templates counts the parts of a Sequence that add tokens: one at most can be laid flat. */
static lk_status load_one(lk_tokenizer *tokenizer, const char *source, const json_t *json, builder *build,
                          int *templates) {
    const char *type = NULL;
    LK_TRY(lk_json_get_string(tokenizer->context, source, json, "type", true, &type));
    for (size_t i = 0; i < LK_COUNT(kinds); i++) {
        if (strcmp(kinds[i].type, type) == 0) {
            *templates += kinds[i].load != load_byte_level;
            if (*templates > 1) {
                break;
            }
            return kinds[i].load(tokenizer, source, json, build);
        }
    }
    return lk_fail(tokenizer->context, LK_STATUS_UNSUPPORTED, "tokenizer.json: post_processor of type \"%s\" %s", type,
                   *templates > 1 ? "after another one is not supported" : "is not supported");
}

lk_status lk_post_processor_load(lk_tokenizer *tokenizer, const char *source, const json_t *json) {
    builder *build = lk_alloc(tokenizer->context, sizeof *build);
    if (build == NULL) {
        return lk_out_of_memory(tokenizer->context, sizeof *build, "a post-processor");
    }
    lk_status status = LK_OK;
    const lk_template_item plain[] = {{-1, 0, 0}, {-1, 1, 1}};
    memcpy(build->items, plain, sizeof plain);
    build->count = 1;
    LK_TRY_GOTO(keep(tokenizer, build, &tokenizer->single), done);
    build->count = 2;
    LK_TRY_GOTO(keep(tokenizer, build, &tokenizer->pair), done);
    build->count = 0;
    if (json != NULL && !json_is_null(json)) {
        const char *type = NULL;
        int templates = 0;
        LK_TRY_GOTO(lk_json_get_string(tokenizer->context, source, json, "type", true, &type), done);
        if (strcmp(type, "Sequence") != 0) {
            LK_TRY_GOTO(load_one(tokenizer, source, json, build, &templates), done);
        } else {
            json_t *parts = NULL;
            LK_TRY_GOTO(lk_json_get_array(tokenizer->context, source, json, "processors", true, &parts), done);
            for (size_t i = 0; i < json_array_size(parts); i++) {
                LK_TRY_GOTO(load_one(tokenizer, source, json_array_get(parts, i), build, &templates), done);
            }
        }
    }
done:
    lk_free(tokenizer->context, build);
    return status;
}
