#include "text_test.h"
#include "tests/common/runner.h"

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

lk_context *context;
lk_text logged;
char folder[64];

static void keep_log(void *user, lk_log_level level, const char *message) {
    (void)user;
    (void)level;
    lk_text_printf(&logged, "%s\n", message);
}

void text_setup(void) {
    lk_context_options options;
    lk_context_options_init(&options);
    options.log = keep_log;
    ck_assert_int_eq(lk_context_create(&options, &context), LK_OK);
    lk_text_init(&logged, context);
    lk_text_append(&logged, "", 0);
    strcpy(folder, "lk_text_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_tree(const char *path) {
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        char inner[512];
        snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (lk_path_is_directory(inner)) {
            remove_tree(inner);
        } else {
            unlink(inner);
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
    rmdir(path);
}

void text_teardown(void) {
    remove_tree(folder);
    lk_text_free(&logged);
    lk_context_destroy(context);
}

const char *path_of(const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

const char *write_text(const char *name, const char *text) {
    const char *path = path_of(name);
    ck_ok(lk_write_file(context, path, text, strlen(text)));
    return path;
}

char *read_text(const char *path, size_t *size) {
    lk_mapping mapping;
    ck_ok(lk_mapping_open(context, path, &mapping));
    char *text = malloc(mapping.size + 1);
    ck_assert_ptr_nonnull(text);
    if (mapping.size > 0) {
        memcpy(text, mapping.data, mapping.size);
    }
    text[mapping.size] = '\0';
    if (size != NULL) {
        *size = mapping.size;
    }
    lk_mapping_close(&mapping);
    return text;
}

void for_each_row(const char *name, void (*check)(const json_t *row, void *user), void *user) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", LK_TEST_DATA, name);
    char *text = read_text(path, NULL);
    int rows = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *row;
        ck_ok(lk_json_parse(context, path, line, strlen(line), &row));
        check(row, user);
        json_decref(row);
        rows++;
    }
    ck_assert_int_gt(rows, 0);
    free(text);
}

lk_tokenizer *load_tokenizer(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", LK_TEST_DATA, name);
    lk_tokenizer *tokenizer;
    ck_ok(lk_tokenizer_load(context, path, NULL, &tokenizer));
    return tokenizer;
}

const char *json_text(const json_t *row, const char *key) {
    const char *text = json_string_value(json_object_get(row, key));
    ck_assert_msg(text != NULL, "a row lacks %s", key);
    return text;
}

void assert_ids(const json_t *expected, const lk_ids *ids, const char *what) {
    ck_assert_msg(json_is_array(expected), "no ids for %s", what);
    ck_assert_msg(json_array_size(expected) == ids->count, "%s: %zu ids, expected %zu", what, ids->count,
                  json_array_size(expected));
    for (size_t i = 0; i < ids->count; i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(expected, i));
        ck_assert_msg(id == ids->data[i], "%s: id %zu is %d, expected %d", what, i, ids->data[i], id);
    }
}

int run_text_case(const char *name, void (*setup)(void), void (*teardown)(void), void (*add)(TCase *)) {
    TCase *cases = tcase_create(name);
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_set_timeout(cases, 120);
    add(cases);
    return run_case(name, cases);
}
