#include "core/text/chat.h"

#include <string.h>

#include "core/text/utf8.h"

enum { MARKERS = 4 };

typedef struct conversation {
    lk_context *context;
    const lk_chat_template *family;
    const char *bos, *eos;
    const lk_chat_message *messages;
    size_t count;
    bool prompt;
    lk_chat_text *out;
} conversation;

struct lk_chat_template {
    const char *name;
    const char *has[MARKERS];   /* what the model's template must contain */
    const char *lacks[MARKERS]; /* and what it must not */
    const char *system;         /* put in front when the conversation has no system message; NULL: nothing is */
    lk_status (*render)(const conversation *chat);
};

/* ---- pieces of text ---- */

static void put(const conversation *chat, const char *text) {
    lk_text_append(&chat->out->text, text, strlen(text));
}

/* What Python's str.strip() takes away. */
static bool is_stripped(int32_t character) {
    return lk_char_is_space(character) || (character >= 0x1C && character <= 0x1F);
}

static void put_stripped_from(const conversation *chat, const char *text, bool left) {
    size_t begin = 0, end = strlen(text);
    int32_t character;
    while (left && begin < end) {
        size_t size = lk_utf8_next(text + begin, &character);
        if (!is_stripped(character)) {
            break;
        }
        begin += size;
    }
    while (end > begin) {
        size_t last = lk_utf8_previous(text, end);
        (void)lk_utf8_next(text + last, &character);
        if (!is_stripped(character)) {
            break;
        }
        end = last;
    }
    lk_text_append(&chat->out->text, text + begin, end - begin);
}

static void put_stripped(const conversation *chat, const char *text) {
    put_stripped_from(chat, text, true);
}

/* What is appended between the two is what the assistant says. */
static lk_status begin_span(const conversation *chat) {
    lk_chat_text *out = chat->out;
    if (out->span_count == out->span_capacity) {
        size_t capacity = LK_MAX((size_t)8, out->span_capacity * 2);
        lk_chat_span *spans = lk_realloc(chat->context, out->spans, capacity, sizeof *spans);
        if (spans == NULL) {
            return lk_out_of_memory(chat->context, capacity * sizeof *spans, "a conversation");
        }
        out->spans = spans;
        out->span_capacity = capacity;
    }
    out->spans[out->span_count++] = (lk_chat_span){out->text.length, out->text.length};
    return LK_OK;
}

static void end_span(const conversation *chat) {
    chat->out->spans[chat->out->span_count - 1].end = chat->out->text.length;
}

static bool is_role(const lk_chat_message *message, const char *role) {
    return strcmp(message->role, role) == 0;
}

static bool is_assistant(const lk_chat_message *message) {
    return is_role(message, "assistant");
}

/* ---- checks ---- */

static lk_status check_roles(const conversation *chat) {
    for (size_t i = 0; i < chat->count; i++) {
        const lk_chat_message *message = &chat->messages[i];
        if (!is_role(message, "system") && !is_role(message, "user") && !is_assistant(message)) {
            return lk_fail(chat->context, LK_STATUS_INVALID_ARGUMENT,
                           "message %zu has the role \"%s\", expected system, user or assistant", i + 1, message->role);
        }
        size_t length = strlen(message->content);
        if (lk_utf8_valid_prefix(message->content, length) != length) {
            return lk_fail(chat->context, LK_STATUS_INVALID_ARGUMENT, "message %zu is not valid UTF-8", i + 1);
        }
    }
    return LK_OK;
}

/* User, assistant, user ... from message `first` on, as some templates insist. */
static lk_status check_alternation(const conversation *chat, size_t first) {
    for (size_t i = first; i < chat->count; i++) {
        const char *expected = (i - first) % 2 == 0 ? "user" : "assistant";
        if (!is_role(&chat->messages[i], expected)) {
            return lk_fail(chat->context, LK_STATUS_INVALID_ARGUMENT,
                           "message %zu has the role \"%s\", but in a %s conversation it must be %s", i + 1,
                           chat->messages[i].role, chat->family->name, expected);
        }
    }
    return LK_OK;
}

/* ---- the families ---- */

static lk_status render_chatml(const conversation *chat) {
    if (chat->family->system != NULL && (chat->count == 0 || !is_role(&chat->messages[0], "system"))) {
        put(chat, "<|im_start|>system\n");
        put(chat, chat->family->system);
        put(chat, "<|im_end|>\n");
    }
    for (size_t i = 0; i < chat->count; i++) {
        const lk_chat_message *message = &chat->messages[i];
        put(chat, "<|im_start|>");
        put(chat, message->role);
        put(chat, "\n");
        LK_TRY(is_assistant(message) ? begin_span(chat) : LK_OK);
        put(chat, message->content);
        put(chat, "<|im_end|>");
        if (is_assistant(message)) {
            end_span(chat);
        }
        put(chat, "\n");
    }
    if (chat->prompt) {
        put(chat, "<|im_start|>assistant\n");
    }
    return LK_OK;
}

/* ---- Qwen3: ChatML whose answers may begin with reasoning, which is kept in the last one only ---- */

typedef struct reasoned {
    const char *reasoning, *answer;
    size_t reasoning_length, answer_length;
} reasoned;

static void strip_newlines(const char **text, size_t *length, bool left, bool right) {
    while (left && *length > 0 && **text == '\n') {
        ++*text;
        --*length;
    }
    while (right && *length > 0 && (*text)[*length - 1] == '\n') {
        --*length;
    }
}

static const char *last_of(const char *text, size_t length, const char *what) {
    const char *last = NULL;
    size_t size = strlen(what);
    for (size_t i = 0; i + size <= length; i++) {
        if (memcmp(text + i, what, size) == 0) {
            last = text + i;
        }
    }
    return last;
}

static reasoned split_reasoning(const char *content) {
    reasoned parts = {"", content, 0, strlen(content)};
    const char *close = strstr(content, "</think>");
    if (close == NULL) {
        return parts;
    }
    parts.reasoning = content;
    parts.reasoning_length = (size_t)(close - content);
    strip_newlines(&parts.reasoning, &parts.reasoning_length, false, true);
    const char *open = last_of(parts.reasoning, parts.reasoning_length, "<think>");
    if (open != NULL) {
        parts.reasoning_length -= (size_t)(open + 7 - parts.reasoning);
        parts.reasoning = open + 7;
    }
    strip_newlines(&parts.reasoning, &parts.reasoning_length, true, true);
    const char *last = last_of(content, strlen(content), "</think>");
    parts.answer = last + 8;
    parts.answer_length = strlen(parts.answer);
    strip_newlines(&parts.answer, &parts.answer_length, true, false);
    return parts;
}

static bool is_query(const lk_chat_message *message) {
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    size_t length = strlen(message->content);
    bool tool = strncmp(message->content, open, sizeof open - 1) == 0 && length >= sizeof close - 1 &&
                strcmp(message->content + length - (sizeof close - 1), close) == 0;
    return is_role(message, "user") && !tool;
}

static lk_status put_reasoned(const conversation *chat, size_t index, size_t last_query) {
    reasoned parts = split_reasoning(chat->messages[index].content);
    lk_text *text = &chat->out->text;
    put(chat, "<|im_start|>assistant\n");
    LK_TRY(begin_span(chat));
    if (index > last_query && (index + 1 == chat->count || parts.reasoning_length > 0)) {
        put(chat, "<think>\n");
        lk_text_append(text, parts.reasoning, parts.reasoning_length);
        put(chat, "\n</think>\n\n");
        strip_newlines(&parts.answer, &parts.answer_length, true, false);
    }
    lk_text_append(text, parts.answer, parts.answer_length);
    put(chat, "<|im_end|>");
    end_span(chat);
    put(chat, "\n");
    return LK_OK;
}

static lk_status render_qwen3(const conversation *chat) {
    size_t last_query = chat->count > 0 ? chat->count - 1 : 0;
    for (size_t i = chat->count; i-- > 0;) {
        if (is_query(&chat->messages[i])) {
            last_query = i;
            break;
        }
    }
    for (size_t i = 0; i < chat->count; i++) {
        const lk_chat_message *message = &chat->messages[i];
        if (is_assistant(message)) {
            LK_TRY(put_reasoned(chat, i, last_query));
            continue;
        }
        put(chat, "<|im_start|>");
        put(chat, message->role);
        put(chat, "\n");
        put(chat, message->content);
        put(chat, "<|im_end|>\n");
    }
    if (chat->prompt) {
        put(chat, "<|im_start|>assistant\n");
    }
    return LK_OK;
}

/* ---- Llama 3 ---- */

static lk_status put_llama3(const conversation *chat, size_t first) {
    for (size_t i = first; i < chat->count; i++) {
        const lk_chat_message *message = &chat->messages[i];
        put(chat, "<|start_header_id|>");
        put(chat, message->role);
        put(chat, "<|end_header_id|>\n\n");
        LK_TRY(is_assistant(message) ? begin_span(chat) : LK_OK);
        put_stripped(chat, message->content);
        put(chat, "<|eot_id|>");
        if (is_assistant(message)) {
            end_span(chat);
        }
    }
    if (chat->prompt) {
        put(chat, "<|start_header_id|>assistant<|end_header_id|>\n\n");
    }
    return LK_OK;
}

static lk_status render_llama3(const conversation *chat) {
    put(chat, chat->count > 0 ? chat->bos : "");
    return put_llama3(chat, 0);
}

/* 3.1 and 3.2 state dates in the system message. Some of their templates take today's; here it is always the one that
 * they have for want of a clock, so that the same data gives the same ids on any day. */
static lk_status render_llama31(const conversation *chat) {
    size_t first = chat->count > 0 && is_role(&chat->messages[0], "system");
    put(chat, chat->bos);
    put(chat, "<|start_header_id|>system<|end_header_id|>\n\n"
              "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
    if (first > 0) {
        put_stripped(chat, chat->messages[0].content);
    }
    put(chat, "<|eot_id|>");
    return put_llama3(chat, first);
}

/* ---- [INST] ---- */

static lk_status render_llama2(const conversation *chat) {
    size_t first = chat->count > 0 && is_role(&chat->messages[0], "system");
    LK_TRY(check_alternation(chat, first));
    for (size_t i = first; i < chat->count; i++) {
        const char *content = chat->messages[i].content;
        if (is_assistant(&chat->messages[i])) {
            LK_TRY(begin_span(chat));
            put(chat, " ");
            put_stripped(chat, content);
            put(chat, " ");
            put(chat, chat->eos);
            end_span(chat);
            continue;
        }
        put(chat, chat->bos);
        put(chat, "[INST] ");
        if (i == 1 && first == 1) {
            put(chat, "<<SYS>>\n");
            put(chat, chat->messages[0].content);
            put(chat, "\n<</SYS>>\n\n");
            put_stripped_from(chat, content, false);
        } else {
            put_stripped(chat, content);
        }
        put(chat, " [/INST]");
    }
    return LK_OK;
}

static lk_status render_mistral_with(const conversation *chat, const char *after) {
    LK_TRY(check_alternation(chat, 0));
    put(chat, chat->bos);
    for (size_t i = 0; i < chat->count; i++) {
        if (is_assistant(&chat->messages[i])) {
            LK_TRY(begin_span(chat));
            put(chat, chat->messages[i].content);
            put(chat, chat->eos);
            end_span(chat);
            put(chat, after);
        } else {
            put(chat, "[INST] ");
            put(chat, chat->messages[i].content);
            put(chat, " [/INST]");
        }
    }
    return LK_OK;
}

static lk_status render_mistral1(const conversation *chat) {
    return render_mistral_with(chat, " ");
}

static lk_status render_mistral2(const conversation *chat) {
    return render_mistral_with(chat, "");
}

/* ---- Zephyr, Gemma ---- */

static lk_status render_zephyr(const conversation *chat) {
    for (size_t i = 0; i < chat->count; i++) {
        const lk_chat_message *message = &chat->messages[i];
        put(chat, "<|");
        put(chat, message->role);
        put(chat, "|>\n");
        LK_TRY(is_assistant(message) ? begin_span(chat) : LK_OK);
        put(chat, message->content);
        put(chat, chat->eos);
        if (is_assistant(message)) {
            end_span(chat);
        }
        put(chat, "\n");
    }
    put(chat, chat->prompt && chat->count > 0 ? "<|assistant|>\n" : "");
    return LK_OK;
}

static lk_status render_gemma(const conversation *chat) {
    LK_TRY(check_alternation(chat, 0));
    put(chat, chat->bos);
    for (size_t i = 0; i < chat->count; i++) {
        const lk_chat_message *message = &chat->messages[i];
        put(chat, is_assistant(message) ? "<start_of_turn>model\n" : "<start_of_turn>user\n");
        LK_TRY(is_assistant(message) ? begin_span(chat) : LK_OK);
        put_stripped(chat, message->content);
        put(chat, "<end_of_turn>");
        if (is_assistant(message)) {
            end_span(chat);
        }
        put(chat, "\n");
    }
    put(chat, chat->prompt ? "<start_of_turn>model\n" : "");
    return LK_OK;
}

/* ---- the table: the first row that fits is taken ---- */

#define SMOLLM "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
#define QWEN25 "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
#define QWEN2 "You are a helpful assistant."
#define QWEN15 "You are a helpful assistant"

static const lk_chat_template families[] = {
    {"Qwen3", {"<|im_start|>", "</think>", "last_query_index"}, {0}, NULL, render_qwen3},
    {"SmolLM2", {"<|im_start|>", SMOLLM "<|im_end|>"}, {0}, SMOLLM, render_chatml},
    {"Qwen2.5", {"<|im_start|>", QWEN25 "<|im_end|>"}, {"</think>"}, QWEN25, render_chatml},
    {"Qwen2", {"<|im_start|>", QWEN2 "<|im_end|>"}, {"</think>"}, QWEN2, render_chatml},
    {"Qwen1.5", {"<|im_start|>", QWEN15 "<|im_end|>"}, {"</think>"}, QWEN15, render_chatml},
    {"ChatML", {"<|im_start|>", "<|im_end|>"}, {"<|im_sep|>", "</think>", "You are "}, NULL, render_chatml},
    {"Llama 3.1", {"<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date"}, {0}, NULL, render_llama31},
    {"Llama 3", {"<|start_header_id|>", "<|eot_id|>"}, {"</think>", "You are "}, NULL, render_llama3},
    {"Llama 2", {"[INST] ", "<<SYS>>", "bos_token + '[INST] ' + content", "strip()"}, {0}, NULL, render_llama2},
    {"Mistral 0.1",
     {"'[INST] ' + message['content'] + ' [/INST]'", "eos_token + ' '"},
     {"<<SYS>>"},
     NULL,
     render_mistral1},
    {"Mistral 0.2", {"'[INST] ' + message['content'] + ' [/INST]'", "eos_token"}, {"<<SYS>>"}, NULL, render_mistral2},
    {"Zephyr", {"<|user|>", "<|assistant|>", "eos_token"}, {"<|end|>", "</think>"}, NULL, render_zephyr},
    {"Gemma", {"<start_of_turn>", "<end_of_turn>", "System role not supported"}, {0}, NULL, render_gemma},
};

static bool fits(const lk_chat_template *family, const char *text) {
    for (int i = 0; i < MARKERS; i++) {
        if ((family->has[i] != NULL && strstr(text, family->has[i]) == NULL) ||
            (family->lacks[i] != NULL && strstr(text, family->lacks[i]) != NULL)) {
            return false;
        }
    }
    return true;
}

lk_status lk_chat_template_find(lk_context *context, const char *template_text, const lk_chat_template **out) {
    *out = NULL;
    lk_text known;
    lk_text_init(&known, context);
    for (size_t i = 0; i < LK_COUNT(families); i++) {
        if (template_text != NULL && fits(&families[i], template_text)) {
            *out = &families[i];
            lk_text_free(&known);
            return LK_OK;
        }
        lk_text_printf(&known, "%s%s", i > 0 ? ", " : "", families[i].name);
    }
    lk_status status =
        lk_fail(context, LK_STATUS_UNSUPPORTED,
                "the model %s; known are those of %s. Data with \"prompt\" and \"completion\" needs none",
                template_text == NULL ? "has no chat template" : "has a chat template that is not known",
                known.failed ? "a few families" : known.data);
    lk_text_free(&known);
    return status;
}

const char *lk_chat_template_name(const lk_chat_template *chat_template) {
    return chat_template->name;
}

lk_status lk_chat_render(lk_context *context, const lk_chat_template *chat_template, const char *bos, const char *eos,
                         const lk_chat_message *messages, size_t count, bool add_generation_prompt, lk_chat_text *out) {
    const conversation chat = {context, chat_template, bos, eos, messages, count, add_generation_prompt, out};
    out->text.context = context;
    lk_text_append(&out->text, "", 0);
    LK_TRY(check_roles(&chat));
    LK_TRY(chat_template->render(&chat));
    return lk_text_status(&out->text);
}

void lk_chat_text_free(lk_context *context, lk_chat_text *text) {
    lk_free(context, text->spans);
    text->text.context = context;
    lk_text_free(&text->text);
    *text = (lk_chat_text){0};
}
