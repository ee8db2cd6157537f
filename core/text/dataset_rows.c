/* The kinds of data files: how a line becomes ids and labels. */
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/text/chat.h"
#include "core/text/dataset_internal.h"

static lk_status set_labels(lk_dataset_builder *builder, size_t from) {
    for (size_t i = builder->row_labels.count; i < builder->row_ids.count; i++) {
        LK_TRY(lk_ids_push(&builder->row_labels, i < from ? LK_IGNORE_LABEL : builder->row_ids.data[i]));
    }
    return LK_OK;
}

static lk_status append_eos(lk_dataset_builder *builder) {
    int32_t eos = lk_tokenizer_eos_id(builder->options->tokenizer);
    const lk_ids *ids = &builder->row_ids;
    if (!builder->options->append_eos || eos < 0 || (ids->count > 0 && ids->data[ids->count - 1] == eos)) {
        return LK_OK;
    }
    return lk_ids_push(&builder->row_ids, eos);
}

/* ---- .txt ---- */

static lk_status read_text(lk_dataset_builder *builder, const char *text, size_t length, int64_t line) {
    LK_TRY(lk_tokenizer_encode(builder->options->tokenizer, text, length, LK_ENCODE_DEFAULT, &builder->row_ids));
    return builder->row_ids.count == 0 ? LK_OK : lk_dataset_end_row(builder, line, LK_IGNORE_LABEL, 0, false);
}

/* ---- texts with a class ---- */

static lk_status check_class(lk_dataset_builder *builder, int64_t line, int64_t value) {
    int64_t count = builder->options->class_count;
    if (value < 0 || value > INT32_MAX - 1 || (count > 0 && value >= count)) {
        return lk_fail(builder->context, LK_STATUS_FORMAT, "%s: line %lld: the label is %lld, expected 0 to %lld",
                       builder->path, (long long)line, (long long)value,
                       (long long)(count > 0 ? count - 1 : INT32_MAX - 1));
    }
    return LK_OK;
}

static lk_status classified_text(lk_dataset_builder *builder, const char *text, size_t length, int64_t label,
                                 int64_t line) {
    size_t before, after;
    LK_TRY(check_class(builder, line, label));
    LK_TRY(lk_tokenizer_encode(builder->options->tokenizer, text, length, LK_ENCODE_DEFAULT, &builder->row_ids));
    lk_tokenizer_special_counts(builder->options->tokenizer, &before, &after);
    return lk_dataset_end_row(builder, line, (int32_t)label, after, false);
}

/* A whole number at *at, which moves behind it; false when there is none or it does not fit. */
static bool read_number(const char **at, const char *end, int64_t *value) {
    const char *p = *at;
    bool negative = p < end && *p == '-';
    p += negative;
    const char *digits = p;
    int64_t number = 0;
    while (p < end && *p >= '0' && *p <= '9') {
        if (number > INT32_MAX) {
            return false;
        }
        number = number * 10 + (*p++ - '0');
    }
    *at = p;
    *value = negative ? -number : number;
    return p > digits;
}

static int shown(const char *text, const char *end) {
    return (int)LK_MIN(end - text, (ptrdiff_t)40);
}

static lk_status read_tsv(lk_dataset_builder *builder, const char *text, size_t length, int64_t line) {
    const char *at = text, *end = text + length;
    int64_t label = 0;
    if (!read_number(&at, end, &label) || at == end || *at != '\t') {
        return lk_fail(builder->context, LK_STATUS_FORMAT,
                       "%s: line %lld: expected a number, a TAB and a text, found \"%.*s\"", builder->path,
                       (long long)line, shown(text, end), text);
    }
    return classified_text(builder, at + 1, (size_t)(end - at - 1), label, line);
}

/* ---- .jsonl ---- */

static lk_status json_text(lk_dataset_builder *builder, const char *source, const json_t *row, const char *key,
                           const char **text, size_t *length) {
    *text = NULL;
    LK_TRY(lk_json_get_string(builder->context, source, row, key, true, text));
    *length = json_string_length(json_object_get(row, key));
    return LK_OK;
}

static lk_status read_labelled(lk_dataset_builder *builder, const char *source, const json_t *row, int64_t line) {
    const char *text;
    size_t length;
    int64_t label = 0;
    LK_TRY(json_text(builder, source, row, "text", &text, &length));
    LK_TRY(lk_json_get_int(builder->context, source, row, "label", true, 0, INT32_MAX - 1, &label));
    return classified_text(builder, text, length, label, line);
}

static lk_status read_plain(lk_dataset_builder *builder, const char *source, const json_t *row, int64_t line) {
    const char *text;
    size_t length;
    LK_TRY(json_text(builder, source, row, "text", &text, &length));
    LK_TRY(lk_tokenizer_encode(builder->options->tokenizer, text, length, LK_ENCODE_DEFAULT, &builder->row_ids));
    LK_TRY(append_eos(builder));
    LK_TRY(set_labels(builder, 0));
    return lk_dataset_end_row(builder, line, LK_IGNORE_LABEL, 0, true);
}

static lk_status read_completion(lk_dataset_builder *builder, const char *source, const json_t *row, int64_t line) {
    const char *prompt, *completion;
    size_t prompt_length, completion_length, mark = 0;
    LK_TRY(json_text(builder, source, row, "prompt", &prompt, &prompt_length));
    LK_TRY(json_text(builder, source, row, "completion", &completion, &completion_length));
    lk_text whole;
    lk_text_init(&whole, builder->context);
    lk_text_append(&whole, prompt, prompt_length);
    lk_text_append(&whole, completion, completion_length);
    lk_status status = lk_text_status(&whole);
    if (status == LK_OK) {
        status = lk_tokenizer_encode_marked(builder->options->tokenizer, whole.data, whole.length, LK_ENCODE_DEFAULT,
                                            &prompt_length, 1, &mark, &builder->row_ids);
    }
    lk_text_free(&whole);
    LK_TRY(status);
    LK_TRY(append_eos(builder));
    LK_TRY(set_labels(builder, mark));
    return lk_dataset_end_row(builder, line, LK_IGNORE_LABEL, 0, true);
}

static lk_status load_messages(lk_dataset_builder *builder, const char *source, const json_t *list,
                               lk_chat_message **out) {
    size_t count = json_array_size(list);
    *out = lk_calloc(builder->context, count + 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(builder->context, count * sizeof **out, "messages");
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        LK_TRY(lk_json_get_string(builder->context, source, item, "role", true, &(*out)[i].role));
        LK_TRY(lk_json_get_string(builder->context, source, item, "content", true, &(*out)[i].content));
    }
    return LK_OK;
}

/* The loss is on the spans of the rendered text that the assistant says. */
static lk_status encode_chat(lk_dataset_builder *builder, const lk_chat_text *chat) {
    size_t count = chat->span_count;
    size_t *marks = lk_calloc(builder->context, count * 4 + 1, sizeof *marks);
    if (marks == NULL) {
        return lk_out_of_memory(builder->context, count * 4 * sizeof *marks, "a conversation");
    }
    size_t *tokens = marks + count * 2;
    for (size_t i = 0; i < count; i++) {
        marks[2 * i] = chat->spans[i].begin;
        marks[2 * i + 1] = chat->spans[i].end;
    }
    lk_status status = lk_tokenizer_encode_marked(builder->options->tokenizer, chat->text.data, chat->text.length,
                                                  LK_ENCODE_PARSE_SPECIAL, marks, count * 2, tokens, &builder->row_ids);
    for (size_t i = 0; i < count && status == LK_OK; i++) {
        while (status == LK_OK && builder->row_labels.count < tokens[2 * i]) {
            status = lk_ids_push(&builder->row_labels, LK_IGNORE_LABEL);
        }
        while (status == LK_OK && builder->row_labels.count < tokens[2 * i + 1]) {
            status = lk_ids_push(&builder->row_labels, builder->row_ids.data[builder->row_labels.count]);
        }
    }
    lk_free(builder->context, marks);
    return status == LK_OK ? set_labels(builder, SIZE_MAX) : status;
}

static const char *token_text(const lk_tokenizer *tokenizer, int32_t id) {
    const char *token = lk_tokenizer_id_to_token(tokenizer, id);
    return token != NULL ? token : "";
}

static lk_status read_chat(lk_dataset_builder *builder, const char *source, const json_t *row, int64_t line) {
    const lk_tokenizer *tokenizer = builder->options->tokenizer;
    json_t *list = NULL;
    LK_TRY(lk_json_get_array(builder->context, source, row, "messages", true, &list));
    if (builder->chat_template == NULL) {
        LK_TRY(lk_chat_template_find(builder->context, lk_tokenizer_chat_template(tokenizer), &builder->chat_template));
    }
    lk_chat_message *messages = NULL;
    lk_chat_text chat = {0};
    lk_status status = load_messages(builder, source, list, &messages);
    if (status == LK_OK) {
        status = lk_chat_render(
            builder->context, builder->chat_template, token_text(tokenizer, lk_tokenizer_bos_id(tokenizer)),
            token_text(tokenizer, lk_tokenizer_eos_id(tokenizer)), messages, json_array_size(list), false, &chat);
        if (status == LK_OK) {
            status = encode_chat(builder, &chat);
        } else {
            status = lk_fail_within(builder->context, status, "%s", source);
        }
    }
    lk_chat_text_free(builder->context, &chat);
    lk_free(builder->context, messages);
    return status == LK_OK ? lk_dataset_end_row(builder, line, LK_IGNORE_LABEL, 0, true) : status;
}

static lk_status read_jsonl(lk_dataset_builder *builder, const char *text, size_t length, int64_t line) {
    lk_text source; /* "data.jsonl: line 3" */
    lk_text_init(&source, builder->context);
    lk_text_printf(&source, "%s: line %lld", builder->path, (long long)line);
    json_t *row = NULL;
    lk_status status = lk_text_status(&source);
    if (status == LK_OK) {
        status = lk_json_parse(builder->context, source.data, text, length, &row);
    }
    if (status == LK_OK) {
        if (builder->options->classify) {
            status = read_labelled(builder, source.data, row, line);
        } else if (json_object_get(row, "messages") != NULL) {
            status = read_chat(builder, source.data, row, line);
        } else if (json_object_get(row, "prompt") != NULL || json_object_get(row, "completion") != NULL) {
            status = read_completion(builder, source.data, row, line);
        } else if (json_object_get(row, "text") != NULL) {
            status = read_plain(builder, source.data, row, line);
        } else {
            status = lk_fail(builder->context, LK_STATUS_FORMAT,
                             "%s: expected \"text\", \"prompt\" and \"completion\", or \"messages\"", source.data);
        }
    }
    json_decref(row);
    lk_text_free(&source);
    return status;
}

/* ---- .ids ---- */

/* Numbers up to a TAB or the end. */
static lk_status read_numbers(lk_dataset_builder *builder, int64_t line, const char **at, const char *end, bool labels,
                              int64_t largest, lk_ids *out) {
    const char *what = labels ? "a label" : "a token id";
    while (*at < end && **at != '\t') {
        if (**at == ' ') {
            ++*at;
            continue;
        }
        const char *begin = *at;
        int64_t value = 0;
        if (!read_number(at, end, &value) || (*at < end && **at != ' ' && **at != '\t')) {
            return lk_fail(builder->context, LK_STATUS_FORMAT, "%s: line %lld: expected %s, found \"%.*s\"",
                           builder->path, (long long)line, what, shown(begin, end), begin);
        }
        if ((value < 0 || value > largest) && !(labels && value == LK_IGNORE_LABEL)) {
            return lk_fail(builder->context, LK_STATUS_FORMAT, "%s: line %lld: %s is %lld, expected 0 to %lld%s",
                           builder->path, (long long)line, what, (long long)value, (long long)largest,
                           labels ? " or -100" : "");
        }
        LK_TRY(lk_ids_push(out, (int32_t)value));
    }
    return LK_OK;
}

static lk_status read_ids(lk_dataset_builder *builder, const char *text, size_t length, int64_t line) {
    const char *at = text, *end = text + length;
    int64_t largest = (builder->vocab_size > 0 ? builder->vocab_size : INT32_MAX) - 1;
    LK_TRY(read_numbers(builder, line, &at, end, false, largest, &builder->row_ids));
    int64_t limit = builder->options->max_length;
    if (limit > 0 && builder->row_ids.count > (size_t)limit) {
        return lk_fail(builder->context, LK_STATUS_FORMAT, "%s: line %lld: %zu ids, but the model takes %lld at most",
                       builder->path, (long long)line, builder->row_ids.count, (long long)limit);
    }
    bool tab = at < end;
    at += tab;
    if (builder->options->classify) {
        int64_t label = -1;
        if (!tab || !read_number(&at, end, &label) || at != end) {
            return lk_fail(builder->context, LK_STATUS_FORMAT, "%s: line %lld: expected ids, a TAB and a class",
                           builder->path, (long long)line);
        }
        LK_TRY(check_class(builder, line, label));
        return lk_dataset_end_row(builder, line, (int32_t)label, 0, false);
    }
    if (tab) {
        LK_TRY(read_numbers(builder, line, &at, end, true, largest, &builder->row_labels));
        if (at < end || builder->row_labels.count != builder->row_ids.count) {
            return lk_fail(builder->context, LK_STATUS_FORMAT, "%s: line %lld: %zu ids but %zu labels%s", builder->path,
                           (long long)line, builder->row_ids.count, builder->row_labels.count,
                           at < end ? " and a second TAB" : "");
        }
    }
    LK_TRY(set_labels(builder, 0));
    return lk_dataset_end_row(builder, line, LK_IGNORE_LABEL, 0, false);
}

/* ---- the table ---- */

static const lk_dataset_format formats[] = {
    {".txt", true, true, -1, read_text},
    {".jsonl", false, true, 0, read_jsonl},
    {".tsv", false, true, 1, read_tsv},
    {".ids", false, false, 0, read_ids},
};

lk_status lk_dataset_find_format(lk_context *context, const char *path, const lk_dataset_format **out) {
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot != NULL && i < LK_COUNT(formats); i++) {
        if (strcmp(dot, formats[i].extension) == 0) {
            *out = &formats[i];
            return LK_OK;
        }
    }
    return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: data files end in .txt, .jsonl, .tsv or .ids", path);
}
