#include "core/text/chat.h"
#include "text_test.h"

static size_t load_messages(const json_t *row, lk_chat_message messages[8]) {
    const json_t *list = json_object_get(row, "messages");
    for (size_t i = 0; i < json_array_size(list); i++) {
        messages[i].role = json_text(json_array_get(list, i), "role");
        messages[i].content = json_text(json_array_get(list, i), "content");
    }
    return json_array_size(list);
}

static void check_chat(const json_t *row, void *user) {
    const char *family = json_text(row, "family");
    const lk_chat_template *found;
    ck_ok(lk_chat_template_find(context, json_text(row, "template"), &found));
    ck_assert_str_eq(lk_chat_template_name(found), family);
    lk_chat_message messages[8];
    size_t count = load_messages(row, messages);
    lk_chat_text chat = {0};
    lk_status status = lk_chat_render(context, found, "<s>", "</s>", messages, count,
                                      json_is_true(json_object_get(row, "prompt")), &chat);
    if (json_is_null(json_object_get(row, "text"))) {
        ck_assert_int_eq(status, LK_STATUS_INVALID_ARGUMENT);
        ++*(int *)user;
    } else {
        ck_assert_msg(status == LK_OK, "%s: %s", family, lk_error_message(context));
        ck_assert_str_eq(chat.text.data, json_text(row, "text"));
        size_t assistants = 0;
        for (size_t i = 0; i < count; i++) {
            assistants += strcmp(messages[i].role, "assistant") == 0;
        }
        ck_assert_uint_eq(chat.span_count, assistants);
    }
    lk_chat_text_free(context, &chat);
}

/* The strings are those of transformers' apply_chat_template. */
START_TEST(test_known_templates_render_as_transformers_does) {
    int refused = 0;
    for_each_row("tokenizers/chats.jsonl", check_chat, &refused);
    ck_assert_int_gt(refused, 0);
}
END_TEST

START_TEST(test_spans_are_the_answers_with_their_end) {
    const lk_chat_template *found;
    ck_ok(lk_chat_template_find(context, "<|im_start|> .. <|im_end|>", &found));
    const lk_chat_message messages[] = {{"user", "a"}, {"assistant", "b c"}, {"user", "d"}, {"assistant", ""}};
    lk_chat_text chat = {0};
    ck_ok(lk_chat_render(context, found, "", "", messages, 4, false, &chat));
    ck_assert_uint_eq(chat.span_count, 2);
    static const char *const expected[] = {"b c<|im_end|>", "<|im_end|>"};
    for (int i = 0; i < 2; i++) {
        size_t length = chat.spans[i].end - chat.spans[i].begin;
        ck_assert_uint_eq(length, strlen(expected[i]));
        ck_assert_int_eq(memcmp(chat.text.data + chat.spans[i].begin, expected[i], length), 0);
    }
    lk_chat_text_free(context, &chat);
}
END_TEST

START_TEST(test_unknown_templates_and_roles_are_refused) {
    const lk_chat_template *found;
    ck_fails(lk_chat_template_find(context, "{{ messages }}", &found), LK_STATUS_UNSUPPORTED, "ChatML");
    ck_assert_ptr_null(found);
    ck_fails(lk_chat_template_find(context, NULL, &found), LK_STATUS_UNSUPPORTED, "prompt");
    /* ChatML with a default system message that is not one of those known */
    ck_fails(lk_chat_template_find(context, "'<|im_start|>system\nYou are Zorg.<|im_end|>'", &found),
             LK_STATUS_UNSUPPORTED, "known");
    ck_ok(lk_chat_template_find(context, "<|im_start|> .. <|im_end|>", &found));
    lk_chat_text chat = {0};
    const lk_chat_message tool = {"tool", "x"}, broken = {"user", "\xff"};
    ck_fails(lk_chat_render(context, found, "", "", &tool, 1, false, &chat), LK_STATUS_INVALID_ARGUMENT, "\"tool\"");
    ck_fails(lk_chat_render(context, found, "", "", &broken, 1, false, &chat), LK_STATUS_INVALID_ARGUMENT, "UTF-8");
    lk_chat_text_free(context, &chat);
}
END_TEST

static void add(TCase *cases) {
    tcase_add_test(cases, test_known_templates_render_as_transformers_does);
    tcase_add_test(cases, test_spans_are_the_answers_with_their_end);
    tcase_add_test(cases, test_unknown_templates_and_roles_are_refused);
}

int main(void) {
    return run_text_case("chat", text_setup, text_teardown, add);
}
